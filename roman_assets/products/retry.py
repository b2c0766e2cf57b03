"""When work that failed for a passing fault is requested again.

Dagster retries a step a few times within its run. If the fault lasts longer, the sensors request
another run, after pauses that double up to a limit, for as long as the products are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_MOST_DOUBLINGS = 30

CANCELLED = "RunCancelled"
"""The error of the last attempt of a run that somebody cancelled: it waits for a person."""

INTERRUPTIONS = (CANCELLED, "DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Errors of attempts that were stopped from outside: they say nothing about the work."""


@dataclass(frozen=True)
class RetryPauses:
    """The pauses between runs that fail.

    Parameters
    ----------
    first
        After the first run that failed.
    most
        The longest pause.
    """

    first: timedelta = timedelta(minutes=2)
    most: timedelta = timedelta(hours=1)

    def after(self, number: int) -> timedelta:
        """Return the pause after so many runs in a row that failed."""
        doublings = min(number - 1, _MOST_DOUBLINGS)
        return min(self.most, self.first * (1 << doublings))


@dataclass(frozen=True)
class FailedRuns:
    """The runs of a partition that have failed for passing faults.

    Parameters
    ----------
    total
        How many there are, at least one. It tells requests apart, whatever the clocks of machines
        say about the order of their runs.
    in_a_row
        How many of them have failed in a row, up to the last run; 0 if that did not fail.
    ended
        When the last run ended (UTC).
    reason
        Why the last run failed.
    partial
        Whether the last run published something, and could not make the rest.
    """

    total: int
    in_a_row: int
    ended: datetime
    reason: str
    partial: bool = False

    def paused_until(self, pauses: RetryPauses, now: datetime) -> datetime | None:
        """Return when the pause after the last run is over (UTC), None if there is no pause.

        A run that seems to end in the future ended before the clock was set back.
        """
        if not self.in_a_row:
            return None
        until = self.ended + pauses.after(self.in_a_row)
        return until if self.ended <= now < until else None
