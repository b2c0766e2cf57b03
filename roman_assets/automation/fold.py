"""Tidies up behind runs that were lost: folds their records and ends their attempts.

A run folds its own records as it publishes, and records the end of its attempts; one whose process
is gone can do neither.
"""

from __future__ import annotations

import dagster as dg

from roman_assets.assets.partition_work import RELEASE_TAG
from roman_assets.automation.in_progress import UNFINISHED, will_be_retried
from roman_assets.data_root import DataRoot
from roman_assets.products.retry import CANCELLED
from roman_assets.resources import Installation

MERGED_BY_SENSOR = 256 << 20
"""Bytes of tiers that a look merges at once at most: seconds. The daily sweep merges the rest."""


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
    from roman_assets.registry.fold import fold
    from roman_assets.registry.journal import Journal
    from roman_assets.registry.merging import merge_due_tiers

    waiting = len(Journal(installation.root).pending_paths())
    if waiting:
        fold(installation.root)
    ended = end_attempts_of_lost_runs(context.instance, installation.root)
    merged = merge_due_tiers(installation.root, largest=MERGED_BY_SENSOR, waits=False).merged
    return dg.SkipReason(
        f"{waiting} records folded, {ended} lost attempts ended, {merged} tiers merged"
    )


def end_attempts_of_lost_runs(instance: dg.DagsterInstance, root: DataRoot) -> int:
    """End the attempts that count as running although their run has ended; give their number.

    It compares states, so that nothing is missed while the daemon is down. Attempts outside
    Dagster have no run: another attempt ends them.
    """
    from roman_assets.pipelines.attempt import end_lost_attempts
    from roman_assets.registry.record import Outcome
    from roman_assets.registry.registry import Registry

    with Registry(root) as registry:
        running = registry.attempts(outcome=Outcome.RUNNING)
    ended = 0
    for run_id in sorted(set(running["run_id"].dropna())):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in UNFINISHED:
            continue
        became = "is not known to Dagster any more" if run is None else f"ended: {run.status.value}"
        cancelled = run is not None and run.status is dg.DagsterRunStatus.CANCELED
        of_release = run is not None and RELEASE_TAG in run.tags and not will_be_retried(run)
        ended += end_lost_attempts(
            root,
            run_id,
            f"run {run_id} {became}",
            error=CANCELLED if cancelled else "RunLost",
            last_try=cancelled or of_release,
        )
    return ended
