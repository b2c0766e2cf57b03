"""What Dagster loads of notices."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.notices.latest_product import LATEST_PRODUCT_SENSORS
from roman_assets.defs.notices.sensors import availability_sensor
from roman_assets.defs.notices.subscription_sensor import subscription_sensor

defs = dg.Definitions(
    sensors=[availability_sensor, subscription_sensor, *LATEST_PRODUCT_SENSORS],
)
