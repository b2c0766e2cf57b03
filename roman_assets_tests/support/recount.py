"""Verdicts counted by brute force from the events of a replay: product by product, no SQL."""

from __future__ import annotations

from collections.abc import Iterator

from roman_assets.products.deadline import ClockOrigin, ProductState
from roman_assets.products.kind import KINDS, ProductKind, Scope, Step, expected_kinds
from roman_assets.rehearsal.rehearsal import Rehearsal
from roman_assets.rehearsal.replay import Ending, RehearsedAttempt

NEVER = float("inf")
KEPT, MISSED, NO_DEADLINE, NOT_EXPECTED = "kept", "missed", "no deadline", "not expected"
VERDICT_OF_STATE = {
    ProductState.MADE_IN_TIME: KEPT,
    ProductState.MADE_LATE: MISSED,
    ProductState.OVERDUE: MISSED,
    ProductState.FAILED: MISSED,
    ProductState.WAITING_FOR_DOWNLINK: NO_DEADLINE,
    ProductState.WAITING_FOR_ANCILLARY: NO_DEADLINE,
    ProductState.NOT_EXPECTED: NOT_EXPECTED,
}

Key = tuple[str, str, str | None, str]
"""Exposure or visit, kind, detector or skycell if there is one, verdict."""


def recount(rehearsal: Rehearsal) -> Iterator[Key]:
    """Give the verdict of every product, each once."""
    yield from _of_exposures(rehearsal)
    yield from _of_visits(rehearsal)


def _of_exposures(rehearsal: Rehearsal) -> Iterator[Key]:
    scenario = rehearsal.scenario
    made = {(one.step, one.partition): one.ended for one in _finished(rehearsal)}
    received = scenario.receipts.all_received.tolist()
    for number, planned in enumerate(scenario.observations.exposures):
        if not scenario.faults.executed[number]:
            continue
        key = str(planned.exposure)
        end = (planned.end - scenario.observations.epoch).total_seconds()
        expected = expected_kinds(planned.survey, planned.exposure_type)
        for kind in KINDS:
            if kind.picture or kind.step not in (Step.FORMATTING, Step.EXPOSURE):
                continue
            if kind not in expected:
                yield key, kind.name, None, NOT_EXPECTED
                continue
            due = _due(rehearsal, kind, received[number], end)
            for place, detector in _detectors(kind, planned.detectors):
                moment = made.get((kind.step, number))
                if kind.step is Step.EXPOSURE and scenario.faults.failed_detectors[number, place]:
                    moment = None
                yield key, kind.name, detector, _verdict(moment, due)


def _detectors(kind: ProductKind, detectors: tuple[str, ...]) -> Iterator[tuple[int, str | None]]:
    if kind.scope is Scope.DETECTOR:
        yield from enumerate(detectors)
    else:
        yield 0, None


def _of_visits(rehearsal: Rehearsal) -> Iterator[Key]:
    scenario = rehearsal.scenario
    observations = scenario.observations
    first: dict[int, dict[str, float]] = {}
    for one in _finished(rehearsal):
        if one.step is not Step.VISIT:
            continue
        for place, number in enumerate(observations.visits[one.partition].members):
            if one.members & (1 << place):
                for skycell in observations.skycells[number]:
                    first.setdefault(one.partition, {}).setdefault(skycell, one.ended)
    for visit, found in enumerate(observations.visits):
        executed = [n for n in found.members if scenario.faults.executed[n]]
        planned = observations.exposures[executed[0]]
        end = max((observations.exposures[n].end - observations.epoch) for n in executed)
        arrived = [t for t in scenario.receipts.all_received[executed].tolist() if t < NEVER]
        for kind in KINDS:
            if kind.picture or kind.step is not Step.VISIT:
                continue
            if kind not in expected_kinds(planned.survey, planned.exposure_type):
                yield str(found.visit), kind.name, None, NOT_EXPECTED
                continue
            due = _due(rehearsal, kind, max(arrived, default=NEVER), end.total_seconds())
            for skycell, moment in first.get(visit, {None: None}).items():
                yield str(found.visit), kind.name, skycell, _verdict(moment, due)


def _due(rehearsal: Rehearsal, kind: ProductKind, received: float, executed: float) -> float:
    deadline = rehearsal.scenario.deadlines[kind.due_level]
    start = received if deadline.origin is ClockOrigin.RECEIPT else executed
    return start + deadline.latency.total_seconds()


def _finished(rehearsal: Rehearsal) -> list[RehearsedAttempt]:
    return [one for one in rehearsal.log.attempts if one.ending is Ending.FINISHED]


def _verdict(moment: float | None, due: float) -> str:
    if moment is not None:
        return KEPT if moment <= due else MISSED
    return MISSED if due < NEVER else NO_DEADLINE
