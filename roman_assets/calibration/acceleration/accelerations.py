"""The accelerations there are."""

from __future__ import annotations

from roman_assets.calibration.acceleration import ramp_fit, schema

ALL = (schema.ACCELERATION, ramp_fit.ACCELERATION)
