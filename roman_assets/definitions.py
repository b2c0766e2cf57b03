"""What Dagster loads; nothing else. See `roman_assets.assets` for the graph."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from roman_assets.assets import exposure, release, visit
from roman_assets.assets.deadline_report import deadline_report
from roman_assets.assets.delivered import DELIVERED
from roman_assets.assets.reprocessing import decide_proposal, proposals_spec
from roman_assets.assets.specs import handover_specs, upstream_specs
from roman_assets.automation.availability import availability_sensor
from roman_assets.automation.commands import COMMAND_JOBS
from roman_assets.automation.deadlines import alert_sensor, deadline_sensor
from roman_assets.automation.deliveries import delivery_sensor
from roman_assets.automation.fold import registry_fold_sensor
from roman_assets.automation.handover import handover_sensor
from roman_assets.automation.jobs import (
    DELIVERY_JOBS,
    deadline_report_job,
    deadline_report_schedule,
    exposure_products,
    visit_products,
)
from roman_assets.automation.landing import landing_sensor
from roman_assets.automation.latest_product import LATEST_PRODUCT_SENSORS
from roman_assets.automation.memory import SensorMemory
from roman_assets.automation.releases import release_sensor
from roman_assets.automation.reprocessing import reprocessing_sensor
from roman_assets.automation.retention import retention_schedule, retention_sweep
from roman_assets.automation.staleness import staleness_sensor
from roman_assets.automation.visits import visit_sensor
from roman_assets.automation.window import partition_window_sensor
from roman_assets.resources import Installation, fixed_resources


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Build the whole graph.

    Parameters
    ----------
    resource_overrides
        Resources by name, in place of those that take their settings from the environment.
    """
    return dg.Definitions(
        assets=[
            *upstream_specs(),
            *handover_specs(),
            exposure.level1,
            exposure.level2,
            visit.manifest,
            visit.level3,
            release.release_level3,
            *DELIVERED,
            deadline_report,
            proposals_spec(),
        ],
        jobs=[
            exposure_products,
            visit_products,
            *DELIVERY_JOBS.values(),
            *COMMAND_JOBS.values(),
            deadline_report_job,
            retention_sweep,
            decide_proposal,
        ],
        schedules=[deadline_report_schedule, retention_schedule],
        sensors=[
            landing_sensor,
            visit_sensor,
            reprocessing_sensor,
            release_sensor,
            staleness_sensor,
            handover_sensor,
            delivery_sensor,
            deadline_sensor,
            alert_sensor,
            partition_window_sensor,
            registry_fold_sensor,
            availability_sensor,
            *LATEST_PRODUCT_SENSORS,
        ],
        resources=fixed_resources(
            {
                "installation": Installation(),
                "memory": SensorMemory(),
                "pipes": dg.PipesSubprocessClient(),
                # Dagster's default would take a directory from run configuration, and unpickle
                # what lies there.
                "io_manager": dg.InMemoryIOManager(),  # type: ignore[no-untyped-call]
                **(resource_overrides or {}),
            }
        ),
        executor=dg.in_process_executor,
    )


defs = build_defs()
