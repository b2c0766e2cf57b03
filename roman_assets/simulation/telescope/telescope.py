"""The simulated telescope: what its detectors see of the sky, exposure by exposure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from astropy.table import Table
from stcal.velocity_aberration import compute_va_effects

from roman_assets.formatting.executed_visit import GuideStar
from roman_assets.formatting.telemetry import DetectorReadout, GuideWindowReadout
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.simulation.telescope.crds_cache import stored_epsf
from roman_assets.simulation.telescope.detector_geometry import active_pixels, detector_wcs
from roman_assets.simulation.telescope.effective_psf import effective_psf
from roman_assets.simulation.telescope.ephemeris import barycentric_velocity
from roman_assets.simulation.telescope.guide_stars import guide_star
from roman_assets.simulation.telescope.guiding import Wander, guide_window_readout
from roman_assets.simulation.telescope.lensing import LensingSeason
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.point_spread import PIXEL_SCALE, PSF_RADIUS, PointSpread
from roman_assets.simulation.telescope.ramp import detector_readout
from roman_assets.simulation.telescope.response import DetectorResponse, imaging
from roman_assets.simulation.telescope.scene import Scene, SkyCircle
from roman_assets.simulation.telescope.spectrum import with_lines

DEFAULT_WINDOW = 512
DEFAULT_SEED = 20270601
_GUIDING_PSF = OpticalElement.F129
"""The filter whose PSF guide windows have in spectral exposures."""
SPECTRAL_REACH = 1000
"""Pixels from the direct image to the far end of the longest spectrum, rounded up."""


@dataclass(frozen=True)
class PointingError:
    """By how much the telescope misses the planned pointing.

    Parameters
    ----------
    x, y
        Along the ideal axes of WFI_CEN, arcsec.
    roll
        Degrees.
    repeatability
        Rms of a further displacement of each axis that differs between exposures, arcsec.
    """

    x: float = 0.3
    y: float = -0.2
    roll: float = 5e-4
    repeatability: float = 0.02

    def true_pointing(self, planned: PlannedExposure, seed: int) -> Pointing:
        """Return where the telescope really points in an exposure."""
        rng = np.random.default_rng([seed, crc32(str(planned.exposure).encode()), 97])
        dx, dy = rng.normal(0, self.repeatability, 2)
        return planned.pointing.offset(self.x + dx, self.y + dy, self.roll)


@dataclass(frozen=True)
class Telescope:
    """The telescope and its sky.

    Parameters
    ----------
    seed
        Decides the simulated sky, the detectors and all noise.
    window
        Active pixels along a side of the detectors, None for whole ones.
    pointing_error
        How the true pointing differs from the planned one.
    crds
        CRDS cache to take ePSFs from; they are computed, to the same values, if it is None.
    lensing
        The microlensing events of the Galactic Bulge survey, None without any.
    """

    seed: int = DEFAULT_SEED
    window: int | None = DEFAULT_WINDOW
    pointing_error: PointingError = PointingError()
    crds: Path | None = None
    lensing: LensingSeason | None = None

    @property
    def scene(self) -> Scene:
        """The sky."""
        return Scene(self.seed)

    def true_pointing(self, planned: PlannedExposure) -> Pointing:
        """Return where the telescope really points in an exposure."""
        return self.pointing_error.true_pointing(planned, self.seed)

    def field(self, planned: PlannedExposure, detector: str) -> SkyCircle:
        """Return a circle on the sky that holds all that a detector gets light from."""
        size = active_pixels(self.window)
        pointing = planned.pointing
        wcs = detector_wcs(detector, pointing.ra, pointing.dec, pointing.pa, self.window)
        ra, dec = wcs((size - 1) / 2, (size - 1) / 2)
        spectral = planned.exposure_type is ExposureType.WFI_SPECTRAL
        reach = size / np.sqrt(2) + PSF_RADIUS + (SPECTRAL_REACH if spectral else 0)
        margin = float(np.hypot(self.pointing_error.x, self.pointing_error.y)) + 1.0
        return SkyCircle(float(ra), float(dec), float(reach * PIXEL_SCALE + margin) / 3600)

    def sources(self, planned: PlannedExposure, detector: str) -> Table:
        """Return the truth table of what a detector gets light from, as bright as it is then."""
        sources = self.scene.sources([self.field(planned, detector)])
        if planned.exposure_type is ExposureType.WFI_SPECTRAL:
            return with_lines(sources, self.seed)
        if self.lensing is None or planned.survey is not Survey.GBTDS:
            return sources
        return self.lensing.magnified(sources, planned.start + (planned.end - planned.start) / 2)

    def guide_star(self, planned: PlannedExposure, detector: str) -> GuideStar:
        """Choose the guide star of a detector."""
        pointing = planned.pointing
        wcs = detector_wcs(detector, pointing.ra, pointing.dec, pointing.pa, self.window)
        return guide_star(planned, detector, self.sources(planned, detector), wcs)

    def expose(
        self, planned: PlannedExposure, detector: str
    ) -> tuple[DetectorReadout, GuideWindowReadout]:
        """Take one exposure with one detector.

        The same telescope, exposure and detector always give the same counts.
        """
        response = _response(detector, self.window, self.seed)
        spread = _point_spread(detector, planned.optical_element, self.window, self.crds)
        readout = detector_readout(
            planned,
            response,
            self.sources(planned, detector),
            self.true_pointing(planned),
            spread,
            seed=self.seed,
            velocity_aberration=velocity_aberration(planned),
        )
        guide_window = guide_window_readout(
            planned,
            response,
            self.guide_star(planned, detector),
            Wander.of(planned, self.seed),
            spread,
            seed=self.seed,
        )
        return readout, guide_window


def velocity_aberration(planned: PlannedExposure) -> float:
    """Return the scale of the sky as the moving observatory sees it at mid-exposure."""
    velocity = barycentric_velocity(planned.start + (planned.end - planned.start) / 2)
    scale, _, _ = compute_va_effects(*velocity, planned.pointing.ra, planned.pointing.dec)
    return float(scale)


@lru_cache(maxsize=2)
def _response(detector: str, window: int | None, seed: int) -> DetectorResponse:
    return DetectorResponse(detector, window, seed)


@lru_cache(maxsize=4)
def _point_spread(
    detector: str, element: OpticalElement, window: int | None, crds: Path | None
) -> PointSpread:
    if crds is not None and imaging(element):
        return PointSpread(stored_epsf(crds, detector, element))
    drawn_with = element if imaging(element) else _GUIDING_PSF
    return PointSpread(effective_psf(detector, drawn_with, window))
