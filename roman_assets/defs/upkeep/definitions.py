"""What Dagster loads of upkeep."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.upkeep.partition_window import partition_window_sensor
from roman_assets.defs.upkeep.schedules import (
    retention_schedule,
    retention_sweep,
    run_history_schedule,
    run_history_sweep,
)
from roman_assets.defs.upkeep.sensors import registry_fold_sensor

defs = dg.Definitions(
    jobs=[retention_sweep, run_history_sweep],
    schedules=[retention_schedule, run_history_schedule],
    sensors=[partition_window_sensor, registry_fold_sensor],
)
