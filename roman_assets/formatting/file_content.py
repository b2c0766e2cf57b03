"""What the files of the landing area hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from roman_assets.formatting.data_unit import UnitHeader
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FileVersion:
    """A file as listed: another size or time means another content."""

    name: str
    size: int
    mtime_ns: int

    @property
    def arrival(self) -> datetime:
        """When it was written (UTC)."""
        return moment_of(self.mtime_ns)


@dataclass(frozen=True)
class PacketContent:
    """What a packet file holds.

    Parameters
    ----------
    units
        For every version of every data unit, where its chunks lie in the file: offsets by chunk.
    npackets, crc_failures, foreign, discontinuities, skipped_bytes
        As `packet.PacketReader` counts them.
    duplicates
        Good packets that repeat one before.
    """

    units: Mapping[UnitHeader, Mapping[int, int]]
    npackets: int
    crc_failures: int
    foreign: int
    discontinuities: int
    duplicates: int
    skipped_bytes: int


@dataclass(frozen=True)
class EphemerisContent:
    """What an ephemeris file covers; see `orbit_ephemeris.Ephemeris`."""

    kind: EphemerisKind
    start: datetime
    stop: datetime
    creation_date: datetime


FileContent = PacketContent | ExecutedVisit | MATable | EphemerisContent | Level1File


@dataclass(frozen=True)
class LocatedUnit:
    """A version of a data unit in one file."""

    header: UnitHeader
    file: FileVersion
    offsets: Mapping[int, int]


def moment_of(mtime_ns: int) -> datetime:
    """Return a modification time as a moment (UTC, microseconds)."""
    return _EPOCH + timedelta(microseconds=mtime_ns // 1000)
