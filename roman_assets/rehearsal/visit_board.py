"""How far the visits are while a plan is replayed, and what the visit policy decides about them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from roman_assets.products.deadline import ClockOrigin, Deadline
from roman_assets.products.kind import Level
from roman_assets.products.visit_policy import (
    VisitDecision,
    VisitProgress,
    VisitReserve,
    decide,
    waits_until,
)
from roman_assets.rehearsal.fault import Faults

MEASURED_OVER_S = 7 * 86400.0
"""The reserve of the visit policy follows the computation times of visits made within this time."""

_WANTED = (VisitDecision.MAKE, VisitDecision.MAKE_PARTIAL)


@dataclass(slots=True)
class _State:
    """One visit; sets of its exposures are bits for their places in it.

    ``settled`` are those whose calibration has ended, ``requested`` what runs were asked for.
    """

    expected: int
    due: datetime | None
    settled: int = 0
    inputs: int = 0
    at_work: int = 0
    made_from: int | None = None
    made: float | None = None
    requested: set[int] = field(default_factory=set)


class VisitBoard:
    """The visits of a plan; all times are seconds after the epoch.

    Parameters
    ----------
    faults
        The plan and what goes wrong.
    deadlines
        When each level is due.
    reserve
        Of the visit policy.
    """

    def __init__(
        self, faults: Faults, deadlines: Mapping[Level, Deadline], reserve: VisitReserve
    ) -> None:
        self._epoch = faults.observations.epoch
        self._images = faults.images.tolist()
        self._visit_of = faults.observations.visit_of.tolist()
        self._bit = [0] * len(self._images)
        self._states = [
            self._state(faults, members, deadlines[Level.L3])
            for members in (visit.members for visit in faults.observations.visits)
        ]
        self._rule = reserve
        self._reserve = reserve()
        self._published: deque[float] = deque()
        self._computed: deque[timedelta] = deque()
        self._waiting: set[int] = set()

    def due(self, visit: int) -> datetime | None:
        """Return when L3 of a visit are due (UTC), None while that is not known."""
        return self._states[visit].due

    def add_work(self, visit: int, runs: int) -> None:
        """Note that so many more runs are at work on a visit or its exposures, or fewer."""
        self._states[visit].at_work += runs

    def settle(self, exposure: int) -> None:
        """Note that the calibration of an exposure has ended."""
        state = self._states[self._visit_of[exposure]]
        state.settled |= self._bit[exposure]
        state.inputs += self._images[exposure]

    def material(self, visit: int) -> tuple[int, int]:
        """Return the exposures a visit is made from now, and those of them that are new."""
        state = self._states[visit]
        return state.settled, state.settled & ~(state.made_from or 0)

    def is_made(self, visit: int) -> bool:
        """Return whether the products are made from what there is."""
        state = self._states[visit]
        return state.made_from == state.settled

    def publish(self, visit: int, members: int, started: float, now: float) -> None:
        """Note that the products of a visit are published."""
        state = self._states[visit]
        state.made_from, state.made = members, now
        self._published.append(now)
        self._computed.append(timedelta(seconds=now - started))

    def wants(self, visit: int, now: float) -> bool:
        """Return whether the policy wants a run for a visit, of what was not asked for before."""
        state = self._states[visit]
        self._waiting.discard(visit)
        decision = decide(self._progress(visit), self._moment(now), self._reserve)
        if decision is VisitDecision.WAIT:
            self._waiting.add(visit)
        if decision not in _WANTED or state.settled in state.requested:
            return False
        state.requested.add(state.settled)
        return True

    def waits_until(self, visit: int) -> float | None:
        """Return when a waiting visit is to be looked at; None if it waits for an event, or not."""
        if visit not in self._waiting:
            return None
        until = waits_until(self._progress(visit), self._reserve)
        return None if until is None else (until - self._epoch).total_seconds()

    def review(self, now: float) -> list[int]:
        """Measure the reserve anew; give the waiting visits if it has grown."""
        while self._published and self._published[0] < now - MEASURED_OVER_S:
            self._published.popleft()
            self._computed.popleft()
        before, self._reserve = self._reserve, self._rule(self._computed)
        return sorted(self._waiting) if self._reserve > before else []

    def _state(self, faults: Faults, members: tuple[int, ...], deadline: Deadline) -> _State:
        expected = 0
        for place, number in enumerate(members):
            self._bit[number] = 1 << place
            if faults.executed[number]:
                expected |= 1 << place
        last = max(faults.observations.end[n] for n in members if faults.executed[n])
        timed = deadline.origin is ClockOrigin.EXECUTION
        return _State(expected, deadline.due(self._moment(float(last))) if timed else None)

    def _progress(self, visit: int) -> VisitProgress:
        state = self._states[visit]
        return VisitProgress(
            inputs=state.inputs,
            awaited=("exposures",) if state.expected & ~state.settled else (),
            at_work=state.at_work > 0,
            up_to_date=state.made_from == state.settled,
            made=None if state.made is None else self._moment(state.made),
            due=state.due,
        )

    def _moment(self, seconds: float) -> datetime:
        return self._epoch + timedelta(seconds=seconds)
