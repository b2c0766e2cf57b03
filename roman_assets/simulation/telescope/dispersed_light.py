"""Light behind the grism or the prism: the first order of every source, in electrons per second.

From what the Roman project publishes: the dispersion at the field's centre, effective areas by
detector, the element's central wavelength, the sky (`roman_assets.simulation.telescope.response`).
A source of a spectrum S lies along its column, red upwards, the central wavelength where its direct
image would be; each wavelength has its own PSF.

Not published, and so not modelled: how dispersion, the tilt and the bend of traces and the place
of the central wavelength change over the field; the zeroth order (2 % of the first, and where it
falls) and the higher ones; what the dispersers do to the PSF. Light farther than `FAINT_RADIUS`
from the trace of a source fainter than `BRIGHT` is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import galsim
import numpy as np
from astropy.table import Row, Table
from gwcs import WCS
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.effective_psf import monochromatic_psf
from roman_assets.simulation.telescope.point_spread import (
    GALAXY_RADIUS,
    PIXEL_SCALE,
    PSF_RADIUS,
    PointSpread,
    add_stamp,
    galaxy_shape,
    near,
    pixel_positions,
)
from roman_assets.simulation.telescope.response import DetectorResponse, effective_area
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.spectrum import spectral_flux

PSF_WAVELENGTHS: dict[OpticalElement, tuple[float, ...]] = {
    OpticalElement.GRISM: (1000.0, 1220.0, 1450.0, 1690.0, 1930.0),
    OpticalElement.PRISM: (750.0, 950.0, 1200.0, 1500.0, 1830.0),
}
"""Wavelengths (nm) at which PSFs are computed; between them they are mixed linearly."""
GALAXY_WAVELENGTH = 2
"""Which of them serves for galaxies."""
BRIGHT = 17.0
"""AB magnitude in F158 down to which spectra are drawn out to `PSF_RADIUS`."""
FAINT_RADIUS = 24
OVERSAMPLING = 4
"""Samples per row of spectra before they are put on pixels."""

_PUBLISHED = {OpticalElement.GRISM: ("grism", "G150"), OpticalElement.PRISM: ("prism", "P127")}
_SPECTROSCOPY = "data/WideFieldInstrument/Spectroscopy"
_FLUX_OF_MAGGIE = 3631e-26
"""W m⁻² Hz⁻¹."""
_PLANCK = 6.62607015e-34
_STEP = 0.1


@dataclass(frozen=True)
class FirstOrder:
    """Where the light of the first order falls on a detector, finely sampled.

    Parameters
    ----------
    wavelength
        nm, ascending.
    row
        Rows from the direct image.
    electrons
        e/s in the step of each wavelength from a source of one maggie.
    """

    wavelength: NDArray[np.float64]
    row: NDArray[np.float64]
    electrons: NDArray[np.float64]


@cache
def first_order(detector: str, element: OpticalElement) -> FirstOrder:
    """Return the first order of a disperser on a detector.

    Beyond the table of dispersions its first and last value hold.
    """
    name, code = _PUBLISHED[element]
    dispersion = _published(f"Dispersion/WFI_{name}_dispersion.ecsv")
    at, per_row = (
        np.asarray(dispersion[f"{name[0]}_{what}"], dtype=float)
        for what in ("mean_lam", "dispersion")
    )
    microns, area = effective_area(detector, element)
    lit = microns[area > 0] * 1e3
    wavelength = np.arange(float(lit[0]), float(lit[-1]), _STEP)
    row = np.cumsum(_STEP / np.interp(wavelength, at, per_row))
    row -= np.interp(_central_wavelength(code), wavelength, row)
    photons = _FLUX_OF_MAGGIE / (_PLANCK * wavelength) * _STEP
    collected = np.interp(wavelength, microns.astype(float) * 1e3, area.astype(float))
    return FirstOrder(wavelength, row, photons * collected)


def _central_wavelength(code: str) -> float:
    """Return the central wavelength (nm) of a disperser by its published code."""
    # tabs between its columns make it something else than the ECSV that its name says
    table = _published("PrismGrismSummary/grism_prism_parameters.ecsv", "ascii.csv")
    table.rename_columns(table.colnames, [name.strip() for name in table.colnames])
    (centre,) = table["wavelength_center"][table["element"] == code]
    return float(centre) * 1e3


def _published(table: str, as_what: str = "ascii.ecsv") -> Table:
    path = resources.files("roman_technical_information") / f"{_SPECTROSCOPY}/{table}"
    options = {} if as_what == "ascii.ecsv" else {"comment": "#"}
    return Table.read(str(path), format=as_what, **options)


def add_spectra(
    rates: NDArray[np.float64],
    response: DetectorResponse,
    element: OpticalElement,
    sources: Table,
    wcs: WCS,
) -> None:
    """Add the spectra of sources to an image, e/s.

    Parameters
    ----------
    rates
        The image, shape (active, active).
    response
        The detector.
    element
        Grism or prism.
    sources
        As from `roman_assets.simulation.telescope.spectrum.with_lines`.
    wcs
        Active pixels to sky at the true pointing.
    """
    order = first_order(response.detector, element)
    spread = _spread(response.detector, element, response.window)
    x, y = pixel_positions(sources, wcs)
    shares = spread.shares(order.wavelength)
    reach = PSF_RADIUS + int(np.ceil(np.abs(order.row).max()))
    for i in np.flatnonzero(near(x, y, rates.shape, reach)):
        electrons = order.electrons * spectral_flux(sources[i], order.wavelength)
        if sources["kind"][i] == str(SourceKind.GALAXY):
            stamps = spread.of_galaxy(sources[i], x[i], y[i], wcs)
        else:
            bright = sources["F158"][i] > 10 ** (-0.4 * BRIGHT)
            stamps = spread.of_star(x[i], PSF_RADIUS if bright else FAINT_RADIUS)
        column = round(x[i]) - stamps.shape[2] // 2
        if -stamps.shape[2] < column < rates.shape[1]:
            trace = _trace(stamps, y[i] + order.row, electrons * shares, rates.shape[0])
            add_stamp(rates, 1.0, trace, column, 0)


@dataclass(frozen=True)
class _WavelengthSpread:
    """The PSFs of a detector at some wavelengths (nm, ascending)."""

    wavelengths: tuple[float, ...]
    spreads: tuple[PointSpread, ...]

    def shares(self, wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what part of each PSF is in that of some wavelengths, shape (psfs, n)."""
        units = np.eye(len(self.wavelengths))
        return np.stack([np.interp(wavelength, self.wavelengths, unit) for unit in units])

    def of_star(self, x: float, radius: int) -> NDArray[np.float64]:
        """Draw a star of unit flux with each PSF; shape (psfs, oversampled rows, columns)."""
        return np.stack(
            [spread.oversampled_stamp(x, radius, OVERSAMPLING) for spread in self.spreads]
        )

    def of_galaxy(self, galaxy: Row, x: float, y: float, wcs: WCS) -> NDArray[np.float64]:
        """Draw a galaxy in the same way, with one PSF at all wavelengths."""
        size = 2 * GALAXY_RADIUS * OVERSAMPLING + 1
        image = galsim.ImageD(size, size, scale=PIXEL_SCALE / OVERSAMPLING)
        offset = ((x - round(x)) * OVERSAMPLING, 0.0)
        galsim.Convolve(galaxy_shape(galaxy, x, y, wcs), self._galaxy_profile).drawImage(
            image, method="no_pixel", offset=offset
        )
        stamp = image.array[:, ::OVERSAMPLING] * OVERSAMPLING**2
        return np.broadcast_to(stamp, (len(self.spreads), *stamp.shape))

    @cached_property
    def _galaxy_profile(self) -> galsim.InterpolatedImage:
        return self.spreads[GALAXY_WAVELENGTH].profile()


@cache
def _spread(detector: str, element: OpticalElement, window: int | None) -> _WavelengthSpread:
    wavelengths = PSF_WAVELENGTHS[element]
    return _WavelengthSpread(
        wavelengths,
        tuple(PointSpread(monochromatic_psf(detector, nm, window)) for nm in wavelengths),
    )


def _trace(
    stamps: NDArray[np.float64],
    row: NDArray[np.float64],
    electrons: NDArray[np.float64],
    nrows: int,
) -> NDArray[np.float64]:
    """Spread a spectrum over the rows of a detector.

    Parameters
    ----------
    stamps
        Shape (psfs, oversampled rows, columns).
    row
        Where each wavelength falls, shape (n,).
    electrons
        e/s at each wavelength that each PSF spreads, shape (psfs, n).
    nrows
        Rows of the detector.
    """
    half = (stamps.shape[1] - 1) // 2 // OVERSAMPLING
    fine = (row + half) * OVERSAMPLING
    length = (nrows + 2 * half) * OVERSAMPLING
    low = np.floor(fine).astype(int)
    inside = (low >= 0) & (low + 1 < length)
    low, above = low[inside], (fine - low)[inside]
    trace = np.zeros((nrows, stamps.shape[2]))
    for stamp, light in zip(stamps, electrons[:, inside], strict=True):
        along = np.bincount(low, light * (1 - above), length)
        along += np.bincount(low + 1, light * above, length)
        for phase in range(OVERSAMPLING if along.any() else 0):
            part = along[phase::OVERSAMPLING]
            spread = _at_phase(stamp, phase)
            trace += fftconvolve(part[:, None], spread, axes=0)[2 * half : 2 * half + nrows]
    return trace


def _at_phase(stamp: NDArray[np.float64], phase: int) -> NDArray[np.float64]:
    """Sample a stamp at whole rows from a source that is ``phase`` samples above a row."""
    if phase == 0:
        return stamp[::OVERSAMPLING]
    # the row below the first one holds nothing
    return np.pad(stamp[OVERSAMPLING - phase :: OVERSAMPLING], ((1, 0), (0, 0)))
