"""What Dagster loads of visits."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.lib.jobs import visit_products
from roman_assets.defs.visit.assets import level3, manifest
from roman_assets.defs.visit.sensors import visit_sensor

defs = dg.Definitions(
    assets=[manifest, level3],
    jobs=[visit_products],
    sensors=[visit_sensor],
)
