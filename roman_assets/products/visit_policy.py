"""When a visit is made: at once when it is in, in part when time runs out (R9, R10).

A visit may stay incomplete: a detector fails, an exposure is lost, the last exposure is late. The
policy:

1. While something may still come, wait as long as the deadline of L3 allows.
2. When the margin has shrunk to the *reserve*, make what there is; it is marked partial.
3. When more comes, reprocess it: at once if nothing is awaited any longer, else after another
   reserve, so that a trickle of late data does not reprocess the visit all the time.
4. A visit that the observatory cut short awaits only what was executed; a detector that is known
   to have failed is not awaited. Both are made at once.

No I/O, and the time is an argument: sensors and rehearsals decide by the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MISSING = "missing"
"""The metadata that marks a partial product: what was missing of its visit, or of its packets."""


class VisitDecision(StrEnum):
    """What is to be done about a visit now."""

    LEAVE = "leave"
    """Its products are made from just what there is."""
    WAIT = "wait"
    """Something is awaited, or there is nothing to make it from."""
    MAKE = "make"
    """Nothing more is awaited."""
    MAKE_PARTIAL = "make partial"
    """Something is awaited, but the deadline does not allow to wait longer."""


@dataclass(frozen=True)
class VisitProgress:
    """How far a visit has come.

    Parameters
    ----------
    inputs
        Number of L2 images there are.
    awaited
        What is missing and may still come: exposures, or file sets of single detectors.
    at_work
        Whether a run is at work on one of its exposures, or queued.
    up_to_date
        Whether its L3 are made from just these images, and marked with just what is missing.
    made
        When its L3 were last published (UTC), None if they never were.
    due
        When its L3 are due (UTC), None while no execution time is known.
    """

    inputs: int
    awaited: Collection[str]
    at_work: bool = False
    up_to_date: bool = False
    made: datetime | None = None
    due: datetime | None = None


@dataclass(frozen=True)
class VisitReserve:
    """How the reserve is chosen: a multiple of the time that visits take, within limits.

    Parameters
    ----------
    multiple
        Of the 95th percentile of the measured computation times.
    least, most
        The reserve is never shorter or longer; `least` also stands before anything was measured.
    """

    multiple: float = 4.0
    least: timedelta = timedelta(hours=6)
    most: timedelta = timedelta(hours=48)

    def __call__(self, computation_times: Sequence[timedelta] = ()) -> timedelta:
        """Return the reserve for the times that the products of recent visits took to make."""
        measured = sorted(computation_times)
        if not measured:
            return self.least
        typical = measured[math.ceil(0.95 * len(measured)) - 1]
        return min(max(self.multiple * typical, self.least), self.most)


def decide(progress: VisitProgress, now: datetime, reserve: timedelta) -> VisitDecision:
    """Decide about a visit.

    Parameters
    ----------
    progress
        How far it is.
    now
        UTC.
    reserve
        Margin to the due time of L3 at which waiting ends.
    """
    if not progress.inputs:
        return VisitDecision.WAIT
    if progress.up_to_date:
        return VisitDecision.LEAVE
    if not progress.awaited and not progress.at_work:
        return VisitDecision.MAKE
    until = waits_until(progress, reserve)
    if until is None or now < until:
        return VisitDecision.WAIT
    return VisitDecision.MAKE_PARTIAL


def waits_until(progress: VisitProgress, reserve: timedelta) -> datetime | None:
    """Return when a visit that is not complete stops waiting, by time alone (UTC).

    None if only an event ends it: it has no images, its L3 are up to date, its due time is not
    known, or its L3 are published and runs are at work on its exposures, which end by themselves.
    """
    if not progress.inputs or progress.up_to_date or progress.due is None:
        return None
    if progress.made is None:
        return progress.due - reserve
    if progress.at_work:
        return None
    return max(progress.due - reserve, progress.made + reserve)
