"""Light on a detector: the scene through the telescope, in electrons per second.

What is simulated: point sources with the ePSFs of the ``epsf`` reference, galaxies as Sersic
profiles convolved with them, smooth sky, an internal lamp; behind a grism or prism their spectra
(`roman_assets.simulation.telescope.dispersed_light`). What is not: cosmic rays, persistence,
inter-pixel capacitance, charge moving between pixels, ghosts, diffraction spikes beyond the stamps
of the ePSF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from gwcs import WCS
from numpy.typing import NDArray

from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.simulation.telescope.dispersed_light import add_spectra
from roman_assets.simulation.telescope.point_spread import (
    PSF_RADIUS,
    PointSpread,
    add_stamp,
    galaxy_stamp,
    near,
    pixel_positions,
)
from roman_assets.simulation.telescope.response import DetectorResponse, imaging
from roman_assets.simulation.telescope.scene import SourceKind

CROWD_RADIUS = 12
"""Native pixels to which Bulge stars fainter than `CROWD_LIMIT` are drawn: their wings drown."""
CROWD_LIMIT = 19.5
"""AB magnitude."""


@dataclass(frozen=True)
class Illumination:
    """What reaches the detectors in a type of exposure.

    Parameters
    ----------
    sky
        Whether the sky does.
    lamp
        e/s in every pixel from the internal calibration lamp.
    """

    sky: bool
    lamp: float


ILLUMINATION: Mapping[ExposureType, Illumination] = {
    ExposureType.WFI_IMAGE: Illumination(sky=True, lamp=0.0),
    ExposureType.WFI_SPECTRAL: Illumination(sky=True, lamp=0.0),
    ExposureType.WFI_IM_DARK: Illumination(sky=False, lamp=0.0),
    ExposureType.WFI_SP_DARK: Illumination(sky=False, lamp=0.0),
    ExposureType.WFI_FLAT: Illumination(sky=False, lamp=150.0),
    ExposureType.WFI_LOLO: Illumination(sky=True, lamp=5.0),
    ExposureType.WFI_WFSC: Illumination(sky=True, lamp=0.0),
}


def electron_rates(
    response: DetectorResponse,
    exposure_type: ExposureType,
    element: OpticalElement,
    sources: Table,
    wcs: WCS,
    spread: PointSpread,
) -> NDArray[np.float64]:
    """Compute what light makes in every active pixel, dark signal excluded.

    Parameters
    ----------
    response
        The detector.
    exposure_type, element
        How and through what it looks.
    sources
        Truth table of `roman_assets.simulation.telescope.scene.Scene.sources`; for spectra with the
        columns of `roman_assets.simulation.telescope.spectrum.with_lines`.
    wcs
        Active pixels to sky at the true pointing.
    spread
        The PSF of the filter; spectra have that of each wavelength.

    Returns
    -------
    ndarray
        e/s, shape (active, active).
    """
    illumination = ILLUMINATION[exposure_type]
    rates = np.zeros(response.relative_area.shape)
    if illumination.sky and element is not OpticalElement.DARK:
        rates += response.sky_rate(element) * response.relative_area
        if imaging(element):
            _add_images(rates, response, element, sources, wcs, spread)
        else:
            add_spectra(rates, response, element, sources, wcs)
    rates += illumination.lamp
    efficiency = response.quantum_efficiency(element)
    return np.clip(rates, 0, None) * efficiency


def _add_images(
    rates: NDArray[np.float64],
    response: DetectorResponse,
    element: OpticalElement,
    sources: Table,
    wcs: WCS,
    spread: PointSpread,
) -> None:
    fluxes = np.asarray(sources[str(element)]) * response.electron_rate(element)
    x, y = pixel_positions(sources, wcs)
    reached = near(x, y, rates.shape, PSF_RADIUS)
    stars = sources["kind"] != str(SourceKind.GALAXY)
    crowd = sources["kind"] == str(SourceKind.BULGE)
    crowd &= sources[str(element)] < 10 ** (-0.4 * CROWD_LIMIT)
    for i in np.flatnonzero(reached & stars):
        radius = CROWD_RADIUS if crowd[i] else PSF_RADIUS
        add_stamp(rates, fluxes[i], *spread.stamp(x[i], y[i], radius))
    profile = spread.profile()
    for i in np.flatnonzero(reached & ~stars):
        add_stamp(rates, fluxes[i], *galaxy_stamp(sources[i], x[i], y[i], wcs, profile))
