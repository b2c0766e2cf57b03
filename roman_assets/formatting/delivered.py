"""When L1 of an exposure is in that was formatted elsewhere, and what an exposure is then.

Packets tell of an exposure through its executed visit; delivered L1 files tell of it themselves.
An executed visit that lands as well counts for what files cannot say: that the visit was cut short,
and which detectors are still to come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import ExecutedExposure, VisitStatus
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.receipt import Ancillary, DeliveredFile, Receipt, SenderReceipt
from roman_assets.formatting.receipt_evaluation import newest_ephemeris
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin


@dataclass(frozen=True)
class HeldLevel1:
    """A delivered L1 file of the landing area.

    Parameters
    ----------
    content
        What it says.
    path
        Where it is.
    arrival
        When it arrived (UTC).
    """

    content: Level1File
    path: Path
    arrival: datetime


def span_of(held: Iterable[HeldLevel1]) -> tuple[datetime, datetime]:
    """Return when the exposure of some files began and ended (UTC); its ramps know best."""
    files = [one.content for one in held]
    telling = [file for file in files if file.is_ramp] or files
    return min(file.start for file in telling), max(file.stop for file in telling)


def delivered_version(exposure: ExposureId, files: Mapping[str, str]) -> str:
    """Return the content version of an exposure with these L1 files: sha256 by official name."""
    statement = {"exposure": str(exposure), "level1": sorted(files.items())}
    return hashlib.sha256(json.dumps(statement).encode()).hexdigest()


def evaluate_delivered(
    exposure: ExposureId, held: Iterable[HeldLevel1], ancillary: Ancillary
) -> Receipt:
    """Return what is in of an exposure whose L1 is delivered.

    It is complete as soon as one ramp is in: each detector stands alone, and guide windows and FACE
    may never come. No delivery states when packets were received; the clock starts when the last
    ramp arrived. The registry keeps that moment, unless a ramp of another detector follows.

    Parameters
    ----------
    exposure
        Which one.
    held
        Its L1 files; of two of a name the newest counts.
    ancillary
        Its executed visit, if that is in, and the ephemerides that cover it.
    """
    newest = {one.content.name: one for one in sorted(held, key=lambda one: one.arrival)}
    visit = ancillary.visit
    executed = None if visit is None else visit.executed(exposure)
    refused = dict(_contradicting(newest, ancillary, executed))
    counting = [one for name, one in sorted(newest.items()) if name not in refused]
    ramps = [one.content for one in counting if one.content.is_ramp]
    detectors = tuple(sorted({ramp.detector or "" for ramp in ramps}))
    planned = detectors if executed is None else executed.detectors
    awaited = sorted(set(planned) - set(detectors))
    missing = [*refused.values(), *(f"{detector}: no L1 file" for detector in awaited)]
    if not ramps:
        missing.append("an _uncal.asdf file")
    start, stop = span_of(counting or newest.values())
    version = delivered_version(
        exposure, {one.content.name: one.content.sha256 for one in counting}
    )
    moments = _moments(newest.values(), ancillary)
    received = moments.get(ClockEvent.ALL_RECEIVED)
    receipt = Receipt(
        exposure,
        complete=bool(ramps),
        missing=tuple(missing),
        content_version=version,
        events={
            ClockEvent.EXECUTION_START: start,
            ClockEvent.EXECUTION_END: stop,
            **moments,
        },
        definitive_ephemeris=newest_ephemeris(ancillary, EphemerisKind.DEFINITIVE),
        detectors=planned,
        nexposures=None if visit is None else visit.nexposures,
        truncated=visit is not None and visit.status is VisitStatus.TRUNCATED,
        lacks_packets=bool(awaited) or not ramps,
        origin=Origin.DELIVERED,
        files=tuple(
            DeliveredFile(one.content.name, one.content.sha256, one.path) for one in counting
        ),
    )
    if not ramps:
        return receipt
    return replace(
        receipt,
        senders={Origin.DELIVERED.value: SenderReceipt(version, received, received)},
        survey=ramps[0].survey,
        exposure_type=ramps[0].exposure_type,
        optical_element=ramps[0].optical_element,
        nexposures=ramps[0].nexposures if visit is None else visit.nexposures,
    )


def _moments(newest: Iterable[HeldLevel1], ancillary: Ancillary) -> dict[ClockEvent, datetime]:
    ramps = [one.arrival for one in newest if one.content.is_ramp]
    moments = {
        ClockEvent.ALL_RECEIVED: max(ramps, default=None),
        ClockEvent.EXECUTED_VISIT: ancillary.visit_arrival,
        ClockEvent.EPHEMERIS: min((one.arrival for one in ancillary.ephemerides), default=None),
    }
    return {event: moment for event, moment in moments.items() if moment is not None}


def _contradicting(
    newest: Mapping[str, HeldLevel1], ancillary: Ancillary, executed: ExecutedExposure | None
) -> Iterator[tuple[str, str]]:
    """Name the files that an executed visit, which came after them, contradicts."""
    for name, one in newest.items():
        fault = visit_fault(one.content, ancillary, executed)
        if fault is not None:
            yield name, f"{name}: {fault[1]}"


def visit_fault(
    file: Level1File, ancillary: Ancillary, executed: ExecutedExposure | None
) -> tuple[str, str] | None:
    """Return field and reason if the executed visit contradicts a file."""
    visit = ancillary.visit
    if visit is None:
        return None
    if executed is None:
        return "meta.observation.exposure", "the executed visit has no such exposure"
    if file.optical_element != visit.optical_element:
        return (
            "meta.instrument.optical_element",
            f"the executed visit was taken with {visit.optical_element}",
        )
    if file.detector is not None and file.detector not in executed.detectors:
        return "meta.instrument.detector", f"the executed visit has no {file.detector}"
    return None


def require_agreement(
    path: Path, file: Level1File, others: Iterable[Level1File], ancillary: Ancillary
) -> None:
    """Raise if a file contradicts the other files or the executed visit of its exposure.

    Raises
    ------
    BadInputError
        It names the field.
    """
    visit = ancillary.visit
    fault = visit_fault(file, ancillary, None if visit is None else visit.executed(file.exposure))
    if fault is not None:
        raise BadInputError(path, *fault, _CORRECT_ONE)
    for other in others:
        for field in _COMMON if file.is_ramp and other.is_ramp else _COMMON[:1]:
            mine, known = getattr(file, field), getattr(other, field)
            if mine != known and other.name != file.name:
                raise BadInputError(
                    path, f"meta.{_COMMON_KEYS[field]}",
                    f"it is {mine}, {other.name} of the same exposure says {known}", _CORRECT_ONE,
                )  # fmt: skip


_CORRECT_ONE = "correct whichever is wrong, and deliver it again"
_COMMON_KEYS = {
    "optical_element": "instrument.optical_element",
    "survey": "program.subcategory",
    "exposure_type": "exposure.type",
    "nexposures": "visit.nexposures",
    "start": "exposure.start_time",
}
_COMMON = tuple(_COMMON_KEYS)
"""What all files of an exposure agree about; guide windows and FACE only about the first."""
