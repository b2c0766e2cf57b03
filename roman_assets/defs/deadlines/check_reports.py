"""What partitioned checks said last, and how a sensor lets them say something else.

Dagster stores one evaluation of a check for each run and partition, and counts all evaluations
without a run as those of one (1.13.27: the second is an `IntegrityError`). So what a sensor
evaluates at one tick is stored under a run of its own, which nothing executes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from dagster import (
    AssetCheckEvaluation,
    DagsterEvent,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
)

from roman_assets.defs.lib.dagster_internals import (
    AssetCheckExecutionRecordStatus,
    AssetCheckPartitionInfo,
    PartitionKeyFilter,
)
from roman_assets.defs.lib.in_time_check import BLAME_METADATA, STATE_METADATA

REPORTS_JOB = "deadline_reports"
"""The job name of the runs under which evaluations are stored."""

_PARTITIONS_AT_ONCE = 10_000
"""Dagster names each twice in one statement; SQLite takes 32,766 values as it is delivered."""

CheckOfPartition = tuple[dg.AssetCheckKey, str]

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class ReportedState:
    """What a check of a partition said last.

    Parameters
    ----------
    passed
        Whether it passed.
    state, blame
        The state and the blame it named; only of one that did not pass.
    """

    passed: bool
    state: str | None = None
    blame: str | None = None


def reported_states(
    instance: dg.DagsterInstance, wanted: Collection[CheckOfPartition]
) -> Mapping[CheckOfPartition, ReportedState]:
    """Return what checks said last; those that were never evaluated are absent.

    Parameters
    ----------
    instance
        Holds the evaluations.
    wanted
        Check and partition of each.
    """
    if not wanted:
        return {}
    states: dict[CheckOfPartition, ReportedState] = {}
    for info in _latest_executions(instance, wanted):
        place = (info.check_key, info.partition_key or "")
        if place not in wanted:
            continue
        if info.latest_execution_status is AssetCheckExecutionRecordStatus.SUCCEEDED:
            states[place] = ReportedState(passed=True)
        elif (said := _said_last(instance, *place)) is not None:
            states[place] = said
    return states


def _latest_executions(
    instance: dg.DagsterInstance, wanted: Collection[CheckOfPartition]
) -> Iterator[AssetCheckPartitionInfo]:
    keys = sorted({key for key, _ in wanted})
    partitions = sorted({partition for _, partition in wanted})
    for first in range(0, len(partitions), _PARTITIONS_AT_ONCE):
        yield from instance.event_log_storage.get_asset_check_partition_info(
            keys=keys, partition_keys=partitions[first : first + _PARTITIONS_AT_ONCE]
        )


def _said_last(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, partition: str
) -> ReportedState | None:
    """Look an evaluation up; a run may be at work that plans the next, or the first."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, status=_EVALUATED, partition_filter=PartitionKeyFilter(key=partition)
    )
    if not records:
        return None
    event = records[0].event and records[0].event.dagster_event
    evaluation = event.event_specific_data if event else None
    if not isinstance(evaluation, AssetCheckEvaluation):
        return ReportedState(passed=False)
    if evaluation.passed:
        return ReportedState(passed=True)
    state, blame = (
        None if entry is None else str(entry.value)
        for entry in map(evaluation.metadata.get, (STATE_METADATA, BLAME_METADATA))
    )
    return ReportedState(passed=False, state=state, blame=blame)


def report(
    instance: dg.DagsterInstance, evaluations: Sequence[AssetCheckEvaluation], budget: timedelta
) -> int:
    """Store evaluations that no run makes, one after the other.

    Parameters
    ----------
    instance
        Where to.
    evaluations
        At least the first is stored.
    budget
        Time after which no further one is begun: each takes some time of the storage.

    Returns
    -------
    int
        How many are stored.
    """
    started = time.monotonic()
    run = instance.add_run(DagsterRun(job_name=REPORTS_JOB, status=DagsterRunStatus.SUCCESS))
    for number, evaluation in enumerate(evaluations):
        if number and time.monotonic() - started > budget.total_seconds():
            return number
        instance.report_dagster_event(
            DagsterEvent(
                event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION.value,
                job_name=REPORTS_JOB,
                message=evaluation.description,
                event_specific_data=evaluation,
            ),
            run.run_id,
        )
    return len(evaluations)
