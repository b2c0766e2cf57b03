"""The job and the schedule that draw the deadline report."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.deadlines.assets import DEADLINE_REPORT

deadline_report_job = dg.define_asset_job(
    "deadline_report_job",
    selection=[DEADLINE_REPORT],
    executor_def=dg.in_process_executor,
    description="Draws how all deadlines stand.",
)

deadline_report_schedule = dg.ScheduleDefinition(
    name="deadline_report_schedule",
    job=deadline_report_job,
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Draws the deadline report every hour.",
)
