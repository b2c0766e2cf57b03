"""When work is requested again of whose runs Dagster alone keeps a record.

Commands in the place of the SSC leave no attempts in the registry, nor do backfills as a whole. So
the runs and backfills themselves say how often the work has failed, and whether a person has to
act: its input is bad, or somebody cancelled the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import takewhile

import dagster as dg
from dagster import DagsterRunStatus

from roman_assets.defs.lib.dagster_internals import (
    BACKFILL_ID_TAG,
    BulkActionStatus,
    PartitionBackfill,
)
from roman_assets.defs.lib.in_progress import (
    PARTITION_TAG,
    RUN_KEY_TAG,
    end_of_run,
    will_be_retried,
)
from roman_assets.defs.lib.partition_work import BAD_INPUT_TAG
from roman_assets.products.retry import FailedRuns, RetryPauses

WORK_TAG = "roman_assets/work"
"""Tag of all runs of one piece of work: the run key of the first of them."""

_FAILED = (BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.FAILED)


def due_run_keys(
    instance: dg.DagsterInstance, works: Iterable[str], pauses: RetryPauses, now: datetime
) -> dict[str, str]:
    """Return the run key of the next run of each piece of work that is to have one now.

    Parameters
    ----------
    instance
        Keeps the runs; those of one piece of work bear its `WORK_TAG`.
    works
        The pieces of work, whatever became of them.
    pauses
        Between runs that fail.
    now
        UTC.
    """
    wanted = list(works)
    if not wanted:
        return {}
    runs: dict[str, list[dg.RunRecord]] = {}
    for record in instance.get_run_records(dg.RunsFilter(tags={WORK_TAG: wanted})):
        runs.setdefault(record.dagster_run.tags[WORK_TAG], []).append(record)
    keys = {work: _next_run_key(work, runs.get(work, ()), pauses, now) for work in wanted}
    return {work: key for work, key in keys.items() if key is not None}


def _next_run_key(
    work: str, newest_first: Sequence[dg.RunRecord], pauses: RetryPauses, now: datetime
) -> str | None:
    if not newest_first:
        return work
    last = newest_first[0]
    if not _failed_for_passing_fault(last.dagster_run):
        return None
    # runs that the daemon started again have the key of the lost one
    requested = len({one.dagster_run.tags.get(RUN_KEY_TAG) for one in newest_first})
    failed = FailedRuns(requested, requested, end_of_run(last), "")
    if failed.paused_until(pauses, now) is not None:
        return None
    return f"{work}:after-{last.dagster_run.run_id}"


def keys_to_try_again(
    instance: dg.DagsterInstance,
    backfills: Sequence[PartitionBackfill],
    left: Iterable[str],
    pauses: RetryPauses,
    now: datetime,
) -> tuple[str, ...]:
    """Return what the last of some backfills is to be followed by now, for passing faults.

    Parameters
    ----------
    instance
        Keeps the backfills.
    backfills
        Those of one piece of work, in the order in which they were launched.
    left
        Partitions that are still to be made.
    pauses
        Between backfills that fail.
    now
        UTC.
    """
    failed = list(takewhile(lambda one: one.status in _FAILED, reversed(backfills)))
    if not failed:
        return ()
    last, number = failed[0], len(failed)
    ended = datetime.fromtimestamp(last.backfill_end_timestamp or last.backfill_timestamp, UTC)
    if FailedRuns(number, number, ended, "").paused_until(pauses, now) is not None:
        return ()
    given_up = last.status is BulkActionStatus.FAILED
    runs = instance.get_runs(
        dg.RunsFilter(
            tags={BACKFILL_ID_TAG: last.backfill_id},
            statuses=None if given_up else [DagsterRunStatus.FAILURE],
        )
    )
    newest = {run.tags.get(PARTITION_TAG): run for run in reversed(runs)}
    choose = _not_settled if given_up else _failed_for_passing_fault
    return tuple(key for key in left if choose(newest.get(key)))


def _not_settled(run: dg.DagsterRun | None) -> bool:
    """Return whether a backfill that Dagster itself gave up left something undone."""
    if run is None:
        return True
    return run.status is not DagsterRunStatus.SUCCESS and BAD_INPUT_TAG not in run.tags


def _failed_for_passing_fault(run: dg.DagsterRun | None) -> bool:
    """Return whether a run failed, for good, for a fault that may have passed."""
    if run is None or run.status is not DagsterRunStatus.FAILURE or will_be_retried(run):
        return False
    return BAD_INPUT_TAG not in run.tags
