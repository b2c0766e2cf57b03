"""A picture of a rehearsal: margins, queue and workers over time."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from roman_assets.products.deadline import Deadline, ProductState
from roman_assets.products.kind import Level
from roman_assets.rehearsal.rehearsal import Rehearsal
from roman_assets.rehearsal.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    Level.L1: "tab:blue",
    Level.L2: "tab:orange",
    Level.L3: "tab:green",
    Level.L4: "tab:red",
}
_MARGINS = """
select time_bucket(interval 6 hours, due) + interval 3 hours as bucket, min(margin_hours) as least,
    median(margin_hours) as middle
from rehearsed where level = $level and first and made is not null and due is not null
group by bucket order by bucket
"""
_MISSED = """
select time_bucket(interval 6 hours, due) as bucket, sum(products)::bigint as missed
from rehearsed where state = $state and first and due is not null group by bucket order by bucket
"""
_COLOUR_OF_STATE = {
    ProductState.MADE_LATE: "tab:olive",
    ProductState.OVERDUE: "tab:red",
    ProductState.FAILED: "black",
}
_BAR_DAYS = 0.25


def draw(rehearsal: Rehearsal, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Draw margins, queue and workers over time.

    Parameters
    ----------
    rehearsal
        What was replayed.
    connection
        On its ledger (`Rehearsal.ledger`).
    path
        The PNG to write.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 10), layout="constrained")
    margins, missed, queue, workers = figure.subplots(4, 1, sharex=True, height_ratios=(2, 1, 1, 1))
    figure.suptitle(_title(rehearsal))
    _draw_margins(margins, connection, rehearsal)
    _draw_missed(missed, connection)
    _draw_load(queue, workers, rehearsal)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    workers.xaxis.set_major_locator(locator)
    workers.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    workers.set_xlabel("UTC")
    for axes in (margins, missed, queue, workers):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _title(rehearsal: Rehearsal) -> str:
    observations = rehearsal.scenario.observations
    return (
        f"Rehearsal of {len(observations.exposures):,} exposures in "
        f"{len(observations.visits):,} visits with {rehearsal.platform.workers} workers"
    )


def _draw_margins(axes: Axes, connection: duckdb.DuckDBPyConnection, rehearsal: Rehearsal) -> None:
    deadlines = rehearsal.scenario.deadlines
    for level, colour in _COLOURS.items():
        found = connection.execute(_MARGINS, {"level": str(level)}).fetchall()
        if not found:
            continue
        when, least, middle = zip(*found, strict=True)
        hours = _hours(deadlines[level])
        axes.plot(when, np.divide(middle, hours), color=colour, label=level.value)
        axes.fill_between(
            when, np.divide(least, hours), np.divide(middle, hours), color=colour, alpha=0.15, lw=0
        )
    axes.axhline(0, color="black", lw=1)
    axes.set_ylim(top=1.05)
    axes.set_ylabel("margin / latency, by due time\nmedian, shaded to the least")
    axes.legend(loc="lower left", ncols=len(_COLOURS))


def _draw_missed(axes: Axes, connection: duckdb.DuckDBPyConnection) -> None:
    below: Counter[datetime] = Counter()
    for state, colour in _COLOUR_OF_STATE.items():
        found = connection.execute(_MISSED, {"state": str(state)}).fetchall()
        if not found:
            continue
        when, counts = zip(*found, strict=True)
        bottom = [below[moment] for moment in when]
        axes.bar(when, counts, _BAR_DAYS, bottom, align="edge", color=colour, label=state.value)
        below.update(dict(found))
    if below:
        axes.legend(loc="upper left", ncols=len(_COLOUR_OF_STATE))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("products missed\nby due time")


def _hours(deadline: Deadline) -> float:
    return deadline.latency / timedelta(hours=1)


def _draw_load(queue: Axes, workers: Axes, rehearsal: Rehearsal) -> None:
    timeline = Timeline.of(rehearsal.log, rehearsal.platform)
    epoch = rehearsal.scenario.observations.epoch
    when = np.array([epoch + timedelta(hours=hour) for hour in timeline.hours.tolist()])
    queue.fill_between(when, timeline.queued, step="post", color="tab:gray")
    queue.set_ylim(bottom=0)
    queue.set_ylabel("runs in the queue")
    workers.fill_between(when, timeline.busy, step="post", color="tab:purple", alpha=0.6)
    workers.axhline(rehearsal.platform.workers, color="black", lw=1, ls="--")
    workers.set_ylim(bottom=0)
    workers.set_ylabel("workers busy")
