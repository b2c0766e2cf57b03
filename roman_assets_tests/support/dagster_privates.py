"""Interfaces of Dagster that only tests and benchmarks use and that are not public."""

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import EngineEventData
from dagster._core.loader import LoadingContext
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.tags import RUN_KEY_TAG, SCHEDULE_NAME_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo
from dagster._utils.tags import TagConcurrencyLimitsCounter

__all__ = [
    "INDEX_SHARD_NAME",
    "RUN_KEY_TAG",
    "SCHEDULE_NAME_TAG",
    "AssetCheckEvaluationPlanned",
    "CachingStaleStatusResolver",
    "DefaultPartitionsSubset",
    "EngineEventData",
    "InProcessCodeLocationOrigin",
    "InstigatorStatus",
    "InstigatorType",
    "LoadableTargetOrigin",
    "LoadingContext",
    "RemoteInstigatorOrigin",
    "RemoteRepositoryOrigin",
    "SensorInstigatorData",
    "SerializableErrorInfo",
    "StaleStatus",
    "TagConcurrencyLimitsCounter",
    "TickData",
    "TickStatus",
]
