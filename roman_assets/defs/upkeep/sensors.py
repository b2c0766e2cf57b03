"""Tidies up behind runs that were lost: folds their records and ends their attempts.

A run folds its own records as it publishes, and records the end of its attempts; one whose process
is gone can do neither. That a run was cancelled, only Dagster knows. Nor does Dagster's daemon
start every lost run again that it means to: what it misses is left to the sensors.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.in_progress import (
    MOST_RETRIES,
    PARTITION_TAG,
    RUN_KEY_TAG,
    UNFINISHED,
    WILL_RETRY_TAG,
    end_of_run,
    runs_to_be_retried,
)
from roman_assets.defs.lib.jobs import DELIVERY_JOBS, exposure_products, visit_products
from roman_assets.defs.lib.resources import Installation
from roman_assets.products.kind import Step
from roman_assets.products.retry import CANCELLED

if TYPE_CHECKING:
    import pandas as pd

MERGED_BY_SENSOR = 256 << 20
"""Bytes of tiers that a look merges at once at most: seconds. The daily sweep merges the rest."""

CANCELLED_RUNS = 500
"""Number of newest cancelled runs compared: more than the sensors keep in the queue."""

RETRY_PATIENCE = timedelta(minutes=5)
"""Dagster's daemon starts a lost run again within seconds, or never."""

_FIRST_STEPS = {
    exposure_products.name: Step.FORMATTING,
    visit_products.name: Step.VISIT,
    **{job.name: step for step, job in DELIVERY_JOBS.items()},
}


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Folds the records that a killed run left behind, ends its attempts, and merges "
    "small tiers of the registry.",
)
def registry_fold_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SkipReason:
    """Fold remaining records, end attempts that are over, and merge small tiers."""
    from roman_assets.records.journal import Journal
    from roman_assets.registry.engine import Engine

    missed = end_missed_retries(context.instance, datetime.now(UTC))
    waiting = len(Journal(installation.root).pending_paths())
    if waiting:
        Engine(installation.root).fold()
    ended = end_attempts_of_lost_runs(context.instance, installation.root)
    cancelled = record_cancelled_runs(context.instance, installation.root)
    merged = Engine(installation.root).compact(largest=MERGED_BY_SENSOR, waits=False).merged
    return dg.SkipReason(
        f"{waiting} records folded, {ended} lost attempts ended, {cancelled} cancelled runs put "
        f"on record, {missed} missed retries ended, {merged} tiers merged"
    )


def end_missed_retries(instance: dg.DagsterInstance, now: datetime) -> int:
    """Mark lost runs that the daemon did not start again in time as failed for good.

    The daemon looks at each lost run once. If the code server cannot be reached at that moment it
    logs "Failed to retry run" and goes on, and the run keeps the tag that says it will be retried:
    its exposure or visit would count as in progress for ever. Without the tag the sensors request
    the work again.

    Parameters
    ----------
    instance
        Keeps the runs.
    now
        UTC.

    Returns
    -------
    int
        How many runs were marked.
    """
    records = runs_to_be_retried(instance, MOST_RETRIES)
    missed = [record for record in records if end_of_run(record) < now - RETRY_PATIENCE]
    for record in missed:
        run = record.dagster_run
        instance.report_engine_event(
            f"The daemon has not retried this run within {RETRY_PATIENCE}; the work is requested "
            "again by its sensor",
            run,
        )
        instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "false"})
    return len(missed)


def end_attempts_of_lost_runs(instance: dg.DagsterInstance, root: DataRoot) -> int:
    """End the attempts that count as running although their run has ended; give their number.

    It compares states, so that nothing is missed while the daemon is down. Attempts outside
    Dagster have no run: another attempt ends them.
    """
    from roman_assets.publishing.attempt import end_lost_attempts
    from roman_assets.records.record import Outcome
    from roman_assets.registry.registry import Registry

    with Registry(root) as registry:
        running = registry.work.attempts(outcome=Outcome.RUNNING)
    ended = 0
    for run_id in sorted(set(running["run_id"].dropna())):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in UNFINISHED:
            continue
        became = "is not known to Dagster any more" if run is None else f"ended: {run.status.value}"
        cancelled = run is not None and run.status is dg.DagsterRunStatus.CANCELED
        ended += end_lost_attempts(
            root,
            run_id,
            f"run {run_id} {became}",
            error=CANCELLED if cancelled else "RunLost",
            last_try=cancelled,
        )
    return ended


def record_cancelled_runs(instance: dg.DagsterInstance, root: DataRoot) -> int:
    """Put on record which requested runs somebody has cancelled; return how many are new.

    Nobody requests them again, so what they were to make waits for a person.
    """
    from roman_assets.publishing.attempt import record_failed_run
    from roman_assets.registry.engine import Engine
    from roman_assets.registry.registry import Registry

    newest = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED]), limit=CANCELLED_RUNS
    )
    cancelled = {
        record.dagster_run.run_id: record for record in newest if _is_requested(record.dagster_run)
    }
    if not cancelled:
        return 0
    with Registry(root) as registry:
        attempts = registry.work.attempts(
            [record.dagster_run.tags[PARTITION_TAG] for record in cancelled.values()]
        )
    told = set(attempts["run_id"][attempts["error"] == CANCELLED])
    untold = sorted(cancelled.keys() - told)
    for run_id in untold:
        run = cancelled[run_id].dagster_run
        step, ended = _end_of(cancelled[run_id], attempts[attempts["run_id"] == run_id])
        record_failed_run(
            root,
            step,
            run.tags[PARTITION_TAG],
            run_id,
            f"somebody cancelled run {run_id}; re-execute it if its products are wanted",
            ended,
            error=CANCELLED,
            last_try=True,
        )
    if untold:
        Engine(root).fold()
    return len(untold)


def _is_requested(run: dg.DagsterRun) -> bool:
    return run.job_name in _FIRST_STEPS and {RUN_KEY_TAG, PARTITION_TAG} <= run.tags.keys()


def _end_of(record: dg.RunRecord, attempts: pd.DataFrame) -> tuple[Step, datetime]:
    """Return the step at which a run ended, and when, not before its attempts."""
    ended = end_of_run(record)
    if attempts.empty:
        return _FIRST_STEPS[record.dagster_run.job_name], ended
    last = attempts["finished"].max().to_pydatetime()
    return Step(attempts["step"].iloc[-1]), max(ended, last.astimezone(UTC))
