"""Light on a detector: the scene through the telescope, in electrons per second.

What is simulated: point sources with the ePSFs of the ``epsf`` reference, galaxies as Sersic
profiles convolved with them, smooth sky, an internal lamp. What is not: cosmic rays, persistence,
inter-pixel capacitance, charge moving between pixels, ghosts, diffraction spikes beyond the stamps
of the ePSF.

Spectra are a first approximation: only the first order of the brighter sources, spread along the
rows of one direction with the dispersion measured at the field's centre, with the PSF of one
filter at all wavelengths and a spectrum flat in frequency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import galsim
import numpy as np
from astropy.table import Row, Table
from gwcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from roman_assets.observatory.psf import NATIVE_SPECTRAL_TYPE, EpsfGrid
from roman_assets.observatory.response import DetectorResponse, effective_area
from roman_assets.observatory.scene import SourceKind
from roman_assets.products.observation import ExposureType, OpticalElement

PSF_RADIUS = 44
"""Native pixels from a star's centre to which it is drawn."""
GALAXY_RADIUS = 24
PIXEL_SCALE = 0.11
"""Arcsec, for the shapes of galaxies; the places of sources come from the WCS."""
SPECTRAL_PSF = OpticalElement.F129
"""The filter whose PSF spectra are drawn with."""
SPECTRAL_LIMIT = 21.0
"""Faintest AB magnitude in F158 of sources with a spectrum."""


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


class PointSpread:
    """Draws point sources with the ePSFs of one detector and filter.

    Parameters
    ----------
    grid
        The ePSFs, at places that form a rectangular grid.
    """

    def __init__(self, grid: EpsfGrid) -> None:
        self._stamps = grid.stamps[0, NATIVE_SPECTRAL_TYPE].astype(float)
        self._oversampling = grid.oversampling
        self._x, self._y = np.unique(grid.pixel_x), np.unique(grid.pixel_y)
        self._place = {
            (x, y): i for i, (x, y) in enumerate(zip(grid.pixel_x, grid.pixel_y, strict=True))
        }

    @cached_property
    def _splines(self) -> tuple[RectBivariateSpline, ...]:
        axis = (np.arange(self._stamps.shape[-1]) - (self._stamps.shape[-1] - 1) / 2) / (
            self._oversampling
        )
        return tuple(RectBivariateSpline(axis, axis, stamp, s=0) for stamp in self._stamps)

    def stamp(
        self, x: float, y: float, radius: int = PSF_RADIUS
    ) -> tuple[NDArray[np.float64], int, int]:
        """Draw a source of unit flux.

        Parameters
        ----------
        x, y
            Its place in active pixels, from 0 at the centre of the first one.
        radius
            Pixels from its centre to the edge.

        Returns
        -------
        ndarray, int, int
            Fractions of the flux by pixel, and the column and row of the first of them.
        """
        column, row = round(x) - radius, round(y) - radius
        offsets = np.arange(2 * radius + 1)
        image = np.zeros((len(offsets), len(offsets)))
        for index, weight in self._weights(x, y):
            image += weight * self._splines[index](row + offsets - y, column + offsets - x)
        return image, column, row

    def profile(self) -> galsim.InterpolatedImage:
        """Give the ePSF at the middle of the grid as a profile of unit flux, scale in arcsec."""
        middle = self._stamps[len(self._stamps) // 2]
        half, keep = middle.shape[0] // 2, self._oversampling * GALAXY_RADIUS
        image = galsim.Image(
            np.ascontiguousarray(
                middle[half - keep : half + keep + 1, half - keep : half + keep + 1]
            ),
            scale=PIXEL_SCALE / self._oversampling,
        )
        flux = image.array.sum() / self._oversampling**2
        return galsim.InterpolatedImage(image, flux=flux, x_interpolant="lanczos5")

    def _weights(self, x: float, y: float) -> list[tuple[int, float]]:
        """Give the stamps to mix and their bilinear weights, as photutils does."""
        (x0, x1, tx), (y0, y1, ty) = _bracket(self._x, x), _bracket(self._y, y)
        weights = [
            (self._place[x0, y0], (1 - tx) * (1 - ty)),
            (self._place[x1, y0], tx * (1 - ty)),
            (self._place[x0, y1], (1 - tx) * ty),
            (self._place[x1, y1], tx * ty),
        ]
        return [(index, weight) for index, weight in weights if weight > 0]


def _bracket(nodes: NDArray[np.float64], value: float) -> tuple[float, float, float]:
    inside = float(np.clip(value, nodes[0], nodes[-1]))
    upper = int(np.clip(np.searchsorted(nodes, inside), 1, len(nodes) - 1))
    low, high = float(nodes[upper - 1]), float(nodes[upper])
    return low, high, (inside - low) / (high - low)


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
        Truth table of `roman_assets.observatory.scene.Scene.sources`.
    wcs
        Active pixels to sky at the true pointing.
    spread
        The PSF of the element, or of `SPECTRAL_PSF`.

    Returns
    -------
    ndarray
        e/s, shape (active, active).
    """
    illumination = ILLUMINATION[exposure_type]
    rates = np.zeros(response.relative_area.shape)
    if illumination.sky and element is not OpticalElement.DARK:
        rates += response.sky_rate(element) * response.relative_area
        if element in (OpticalElement.GRISM, OpticalElement.PRISM):
            _add_spectra(rates, response, element, sources, wcs, spread)
        else:
            _add_images(rates, response, element, sources, wcs, spread)
    rates += illumination.lamp
    efficiency = response.quantum_efficiency(element)
    return np.clip(rates, 0, None) * efficiency


def pixel_positions(sources: Table, wcs: WCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the active pixels (x, y) of sources, also outside of the detector."""
    x, y = wcs.invert(
        np.asarray(sources["ra"]), np.asarray(sources["dec"]), with_bounding_box=False
    )
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


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
    near = _near(x, y, rates.shape, PSF_RADIUS)
    stars = sources["kind"] != str(SourceKind.GALAXY)
    for i in np.flatnonzero(near & stars):
        _add(rates, fluxes[i], *spread.stamp(x[i], y[i]))
    profile = spread.profile()
    for i in np.flatnonzero(near & ~stars):
        _add(rates, fluxes[i], *_galaxy_stamp(sources[i], x[i], y[i], wcs, profile))


def _galaxy_stamp(
    galaxy: Row, x: float, y: float, wcs: WCS, psf: galsim.InterpolatedImage
) -> tuple[NDArray[np.float64], int, int]:
    shape = galsim.Sersic(
        float(galaxy["sersic_index"]),
        half_light_radius=float(galaxy["half_light_radius"] * np.sqrt(galaxy["axis_ratio"])),
    ).shear(
        q=float(galaxy["axis_ratio"]),
        beta=_pixel_angle(galaxy, x, y, wcs) * galsim.radians,
    )
    column, row = round(x) - GALAXY_RADIUS, round(y) - GALAXY_RADIUS
    stamp = galsim.ImageD(2 * GALAXY_RADIUS + 1, 2 * GALAXY_RADIUS + 1, scale=PIXEL_SCALE)
    offset = (x - round(x), y - round(y))
    galsim.Convolve(shape, psf).drawImage(stamp, method="no_pixel", offset=offset)
    return stamp.array, column, row


def _pixel_angle(galaxy: Row, x: float, y: float, wcs: WCS) -> float:
    """Turn a position angle into the angle (rad) from the pixels' x axis towards y."""
    step = 1 / 3600
    angle = np.radians(galaxy["position_angle"])
    ra = galaxy["ra"] + step * np.sin(angle) / np.cos(np.radians(galaxy["dec"]))
    dec = galaxy["dec"] + step * np.cos(angle)
    x1, y1 = wcs.invert(ra, dec, with_bounding_box=False)
    return float(np.arctan2(y1 - y, x1 - x))


def _add_spectra(
    rates: NDArray[np.float64],
    response: DetectorResponse,
    element: OpticalElement,
    sources: Table,
    wcs: WCS,
    spread: PointSpread,
) -> None:
    shares, first = _trace(response.detector, element)
    x, y = pixel_positions(sources, wcs)
    bright = sources["F158"] > 10 ** (-0.4 * SPECTRAL_LIMIT)
    fluxes = np.asarray(sources["F158"]) * response.electron_rate(element)
    reach = PSF_RADIUS + len(shares)
    for i in np.flatnonzero(_near(x, y, rates.shape, reach) & bright):
        stamp, column, row = spread.stamp(x[i], y[i])
        trace = np.apply_along_axis(np.convolve, 0, stamp, shares)
        _add(rates, fluxes[i], trace, column, row + first)


@cache
def _trace(detector: str, element: OpticalElement) -> tuple[NDArray[np.float64], int]:
    """Give shares of a flat spectrum by row, and where they begin from the direct image."""
    name = {OpticalElement.GRISM: "grism", OpticalElement.PRISM: "prism"}[element]
    path = resources.files("roman_technical_information") / (
        f"data/WideFieldInstrument/Spectroscopy/Dispersion/WFI_{name}_dispersion.ecsv"
    )
    table = Table.read(str(path), format="ascii.ecsv")
    wavelength = np.asarray(table[f"{name[0]}_mean_lam"], dtype=float)
    steps = np.gradient(wavelength) / np.asarray(table[f"{name[0]}_dispersion"], dtype=float)
    row = np.cumsum(steps)
    row -= row[len(row) // 2]
    microns, area = effective_area(detector, element)
    photons = np.interp(wavelength, microns * 1e3, area) / wavelength
    first = int(np.floor(row.min()))
    shares = np.bincount(
        np.round(row - first).astype(int), weights=photons * np.gradient(wavelength)
    )
    return shares / shares.sum(), first


def _near(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, ...], reach: int
) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = (
        (x > -reach) & (x < shape[1] + reach) & (y > -reach) & (y < shape[0] + reach)
    )
    return near


def _add(
    rates: NDArray[np.float64], flux: float, stamp: NDArray[np.float64], column: int, row: int
) -> None:
    """Add the part of a stamp that falls on the detector."""
    left, bottom = max(column, 0), max(row, 0)
    right = min(column + stamp.shape[1], rates.shape[1])
    top = min(row + stamp.shape[0], rates.shape[0])
    if right > left and top > bottom:
        rates[bottom:top, left:right] += (
            flux * stamp[bottom - row : top - row, left - column : right - column]
        )
