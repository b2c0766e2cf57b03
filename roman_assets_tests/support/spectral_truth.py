"""What the simulated telescope knows of the sources of a spectral image, for comparison.

The light of each source is drawn alone and with all others, without noise, so that what "isolated"
means is stated by the scene and not by what was extracted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.ndimage import gaussian_filter1d

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.dispersed_light import FirstOrder, add_spectra, first_order
from roman_assets.simulation.telescope.point_spread import pixel_positions
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.spectrum import spectral_flux

ISOLATED = 0.05
"""Light of others in a source's aperture, over its own."""
APERTURE_REACH = 3
"""Columns on each side of a source's own that belong to its aperture."""
SAME_PLACE = 1.0
"""Pixels within which a source is the one of a spectrum."""
FLUX_OF_MAGGIE = 3631e-26
LIGHT_SPEED = 2.99792458e17
"""nm/s."""
PIXEL_SAMPLES = 15
SMOOTH_TERMS = 6
LINE_WIDTH = 0.9
"""Standard deviation, pixels, to which a line is blurred along the dispersion."""


@dataclass(frozen=True)
class SpectralTruth:
    """The sources of an image as they are."""

    sources: Table
    x: np.ndarray
    y: np.ndarray
    light: np.ndarray
    response: DetectorResponse
    element: OpticalElement
    wcs: object

    @classmethod
    def of(
        cls, sources: Table, wcs: object, response: DetectorResponse, element: OpticalElement
    ) -> SpectralTruth:
        x, y = pixel_positions(sources, wcs)
        light = np.zeros(response.relative_area.shape)
        add_spectra(light, response, element, sources, wcs)
        return cls(sources, x, y, light, response, element, wcs)

    @property
    def order(self) -> FirstOrder:
        return first_order(self.response.detector, self.element)

    def row_at(self, x: float, y: float) -> int | None:
        """Give the row of the truth table of what is at a place."""
        distance = np.hypot(self.x - x, self.y - y)
        nearest = int(np.argmin(distance))
        return nearest if distance[nearest] < SAME_PLACE else None

    def contamination(self, row: int, rows: np.ndarray) -> float:
        """Give the light of others in a source's aperture over its own, in some rows together."""
        own, light = self.in_aperture(row, rows)
        return float(light.sum() / own.sum()) - 1

    def in_aperture(self, row: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the light of a source in its aperture by row, e/s, and that of all sources."""
        own = np.zeros(self.light.shape)
        add_spectra(own, self.response, self.element, self.sources[row : row + 1], self.wcs)
        column = round(self.x[row])
        aperture = slice(max(column - APERTURE_REACH, 0), column + APERTURE_REACH + 1)
        return own[rows, aperture].sum(axis=1), self.light[rows, aperture].sum(axis=1)

    def wavelength(self, row: int, rows: np.ndarray) -> np.ndarray:
        """Give the wavelengths (nm) that the source has in rows of the image."""
        return np.interp(rows - self.y[row], self.order.row, self.order.wavelength)

    def flux(self, row: int, wavelength: np.ndarray) -> np.ndarray:
        """Give W m⁻² nm⁻¹ in pixels of these wavelengths (nm), each as the mean within it."""
        within = (np.arange(PIXEL_SAMPLES) + 0.5) / PIXEL_SAMPLES - 0.5
        fine = wavelength[:, None] + np.gradient(wavelength)[:, None] * within
        maggies = spectral_flux(self.sources[row], fine.ravel()).reshape(fine.shape)
        return (maggies * FLUX_OF_MAGGIE * LIGHT_SPEED / fine**2).mean(axis=1)


def flux_ratio(flux: np.ndarray, error: np.ndarray, true: np.ndarray) -> float:
    """Give what was measured over the truth, over the whole spectrum."""
    return float((flux / error**2).sum() / (true / error**2).sum())


def line_shift(
    wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray, true: np.ndarray
) -> tuple[float, float]:
    """Find by how many pixels the lines of a spectrum are beside the true ones.

    Both are compared without what is smooth, so that only lines count.

    Parameters
    ----------
    wavelength, flux, error
        Of a spectrum, pixel by pixel.
    true
        The true flux at these wavelengths.

    Returns
    -------
    shift, improvement
        In pixels, and the chi squared by which lines at the shift are better than none.
    """
    flux, error, true = (values / np.median(true) for values in (flux, error, true))
    along = np.linspace(-1, 1, len(flux))
    smooth = np.polynomial.legendre.legvander(along, SMOOTH_TERMS)
    continuum = smooth @ np.linalg.lstsq(smooth, true, rcond=None)[0]
    pixels = np.arange(len(flux), dtype=float)
    blurred = gaussian_filter1d(true / continuum - 1, LINE_WIDTH, mode="nearest")

    def misfit(design: np.ndarray) -> float:
        solution = np.linalg.lstsq(design / error[:, None], flux / error, rcond=None)[0]
        return float((((flux - design @ solution) / error) ** 2).sum())

    shifts = np.arange(-4.0, 4.05, 0.1)
    without = misfit(smooth)
    misfits = [
        misfit(np.column_stack([smooth, continuum * np.interp(pixels - shift, pixels, blurred)]))
        for shift in shifts
    ]
    best = int(np.argmin(misfits))
    return float(shifts[best]), without - misfits[best]
