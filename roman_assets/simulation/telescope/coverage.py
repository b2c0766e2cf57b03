"""Which skycells the exposures of a plan touch, hence what will be co-added."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from roman_assets.products.observation import ExposureId
from roman_assets.simulation.telescope.detector_geometry import (
    FULL_ACTIVE_PIXELS,
    distortion,
    wcsinfo,
)
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.skymap import skycells_at

_SAMPLES = 7
"""Points along the side of a detector, 75 arcsec apart: a corner that a skycell covers by less may
be overlooked."""
_ARCSEC = np.deg2rad(1 / 3600)

Vectors = NDArray[np.float64]


def skycells_of_exposures(
    exposures: Iterable[PlannedExposure],
) -> dict[ExposureId, tuple[str, ...]]:
    """Return the skycells that each exposure touches.

    Parameters
    ----------
    exposures
        Rows of a plan; pointings that occur again cost nothing.

    Returns
    -------
    dict
        Names on the sky map, sorted, by exposure.
    """
    found: dict[tuple[Pointing, tuple[str, ...]], tuple[str, ...]] = {}
    coverage = {}
    for planned in exposures:
        key = planned.pointing, planned.detectors
        if key not in found:
            found[key] = skycells_at(*sky_positions(planned.pointing, planned.detectors))
        coverage[planned.exposure] = found[key]
    return coverage


def sky_positions(
    pointing: Pointing, detectors: Iterable[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ICRS positions (degrees) of a grid of points on some detectors, edges included.

    Parameters
    ----------
    pointing
        Of WFI_CEN.
    detectors
        ``WFI01`` to ``WFI18``.
    """
    directions = _attitude(pointing) @ np.concatenate([_grid(name) for name in detectors], axis=1)
    ra = np.rad2deg(np.arctan2(directions[1], directions[0])) % 360.0
    return ra, np.rad2deg(np.arcsin(np.clip(directions[2], -1.0, 1.0)))


@cache
def _grid(detector: str) -> Vectors:
    """Return points of a detector as unit vectors of the telescope's frame; shape (3, points)."""
    side = np.linspace(-0.5, FULL_ACTIVE_PIXELS - 0.5, _SAMPLES)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    v2, v3 = (np.asarray(angle) * _ARCSEC for angle in distortion(detector, None)(x, y))
    return np.stack([np.cos(v3) * np.cos(v2), np.cos(v3) * np.sin(v2), np.sin(v3)])


def _attitude(pointing: Pointing) -> Vectors:
    """Return the rotation from the telescope's frame to ICRS."""
    reference = wcsinfo(pointing.ra, pointing.dec, pointing.pa)
    v2, v3 = reference["v2_ref"] * _ARCSEC, reference["v3_ref"] * _ARCSEC
    ra, dec, roll = (np.deg2rad(reference[name]) for name in ("ra_ref", "dec_ref", "roll_ref"))
    attitude: Vectors = (
        _turn(2, ra) @ _turn(1, -dec) @ _turn(0, -roll) @ _turn(1, v3) @ _turn(2, -v2)
    )
    return attitude


def _turn(axis: int, angle: float) -> Vectors:
    """Return the rotation of vectors by an angle (rad) about an axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
