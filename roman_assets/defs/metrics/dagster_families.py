"""What Prometheus is told of runs and of ticks, from Dagster's own storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from prometheus_client.core import Metric

from roman_assets.defs.lib.dagster_internals import InstigatorState, InstigatorTick
from roman_assets.defs.lib.in_progress import ENDED, UNFINISHED
from roman_assets.metrics.families import counter, gauge

RECENT = timedelta(minutes=10)
"""The ticks that are looked at."""

_WAITING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
)
"""In Dagster's queue, or launched and waiting for a worker."""


def run_families(instance: dg.DagsterInstance, now: datetime) -> Iterator[Metric]:
    """Yield how many runs there are, and since when the oldest waits.

    Parameters
    ----------
    instance
        Keeps the runs.
    now
        The present, UTC.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED)))
    number = Counter(
        (record.dagster_run.job_name, record.dagster_run.status.value) for record in records
    )
    yield gauge(
        "runs", "Runs that have not ended, by job and status.", ("job", "status"),
        [{"job": job, "status": status, "n": n} for (job, status), n in sorted(number.items())],
        "n",
    )  # fmt: skip
    waiting: dict[str, float] = {}
    for record in records:
        if record.dagster_run.status in _WAITING:
            age = (now - record.create_timestamp).total_seconds()
            job = record.dagster_run.job_name
            waiting[job] = max(waiting.get(job, 0.0), age)
    yield gauge(
        "run_queue_oldest_seconds", "Time for which the oldest run of a job has waited to start.",
        ("job",), [{"job": job, "s": age} for job, age in sorted(waiting.items())], "s",
    )  # fmt: skip
    ended = [
        {"status": status.value, "n": instance.get_runs_count(dg.RunsFilter(statuses=[status]))}
        for status in ENDED
    ]
    yield counter("runs_ended", "Runs that have ended, by status.", ("status",), ended, "n")


def tick_families(instance: dg.DagsterInstance, now: datetime) -> Iterator[Metric]:
    """Yield how the ticks of sensors and schedules went lately; parameters as `run_families`."""
    rows: list[dict[str, Any]] = []
    latest: list[dict[str, Any]] = []
    for state in instance.all_instigator_state():
        ticks = _recent_ticks(instance, state, now)
        for status, n in sorted(Counter(tick.status.value for tick in ticks).items()):
            rows.append({"sensor": state.name, "status": status, "n": n})
        durations = [
            tick.tick_data.end_timestamp - tick.timestamp
            for tick in ticks
            if tick.tick_data.end_timestamp is not None
        ]
        latest.append(
            {
                "sensor": state.name,
                "at": max((tick.timestamp for tick in ticks), default=None),
                "longest": max(durations, default=None),
            }
        )
    yield gauge("sensor_ticks", "Ticks of sensors and schedules in the last ten minutes.",
                ("sensor", "status"), rows, "n")  # fmt: skip
    yield gauge("sensor_last_tick_timestamp_seconds", "Beginning of the last tick of the last ten "
                "minutes.", ("sensor",), latest, "at")  # fmt: skip
    yield gauge("sensor_tick_seconds", "Duration of the longest tick of the last ten minutes.",
                ("sensor",), latest, "longest")  # fmt: skip


def _recent_ticks(
    instance: dg.DagsterInstance, state: InstigatorState, now: datetime
) -> list[InstigatorTick]:
    return list(
        instance.get_ticks(
            state.instigator_origin_id, state.selector_id, after=(now - RECENT).timestamp()
        )
    )
