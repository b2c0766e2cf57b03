"""When everything of an exposure is in, and when that was (R2).

Each sender (a detector, or FACE) has a receipt of its own, as L1 is made of its packets alone. An
exposure is complete when all resultants and guide windows of all planned detectors, its FACE
telemetry, the executed visit, the MA table and an ephemeris that covers it are in. All follows from
the files and their arrival times alone, whatever their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

from roman_assets.formatting.ancillary import content_hash
from roman_assets.formatting.data_unit import Stream, UnitId
from roman_assets.formatting.executed_visit import ExecutedExposure, VisitStatus
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.packet_history import HeldUnit, UnitHistory, unit_histories
from roman_assets.formatting.receipt import Ancillary, HeldEphemeris, Receipt, SenderReceipt
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId
from roman_assets.products.packet_policy import FACE

RECEIPT_EVENTS = frozenset(
    {
        ClockEvent.FIRST_PACKET,
        ClockEvent.LAST_PACKET,
        ClockEvent.EXECUTED_VISIT,
        ClockEvent.MA_TABLE,
        ClockEvent.EPHEMERIS,
        ClockEvent.ANCILLARY,
        ClockEvent.ALL_RECEIVED,
    }
)
"""Moments that stay as they were first found, whatever arrives later."""


def evaluate(
    exposure: ExposureId,
    held: Iterable[HeldUnit],
    ancillary: Ancillary,
    remembered: Mapping[ClockEvent, datetime] | None = None,
) -> Receipt:
    """Return what is in of an exposure.

    Parameters
    ----------
    exposure
        Which one.
    held
        What files hold of its data units.
    ancillary
        Its ancillary data.
    remembered
        Receipt events found earlier, when the exposure was first complete.
    """
    units = tuple(held)
    histories = unit_histories(units)
    visit, executed = ancillary.visit, _executed(ancillary, exposure)
    required = tuple(_required(exposure, executed, ancillary.ma_table))
    documents = _documents_version(executed, ancillary)
    senders = _senders(exposure, units, histories, required, documents)
    lacking_packets = tuple(_lacking_packets(histories, senders))
    lacking_ancillary = tuple(_lacking_ancillary(exposure, executed, ancillary))
    missing = (*lacking_ancillary, *lacking_packets)
    events = _receipt_events(units, histories, required, ancillary, lacking_packets, missing)
    events.update(remembered or {})
    if executed is not None:
        events[ClockEvent.EXECUTION_START] = executed.start_time
        events[ClockEvent.EXECUTION_END] = executed.end_time
    receipt = Receipt(
        exposure,
        not missing,
        missing,
        _content_version(exposure, histories, required, documents),
        events,
        _predicted(ancillary, events.get(ClockEvent.ALL_RECEIVED)),
        newest_ephemeris(ancillary, EphemerisKind.DEFINITIVE),
        lacks_packets=bool(lacking_packets),
        lacks_ancillary=bool(lacking_ancillary),
        senders=senders,
    )
    if visit is None:
        return receipt
    return replace(
        receipt,
        survey=visit.survey,
        exposure_type=visit.exposure_type,
        optical_element=visit.optical_element,
        detectors=executed.detectors if executed else (),
        nexposures=visit.nexposures,
        truncated=visit.status is VisitStatus.TRUNCATED,
    )


def _executed(ancillary: Ancillary, exposure: ExposureId) -> ExecutedExposure | None:
    return None if ancillary.visit is None else ancillary.visit.executed(exposure)


def _required(
    exposure: ExposureId, executed: ExecutedExposure | None, table: MATable | None
) -> Iterator[UnitId]:
    if executed is None or table is None:
        return
    nresultants = table.truncated(executed.nresultants).nresultants
    for detector in executed.detectors:
        for index in range(nresultants):
            yield UnitId(exposure, Stream.SCIENCE, detector, index)
        yield UnitId(exposure, Stream.GUIDE_WINDOW, detector, 0)
    yield UnitId(exposure, Stream.FACE, None, 0)


def _lacking_ancillary(
    exposure: ExposureId, executed: ExecutedExposure | None, ancillary: Ancillary
) -> Iterator[str]:
    if ancillary.visit is None:
        yield f"executed visit {exposure.visit}"
        return
    if executed is None:
        yield (
            f"exposure {exposure.exposure} in the executed visit {exposure.visit} "
            f"({ancillary.visit.status})"
        )
        return
    if ancillary.ma_table is None:
        yield f"MA table {executed.ma_table_number}"
    if not ancillary.ephemerides:
        yield (
            f"ephemeris from {executed.start_time.isoformat()} to {executed.end_time.isoformat()}"
        )


def _lacking_packets(
    histories: Mapping[UnitId, UnitHistory], senders: Mapping[str, SenderReceipt]
) -> Iterator[str]:
    if not histories:
        yield "all packets"
    elif senders:
        for sender in senders.values():
            yield from sender.missing
    else:
        yield from _gaps(histories)


def _senders(
    exposure: ExposureId,
    held: tuple[HeldUnit, ...],
    histories: Mapping[UnitId, UnitHistory],
    required: tuple[UnitId, ...],
    documents: Mapping[str, str | None],
) -> dict[str, SenderReceipt]:
    newest: dict[str, datetime] = {}
    for part in held:
        name = part.header.unit.detector or FACE
        newest[name] = max(newest.get(name, part.arrival), part.arrival)
    return {
        name: _sender(exposure, name, tuple(group), histories, documents, newest.get(name))
        for name, group in groupby(required, key=lambda unit: unit.detector or FACE)
    }


def _sender(
    exposure: ExposureId,
    name: str,
    required: tuple[UnitId, ...],
    histories: Mapping[UnitId, UnitHistory],
    documents: Mapping[str, str | None],
    newest: datetime | None,
) -> SenderReceipt:
    found = {unit: histories[unit] for unit in required if unit in histories}
    statement = {
        "exposure": str(exposure),
        "sender": name,
        "units": sorted(history.statement(unit) for unit, history in found.items()),
        **documents,
    }
    missing = tuple(_missing_of(name, required, found))
    received = None
    if not missing:
        received = max(history.received for history in found.values() if history.received)
    return SenderReceipt(
        _digest(statement), received, received or (newest if found else None), missing
    )


def _missing_of(
    name: str, required: tuple[UnitId, ...], found: Mapping[UnitId, UnitHistory]
) -> Iterator[str]:
    if not found:
        yield f"{name}: no packet"
        return
    yield from (f"{unit}: no packet" for unit in required if unit not in found)
    yield from _wrong_count(required, found)
    yield from _gaps(found)


def _gaps(histories: Mapping[UnitId, UnitHistory]) -> Iterator[str]:
    for unit, history in histories.items():
        if history.valid is None:
            yield _gap(unit, history)


def _gap(unit: UnitId, history: UnitHistory) -> str:
    best = history.fullest
    return f"{unit}: packets {best.gaps} of {best.header.nchunks}"


def _wrong_count(
    units: tuple[UnitId, ...], histories: Mapping[UnitId, UnitHistory]
) -> Iterator[str]:
    resultants = [unit for unit in units if unit.stream is Stream.SCIENCE]
    valid = [histories[unit].valid for unit in resultants if unit in histories]
    sent = {version.header.nunits for version in valid if version}
    for number in sorted(sent - {len(resultants)}):
        yield (
            f"{units[0].detector}: it sends {number} resultants, the MA table has "
            f"{len(resultants)} (the executed visit tells when an exposure was truncated)"
        )


def _receipt_events(
    units: tuple[HeldUnit, ...],
    histories: Mapping[UnitId, UnitHistory],
    required: tuple[UnitId, ...],
    ancillary: Ancillary,
    lacking_packets: tuple[str, ...],
    missing: tuple[str, ...],
) -> dict[ClockEvent, datetime]:
    events = {}
    if units:
        events[ClockEvent.FIRST_PACKET] = min(unit.arrival for unit in units)
    if required and not lacking_packets:
        moments = (histories[unit].received for unit in required)
        events[ClockEvent.LAST_PACKET] = max(moment for moment in moments if moment)
    documents = {
        ClockEvent.EXECUTED_VISIT: ancillary.visit_arrival,
        ClockEvent.MA_TABLE: ancillary.ma_table_arrival,
        ClockEvent.EPHEMERIS: min((h.arrival for h in ancillary.ephemerides), default=None),
    }
    arrived = {event: moment for event, moment in documents.items() if moment is not None}
    events |= arrived
    if arrived.keys() == documents.keys():
        events[ClockEvent.ANCILLARY] = max(arrived.values())
    if not missing:
        events[ClockEvent.ALL_RECEIVED] = max(
            events[ClockEvent.LAST_PACKET], events[ClockEvent.ANCILLARY]
        )
    return events


def _content_version(
    exposure: ExposureId,
    histories: Mapping[UnitId, UnitHistory],
    required: tuple[UnitId, ...],
    documents: Mapping[str, str | None],
) -> str:
    relevant = frozenset(required or histories)
    units = sorted(
        history.statement(unit)
        for unit, history in histories.items()
        if history.valid and unit in relevant
    )
    return _digest({"exposure": str(exposure), "units": units, **documents})


def _documents_version(
    executed: ExecutedExposure | None, ancillary: Ancillary
) -> dict[str, str | None]:
    visit, table = ancillary.visit, ancillary.ma_table
    exposures = () if executed is None else (executed,)
    return {
        "visit": None
        if visit is None
        else content_hash(visit.model_copy(update={"revision": 1, "exposures": exposures})),
        "ma_table": None
        if table is None
        else content_hash(table.model_copy(update={"revision": 1})),
    }


def _digest(statement: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(statement).encode()).hexdigest()


def _predicted(ancillary: Ancillary, received: datetime | None) -> Path | None:
    """Choose among those in at receipt, so that a later prediction does not change L1."""
    known = [
        held
        for held in ancillary.ephemerides
        if held.kind is EphemerisKind.PREDICTED and (received is None or held.arrival <= received)
    ]
    return _latest(known)


def newest_ephemeris(ancillary: Ancillary, kind: EphemerisKind) -> Path | None:
    """Return the newest ephemeris of a kind, None if there is none."""
    return _latest([held for held in ancillary.ephemerides if held.kind is kind])


def _latest(held: list[HeldEphemeris]) -> Path | None:
    newest = max(held, key=lambda h: (h.creation_date, h.path.name), default=None)
    return None if newest is None else newest.path
