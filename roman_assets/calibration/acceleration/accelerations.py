"""The accelerations there are."""

from __future__ import annotations

from roman_assets.calibration.acceleration import (
    dark_decay,
    linearity,
    psf,
    ramp_fit,
    refpix,
    schema,
)

ALL = (
    schema.ACCELERATION,
    refpix.ACCELERATION,
    dark_decay.ACCELERATION,
    *linearity.ACCELERATIONS,
    ramp_fit.ACCELERATION,
    psf.ACCELERATION,
)
