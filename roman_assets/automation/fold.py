"""Folds the commit records that a killed run left behind, so that readers see its products."""

from __future__ import annotations

import dagster as dg

from roman_assets.resources import Installation


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Folds commit records that a killed run left behind into the registry.",
)
def registry_fold_sensor(installation: Installation) -> dg.SkipReason:
    """Fold when there is something to fold; runs fold their own records as they publish."""
    from roman_assets.registry.fold import fold
    from roman_assets.registry.journal import Journal

    waiting = len(Journal(installation.root).pending_paths())
    if waiting:
        fold(installation.root)
    return dg.SkipReason(f"{waiting} records folded" if waiting else "no records wait")
