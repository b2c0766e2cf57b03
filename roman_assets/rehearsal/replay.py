"""The replay: every exposure and visit of a plan through run queue, steps and visit policy.

Plain discrete events from a heap. A library was tried: simpy took 0.6 s for the runs of the
30-day survey plan without a backlog and 7.5 s with a growing one, because it sorts a waiting line
anew at each arrival; too slow for a search over numbers of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from roman_assets.products.deadline import DEADLINES, ClockOrigin, Deadline
from roman_assets.products.kind import Level, Step
from roman_assets.products.priority import earliest_due, run_priority
from roman_assets.products.visit_policy import VisitReserve
from roman_assets.rehearsal.fault import ATTEMPTS_DRAWN, Faults
from roman_assets.rehearsal.ground import Receipts
from roman_assets.rehearsal.processing import STEPS, ProcessingTimes
from roman_assets.rehearsal.run_queue import Platform, Slots
from roman_assets.rehearsal.visit_board import VisitBoard

_REVIEW_INTERVAL_S = 3600.0
_EXPOSURE_STEPS = (Step.FORMATTING, Step.EXPOSURE)
_VISIT_STEPS = (Step.VISIT,)


class Ending(StrEnum):
    """How an attempt ends."""

    FINISHED = "finished"
    PASSING_FAULT = "passing fault"
    BAD_INPUT = "bad input"
    LOST_WORKER = "lost worker"
    RUNNING = "running"
    """It had not ended when the rehearsal did."""


class RehearsedAttempt(NamedTuple):
    """One try of a step at an exposure or visit; times are seconds after the epoch.

    Parameters
    ----------
    step, partition
        The work; exposures and visits are counted in order of execution.
    run
        Number of its run.
    queued, started, ended
        When its run was queued, when it began, when its end was known.
    ending
        How it ended.
    last_try
        Whether nothing tries again by itself.
    members
        What a visit is made from: a bit for the place of each exposure in it.
    fresh
        Those of them that its products were not made from before: skycells that they do not touch
        are left alone.
    """

    step: Step
    partition: int
    run: int
    queued: float
    started: float
    ended: float
    ending: Ending
    last_try: bool = False
    members: int = 0
    fresh: int = 0


@dataclass(slots=True)
class Run:
    """One run of the queue: the steps of an exposure or a visit."""

    number: int
    partition: int
    steps: tuple[Step, ...]
    priority: int
    queued: float
    restarts: int = 0
    started: float = math.inf
    ended: float = math.inf
    step: int = 0
    failed_tries: int = 0


@dataclass
class ReplayLog:
    """What happened, in order of time.

    Parameters
    ----------
    end
        The rehearsal ends here; what is not made by then is not made. Seconds after the epoch.
    attempts
        In the order of their ends; those that had none yet stand at the end.
    runs
        All that were queued.
    """

    end: float
    attempts: list[RehearsedAttempt] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


def horizon(faults: Faults, receipts: Receipts, deadlines: Mapping[Level, Deadline]) -> float:
    """Return the last moment at which anything of a plan is due, seconds after the epoch."""
    starts = {
        ClockOrigin.RECEIPT: receipts.all_received,
        ClockOrigin.EXECUTION: faults.observations.end,
    }
    return max(
        float(starts[deadline.origin].max(initial=0.0, where=np.isfinite(starts[deadline.origin])))
        + deadline.latency.total_seconds()
        for deadline in deadlines.values()
    )


class Replay:
    """One rehearsal; call `run` once.

    Parameters
    ----------
    faults
        The plan and what goes wrong.
    receipts
        When what is received.
    platform
        What works on it.
    times
        How long the steps take.
    deadlines
        When each level is due.
    reserve
        Of the visit policy.
    """

    def __init__(
        self,
        faults: Faults,
        receipts: Receipts,
        platform: Platform,
        times: ProcessingTimes,
        *,
        deadlines: Mapping[Level, Deadline] = DEADLINES,
        reserve: VisitReserve | None = None,
    ) -> None:
        observations = faults.observations
        self._observations = observations
        self._platform = platform
        self._times = times
        self._deadlines = deadlines
        self._interval = platform.daemon_interval.total_seconds()
        self._start_s = platform.run_start.total_seconds()
        self._response = platform.operator_response.total_seconds()
        self._retries = [wait.total_seconds() for wait in platform.step_retries]
        self._received = receipts.all_received.tolist()
        self._end = observations.end.tolist()
        self._visit_of = observations.visit_of.tolist()
        self._ndetectors = observations.ndetectors.tolist()
        self._bad_input = faults.bad_input.tolist()
        self._passing = {step: faults.passing(step) for step in STEPS}
        self._lost_workers = {step: faults.lost_workers(step) for step in STEPS}
        self._progress = {step: faults.progress(step) for step in STEPS}
        self._draws = {
            step: faults.draws(f"time {step}", self._passing[step].shape[0]).tolist()
            for step in STEPS
        }
        self._tries = {step: [0] * len(self._draws[step]) for step in STEPS}
        self._formatted = [False] * len(self._end)
        self._visits = VisitBoard(faults, deadlines, reserve or VisitReserve())
        self._visit_look: dict[int, float] = {}
        self._run_slots = Slots(platform.most_runs)
        self._pool = Slots(platform.machines)
        self._heap: list[tuple[float, int, Callable[[int], None], int]] = []
        self._scheduled = 0
        self._now = 0.0
        self._queue_looked_at = False
        self._follows = {
            Ending.FINISHED: self._finish,
            Ending.PASSING_FAULT: self._fail_in_passing,
            Ending.BAD_INPUT: self._refuse,
            Ending.LOST_WORKER: self._lose,
        }
        self._under_way: dict[int, RehearsedAttempt] = {}
        self._log = ReplayLog(horizon(faults, receipts, deadlines))

    def run(self) -> ReplayLog:
        """Replay the plan."""
        for number, time in enumerate(self._received):
            if math.isfinite(time):
                self._at(self._tick(time), self._take_up, number)
        self._at(_REVIEW_INTERVAL_S, self._review, 0)
        heap, end = self._heap, self._log.end
        while heap:
            time, _, handle, subject = heappop(heap)
            if time > end:
                break
            self._now = time
            handle(subject)
        self._log.attempts.extend(self._under_way.values())
        return self._log

    def _at(self, time: float, handle: Callable[[int], None], subject: int) -> None:
        self._scheduled += 1
        heappush(self._heap, (time, self._scheduled, handle, subject))

    def _tick(self, time: float) -> float:
        """Return the next look of the daemon."""
        return math.ceil(time / self._interval) * self._interval

    def _moment(self, seconds: float) -> datetime:
        return self._observations.epoch + timedelta(seconds=seconds)

    def _take_up(self, number: int) -> None:
        """Ask for the products of an exposure, of which everything is in."""
        starts = {
            ClockOrigin.RECEIPT: self._moment(self._received[number]),
            ClockOrigin.EXECUTION: self._moment(self._end[number]),
        }
        due = earliest_due(self._observations.levels[number], starts, self._deadlines)
        self._request(number, _EXPOSURE_STEPS, run_priority(due))

    def _look_at_visit(self, number: int, time: float) -> None:
        time = self._tick(time)
        if time < self._visit_look.get(number, math.inf):
            self._visit_look[number] = time
            self._at(time, self._decide, number)

    def _decide(self, number: int) -> None:
        if self._visit_look.get(number) != self._now:
            return  # it has been looked at earlier than was planned
        del self._visit_look[number]
        if self._visits.wants(number, self._now):
            self._request(number, _VISIT_STEPS, run_priority(self._visits.due(number)))
        elif (until := self._visits.waits_until(number)) is not None:
            self._look_at_visit(number, max(until, self._now + self._interval))

    def _review(self, _: int) -> None:
        for number in self._visits.review(self._now):
            self._look_at_visit(number, self._now)
        self._at(self._now + _REVIEW_INTERVAL_S, self._review, 0)

    def _request(
        self, partition: int, steps: tuple[Step, ...], priority: int, restarts: int = 0
    ) -> None:
        run = Run(len(self._log.runs), partition, steps, priority, self._now, restarts)
        self._log.runs.append(run)
        self._run_slots.wait(run.number, priority)
        self._visits.add_work(self._visit_number(run), 1)
        self._look_at_queue()

    def _look_at_queue(self) -> None:
        if not self._queue_looked_at:
            self._queue_looked_at = True
            self._at(self._tick(self._now + self._interval), self._dequeue, 0)

    def _dequeue(self, _: int) -> None:
        self._queue_looked_at = False
        while (number := self._run_slots.admit()) is not None:
            self._log.runs[number].started = self._now
            self._at(self._now + self._start_s, self._next_step, number)

    def _end_run(self, run: Run) -> None:
        run.ended = self._now
        self._run_slots.leave()
        self._look_at_queue()
        visit = self._visit_number(run)
        self._visits.add_work(visit, -1)
        if self._observations.visits[visit].kinds:
            self._look_at_visit(visit, self._now)

    def _visit_number(self, run: Run) -> int:
        return run.partition if run.steps is _VISIT_STEPS else self._visit_of[run.partition]

    def _execute_again(self, number: int) -> None:
        """Do what an operator does with a run that failed."""
        run = self._log.runs[number]
        self._request(run.partition, run.steps, run.priority)

    def _next_step(self, number: int) -> None:
        run = self._log.runs[number]
        while run.step < len(run.steps) and self._is_made(run):
            run.step += 1
        if run.step == len(run.steps):
            self._end_run(run)
        elif run.steps[run.step] is Step.FORMATTING:
            self._begin(number)
        else:
            self._pool.wait(number, run.priority)
            self._serve_pool()

    def _is_made(self, run: Run) -> bool:
        """Return whether a step finds all it would make: a run that starts again does."""
        step = run.steps[run.step]
        if step is Step.VISIT:
            return self._visits.is_made(run.partition)
        return step is Step.FORMATTING and self._formatted[run.partition]

    def _serve_pool(self) -> None:
        while (number := self._pool.admit()) is not None:
            self._begin(number)

    def _begin(self, number: int) -> None:
        run = self._log.runs[number]
        step, partition = run.steps[run.step], run.partition
        members, fresh = self._visits.material(partition) if step is Step.VISIT else (0, 0)
        attempt = self._tries[step][partition] % ATTEMPTS_DRAWN
        self._tries[step][partition] += 1
        if self._lost_workers[step][partition, attempt]:
            ending = Ending.LOST_WORKER
        elif self._passing[step][partition, attempt]:
            ending = Ending.PASSING_FAULT
        elif step is Step.FORMATTING and self._bad_input[partition]:
            ending = Ending.BAD_INPUT
        else:
            ending = Ending.FINISHED
        seconds = self._duration(step, partition, fresh)
        if ending in (Ending.LOST_WORKER, Ending.PASSING_FAULT):
            seconds *= float(self._progress[step][partition, attempt])
        self._under_way[number] = RehearsedAttempt(
            step, partition, number, run.queued, self._now, self._log.end, Ending.RUNNING,
            members=members, fresh=fresh,
        )  # fmt: skip
        end = self._now + seconds
        if ending is Ending.LOST_WORKER:
            end = self._tick(end + self._interval)  # until run monitoring finds it
        self._at(end, self._follows[ending], number)

    def _duration(self, step: Step, partition: int, fresh: int) -> float:
        units = (
            len(self._observations.skycells_of_visit(partition, fresh))
            if step is Step.VISIT
            else self._ndetectors[partition]
        )
        return self._times[step].duration(
            units, self._platform.workers_per_machine, self._draws[step][partition]
        )

    def _close(self, run: Run, ending: Ending, *, last_try: bool) -> RehearsedAttempt:
        """Put an attempt on record that ends now, and free its slot of the pool."""
        closed = self._under_way.pop(run.number)._replace(
            ended=self._now, ending=ending, last_try=last_try
        )
        self._log.attempts.append(closed)
        if closed.step is not Step.FORMATTING:
            self._pool.leave()
            self._serve_pool()
        return closed

    def _finish(self, number: int) -> None:
        run = self._log.runs[number]
        self._publish(self._close(run, Ending.FINISHED, last_try=False))
        run.step, run.failed_tries = run.step + 1, 0
        self._next_step(number)

    def _fail_in_passing(self, number: int) -> None:
        run = self._log.runs[number]
        retries = run.failed_tries < len(self._retries)
        self._close(run, Ending.PASSING_FAULT, last_try=not retries)
        if retries:
            self._at(self._now + self._retries[run.failed_tries], self._next_step, number)
            run.failed_tries += 1
        else:
            self._end_run(run)
            self._at(self._now + self._response, self._execute_again, number)

    def _refuse(self, number: int) -> None:
        """End a run whose input cannot be used: nobody tries that again."""
        run = self._log.runs[number]
        self._close(run, Ending.BAD_INPUT, last_try=True)
        self._end_run(run)

    def _lose(self, number: int) -> None:
        run = self._log.runs[number]
        restarts = run.restarts < self._platform.run_retries
        self._close(run, Ending.LOST_WORKER, last_try=not restarts)
        if restarts:
            self._request(run.partition, run.steps, run.priority, run.restarts + 1)
        else:
            self._at(self._now + self._response, self._execute_again, number)
        self._end_run(run)

    def _publish(self, attempt: RehearsedAttempt) -> None:
        if attempt.step is Step.FORMATTING:
            self._formatted[attempt.partition] = True
        elif attempt.step is Step.EXPOSURE:
            self._visits.settle(attempt.partition)
        else:
            self._visits.publish(attempt.partition, attempt.members, attempt.started, self._now)
