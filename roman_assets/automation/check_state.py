"""What partitioned checks said last, from Dagster's own storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckEvaluation
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from roman_assets.checks.in_time import STATE_METADATA

CheckOfPartition = tuple[dg.AssetCheckKey, str]

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class ReportedState:
    """What a check of a partition said last.

    Parameters
    ----------
    passed
        Whether it passed.
    state
        The state it named; only of one that did not pass.
    """

    passed: bool
    state: str | None = None


def reported_states(
    instance: dg.DagsterInstance, wanted: Collection[CheckOfPartition]
) -> Mapping[CheckOfPartition, ReportedState]:
    """Give what checks said last; those that were never evaluated are absent.

    Parameters
    ----------
    instance
        Holds the evaluations.
    wanted
        Check and partition of each.
    """
    if not wanted:
        return {}
    found = instance.event_log_storage.get_asset_check_partition_info(
        keys=sorted({key for key, _ in wanted}),
        partition_keys=sorted({partition for _, partition in wanted}),
    )
    states: dict[CheckOfPartition, ReportedState] = {}
    for info in found:
        place = (info.check_key, info.partition_key or "")
        if place in wanted:
            passed = info.latest_execution_status is AssetCheckExecutionRecordStatus.SUCCEEDED
            states[place] = ReportedState(passed=True) if passed else _not_passed(instance, *place)
    return states


def _not_passed(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, partition: str
) -> ReportedState:
    (record,) = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, status=_EVALUATED, partition_filter=PartitionKeyFilter(key=partition)
    )
    event = record.event and record.event.dagster_event
    evaluation = event.event_specific_data if event else None
    if not isinstance(evaluation, AssetCheckEvaluation):
        return ReportedState(passed=False)
    entry = evaluation.metadata.get(STATE_METADATA)
    return ReportedState(passed=False, state=None if entry is None else str(entry.value))
