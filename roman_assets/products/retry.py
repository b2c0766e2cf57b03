"""When work that failed for a passing fault is requested again.

Dagster retries a step a few times within its run. If the fault lasts longer, the sensors request
another run, after pauses that double up to a limit, for as long as the products are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_MOST_DOUBLINGS = 30

CANCELLED = "RunCancelled"
"""The error of an attempt whose run somebody cancelled, and whose process died of it."""

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
    """The runs of a partition that have failed in a row for passing faults, up to the last one.

    Parameters
    ----------
    number
        How many, at least one.
    ended
        When the last one ended (UTC).
    reason
        Why it failed.
    partial
        Whether it published something, and could not make the rest.
    """

    number: int
    ended: datetime
    reason: str
    partial: bool = False

    def retry_at(self, pauses: RetryPauses) -> datetime:
        """Return when the work is requested again (UTC)."""
        return self.ended + pauses.after(self.number)
