"""What is in of an exposure, and what that is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement, Survey
from roman_assets.products.origin import Origin


@dataclass(frozen=True)
class HeldEphemeris:
    """An ephemeris file of the landing area; see `orbit_ephemeris.Ephemeris`."""

    path: Path
    kind: EphemerisKind
    start: datetime
    stop: datetime
    creation_date: datetime
    arrival: datetime

    def covers(self, start: datetime, stop: datetime) -> bool:
        """Return whether the file spans an exposure from start to stop."""
        return self.start <= start and stop <= self.stop


@dataclass(frozen=True)
class DeliveredFile:
    """An L1 file that was formatted elsewhere: official name, content and place."""

    name: str
    sha256: str
    path: Path


@dataclass(frozen=True)
class Ancillary:
    """The ancillary data of one exposure, as far as they are in.

    Parameters
    ----------
    visit, visit_arrival
        The executed visit of the highest revision, and when the first that tells of the exposure
        arrived.
    ma_table, ma_table_arrival
        The same of the MA table.
    ephemerides
        All that cover the exposure.
    """

    visit: ExecutedVisit | None = None
    visit_arrival: datetime | None = None
    ma_table: MATable | None = None
    ma_table_arrival: datetime | None = None
    ephemerides: tuple[HeldEphemeris, ...] = ()


@dataclass(frozen=True)
class SenderReceipt:
    """What is in of one sender of an exposure: a detector, or FACE.

    Parameters
    ----------
    content_version
        Identifies what is in: packets, the executed exposure and the MA table; see `Receipt`. Of an
        incomplete sender it changes with every packet that is new.
    received
        When all of its packets were first in (UTC), None while one is missing.
    newest
        When the last of its packets arrived so far, None before the first; of a complete sender as
        ``received``.
    missing
        What is not in, for people; empty when complete.
    """

    content_version: str
    received: datetime | None = None
    newest: datetime | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """What is in of one exposure.

    Parameters
    ----------
    exposure
        Which one.
    complete
        All that L1 needs is in.
    missing
        What is not, for people; empty when complete.
    content_version
        Identifies the packets' content, the executed exposure and the MA table: the same however
        they arrived, another when a data unit or document with other content replaces one.
        Ephemerides do not count, as L1 is not reprocessed for them (R3, R8).
    events
        Clock events known so far. `ALL_RECEIVED` and its fellows never change once complete.
    ephemeris
        The predicted ephemeris for L1: the newest of those in when everything was (R3).
    definitive_ephemeris
        The newest definitive one that covers the exposure, if any.
    survey, exposure_type, optical_element, detectors, nexposures
        From the executed visit; None (no detectors) before it is in. ``nexposures`` is the planned
        number of the visit.
    truncated
        The visit was cut short: no more exposures than those executed will come.
    lacks_packets, lacks_ancillary
        What is awaited; gaps in packets are known only as far as the ancillary data are in.
    origin
        Where its L1 comes from.
    files
        The L1 files that were delivered.
    senders
        What is in of each detector and of FACE; empty before the executed visit and the MA table
        are in, which tell who sends what.
    """

    exposure: ExposureId
    complete: bool
    missing: tuple[str, ...]
    content_version: str
    events: dict[ClockEvent, datetime]
    ephemeris: Path | None = None
    definitive_ephemeris: Path | None = None
    survey: Survey | None = None
    exposure_type: ExposureType | None = None
    optical_element: OpticalElement | None = None
    detectors: tuple[str, ...] = ()
    nexposures: int | None = None
    truncated: bool = False
    lacks_packets: bool = False
    lacks_ancillary: bool = False
    origin: Origin = Origin.PACKETS
    files: tuple[DeliveredFile, ...] = ()
    senders: dict[str, SenderReceipt] = field(default_factory=dict)
