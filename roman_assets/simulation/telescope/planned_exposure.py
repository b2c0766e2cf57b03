"""What is planned of one exposure: where it points, and how and when it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
)
from roman_assets.simulation.telescope.multiaccum import MultiAccumTable, ma_table

INTERNAL_TARGET = "INTERNAL"
"""Target name of exposures that look at no sky."""

TYPE_OF_ELEMENT: Mapping[OpticalElement, ExposureType] = {
    **dict.fromkeys(OpticalElement, ExposureType.WFI_IMAGE),
    OpticalElement.GRISM: ExposureType.WFI_SPECTRAL,
    OpticalElement.PRISM: ExposureType.WFI_SPECTRAL,
    OpticalElement.DARK: ExposureType.WFI_IM_DARK,
}
"""The exposure type an element is used for, unless the plan says another."""


def offset_positions(positions: SkyCoord, pa: float, x: float, y: float) -> SkyCoord:
    """Return positions moved by arcsec along the ideal axes of an aperture at ``pa`` degrees."""
    # Of parity -1: seen on the sky the aperture's x axis lies 90 degrees west of its y axis.
    angle = pa - np.degrees(np.arctan2(x, y))
    return positions.directional_offset_by(angle * u.deg, np.hypot(x, y) * u.arcsec)


@dataclass(frozen=True)
class Pointing:
    """Where WFI_CEN points.

    Parameters
    ----------
    ra, dec
        ICRS, degrees.
    pa
        Position angle of the aperture's ideal y axis, degrees east of north.
    """

    ra: float
    dec: float
    pa: float

    def offset(self, x: float, y: float, roll: float = 0.0) -> Pointing:
        """Move by arcsec along the ideal x and y axes, then roll by degrees."""
        moved = offset_positions(SkyCoord(self.ra, self.dec, unit="deg"), self.pa, x, y)
        return Pointing(float(moved.ra.deg), float(moved.dec.deg), (self.pa + roll) % 360)


@dataclass(frozen=True)
class PlannedExposure:
    """One row of the plan.

    Parameters
    ----------
    exposure
        Its identity.
    survey
        The survey of its program.
    exposure_type, optical_element
        As in ``meta.exposure.type`` and ``meta.instrument.optical_element``.
    pointing
        Planned pointing of WFI_CEN; the true one differs by the pointing error.
    ma_table_number
        The MA table.
    start
        Start of the exposure (UTC).
    duration
        Time until the next exposure can start.
    target
        Name of the target.
    nexposures
        Planned number of exposures of the visit.
    detectors
        Detectors that are read out.
    dither
        Name of the dither pattern, None if the plan does not say.
    """

    exposure: ExposureId
    survey: Survey
    exposure_type: ExposureType
    optical_element: OpticalElement
    pointing: Pointing
    ma_table_number: int
    start: datetime
    duration: timedelta
    target: str
    nexposures: int
    detectors: tuple[str, ...] = DETECTORS
    dither: str | None = None

    @property
    def ma_table(self) -> MultiAccumTable:
        """The MA table; raises `BadInputError` if there is none of that number."""
        return ma_table(self.ma_table_number)

    @property
    def end(self) -> datetime:
        """End of the last read (UTC)."""
        return self.start + timedelta(seconds=self.ma_table.exposure_time)
