"""Effective PSFs of the detectors from galsim's model of the telescope.

An ePSF is the optical PSF, blurred by jitter and charge diffusion and integrated over the
native pixel, sampled four times per pixel. The simulated scene and the ``epsf`` reference use
these same arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import galsim
import galsim.roman
import numpy as np
from romanisim.models.bandpass import roman2galsim_bandpass
from romanisim.models.parameters import charge_diffusion, pixel_scale
from scipy.ndimage import fourier_shift

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.detector_geometry import (
    FULL_ACTIVE_PIXELS,
    active_pixels,
    window_origin,
)
from roman_assets.simulation.telescope.response import detector_number, imaging

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERSAMPLING = 4
STAMP_PIXELS = 361
"""Samples along a side: 90 native pixels, the size romancal's documentation speaks of."""

JITTER_MAS = 8.0
"""Rms jitter of each axis in the stamps; images must state the same in ``meta.guide_star``."""

SPECTRAL_TYPES: dict[str, float] = {"A0V": 9700.0, "G2V": 5770.0, "M5V": 3000.0}
"""Spectral types in the order of the array, with the temperature (K) that stands for each.

romancal takes the second one.
"""

_PUPIL_BINNING = 8
_CORE_SAMPLES = 7

NATIVE_SPECTRAL_TYPE = 1
"""Index of the spectral type that romancal fits and the simulated scene uses."""


@dataclass(frozen=True)
class EpsfGrid:
    """The ePSFs of one detector and filter.

    Parameters
    ----------
    stamps
        Shape (defocus, spectral type, position, y, x), float32; a stamp sums to the fraction
        of the light it holds times ``oversampling**2``.
    pixel_x, pixel_y
        Positions in active pixels of the window, from 0.
    defocus
        Waves of defocus.
    oversampling
        Samples per native pixel.
    """

    stamps: NDArray[np.float32]
    pixel_x: tuple[float, ...]
    pixel_y: tuple[float, ...]
    defocus: tuple[int, ...] = (0,)
    oversampling: int = OVERSAMPLING


def grid_positions(window: int | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the positions (x, y) of an `EpsfGrid`.

    The corners of a window, within which the PSF hardly changes; 3 by 3 on a whole detector.
    """
    size = active_pixels(window)
    along = (0.0, size - 1.0) if window is not None else (0.0, (size - 1) / 2, size - 1.0)
    x, y = np.meshgrid(along, along)
    return tuple(x.ravel().tolist()), tuple(y.ravel().tolist())


@lru_cache(maxsize=16)
def effective_psf(detector: str, element: OpticalElement, window: int | None) -> EpsfGrid:
    """Compute the ePSFs of a detector in a filter.

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    element
        A filter.
    window
        Active pixels along a side, None for the whole detector.

    Returns
    -------
    EpsfGrid
        Oriented as the science frame; the array cannot be written to.

    Raises
    ------
    ValueError
        If the element is not a filter.
    """
    if not imaging(element):
        raise ValueError(f"{element} has no ePSF: it is not a filter")
    pixel_x, pixel_y = grid_positions(window)
    stamps = np.stack(
        [
            np.stack(
                [
                    _stamp(detector, x, y, window, roman2galsim_bandpass[str(element)], nm)
                    for x, y in zip(pixel_x, pixel_y, strict=True)
                ]
            )
            for nm in (_effective_wavelength(element, kind) for kind in SPECTRAL_TYPES)
        ]
    )
    stamps.setflags(write=False)
    return EpsfGrid(stamps[None], pixel_x, pixel_y)


@lru_cache(maxsize=32)
def monochromatic_psf(detector: str, wavelength: float, window: int | None) -> EpsfGrid:
    """Compute the ePSFs of a detector at one wavelength, as behind a grism or prism.

    The pupil is that of the filters without a cold mask; that of the dispersers and what they add
    to the aberrations are not published.

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    wavelength
        nm.
    window
        Active pixels along a side, None for the whole detector.

    Returns
    -------
    EpsfGrid
        Of one spectral type, at the middle of the window; oriented as the science frame.
    """
    middle = (active_pixels(window) - 1) / 2
    stamp = _stamp(detector, middle, middle, window, "short", wavelength)
    return EpsfGrid(stamp[None, None, None], (middle,), (middle,))


def enclosed_energy(stamp: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return radii (native pixels) and the fractions of the light within them, ascending."""
    centre = (stamp.shape[0] - 1) / 2
    y, x = np.indices(stamp.shape) - centre
    radius = np.hypot(x, y).ravel() / OVERSAMPLING
    order = np.argsort(radius, kind="stable")
    total = np.cumsum(stamp.ravel()[order]) / OVERSAMPLING**2
    radii = np.linspace(0.5, centre / OVERSAMPLING, 200)
    return radii, np.interp(radii, radius[order], total)


@lru_cache(maxsize=32)
def _effective_wavelength(element: OpticalElement, spectral_type: str) -> float:
    band = galsim.roman.getBandpasses()[roman2galsim_bandpass[str(element)]]
    nm = np.linspace(band.blue_limit, band.red_limit, 400)
    thermal = nm**-4 / np.expm1(1.438776877e7 / (nm * SPECTRAL_TYPES[spectral_type]))
    weight = thermal * band(nm)
    return float((weight * nm).sum() / weight.sum())


@lru_cache(maxsize=1)
def _blur() -> Any:
    """Return what happens to the light after the optics: jitter, diffusion, the pixel itself."""
    return galsim.Convolve(
        galsim.Gaussian(sigma=JITTER_MAS / 1000),
        galsim.Gaussian(sigma=charge_diffusion * pixel_scale),
        galsim.Pixel(pixel_scale),
    )


def _stamp(
    detector: str, x: float, y: float, window: int | None, bandpass: str, wavelength: float
) -> NDArray[np.float32]:
    number = detector_number(detector)
    origin = window_origin(window)
    place = np.array([x + origin + 1, y + origin + 1])
    # galsim's detector frame is SIAF's science frame mirrored: in x for the outer detectors
    # (every third one), which are mounted the other way round, in y for the others.
    mirrored = 0 if number % 3 == 0 else 1
    place[mirrored] = FULL_ACTIVE_PIXELS + 1 - place[mirrored]
    optics = galsim.roman.getPSF(
        number,
        bandpass,
        SCA_pos=galsim.PositionD(*place),
        pupil_bin=_PUPIL_BINNING,
        wavelength=wavelength,
    )
    image = galsim.Convolve(optics, _blur()).drawImage(
        nx=STAMP_PIXELS,
        ny=STAMP_PIXELS,
        scale=pixel_scale / OVERSAMPLING,
        method="no_pixel",
        dtype=np.float64,
    )
    # drawn values are fluxes per sample; an ePSF gives the flux in a pixel centred there
    stamp = np.flip(image.array, axis=1 - mirrored) * OVERSAMPLING**2
    return _centred(stamp).astype(np.float32)


def _centred(stamp: NDArray[Any]) -> NDArray[np.float64]:
    """Shift a stamp so that the centroid of its core is its centre: a star's position.

    The core is what romancal fits in coadds with a round model; farther out the coma of the
    optics would draw the centroid some 15 mas away from where that fit finds the star.
    """
    middle = stamp.shape[0] // 2
    core = slice(middle - _CORE_SAMPLES, middle + _CORE_SAMPLES + 1)
    offsets = np.arange(-_CORE_SAMPLES, _CORE_SAMPLES + 1)
    for _ in range(3):
        light = stamp[core, core]
        shift = (
            -(light.sum(axis=1) @ offsets) / light.sum(),
            -(light.sum(axis=0) @ offsets) / light.sum(),
        )
        stamp = np.fft.irfft2(
            fourier_shift(np.fft.rfft2(stamp), shift, n=stamp.shape[1]), s=stamp.shape
        )
    return stamp
