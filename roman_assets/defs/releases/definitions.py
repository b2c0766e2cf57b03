"""What Dagster loads of data releases."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.releases.assets import release_level3
from roman_assets.defs.releases.sensors import release_sensor

defs = dg.Definitions(
    assets=[release_level3],
    sensors=[release_sensor],
)
