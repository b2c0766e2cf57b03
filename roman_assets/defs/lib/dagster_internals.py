"""Every interface of Dagster that is used and not public, each with the reason.

Nothing else imports from ``dagster._core``. A test describes each of them as it is in the version
that they were checked with, and names those that another version of Dagster changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus,
    AssetCheckPartitionInfo,
)
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG, GRPC_INFO_TAG

CHECKED_WITH = "1.13.27"
"""The version of Dagster that all of them were checked with."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "BaseAssetGraph": "the type of the graph that a backfill is built for",
        "DagsterPipesExecutionError": "tells a command that failed from a fault of Dagster",
        "PartitionKeyFilter": "asks for evaluations of checks on some partitions only",
        "BULK_ACTION_TERMINAL_STATUSES": "tells which backfills are over",
        "BulkActionsFilter": "asks for backfills that are not over",
        "BulkActionStatus": "the states of backfills",
        "PartitionBackfill": "no public call launches a backfill with tags and a title",
        "CheckRunHealthResult": "what a run launcher answers to run monitoring",
        "WorkerStatus": "what a run launcher answers to run monitoring",
        "InstigatorState": "what sensors and schedules are on, for the metrics",
        "InstigatorTick": "how their ticks ended, for the metrics",
        "AssetCheckExecutionRecordStatus": "the states of evaluations of checks",
        "AssetCheckPartitionInfo": "the newest evaluation of a check on each partition",
        "SqliteEventLogStorage": "knows the file of a run's events, which outlives a deleted run",
        "BACKFILL_ID_TAG": "the tag of a backfill's runs",
        "GRPC_INFO_TAG": "the tag that says which code server started a run",
        "serving_context": "Dagster's web server listens on ports only and takes no middleware",
    }
)
"""What each is needed for, by name."""

__all__ = [
    "BACKFILL_ID_TAG",
    "BULK_ACTION_TERMINAL_STATUSES",
    "CHECKED_WITH",
    "GRPC_INFO_TAG",
    "REASONS",
    "AssetCheckExecutionRecordStatus",
    "AssetCheckPartitionInfo",
    "BaseAssetGraph",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckRunHealthResult",
    "DagsterPipesExecutionError",
    "InstigatorState",
    "InstigatorTick",
    "PartitionBackfill",
    "PartitionKeyFilter",
    "SqliteEventLogStorage",
    "WorkerStatus",
    "serving_context",
]


def serving_context(instance: Any, workspace: list[str], version: str) -> Any:
    """Return the context in which Dagster's web application serves a workspace.

    Parameters
    ----------
    instance : dagster.DagsterInstance
        The instance.
    workspace
        Paths of workspace files.
    version
        Of the web server, as its pages show it.
    """
    # Only the web server needs these modules; the code server need not load them.
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    return WorkspaceProcessContext(instance, WorkspaceFileTarget(workspace), version=version)
