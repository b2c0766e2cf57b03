"""When work is requested again of whose runs Dagster alone keeps a record.

Commands in the place of the SSC leave no attempts in the registry. So the runs themselves say how
often the work has failed, and whether a person has to act: its input is bad, or somebody cancelled
the last run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus

from roman_assets.automation.in_progress import RUN_KEY_TAG, will_be_retried
from roman_assets.products.retry import FailedRuns, RetryPauses

WORK_TAG = "roman_assets/work"
"""Tag of all runs of one piece of work: the run key of the first of them."""

BAD_INPUT_TAG = "roman_assets/bad_input"
"""Tag of runs that found their input unusable: what is not right."""

_MOST_OF_TAG = 200


def mark_bad_input(instance: dg.DagsterInstance, run_id: str, error: Exception) -> None:
    """Mark a run that failed for bad input, so that it is not requested again."""
    instance.add_run_tags(run_id, {BAD_INPUT_TAG: str(error)[:_MOST_OF_TAG]})


def failed_for_passing_fault(run: dg.DagsterRun) -> bool:
    """Tell whether a run failed, for good, for a fault that may have passed."""
    failed = run.status is DagsterRunStatus.FAILURE and not will_be_retried(run)
    return failed and BAD_INPUT_TAG not in run.tags


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
    if not failed_for_passing_fault(last.dagster_run):
        return None
    # runs that the daemon started again have the key of the lost one
    requested = len({one.dagster_run.tags.get(RUN_KEY_TAG) for one in newest_first})
    failed = FailedRuns(requested, requested, _ended(last), "")
    if failed.paused_until(pauses, now) is not None:
        return None
    return f"{work}:after-{last.dagster_run.run_id}"


def _ended(record: dg.RunRecord) -> datetime:
    if record.end_time is None:
        return record.update_timestamp.astimezone(UTC)
    return datetime.fromtimestamp(record.end_time, UTC)
