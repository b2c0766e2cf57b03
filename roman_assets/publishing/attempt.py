"""Attempts of steps: that one was begun, and how it ended, recorded as it happens.

The beginning is on record before the work starts, so that a run that dies leaves a trace. The end
of an attempt that publishes something is part of that record; any other end has one of its own.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PlatformError
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import Attempt, CommitRecord, Outcome, Statement
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry


@dataclass(frozen=True)
class Run:
    """The run that a step is done in.

    Parameters
    ----------
    run_id
        The Dagster run, None outside Dagster.
    queued
        When it was asked for (UTC), None if nothing queued it.
    last_try
        Whether nothing tries again by itself, should it fail for a passing fault.
    """

    run_id: str | None = None
    queued: datetime | None = None
    last_try: bool = True


class StepAttempt:
    """One attempt of a step at a partition: a context in which the work is done.

    Parameters
    ----------
    root
        The installation.
    step, partition
        The work, and the exposure or visit it is done for.
    run
        The run it is done in.
    clock
        Gives the time.
    """

    def __init__(
        self,
        root: DataRoot,
        step: Step,
        partition: str,
        run: Run | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.run = run or Run()
        self.partition = partition
        self._root = root
        self._journal = Journal(root)
        self._step = step
        self._clock = clock
        self._attempt_id = uuid.uuid4().hex
        self._events: dict[ClockEvent, datetime] = {}
        self.published = False
        """Whether the record that publishes what it made is committed, and the attempt ended."""

    def __enter__(self) -> Self:
        self._events = {ClockEvent.STARTED: self._clock()}
        if self.run.queued is not None:
            self._events[ClockEvent.QUEUED] = self.run.queued
        self._journal.write(self._record(Outcome.RUNNING, self._events[ClockEvent.STARTED]))
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.published:
            return
        record = self._ended(error)
        try:
            self._journal.write(record)
            Engine(self._root).fold()
        except PlatformError as fault:
            if error is None:
                raise
            # the disk is full, perhaps: the error that ended the work counts
            error.add_note(f"the end of the attempt could not be recorded: {fault}")

    def publication(self, record: CommitRecord) -> CommitRecord:
        """Complete the record that publishes what the attempt made: it ends with it."""
        end = self._clock()
        return record.model_copy(
            update={
                "committed_at": end,
                "run_id": self.run.run_id,
                "attempt": Attempt(
                    attempt_id=self._attempt_id,
                    outcome=Outcome.FINISHED,
                    last_try=self.run.last_try,
                ),
                "events": {**record.events, **self._events, ClockEvent.FINISHED: end},
            }
        )

    def _ended(self, error: BaseException | None) -> CommitRecord:
        end = self._clock()
        self._events[ClockEvent.FINISHED] = end
        if error is None:
            return self._record(Outcome.FINISHED, end)
        outcome = Outcome.BAD_INPUT if isinstance(error, BadInputError) else Outcome.PASSING_FAULT
        return self._record(outcome, end, error)

    def _record(
        self, outcome: Outcome, moment: datetime, error: BaseException | None = None
    ) -> CommitRecord:
        return CommitRecord(
            step=self._step,
            partition=self.partition,
            committed_at=moment,
            statement=Statement.ATTEMPT,
            attempt=Attempt(
                attempt_id=self._attempt_id,
                outcome=outcome,
                error="" if error is None else type(error).__name__,
                message="" if error is None else str(error),
                last_try=self.run.last_try,
            ),
            events=dict(self._events),
            run_id=self.run.run_id,
        )


def record_failed_run(
    root: DataRoot,
    step: Step,
    partition: str,
    run_id: str,
    message: str,
    ended: datetime,
    *,
    error: str = "RunFailed",
    last_try: bool = False,
) -> None:
    """Record that a run failed without leaving a word, as a full disk lets it, or was cancelled.

    Parameters
    ----------
    root
        The installation.
    step, partition
        What the run was to do last, and for what.
    run_id
        The Dagster run. Doing it again for the same run changes nothing.
    message
        How it failed.
    ended
        When (UTC).
    error
        What kind of error it counts as.
    last_try
        Whether no other run takes its place by itself.
    """
    Journal(root).write(
        CommitRecord(
            step=step,
            partition=partition,
            committed_at=utc_now(),
            statement=Statement.ATTEMPT,
            attempt=Attempt(
                attempt_id=f"{run_id}-end",
                outcome=Outcome.PASSING_FAULT,
                error=error,
                message=message,
                last_try=last_try,
            ),
            events={ClockEvent.STARTED: ended, ClockEvent.FINISHED: ended},
            run_id=run_id,
        )
    )


def end_lost_attempts(
    root: DataRoot,
    run_id: str,
    message: str,
    *,
    last_try: bool,
    error: str = "RunLost",
    clock: Clock = utc_now,
) -> int:
    """Record that the process of a run is gone, so that its attempts do not count as running.

    Parameters
    ----------
    root
        The installation.
    run_id
        The Dagster run.
    message
        What became of the run.
    last_try
        Whether no other run takes its place by itself.
    error
        What kind of error it counts as.
    clock
        Gives the time.

    Returns
    -------
    int
        Attempts that were running; doing it again finds none.
    """
    Engine(root).fold()
    with Registry(root) as registry:
        running = registry.work.attempts(run_id=run_id, outcome=Outcome.RUNNING)
    journal = Journal(root)
    for row in running.to_dict("records"):
        end = clock()
        journal.write(
            CommitRecord(
                step=Step(row["step"]),
                partition=row["partition"],
                committed_at=end,
                statement=Statement.ATTEMPT,
                attempt=Attempt(
                    attempt_id=row["attempt_id"],
                    outcome=Outcome.PASSING_FAULT,
                    error=error,
                    message=message,
                    last_try=last_try,
                ),
                events={ClockEvent.FINISHED: end},
                run_id=run_id,
            )
        )
    if len(running):
        Engine(root).fold()
    return len(running)
