"""Guide stars: which star each detector's guide window follows."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from astropy.table import Table
from gwcs import WCS

from roman_assets.formatting.executed_visit import GuideStar
from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.detector_geometry import BORDER_PIXELS
from roman_assets.simulation.telescope.guiding import ACQUISITION
from roman_assets.simulation.telescope.light import ILLUMINATION
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure
from roman_assets.simulation.telescope.point_spread import pixel_positions
from roman_assets.simulation.telescope.scene import SourceKind

MAGNITUDE_LIMITS = (15.0, 20.5)
"""Brightest and faintest AB magnitude of guide stars."""


def guide_star(planned: PlannedExposure, detector: str, sources: Table, wcs: WCS) -> GuideStar:
    """Choose the guide star of one detector: the brightest within `MAGNITUDE_LIMITS`.

    Parameters
    ----------
    planned
        The exposure; without light from the sky there are only pseudo stars.
    detector
        ``WFI01`` to ``WFI18``.
    sources
        Truth table of the scene.
    wcs
        Active pixels to sky at the planned pointing.

    Returns
    -------
    GuideStar
        A pseudo star at the centre if there is no suitable one.
    """
    size = wcs.array_shape[0]
    found = _suitable(planned, sources, wcs, size)
    if found is None:
        ra, dec = wcs((size - 1) / 2, (size - 1) / 2)
        centre = (size - 1) / 2 + BORDER_PIXELS
        return _guide_star(f"PSEUDO{detector[3:]}", ra, dec, 99.0, 0.0, centre, centre, pseudo=True)
    row, x, y = found
    name = str(row["name"])
    identifier = name if len(name) <= 11 else f"S{crc32(name.encode()):010d}"
    magnitude = float(-2.5 * np.log10(row["F158"]))
    rate = 10 ** (-0.4 * (magnitude - 26.0))
    return _guide_star(
        identifier, row["ra"], row["dec"], magnitude, rate, x + BORDER_PIXELS, y + BORDER_PIXELS
    )


def _suitable(
    planned: PlannedExposure, sources: Table, wcs: WCS, size: int
) -> tuple[Table.Row, float, float] | None:
    light = ILLUMINATION[planned.exposure_type]
    if not light.sky or planned.optical_element is OpticalElement.DARK:
        return None
    x, y = pixel_positions(sources, wcs)
    magnitude = -2.5 * np.log10(sources["F158"])
    margin = ACQUISITION.size
    fits = (np.minimum(x, y) > margin) & (np.maximum(x, y) < size - margin)
    fits &= (magnitude > MAGNITUDE_LIMITS[0]) & (magnitude < MAGNITUDE_LIMITS[1])
    fits &= sources["kind"] != str(SourceKind.GALAXY)
    if not np.any(fits):
        return None
    index = int(np.argmin(np.where(fits, magnitude, np.inf)))
    return sources[index], float(x[index]), float(y[index])


def _guide_star(
    identifier: str,
    ra: float,
    dec: float,
    magnitude: float,
    rate: float,
    x: float,
    y: float,
    *,
    pseudo: bool = False,
) -> GuideStar:
    return GuideStar(
        gsc_id=identifier,
        predicted_ra=float(ra),
        predicted_dec=float(dec),
        predicted_fgs_mag=magnitude,
        predicted_fgs_bright_mag=magnitude - 0.2,
        predicted_fgs_faint_mag=magnitude + 0.2,
        predicted_count_rate=rate,
        predicted_x=x,
        predicted_y=y,
        pseudo_star=pseudo,
    )
