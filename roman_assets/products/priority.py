"""How urgent a run is: by the time its most urgent product is due.

Dagster's run queue takes the run with the highest integer first and never looks at it again. So a
priority must not speak of a margin, which shrinks while the run waits: it is the time from the due
moment to a far horizon. Of two runs the one that is due earlier stands before the other, whenever
each was requested, and no priority needs to be updated.

Runs without a priority count as 0 and so come last: reprocessing that a person starts does not hold
up prompt products, unless it is given a priority of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from roman_assets.products.deadline import DEADLINES, ClockOrigin, Deadline
from roman_assets.products.kind import Level

PRIORITY_TAG = "dagster/priority"
HORIZON = datetime(2100, 1, 1, tzinfo=UTC)
RESOLUTION = timedelta(minutes=1)

REPROCESSING_PRIORITY = -1
"""Of runs for a proposal or a data release: after prompt products, and what a person starts."""


def run_priority(due: datetime | None) -> int:
    """Return the priority of a run: whole minutes from its due time (UTC) to the horizon.

    0, the last place, without a due time or with one beyond the horizon.
    """
    return 0 if due is None else max(0, (HORIZON - due) // RESOLUTION)


def earliest_due(
    levels: Iterable[Level],
    starts: Mapping[ClockOrigin, datetime],
    deadlines: Mapping[Level, Deadline] = DEADLINES,
) -> datetime | None:
    """Return when the most urgent of several products is due (UTC).

    Parameters
    ----------
    levels
        Levels of the products that wait for the run: those it makes and those made from them.
    starts
        The moments (UTC) at which the clocks started, as far as known.
    deadlines
        The table of deadlines.

    Returns
    -------
    datetime.datetime or None
        None if no clock of these levels has started.
    """
    return min(
        (
            deadline.due(starts[deadline.origin])
            for deadline in (deadlines[level] for level in levels)
            if deadline.origin in starts
        ),
        default=None,
    )
