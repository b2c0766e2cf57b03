"""What is in of each data unit, by version, and which version counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from roman_assets.formatting.data_unit import UnitHeader, UnitId

_GAPS_SHOWN = 20


@dataclass(frozen=True)
class HeldUnit:
    """What one file holds of one version of a data unit.

    Parameters
    ----------
    header
        Unit and version.
    arrival
        When the file arrived (UTC).
    chunks
        Chunks in it, as bits: chunk 0 is bit 0.
    """

    header: UnitHeader
    arrival: datetime
    chunks: int


@dataclass(frozen=True)
class UnitVersion:
    """One version of a data unit and how much of it is in.

    Parameters
    ----------
    header
        Unit and version.
    chunks
        Chunks in, as bits.
    completed
        When the last of them first arrived, None while one is missing.
    """

    header: UnitHeader
    chunks: int
    completed: datetime | None

    @property
    def beginning(self) -> int:
        """How many chunks are in, from the first one on, before one is missing."""
        return (~self.chunks & (self.chunks + 1)).bit_length() - 1

    @property
    def gaps(self) -> str:
        """The chunks missing, as ranges counted from 1; the first ones if there are many."""
        chunks = f"{self.chunks:0{self.header.nchunks}b}"[::-1]
        runs = [(run.start() + 1, run.end()) for run in re.finditer("0+", chunks)]
        said = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]
        return ", ".join(said if len(said) <= _GAPS_SHOWN else [*said[:_GAPS_SHOWN], "..."])


@dataclass(frozen=True)
class UnitHistory:
    """All versions of one data unit, in the order of their first arrival."""

    versions: tuple[UnitVersion, ...]

    @property
    def received(self) -> datetime | None:
        """When the unit was first there, whole."""
        return min((v.completed for v in self.versions if v.completed), default=None)

    @cached_property
    def valid(self) -> UnitVersion | None:
        """The version that counts: the one that was completed last for the first time."""
        complete = [version for version in self.versions if version.completed]
        if len(complete) == 1:
            return complete[0]
        return max(
            complete, key=lambda v: (v.completed, v.header.checksum, v.header.size), default=None
        )

    @property
    def fullest(self) -> UnitVersion:
        """The most complete version: by chunks without a gap from the first, then by all chunks."""
        return max(self.versions, key=lambda v: (v.beginning, v.chunks.bit_count()))

    def statement(self, unit: UnitId) -> list[str | int]:
        """Return what tells the content of a unit from any other, as far as it is in."""
        if self.valid is not None:
            return [str(unit), self.valid.header.checksum, self.valid.header.size]
        part = self.fullest
        return [str(unit), part.header.checksum, part.header.size, f"{part.chunks:x}"]


def unit_histories(held: Iterable[HeldUnit]) -> dict[UnitId, UnitHistory]:
    """Sort what files hold by data unit and version."""
    growing: dict[UnitId, dict[UnitHeader, UnitVersion]] = {}
    for part in sorted(held, key=lambda h: h.arrival):
        header = part.header
        versions = growing.setdefault(header.unit, {})
        known = versions.get(header)
        chunks = part.chunks if known is None else known.chunks | part.chunks
        completed = None if known is None else known.completed
        if completed is None and chunks == (1 << header.nchunks) - 1:
            completed = part.arrival
        versions[header] = UnitVersion(header, chunks, completed)
    return {unit: UnitHistory(tuple(versions.values())) for unit, versions in growing.items()}
