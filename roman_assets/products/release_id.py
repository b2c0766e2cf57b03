"""Data releases: their identities, and how their exposures are grouped into products (R13)."""

from __future__ import annotations

import re
from enum import StrEnum

from roman_assets.products.name import GROUPING, GroupedFileSet
from roman_assets.products.observation import VisitId

RELEASE = re.compile(r"r\d+", re.ASCII)
"""The identity of a data release: ``r0``, ``r1``, ... of its survey."""

_UNIT = re.compile(rf"r(\d{{5}})_({RELEASE.pattern})_({GROUPING})", re.ASCII)


class Grouping(StrEnum):
    """What is added up into one coadd, by the names of romancal's ``skycell_asn``."""

    VISIT = "visit"
    DAILY = "daily"
    """One segment of a pass."""
    PASS = "pass"  # noqa: S105  # of the observing plan, no secret
    FULL = "full"
    """All exposures of a program."""


_DIGITS = {Grouping.VISIT: 14, Grouping.DAILY: 8, Grouping.PASS: 5, Grouping.FULL: 0}
"""How many digits of a visit, after the program, the visits of a group share."""

_LETTERS = {Grouping.VISIT: "v", Grouping.DAILY: "d", Grouping.PASS: "p"}


def unit_of(visit: VisitId, release: str, grouping: Grouping) -> GroupedFileSet:
    """Return the unit of a release to which a visit belongs: what is made in one piece of work.

    Its name, ``rPPPPP_r0_vCCAAASSSOOOVVV`` say, begins the names of all its products.
    """
    if grouping is Grouping.FULL:
        return GroupedFileSet(visit.program, release, "full")
    digits = visit.digits[5 : 5 + _DIGITS[grouping]]
    return GroupedFileSet(visit.program, release, f"{_LETTERS[grouping]}{digits}")


def parse_unit(text: str) -> GroupedFileSet:
    """Read the name of a unit.

    Raises
    ------
    ValueError
        If the name is invalid.
    """
    match = _UNIT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a unit of a data release, such as r00001_r0_v01001001001001"
        )
    return GroupedFileSet(int(match[1]), match[2], match[3])


def unit_containing(file_set: GroupedFileSet) -> GroupedFileSet:
    """Return the unit of a release whose name begins that of a file set."""
    return GroupedFileSet(file_set.program, file_set.release, file_set.grouping)


def grouping_of(unit: GroupedFileSet) -> Grouping:
    """Return how the exposures of a unit are grouped.

    Raises
    ------
    ValueError
        If no unit of a release has such a name.
    """
    if unit.grouping == "full":
        return Grouping.FULL
    for grouping, letter in _LETTERS.items():
        if unit.grouping.startswith(letter):
            return grouping
    raise ValueError(f"{unit} is not a unit of a data release")


def includes(unit: GroupedFileSet, visit: VisitId) -> bool:
    """Return whether a visit belongs to a unit."""
    return any(unit_of(visit, unit.release, grouping) == unit for grouping in Grouping)
