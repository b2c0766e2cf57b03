"""Which exposures and visits runs are at work on, or will be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus

from roman_assets.defs.lib.dagster_internals import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
)
from roman_assets.defs.lib.partitions import OBSERVED, OBSERVED_PARTITIONS

PARTITION_TAG = "dagster/partition"
WILL_RETRY_TAG = "dagster/will_retry"
AUTO_RETRY_RUN_ID_TAG = "dagster/auto_retry_run_id"
RUN_KEY_TAG = "dagster/run_key"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

UNFINISHED = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.SUSPENDED,
    DagsterRunStatus.CANCELING,
)

ENDED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)

RUNS_IN_QUEUE = 200
"""Unfinished runs of one job that a sensor keeps up: the others wait in the order of urgency.

A short queue can be looked through at every tick, and what becomes urgent overtakes what waits.
"""

MOST_RETRIES = 100
"""Lost runs that are looked at: the daemon starts them again within seconds."""


def partitions_in_progress(instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the partition keys (exposures and visits) of all runs that have not ended.

    A lost run that the daemon is about to start again has not ended.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)))
    waiting = [record.dagster_run for record in runs_to_be_retried(instance, MOST_RETRIES)]
    return _observed(key for run in [*runs, *waiting] for key in _partitions(instance, run.tags))


def runs_to_be_retried(instance: dg.DagsterInstance, most: int) -> list[dg.RunRecord]:
    """Return the newest lost runs that the daemon is to start again and has not so far."""
    lost = instance.get_run_records(
        dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE], tags={WILL_RETRY_TAG: "true"}),
        limit=most,
    )
    return [one for one in lost if AUTO_RETRY_RUN_ID_TAG not in one.dagster_run.tags]


def partitions_in_backfills(instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the exposures and visits that backfills have still to make, with a run or without."""
    unfinished = [one for one in BulkActionStatus if one not in BULK_ACTION_TERMINAL_STATUSES]
    keys: set[str] = set()
    for backfill in instance.get_backfills(BulkActionsFilter(statuses=unfinished)):
        if backfill.asset_backfill_data is not None:
            data = backfill.asset_backfill_data
            pending = data.get_targeted_partitions_without_materialization_status()
            for subset in pending.partitions_subsets_by_asset_key.values():
                keys.update(subset.get_partition_keys())
    return _observed(keys)


def _observed(keys: Iterable[str]) -> frozenset[str]:
    return frozenset(key for key in keys if OBSERVED.fullmatch(key))


def end_of_run(record: dg.RunRecord) -> datetime:
    """Return when a run ended, UTC; when it last changed if Dagster does not know."""
    if record.end_time is None:
        return record.update_timestamp.astimezone(UTC)
    return datetime.fromtimestamp(record.end_time, UTC)


def will_be_retried(run: dg.DagsterRun) -> bool:
    """Return whether the daemon starts a run again that has failed."""
    return run.tags.get(WILL_RETRY_TAG) == "true"


def room_in_queue(instance: dg.DagsterInstance, job_name: str) -> int:
    """Return how many runs of a job may be requested now."""
    queued = instance.get_runs_count(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED)))
    return max(0, RUNS_IN_QUEUE - queued)


def _partitions(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> Sequence[str]:
    if PARTITION_TAG in tags:
        return [tags[PARTITION_TAG]]
    start, end = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if start is None or end is None:
        return []
    for definition in OBSERVED_PARTITIONS:
        known = definition.get_partition_keys(dynamic_partitions_store=instance)
        if start in known and end in known:
            return known[known.index(start) : known.index(end) + 1]
    return []


def requested_run_keys(instance: dg.DagsterInstance, run_keys: Iterable[str]) -> frozenset[str]:
    """Return those run keys for which there is a run, whatever became of it."""
    return frozenset(runs_requested(instance, run_keys))


def runs_requested(
    instance: dg.DagsterInstance, run_keys: Iterable[str]
) -> dict[str, dg.RunRecord]:
    """Return the newest run of each run key; keys without a run are absent."""
    wanted = list(run_keys)
    if not wanted:
        return {}
    records = instance.get_run_records(dg.RunsFilter(tags={RUN_KEY_TAG: wanted}))
    return {record.dagster_run.tags[RUN_KEY_TAG]: record for record in reversed(records)}
