"""The fewest workers with which no deadline is missed for want of workers.

Faults miss deadlines whatever the number of workers: an exposure that is lost, input that cannot
be used. So the measure is a rehearsal in which nothing ever waits for a worker: enough workers are
those with which no more is missed than there.

A rehearsal is the only proof. More workers may in principle keep fewer deadlines, since a run that
has begun is not interrupted: a long run of low priority that finds an additional worker may occupy
it when one of high priority arrives. So the numbers just below the one found are rehearsed too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from roman_assets.products.deadline import ClockOrigin, Deadline
from roman_assets.products.kind import Level, Scope, Step
from roman_assets.rehearsal.fault import Faults
from roman_assets.rehearsal.ground import NEVER, Receipts, Times
from roman_assets.rehearsal.processing import STEPS
from roman_assets.rehearsal.replay import Ending, RehearsedAttempt, ReplayLog

UNLIMITED_MACHINES = 1_000_000
"""More than there is ever work for."""

_FIRST_STRIDE = 16
"""The search first steps away from the guess by this part of it."""

_REHEARSED_BELOW = 2
"""Numbers of machines below the one found that are rehearsed as well."""


@dataclass(frozen=True)
class DeadlineCount:
    """Counts the deadlines that a replay keeps: what the ledger says, quick enough for a search.

    Parameters
    ----------
    faults
        The plan, and what goes wrong.
    receipts
        When what is received.
    deadlines
        When each level is due.
    """

    faults: Faults
    receipts: Receipts
    deadlines: Mapping[Level, Deadline]

    def kept(self, log: ReplayLog) -> int:
        """Count the products that were made in time."""
        published = [one for one in log.attempts if one.ending is Ending.FINISHED]
        counts = self._visits_kept([one for one in published if one.step is Step.VISIT])
        for step in (Step.FORMATTING, Step.EXPOSURE):
            made = np.full(len(self.faults.observations.exposures), NEVER)
            for one in published:
                if one.step is step:
                    made[one.partition] = one.ended
            for due, products in self._expected[step]:
                counts += int(products[made <= due][np.isfinite(made[made <= due])].sum())
        return counts

    def _visits_kept(self, published: Sequence[RehearsedAttempt]) -> int:
        """Count skycells made for the first time, and in time; in order of publication."""
        observations = self.faults.observations
        made: dict[int, frozenset[str]] = {}
        count = 0
        for one in published:
            before = made.get(one.partition, frozenset())
            made[one.partition] = before | observations.skycells_of_visit(
                one.partition, one.members
            )
            new = len(made[one.partition]) - len(before)
            for due, kinds in self._expected[Step.VISIT]:
                if one.ended <= due[one.partition]:
                    count += new * int(kinds[one.partition])
        return count

    @cached_property
    def _expected(self) -> Mapping[Step, Sequence[tuple[Times, NDArray[np.int64]]]]:
        """Return by step and level the due times and the number of products (kinds for visits).

        Both by exposure or visit; times are seconds after the epoch.
        """
        return {
            step: [
                (clocks[deadline.origin] + deadline.latency.total_seconds(), products)
                for level, products in self._products(step).items()
                for deadline in (self.deadlines[level],)
            ]
            for step in STEPS
            for clocks in (_clocks(self.faults, self.receipts, step),)
        }

    def _products(self, step: Step) -> dict[Level, NDArray[np.int64]]:
        observations = self.faults.observations
        of_visit = [visit.members[0] for visit in observations.visits]
        numbers = of_visit if step is Step.VISIT else range(len(observations.exposures))
        detectors = self.faults.images if step is Step.EXPOSURE else observations.ndetectors
        found = {level: np.zeros(len(numbers), dtype=np.int64) for level in Level}
        for place, number in enumerate(numbers):
            for kind in observations.kinds(number, step):
                each = detectors[number] if kind.scope is Scope.DETECTOR else 1
                found[kind.due_level][place] += each
        return found


def _clocks(faults: Faults, receipts: Receipts, step: Step) -> Mapping[ClockOrigin, Times]:
    """Return when the clocks of a step's products start, by exposure or visit."""
    observations = faults.observations
    if step is not Step.VISIT:
        return {
            ClockOrigin.RECEIPT: receipts.all_received,
            ClockOrigin.EXECUTION: np.where(faults.executed, observations.end, NEVER),
        }
    visits = len(observations.visits)
    clocks = {ClockOrigin.RECEIPT: receipts.all_received, ClockOrigin.EXECUTION: observations.end}
    starts = {origin: np.full(visits, -NEVER) for origin in clocks}
    for origin, times in clocks.items():
        known = faults.executed & np.isfinite(times)
        np.maximum.at(starts[origin], observations.visit_of[known], times[known])
    return starts


@dataclass(frozen=True)
class Trial:
    """One rehearsal of the search.

    Parameters
    ----------
    machines
        Their number; None for more than there is work for.
    kept
        Deadlines kept, as `DeadlineCount` counts them.
    """

    machines: int | None
    kept: int


@dataclass(frozen=True)
class Sizing:
    """The result of the search.

    Parameters
    ----------
    machines
        The fewest that keep as many as any number would.
    trials
        Every rehearsal, by number of machines; the last one with more than there is work for.
    """

    machines: int
    trials: tuple[Trial, ...]

    @property
    def attainable(self) -> int:
        """Deadlines that are kept when nothing waits for a worker."""
        return self.trials[-1].kept


def fewest_machines(kept_with: Callable[[int], int], guess: int) -> Sizing:
    """Search for the fewest machines with which nothing is missed for want of them.

    Parameters
    ----------
    kept_with
        Rehearses with a number of machines and counts the deadlines kept.
    guess
        Where to begin: a number that can just do the work.
    """
    attainable = kept_with(UNLIMITED_MACHINES)
    known: dict[int, int] = {}

    def enough(machines: int) -> bool:
        if machines not in known:
            known[machines] = kept_with(machines)
        return known[machines] >= attainable

    low, high = _bracket(enough, max(1, guess))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    while any(enough(high - below) for below in range(1, min(_REHEARSED_BELOW, high - 1) + 1)):
        high = min(machines for machines in known if enough(machines))
    trials = [Trial(machines, kept) for machines, kept in sorted(known.items())]
    return Sizing(high, (*trials, Trial(None, attainable)))


def _bracket(enough: Callable[[int], bool], guess: int) -> tuple[int, int]:
    """Return a number that is not enough (or 0) and a larger one that is, by growing strides."""
    stride = max(1, guess // _FIRST_STRIDE)
    if enough(guess):
        low, high = guess, guess
        while low > 0 and enough(low):
            low, high, stride = max(0, low - stride), low, 2 * stride
        return low, high
    low, high = guess, guess + stride
    while not enough(high):
        stride *= 2
        low, high = high, high + stride
    return low, high
