"""Superseding and removing products, each together with what belongs to it (R13, R14).

Which products, and when, is for the caller to say; here it is done, by one commit record. What is
removed keeps its row in the registry, by which it can be cited and reproduced. `fsck` collects its
file after the grace period.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import AVAILABLE, CHANGES, Transition, require_possible
from roman_assets.products.name import ProductName, parse_file_set, products_of
from roman_assets.records.journal import Journal
from roman_assets.records.record import WHOLE_ARCHIVE, CommitRecord, ProductTransition
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry

_SEE_NAMES = "see `roman-assets ls` for the names the archive has"


@dataclass(frozen=True)
class RetentionReport:
    """What was, or would be, done.

    Parameters
    ----------
    transitions
        What happens to which generation, ordered by name.
    size
        Of their files, bytes.
    untouched
        Names among those asked for to which nothing happens, since it has happened before.
    record_id
        The commit record, None after a dry run or when there was nothing to do.
    """

    transitions: tuple[ProductTransition, ...]
    size: int
    untouched: tuple[str, ...] = ()
    record_id: str | None = None


def supersede(
    root: DataRoot,
    names: Iterable[str],
    *,
    reason: str,
    cause: str,
    dry_run: bool = False,
    clock: Clock = utc_now,
) -> RetentionReport:
    """State that a data release has taken the place of products; they stay available (R13).

    Parameters and errors are those of `remove`.
    """
    return _apply(root, Transition.SUPERSEDED, names, reason, cause, dry_run, clock)


def remove(
    root: DataRoot,
    names: Iterable[str],
    *,
    reason: str,
    cause: str,
    dry_run: bool = False,
    clock: Clock = utc_now,
) -> RetentionReport:
    """Remove products from the archive, with all that follows them, by one commit record.

    A generation that somebody publishes meanwhile is not touched. Idempotent.

    Parameters
    ----------
    root
        The installation.
    names
        Official names of products or of file sets. With a product goes what follows it: with a
        coadd its association, catalogue and segmentation map (R14).
    reason
        Why, for people; it stays on record.
    cause
        What brought it about: a data release, a program, a person.
    dry_run
        Change nothing, only tell.
    clock
        Gives the time that the record states.

    Raises
    ------
    BadInputError
        If a name is unknown, is that of a product which is never removed (L1, L2, data releases),
        or of one that has to stay as long as what it follows. Nothing is done then.
    PassingFaultError
        If the disk is full.
    """
    return _apply(root, Transition.REMOVED, names, reason, cause, dry_run, clock)


def _apply(
    root: DataRoot,
    transition: Transition,
    names: Iterable[str],
    reason: str,
    cause: str,
    dry_run: bool,
    clock: Clock,
) -> RetentionReport:
    Engine(root).fold()
    with Registry(root) as registry:
        selection = Selection.of(registry, names)
    for name in selection.asked:
        selection.require_allowed(name, transition)
    affected = selection.affected(transition)
    report = RetentionReport(
        transitions=transitions_of(affected, transition, reason, cause),
        size=int(affected["size"].sum()),
        untouched=tuple(sorted({str(name) for name in selection.asked} - set(affected["name"]))),
    )
    return report if dry_run or affected.empty else committed(root, report, clock)


def transitions_of(
    generations: pd.DataFrame, transition: Transition, reason: str, cause: str
) -> tuple[ProductTransition, ...]:
    """State that the same happens to generations, given as rows of the registry, in their order."""
    columns = (generations[column] for column in ("name", "record_id", "sha256"))
    return tuple(
        ProductTransition(
            transition=transition,
            name=name,
            made_by=record_id,
            sha256=sha256,
            reason=reason,
            cause=cause,
        )
        for name, record_id, sha256 in zip(*columns, strict=True)
    )


def committed(root: DataRoot, report: RetentionReport, clock: Clock) -> RetentionReport:
    """Put on record what a report says, and return it with the record's id."""
    record_id = commit_transitions(root, report.transitions, clock)
    return replace(report, record_id=record_id)


def commit_transitions(
    root: DataRoot, transitions: tuple[ProductTransition, ...], clock: Clock = utc_now
) -> str:
    """Put on record what happens to products, all of it by one record, which it gives the id of.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    record = CommitRecord(
        step=Step.UPKEEP,
        partition=WHOLE_ARCHIVE,
        committed_at=clock(),
        transitions=transitions,
    )
    Journal(root).write(record)
    Engine(root).fold()
    return record.record_id


@dataclass(frozen=True)
class Selection:
    """The products asked for, and what the registry knows of them and of what goes with them.

    Parameters
    ----------
    asked
        Those asked for that there ever were.
    generations
        All generations of these and of what goes with them: rows of the registry.
    """

    asked: frozenset[ProductName]
    generations: pd.DataFrame

    @classmethod
    def of(cls, registry: Registry, names: Iterable[str]) -> Self:
        """Look products up, by names of products or of file sets.

        Raises
        ------
        BadInputError
            If there never was one of them.
        """
        meant = {text: _meant(text) for text in names}
        families = {
            str(member)
            for products in meant.values()
            for name in products
            for member in (name, name.leader, *name.followers)
            if member is not None
        }
        generations = registry.products.find(name=families, overwritten=True)
        known = set(generations["name"])
        for text, products in meant.items():
            if known.isdisjoint(map(str, products)):
                raise BadInputError(text, "name", "there never was such a product", _SEE_NAMES)
        asked = {name for products in meant.values() for name in products if str(name) in known}
        return cls(frozenset(asked), generations)

    def require_allowed(self, name: ProductName, transition: Transition) -> None:
        """Refuse what does not happen to a product, or only together with what it follows.

        Raises
        ------
        BadInputError
            If so.
        """
        try:
            require_possible(name, transition)
        except ValueError as error:
            raise BadInputError(name, "name", str(error), "leave it out") from error
        if name.leader is not None and name.leader not in self.asked and self._has(name.leader):
            raise BadInputError(
                name,
                "name",
                f"it stays as long as {name.leader} (R14)",
                f"name {name.file_set} to do it to both",
            )

    def affected(self, transition: Transition) -> pd.DataFrame:
        """Return the generations to which the transition happens, ordered by name."""
        origins = CHANGES[transition].origins or frozenset()
        together = {str(one) for name in self.asked for one in (name, *name.followers)}
        rows = self.generations
        return rows[rows["name"].isin(together) & rows["state"].isin(origins)]

    def _has(self, name: ProductName) -> bool:
        rows = self.generations
        return bool(((rows["name"] == str(name)) & rows["state"].isin(AVAILABLE)).any())


def _meant(text: str) -> tuple[ProductName, ...]:
    with suppress(ValueError):
        return (ProductName.parse(text),)
    try:
        return products_of(parse_file_set(text))
    except ValueError as error:
        raise BadInputError(
            text, "name", "neither an official file name nor a file set", _SEE_NAMES
        ) from error
