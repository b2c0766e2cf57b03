"""What Dagster loads of the SSC's half."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.lib.jobs import DELIVERY_JOBS
from roman_assets.defs.lib.specs import handover_specs
from roman_assets.defs.ssc.assets import DELIVERED
from roman_assets.defs.ssc.delivery_sensor import delivery_sensor
from roman_assets.defs.ssc.handover_sensor import handover_sensor
from roman_assets.defs.ssc.jobs import COMMAND_JOBS

defs = dg.Definitions(
    assets=[*handover_specs(), *DELIVERED],
    jobs=[*DELIVERY_JOBS.values(), *COMMAND_JOBS.values()],
    sensors=[handover_sensor, delivery_sensor],
)
