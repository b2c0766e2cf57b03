"""How the simulated detectors answer to light: the truth behind ramps and reference files.

From sky to L2, and back again in romancal:

1. A source of ``m`` maggies (AB, ``m = 10**(-0.4 mag)``) yields ``m * electron_rate(element)``
   e/s, from the effective areas of the Roman project (through `romanisim`).
2. Its light falls on pixels as the ePSF says; each pixel collects the fraction
   `DetectorResponse.quantum_efficiency` of it. Diffuse light is `DetectorResponse.sky_rate`
   e/s in a pixel of the solid angle of the central one, times `relative_area`, times the
   quantum efficiency.
3. Electrons divided by `gain` are linear counts (DN), on top of the pedestal and the dark
   signal (``dark_rate``, DN/s). `DetectorResponse.raw_counts` bends them to what the
   converter shows.
4. romancal undoes 3 by read, fits DN/s, divides by the flat, which holds quantum efficiency,
   relative pixel area and relative gain, and states the conversion
   ``photmjsr`` = 3631e-6 MJy / electron_rate * nominal_gain / reference_pixel_area.

L2 images are hence surface brightness, and so are right after resampling. The flux of a point
source in an L2 catalogue is too small by `relative_area` at its place: within 0.3 % in a
window of 512 pixels, within 2.3 % on the whole detector, zero at the centre.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from astropy.table import Table
from roman_datamodels.dqflags import pixel
from romanisim.models import bandpass, parameters
from romanisim.models.backgrounds import thermal_backgrounds

from roman_assets.products.observation import DETECTORS, OpticalElement
from roman_assets.simulation.telescope.detector_geometry import (
    BORDER_PIXELS,
    FULL_ACTIVE_PIXELS,
    active_pixels,
    array_pixels,
    pixel_area,
    reference_pixel_area,
    window_origin,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]

CHANNEL_COLUMNS = 128
"""Columns of the array that one converter channel reads."""

CONVERTER_CHANNELS = 32

_FIELD_ECLIPTIC_LATITUDE = 89.0
_SUN_ELONGATION = 90.0
_INL_KNOTS = np.arange(0, 65536, 512, dtype=np.uint16)
_ABMAG_ZERO_MJY = 3631e-6


def detector_number(detector: str) -> int:
    """Return the number of ``WFInn``; raises `ValueError` for anything else."""
    if detector not in DETECTORS:
        raise ValueError(f"{detector!r} is not a detector: expected WFI01 to WFI18")
    return int(detector[3:])


def imaging(element: OpticalElement) -> bool:
    """Return whether the element is a filter."""
    return element not in (OpticalElement.GRISM, OpticalElement.PRISM, OpticalElement.DARK)


@lru_cache(maxsize=len(DETECTORS))
def _effective_areas(detector: str) -> Any:
    return bandpass.read_gsfc_effarea(detector_number(detector))


def effective_area(
    detector: str, element: OpticalElement
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return wavelengths (micron) and effective areas (m²) of an element that lets light pass."""
    table = _effective_areas(detector)
    column = bandpass.roman2galsim_bandpass[element] if not imaging(element) else str(element)
    return (
        np.asarray(table["Wave"], dtype=np.float32),
        np.asarray(table[column], dtype=np.float32),
    )


@lru_cache(maxsize=256)
def electron_rate(detector: str, element: OpticalElement) -> float:
    """Return the e/s of a source of one maggie (AB magnitude 0); 0 behind ``DARK``."""
    if element is OpticalElement.DARK:
        return 0.0
    return float(bandpass.get_abflux(str(element), detector_number(detector)))


@lru_cache(maxsize=256)
def sky_rate(detector: str, element: OpticalElement) -> float:
    """Return the e/s of zodiacal, stray and thermal light in the central pixel.

    Zodiacal light is that of the field near the ecliptic pole where the simulated sky is; behind
    grism and prism, which spread it in all orders, the published minimum, which is close to that.
    """
    if element is OpticalElement.DARK:
        return 0.0
    if not imaging(element):
        stray = float(parameters.stray_light_fraction)
        return _dispersed_zodiacal_rate(element) * (1 + stray)
    wavelength, area = effective_area(detector, element)
    zodiacal = bandpass.get_zodi_bkgnd(
        _FIELD_ECLIPTIC_LATITUDE, _SUN_ELONGATION, 0.4, 2.5, wavelength, area
    )
    square_arcsec = reference_pixel_area(detector) * np.rad2deg(1.0) ** 2 * 3600.0**2
    thermal = thermal_backgrounds[bandpass.roman2galsim_bandpass[str(element)]]
    return float(zodiacal * (1 + parameters.stray_light_fraction) * square_arcsec + thermal)


def _dispersed_zodiacal_rate(element: OpticalElement) -> float:
    path = resources.files("roman_technical_information") / (
        "data/WideFieldInstrument/Spectroscopy/ZodiacalLight/grism_prism_zodiacal_light.ecsv"
    )
    table = Table.read(str(path), format="ascii.ecsv")
    (rate,) = [row["rate"] for row in table if row["element"].upper().startswith(str(element))]
    return float(rate)


@dataclass(frozen=True)
class DetectorResponse:
    """The response of one detector, or of its central window.

    Arrays have the reference border: shape (n, n) with ``n = array_pixels(window)``, unless
    said otherwise. The same detector, window and seed always give the same arrays.

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    window
        Active pixels along a side, None for the whole detector.
    seed
        Seed of everything that differs from pixel to pixel.
    """

    detector: str
    window: int | None
    seed: int
    nominal_gain: float = field(init=False)

    def __post_init__(self) -> None:
        number = detector_number(self.detector)
        active_pixels(self.window)
        object.__setattr__(self, "nominal_gain", 1.8 + 0.01 * ((number * 7) % 11 - 5))

    def _random(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(
            [self.seed, detector_number(self.detector), crc32(purpose.encode())]
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the arrays, border included."""
        return (array_pixels(self.window),) * 2

    @property
    def active(self) -> tuple[slice, slice]:
        """The active area within the arrays."""
        inner = slice(BORDER_PIXELS, -BORDER_PIXELS)
        return (inner, inner)

    @cached_property
    def gain(self) -> Image:
        """Electrons per DN; constant within a converter channel."""
        offsets = self._random("gain").normal(0, 0.01, CONVERTER_CHANNELS)
        columns = np.arange(self.shape[1]) // CHANNEL_COLUMNS
        return np.broadcast_to(
            (self.nominal_gain * (1 + offsets[columns])).astype(np.float32), self.shape
        ).copy()

    @cached_property
    def read_noise(self) -> Image:
        """Noise of one read, DN rms."""
        noise = self._random("read noise").standard_normal(self.shape, dtype=np.float32)
        return np.asarray(np.float32(4.5) * np.exp(np.float32(0.1) * noise))

    @cached_property
    def dark_rate(self) -> Image:
        """Dark signal, DN/s; zero in the reference border."""
        noise = self._random("dark").standard_normal(self.shape, dtype=np.float32)
        rate = np.float32(0.003) * np.exp(np.float32(0.3) * noise)
        hot = (self.dq & pixel.HOT) > 0
        rate[hot] = self._random("hot").uniform(2, 40, int(hot.sum())).astype(np.float32)
        return self._without_border(rate)

    @cached_property
    def pedestal(self) -> Image:
        """Linear counts right after reset, DN."""
        noise = self._random("pedestal").standard_normal(self.shape, dtype=np.float32)
        return np.float32(5000.0) + np.float32(60.0) * noise

    @cached_property
    def nonlinearity(self) -> Image:
        """Coefficient ``a`` (1/DN) of ``linear = raw * (1 + a * raw)``; zero in the border."""
        noise = self._random("nonlinearity").standard_normal(self.shape, dtype=np.float32)
        return self._without_border(np.float32(9e-7) * (1 + np.float32(0.05) * noise))

    @cached_property
    def saturation(self) -> Image:
        """Raw counts (DN) above which a pixel no longer counts."""
        noise = self._random("saturation").standard_normal(self.shape, dtype=np.float32)
        return np.float32(58000.0) + np.float32(600.0) * np.clip(noise, -4, 4)

    @cached_property
    def dq(self) -> NDArray[np.uint32]:
        """Flags of bad pixels (`roman_datamodels.dqflags.pixel`) and of the border."""
        lot = self._random("bad pixels").random(self.shape, dtype=np.float32)
        flags = np.zeros(self.shape, dtype=np.uint32)
        flags[lot < 4e-4] = pixel.DEAD | pixel.DO_NOT_USE
        flags[lot > 1 - 4e-4] = pixel.HOT | pixel.DO_NOT_USE
        border = np.ones(self.shape, dtype=bool)
        border[self.active] = False
        flags[border] = pixel.REFERENCE_PIXEL
        return flags

    @cached_property
    def relative_area(self) -> NDArray[np.float64]:
        """Solid angle of the active pixels over that of the central one; (active, active)."""
        return pixel_area(self.detector, self.window) / reference_pixel_area(self.detector)

    @property
    def dark_decay(self) -> tuple[float, float]:
        """Amplitude (DN) and time constant (s) of the signal that decays after reset.

        romancal subtracts it only from whole detectors, so a window has none.
        """
        number = detector_number(self.detector)
        amplitude = 0.0 if self.window is not None else 0.4 + 0.02 * number
        return amplitude, 23.0

    @property
    def inl_values(self) -> NDArray[np.uint16]:
        """Raw counts at which `inl_correction` is given, shape (knots,)."""
        return _INL_KNOTS

    @cached_property
    def inl_correction(self) -> NDArray[np.float64]:
        """DN to add to what a converter channel shows; (32, knots), at most 1.5 DN."""
        random = self._random("converter")
        phase = random.uniform(0, 2 * np.pi, (CONVERTER_CHANNELS, 1))
        cycles = random.uniform(1, 4, (CONVERTER_CHANNELS, 1))
        angle = 2 * np.pi * cycles * self.inl_values / 65536 + phase
        correction: NDArray[np.float64] = 1.5 * (np.sin(angle) - np.sin(phase))
        return correction / 2

    def quantum_efficiency(self, element: OpticalElement) -> Image:
        """Return the active pixels' sensitivity over the nominal; (active, active), dead ones 0."""
        size = active_pixels(self.window)
        random = self._random(f"quantum efficiency {element}")
        position = np.arange(size) + window_origin(self.window)
        along = ((2 * position + 1) / FULL_ACTIVE_PIXELS - 1).astype(np.float32)
        slope_x, slope_y, bow = random.normal(0, 0.01, 3).astype(np.float32)
        smooth = slope_x * along[None, :] + slope_y * along[:, None]
        smooth += bow * (along[None, :] ** 2 + along[:, None] ** 2)
        grain = random.standard_normal((size, size), dtype=np.float32)
        efficiency: Image = 1 + smooth + np.float32(0.008) * grain
        efficiency[(self.dq[self.active] & pixel.DEAD) > 0] = 0
        return efficiency

    def flat(self, element: OpticalElement) -> Image:
        """Return the flat of the reference file; (active, active), dead pixels 0.

        Holds quantum efficiency, relative pixel area and relative gain, so that images divided
        by it are proportional to surface brightness.
        """
        relative_gain = self.gain[self.active] / self.nominal_gain
        flat = self.quantum_efficiency(element) * self.relative_area / relative_gain
        return np.asarray(flat, dtype=np.float32)

    def electron_rate(self, element: OpticalElement) -> float:
        """Return the e/s of a source of one maggie; see the function of that name."""
        return electron_rate(self.detector, element)

    def sky_rate(self, element: OpticalElement) -> float:
        """Return the e/s of diffuse light in the central pixel; see the function of that name."""
        return sky_rate(self.detector, element)

    def conversion_megajanskys(self, element: OpticalElement) -> float:
        """Return ``photmjsr``: MJy/sr per DN/s in a flat-fielded image of a filter."""
        per_electron = _ABMAG_ZERO_MJY / self.electron_rate(element)
        return per_electron * self.nominal_gain / reference_pixel_area(self.detector)

    def raw_counts(self, linear: NDArray[Any]) -> Image:
        """Return what the converter shows, before rounding.

        Parameters
        ----------
        linear
            Linear counts (DN) including the pedestal; shape (..., n, n), or any shape that
            broadcasts with the arrays and spans all columns.
        """
        a = self.nonlinearity
        bent = 2 * linear / (1 + np.sqrt(1 + 4 * a * linear))
        # The correction changes by less than 1e-3 DN over itself, so one step inverts it.
        return np.asarray(bent - self._inl(bent), dtype=np.float32)

    def linear_counts(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Undo `raw_counts`; the result is in DN."""
        shown = raw + self._inl(raw)
        linear: NDArray[np.float64] = shown * (1 + self.nonlinearity * shown)
        return linear

    def _inl(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        correction = np.empty(raw.shape)
        for start in range(0, raw.shape[-1], CHANNEL_COLUMNS):
            columns = slice(start, start + CHANNEL_COLUMNS)
            correction[..., columns] = np.interp(
                raw[..., columns], self.inl_values, self.inl_correction[start // CHANNEL_COLUMNS]
            )
        return correction

    def _without_border(self, image: Image) -> Image:
        inner = image[self.active].copy()
        image[:] = 0
        image[self.active] = inner
        return image
