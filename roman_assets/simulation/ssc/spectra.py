"""Extraction of slitless spectra.

The light of all sources of an image is told apart first (`roman_assets.simulation.ssc.trace_fit`).
Then each source is summed up by specreduce along its trace, in an image without the others, so that
the shape of the profile matters only for what falls beside the aperture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from astropy.nddata import NDData, VarianceUncertainty
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from roman_assets.simulation.ssc.alignment import (
    MOST_SOURCES,
    WIDEST_SHIFT,
    find_row_shift,
    find_shift,
)
from roman_assets.simulation.ssc.source_list import SourceList
from roman_assets.simulation.ssc.spectral_image import SpectralImage, Values
from roman_assets.simulation.ssc.trace_fit import (
    Profile,
    Solution,
    Traces,
    fit_profile,
    render,
    solve,
)

APERTURE = 7.0
"""Width, pixels, of what is summed up across the dispersion of point sources."""
APERTURE_OF_SIZE = 4.0
"""What it is wider for extended sources, over their rms size."""
PIXEL_SCALE = 0.11
"""Arcsec."""
CLEAR_SIGNAL = 10.0
"""Spectra whose median row is so far above the noise tell where the rows are."""
SMOOTHNESS = 0.02
"""Part by which spectra are expected to differ from smooth ones."""
LOCAL_ROWS = 51
"""Rows over which what is left beside a source is averaged."""
_REACH = 16
_MARGIN = 40
"""Pixels beside an image within which sources still shine into it."""


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one source in one image; one value for each row of the image.

    Parameters
    ----------
    number
        Of the source in the list of sources.
    x, y
        Its direct image would lie there, pixels.
    wavelength
        nm, NaN where there is none.
    electrons, electron_error
        e/s in the row.
    contamination
        What others put into the source's aperture, over all that is in it.
    flux, error
        W m⁻² nm⁻¹, NaN where nothing is calibrated.
    """

    number: int
    x: float
    y: float
    wavelength: Values
    electrons: Values
    electron_error: Values
    contamination: Values
    flux: Values
    error: Values

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Rows with a calibrated flux."""
        good: NDArray[np.bool_] = np.isfinite(self.flux) & np.isfinite(self.error)
        return good & (self.error > 0)

    @property
    def signal_to_noise(self) -> float:
        """Of the median row."""
        good = self.usable
        return float(np.median(self.flux[good] / self.error[good])) if good.any() else 0.0


@dataclass(frozen=True)
class Extraction:
    """All spectra of an image.

    Parameters
    ----------
    image
        The image.
    shift
        By which the direct images are off from where the WCS puts them (x, y), pixels.
    profile
        Across the dispersion.
    background
        e/s.
    spectra
        Of sources with at least one calibrated row, by number.
    """

    image: SpectralImage
    shift: tuple[float, float]
    profile: Profile
    background: Values
    spectra: tuple[Spectrum, ...]
    _separated: _Separated

    def decontaminated(self, spectrum: Spectrum) -> tuple[Values, Values, int]:
        """Return a source's 2-D spectrum without the others, its error, and its first column."""
        place = int(np.flatnonzero(self._separated.numbers == spectrum.number)[0])
        left, right = _columns(spectrum.x, self.image.data.shape[1])
        own, _ = self._separated.cut(place, left, right)
        return own, self.image.error[:, left:right], left


@dataclass(frozen=True)
class _Separated:
    """An image in which the light of the sources has been told apart."""

    image: SpectralImage
    numbers: NDArray[np.int64]
    traces: Traces
    profile: Profile
    solution: Solution
    model: Values

    def own_model(self, place: int, left: int, right: int) -> Values:
        """Draw one source alone in some columns, e/s."""
        light: Values = self.solution.electrons[:, place][:, None]
        own: Values = self.shape(place, left, right) * light
        return own

    def shape(self, place: int, left: int, right: int) -> Values:
        """Return the part of a source's light that each pixel of some columns has of its row's."""
        rows = np.arange(self.image.data.shape[0])
        edges = np.arange(left, right + 1) - 0.5 - self.traces.x[place]
        wavelength = self.traces.wavelength_of(place, rows)
        shape = self.profile.between(edges[:, None], wavelength, self.traces.size[place])
        known: Values = np.nan_to_num(shape.T)
        return known

    def aperture(self, place: int) -> float:
        """Return the width of a source's aperture, pixels."""
        return min(APERTURE + APERTURE_OF_SIZE * float(self.traces.size[place]), 2.0 * _REACH - 8.0)

    def inside(self, place: int) -> Values:
        """Return the part of a source's light that falls into its aperture, by row."""
        rows = np.arange(self.image.data.shape[0])
        half = self.aperture(place) / 2
        edges = np.array([[-half], [half]])
        wavelength = self.traces.wavelength_of(place, rows)
        (part,) = self.profile.between(edges, wavelength, self.traces.size[place])
        known: Values = np.nan_to_num(part)
        return known

    def cut(self, place: int, left: int, right: int) -> tuple[Values, Values]:
        """Return some columns without other sources and background, and what others put there.

        Pixels that are not to be used have what the fit expects there. The sky of whole rows, and
        wings that are not as the profile says, leave something beside a source: that is taken for
        smooth along the dispersion, and off as well.
        """
        own = self.own_model(place, left, right)
        others = self.model[:, left:right] - own
        seen = self.image.data[:, left:right] - self.solution.background[:, left:right] - others
        left_over = np.where(self.image.mask[:, left:right], 0.0, seen - own)
        beside = np.abs(np.arange(left, right) - self.traces.x[place]) > self.aperture(place) / 2
        # the median, since the cores of neighbours are not exactly as the profile says either
        level = np.median(left_over[:, beside], axis=1)
        level = uniform_filter1d(level, LOCAL_ROWS, mode="nearest")
        return own + left_over - level[:, None], others


def extract(image: SpectralImage, sources: SourceList) -> Extraction:
    """Extract the spectra of all sources whose first order falls on an image."""
    x, y = image.pixels(sources.ra, sources.dec)
    dispersion = image.dispersion
    margin = WIDEST_SHIFT + _MARGIN
    near = (x > -margin) & (x < image.data.shape[1] + margin)
    near &= (y + dispersion.offset[-1] > 0) & (y + dispersion.offset[0] < image.data.shape[0])
    numbers = np.flatnonzero(near)
    rough = image.data - np.median(image.data, axis=1, keepdims=True)
    brightest = numbers[np.argsort(-np.nan_to_num(sources.flux[numbers], nan=np.inf))]
    brightest = brightest[:MOST_SOURCES]
    shift = find_shift(image, rough, x[brightest], y[brightest])
    size = sources.size_along(_angle_of_columns(image)) / PIXEL_SCALE
    traces = Traces(
        x[numbers] + shift[0], y[numbers] + shift[1], size[numbers], sources.flux[numbers],
        dispersion,
    )  # fmt: skip
    profile, dx = fit_profile(image, traces)
    traces = replace(traces, x=traces.x + dx)
    rows = np.arange(image.data.shape[0])
    solution = solve(image, traces, profile, rows)
    dy = _row_shift(image, traces, solution)
    traces = replace(traces, y=traces.y + dy)
    shift = (shift[0] + dx, shift[1] + dy)
    solution = solve(image, traces, profile, rows)
    model = render(image, traces, profile, solution.electrons)
    separated = _Separated(image, numbers, traces, profile, solution, model)
    inside = np.flatnonzero(
        (traces.x > APERTURE / 2) & (traces.x < image.data.shape[1] - 1 - APERTURE / 2)
    )
    spectra = [_spectrum(separated, int(place)) for place in inside]
    return Extraction(
        image, shift, profile, solution.background,
        tuple(one for one in spectra if one.usable.any()), separated,
    )  # fmt: skip


def _row_shift(image: SpectralImage, traces: Traces, solution: Solution) -> float:
    """Find by how many rows the clearest spectra lie above their places."""
    noise = float(np.median(image.error[~image.mask])) * np.sqrt(APERTURE)
    error = np.hypot(noise, SMOOTHNESS * np.abs(solution.electrons))
    signal = np.array([
        np.median(light[light != 0] / spread[light != 0]) if light.any() else 0.0
        for light, spread in zip(solution.electrons.T, error.T, strict=True)
    ])  # fmt: skip
    inside = (traces.x > 0) & (traces.x < image.data.shape[1] - 1)
    clear = np.flatnonzero(inside & (signal > CLEAR_SIGNAL))
    clear = clear[np.argsort(-signal[clear])][:MOST_SOURCES]
    if len(clear) == 0:
        return 0.0
    chosen = replace(
        traces, x=traces.x[clear], y=traces.y[clear], size=traces.size[clear],
        flux=traces.flux[clear],
    )  # fmt: skip
    return find_row_shift(chosen, solution.electrons[:, clear], error[:, clear])


def _angle_of_columns(image: SpectralImage) -> float:
    """Return the direction of the x axis at the image's middle, degrees east of north."""
    y, x = (np.array(image.data.shape) - 1) / 2
    (ra0, dec0), (ra1, dec1) = (image.wcs(place, y) for place in (x - 1, x + 1))
    east = (float(ra1) - float(ra0)) * np.cos(np.radians(float(dec0)))
    return float(np.degrees(np.arctan2(east, float(dec1) - float(dec0))))


def _spectrum(separated: _Separated, place: int) -> Spectrum:
    image, traces = separated.image, separated.traces
    x, y = float(traces.x[place]), float(traces.y[place])
    left, right = _columns(x, image.data.shape[1])
    own, others = separated.cut(place, left, right)
    error = np.where(image.mask[:, left:right], 0.0, image.error[:, left:right])
    inside = separated.inside(place)
    electrons, spread = _summed(own, error, x - left, separated.aperture(place))
    contaminating, _ = _summed(others, None, x - left, separated.aperture(place))
    rows = np.arange(image.data.shape[0])
    dispersion, offset = image.dispersion, rows - y
    calibrated = dispersion.calibrated(offset) & (inside > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        contamination = np.clip(
            np.nan_to_num(contaminating / (contaminating + electrons)), 0.0, 1.0
        )
        electrons, spread = electrons / inside, spread / inside
        factor = np.where(calibrated, dispersion.flux_per_electron(offset), np.nan)
    return Spectrum(
        int(separated.numbers[place]), x, y, dispersion.wavelength_at(offset), electrons, spread,
        contamination, electrons * factor, spread * factor,
    )  # fmt: skip


def _summed(pixels: Values, error: Values | None, x: float, width: float) -> tuple[Values, Values]:
    """Sum the aperture up row by row; gives the sums and their errors."""
    from specreduce.extract import BoxcarExtract
    from specreduce.tracing import FlatTrace

    spread = np.zeros(pixels.shape) if error is None else error
    image = NDData(
        pixels.T, unit=u.electron / u.s, mask=np.zeros(pixels.T.shape, dtype=bool),
        uncertainty=VarianceUncertainty(spread.T**2),
    )  # fmt: skip
    spectrum = BoxcarExtract(image, FlatTrace(image, x), width=width)()
    return np.asarray(spectrum.flux.value), np.sqrt(np.asarray(spectrum.uncertainty.array))


def combined(spectra: list[Spectrum], wavelength: Values) -> tuple[Values, Values]:
    """Combine spectra of a source onto one grid of wavelengths (nm), weighted by their errors.

    Returns
    -------
    flux, error : ndarray
        W m⁻² nm⁻¹, NaN where no spectrum reaches.
    """
    total, weight = np.zeros(len(wavelength)), np.zeros(len(wavelength))
    for one in spectra:
        good = one.usable
        order = np.argsort(one.wavelength[good])
        at, flux, error = (array[good][order] for array in (one.wavelength, one.flux, one.error))
        if len(at) < 2:
            continue
        here = (wavelength >= at[0]) & (wavelength <= at[-1])
        inverse = 1 / np.interp(wavelength[here], at, error) ** 2
        total[here] += inverse * np.interp(wavelength[here], at, flux)
        weight[here] += inverse
    seen = weight > 0
    safe = np.where(seen, weight, 1.0)
    return np.where(seen, total / safe, np.nan), np.where(seen, 1 / np.sqrt(safe), np.nan)


def _columns(x: float, width: int) -> tuple[int, int]:
    left = max(round(x) - _REACH, 0)
    return left, min(round(x) + _REACH + 1, width)
