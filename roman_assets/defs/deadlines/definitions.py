"""What Dagster loads of the deadlines."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.deadlines.assets import deadline_report
from roman_assets.defs.deadlines.jobs import deadline_report_job, deadline_report_schedule
from roman_assets.defs.deadlines.sensors import alert_sensor, deadline_sensor

defs = dg.Definitions(
    assets=[deadline_report],
    jobs=[deadline_report_job],
    schedules=[deadline_report_schedule],
    sensors=[deadline_sensor, alert_sensor],
)
