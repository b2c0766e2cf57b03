"""What Dagster loads of exposures."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.exposure.assets import level1, level2
from roman_assets.defs.exposure.sensors import landing_sensor
from roman_assets.defs.lib.jobs import exposure_products
from roman_assets.defs.lib.specs import upstream_specs

defs = dg.Definitions(
    assets=[*upstream_specs(), level1, level2],
    jobs=[exposure_products],
    sensors=[landing_sensor],
)
