"""The daily sweep: superseded products whose time is over go, and unneeded bytes are freed (R13).

What has been superseded by no published release is never touched (`roman_assets.upkeep.sweep`).
"""

import dagster as dg

from roman_assets.defs.lib.resources import Installation
from roman_assets.errors import PlatformError


@dg.op(description="Removes superseded prompt L3 and L4 whose time is over, and frees their bytes.")
def sweep_superseded(
    context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]
) -> None:
    """Sweep, merge the registry's tiers, then free the blobs that nothing needs any more."""
    from roman_assets.registry.store.merging import merge_due_tiers
    from roman_assets.upkeep.fsck import collect_blobs
    from roman_assets.upkeep.sweep import sweep

    report = sweep(installation.root)
    merge_due_tiers(installation.root)
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
