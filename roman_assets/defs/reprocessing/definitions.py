"""What Dagster loads of reprocessing."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.reprocessing.assets import decide_proposal, proposals_spec
from roman_assets.defs.reprocessing.sensors import reprocessing_sensor
from roman_assets.defs.reprocessing.staleness import staleness_sensor

defs = dg.Definitions(
    assets=[proposals_spec()],
    jobs=[decide_proposal],
    sensors=[reprocessing_sensor, staleness_sensor],
)
