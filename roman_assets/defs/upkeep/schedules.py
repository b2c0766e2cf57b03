"""The daily sweeps: of superseded products and unneeded bytes (R13), and of old runs.

What has been superseded by no published release is never touched (`roman_assets.upkeep.sweep`).
"""

from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from roman_assets.defs.deadlines.check_reports import REPORTS_JOB
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.upkeep.old_runs import RUNS_AT_ONCE, OldRuns, delete_runs
from roman_assets.errors import PlatformError
from roman_assets.settings.automation_settings import run_history

DELETING_BUDGET = timedelta(minutes=10)
"""A sweep deletes runs for so long; the next one goes on."""


@dg.op(description="Removes superseded prompt L3 and L4 whose time is over, and frees their bytes.")
def sweep_superseded(
    context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]
) -> None:
    """Sweep, merge the registry's tiers, then free the blobs that nothing needs any more."""
    from roman_assets.registry.engine import Engine
    from roman_assets.upkeep.fsck import collect_blobs
    from roman_assets.upkeep.sweep import sweep

    report = sweep(installation.root)
    Engine(installation.root).compact()
    context.log.info(
        f"{report.products} products removed, {report.size} bytes, "
        f"records {', '.join(report.record_ids) or 'none'}"
    )
    findings = collect_blobs(installation.root)
    freed = sum(finding.mended for finding in findings)
    context.add_output_metadata(
        {
            "removed": report.products,
            "removed_bytes": report.size,
            "records": list(report.record_ids),
            "blobs_freed": freed,
        }
    )
    damage = [finding for finding in findings if not finding.mended]
    if damage:
        first = damage[0]
        raise PlatformError(
            f"no bytes were freed: {first.subject}: {first.detail}, and {len(damage) - 1} findings "
            f"more. Remedy: {first.remedy}"
        )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Removes what releases have superseded and whose time is over.",
)
def retention_sweep() -> None:
    """Sweep the archive."""
    sweep_superseded()


retention_schedule = dg.ScheduleDefinition(
    name="retention_schedule",
    job=retention_sweep,
    cron_schedule="30 5 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sweeps superseded products every day.",
)


@dg.op(description="Deletes old runs of exposures and visits that are put away.")
def delete_old_runs(
    context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]
) -> None:
    """Delete the oldest runs that nothing asks for."""
    before = datetime.now(UTC) - run_history()
    jobs = (REPORTS_JOB, retention_sweep.name, context.job_name)
    old = OldRuns(context.instance, installation.root, jobs)
    found = list(islice(old.ended_before(before), RUNS_AT_ONCE))
    deleted = delete_runs(context.instance, found, DELETING_BUDGET)
    context.log.info(f"{deleted} of {len(found)} runs that ended before {before} deleted")
    context.add_output_metadata({"deleted": deleted, "left": len(found) - deleted})


@dg.job(
    executor_def=dg.in_process_executor,
    description="Deletes old runs from Dagster's history.",
)
def run_history_sweep() -> None:
    """Sweep Dagster's history."""
    delete_old_runs()


run_history_schedule = dg.ScheduleDefinition(
    name="run_history_schedule",
    job=run_history_sweep,
    cron_schedule="30 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes old runs from Dagster's history every day.",
)
