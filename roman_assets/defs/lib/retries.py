"""Work that failed for a passing fault is requested again, after growing pauses.

The registry's records of attempts say how many runs have failed, how many of them in a row, and
when. The run key of the next request carries the former. Nothing else is remembered, so a restart
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from roman_assets.defs.lib.in_progress import (
    PARTITION_TAG,
    end_of_run,
    partitions_in_progress,
    runs_requested,
    will_be_retried,
)
from roman_assets.products.retry import INTERRUPTIONS, FailedRuns, RetryPauses

if TYPE_CHECKING:
    from roman_assets.data_root import DataRoot
    from roman_assets.products.kind import Step
    from roman_assets.registry.registry import Registry

_NO_WORD = "it failed without a message"


def retry_key(run_key: str, failed: FailedRuns | None) -> str:
    """Return the run key of the next request: another one after each run that has failed."""
    return run_key if failed is None else f"{run_key}:failed-{failed.total}"


def may_be_requested(failed: FailedRuns | None, pauses: RetryPauses, now: datetime) -> bool:
    """Return whether the pause after the last failed run is over."""
    return failed is None or failed.paused_until(pauses, now) is None


def due_requests(
    root: DataRoot,
    instance: dg.DagsterInstance,
    step: Step,
    requests: Sequence[dg.RunRequest],
    now: datetime,
) -> list[dg.RunRequest]:
    """Return the requests without a run so far, and the retries whose pause is over.

    Parameters
    ----------
    root, instance
        The installation.
    step
        The last step of the runs.
    requests
        First requests, each of one partition, whatever became of them.
    now
        UTC.
    """
    from roman_assets.registry.registry import Registry
    from roman_assets.settings.retry_settings import retry_pauses_of

    busy, pauses = partitions_in_progress(instance), retry_pauses_of(root)
    with Registry(root) as registry:
        failed = registry.work.failed_runs(step, [str(one.partition_key) for one in requests])
        due = []
        for request in requests:
            mine = failed.get(str(request.partition_key))
            at_work = mine is not None and request.partition_key in busy
            if not at_work and may_be_requested(mine, pauses, now):
                key = retry_key(str(request.run_key), mine)
                due.append(request.with_replaced_attrs(run_key=key))
        runs = runs_requested(instance, [str(request.run_key) for request in due])
        ended = [record for record in runs.values() if record.dagster_run.is_finished]
        record_failed_runs(root, instance, registry, step, ended)
    return [request for request in due if request.run_key not in runs]


def record_failed_runs(
    root: DataRoot,
    instance: dg.DagsterInstance,
    registry: Registry,
    step: Step,
    runs: Iterable[dg.RunRecord],
) -> int:
    """Put runs on record that failed before an attempt was, so that they are retried too.

    A run that somebody has cancelled is left to people.

    Parameters
    ----------
    root, instance, registry
        The installation.
    step
        The last step of the runs.
    runs
        Runs that have ended, each of one partition.

    Returns
    -------
    int
        How many were put on record.
    """
    failed = {
        record.dagster_run.run_id: record for record in runs if _has_failed(record.dagster_run)
    }
    if not failed:
        return 0
    from roman_assets.publishing.attempt import record_failed_run
    from roman_assets.registry.engine import Engine

    Engine(root).fold()
    partitions = [record.dagster_run.tags[PARTITION_TAG] for record in failed.values()]
    untold = failed.keys() - _runs_that_told(registry, partitions)
    for run_id in untold:
        record = failed[run_id]
        record_failed_run(
            root,
            step,
            record.dagster_run.tags[PARTITION_TAG],
            run_id,
            _message(instance, run_id),
            end_of_run(record),
        )
    return len(untold)


def _has_failed(run: dg.DagsterRun) -> bool:
    return run.status is DagsterRunStatus.FAILURE and not will_be_retried(run)


def _runs_that_told(registry: Registry, partitions: Sequence[str]) -> set[str]:
    """Return the runs with a failure on record or an attempt that still counts as running."""
    from roman_assets.records.record import Outcome

    attempts = registry.work.attempts(partitions)
    in_part = attempts["record_id"].isin(registry.work.failures(partitions)["record_id"])
    stopped = attempts["error"].isin(INTERRUPTIONS)
    told = in_part | ((attempts["outcome"] != Outcome.FINISHED) & ~stopped)
    return set(attempts["run_id"][told].dropna())


def _message(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the first error that Dagster has of a run."""
    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        data = event.event_specific_data if event is not None else None
        error = getattr(data, "error", None)
        if error is not None:
            return str((error.cause or error).message).strip()
    return _NO_WORD
