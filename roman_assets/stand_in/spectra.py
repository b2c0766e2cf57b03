"""Extraction of slitless spectra: all sources of an image together, row by row.

Spectra lie along columns, so that in a row each source is one profile across the dispersion at a
known place. The fluxes of all of them are solved for together, which is how those that overlap are
told apart. L2 spectral images are not aligned with the sky: the shift that makes the traces, with
the edges of the band, fit best is found first, and gives the zero point of the wavelengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erf

from roman_assets.products.observation import OpticalElement
from roman_assets.stand_in.dispersion import Dispersion, dispersion_of

Values = NDArray[np.floating[Any]]

WIDEST_SHIFT = 6.0
"""Pixels by which the pointing may be off."""
APERTURE = 4
"""Half-width, pixels, of what counts as a source's own when contamination is stated."""
_REACH = 12
_ROWS_FOR_PROFILE = 16


@dataclass(frozen=True)
class SpectralImage:
    """An L2 image of a grism or prism.

    Parameters
    ----------
    name
        Official file name.
    data, error
        e/s.
    mask
        Pixels that are not to be used.
    wcs
        Pixels to sky, as planned.
    element, detector
        What it was taken with.
    meta
        Metadata that products need.
    """

    name: str
    data: Values
    error: Values
    mask: NDArray[np.bool_]
    wcs: Any
    element: OpticalElement
    detector: str
    meta: dict[str, Any]

    @property
    def dispersion(self) -> Dispersion:
        """Where light falls."""
        return dispersion_of(self.element, self.detector)


def read_spectral_image(path: Path) -> SpectralImage:
    """Read an L2 spectral image; DN become electrons by the gain that CRDS has for it."""
    from astropy.time import Time
    from roman_datamodels import datamodels
    from roman_datamodels.dqflags import pixel
    from stpipe import crds_client

    with datamodels.open(path) as model:
        parameters = model.get_crds_parameters()
        gain_path = crds_client.get_multiple_reference_paths(parameters, ["gain"], "roman")["gain"]
        with datamodels.open(gain_path) as reference:
            gain = float(np.nanmedian(np.array(reference.data)))
        data, error = (np.array(array, dtype=float) * gain for array in (model.data, model.err))
        mask = (np.array(model.dq) & int(pixel.DO_NOT_USE)) != 0
        mask |= ~np.isfinite(data) | ~np.isfinite(error) | (error <= 0)
        meta = {
            "s_region": model.meta.wcsinfo.s_region,
            "v3yangle": float(model.meta.wcsinfo.v3yangle),
            "start_mjd": float(Time(model.meta.exposure.start_time).mjd),
            "end_mjd": float(Time(model.meta.exposure.end_time).mjd),
            "exposure_time": float(model.meta.exposure.exposure_time),
            "exposure": int(model.meta.observation.exposure),
        }
        return SpectralImage(
            path.name, np.where(mask, 0.0, data), np.where(mask, np.inf, error), mask,
            model.meta.wcs, OpticalElement(str(model.meta.instrument.optical_element)),
            str(model.meta.instrument.detector), meta,
        )  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """How light spreads across the dispersion: a core and a wing, both Gaussian.

    Parameters
    ----------
    core, wing
        Standard deviations, pixels.
    share
        Part of the light in the wing.
    """

    core: float = 0.6
    wing: float = 3.0
    share: float = 0.15

    def __call__(self, distance: Values) -> Values:
        """Give the part of the light in a pixel whose centre is so far from the source's."""
        return (1 - self.share) * _in_pixel(distance, self.core) + self.share * _in_pixel(
            distance, self.wing
        )


def _in_pixel(distance: Values, width: float) -> Values:
    scale = width * np.sqrt(2)
    share: Values = (erf((distance + 0.5) / scale) - erf((distance - 0.5) / scale)) / 2
    return share


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
        By row, e/s.
    spectra
        Of sources with at least one calibrated row, by number.
    """

    image: SpectralImage
    shift: tuple[float, float]
    profile: Profile
    background: Values
    spectra: tuple[Spectrum, ...]

    def decontaminated(self, spectrum: Spectrum) -> tuple[Values, Values, int]:
        """Give a source's 2-D spectrum without the others, its error, and its first column."""
        left, right = _columns(spectrum.x, self.image.data.shape[1])
        columns = np.arange(left, right)
        cut = self.image.data[:, left:right] - self.background[:, None]
        for other in self.spectra:
            if other is not spectrum and abs(other.x - spectrum.x) < 2 * _REACH:
                cut = cut - np.outer(other.electrons, self.profile(columns - other.x))
        return cut, self.image.error[:, left:right], left


def extract(image: SpectralImage, sources: Table) -> Extraction:
    """Extract the spectra of all sources whose first order falls on an image.

    Parameters
    ----------
    image
        The image.
    sources
        ``RA`` and ``DEC`` (ICRS, degrees).
    """
    x, y = image.wcs.invert(
        np.asarray(sources["RA"]), np.asarray(sources["DEC"]), with_bounding_box=False
    )
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    rows = np.arange(image.data.shape[0])
    dispersion = image.dispersion
    margin = WIDEST_SHIFT + _REACH
    near = (x > -margin) & (x < image.data.shape[1] + margin)
    near &= (y + dispersion.offset[-1] > 0) & (y + dispersion.offset[0] < rows[-1])
    numbers = np.flatnonzero(near)
    rough = image.data - np.median(image.data, axis=1, keepdims=True)
    shift = find_shift(image, rough, x[numbers], y[numbers])
    x, y = x + shift[0], y + shift[1]
    profile = fit_profile(image, x[numbers])
    electrons, errors, background = _solved(image, x[numbers], profile, rows)
    total = electrons @ _overlaps(x[numbers], profile)
    spectra = []
    for place, number in enumerate(numbers):
        spectrum = _spectrum(
            image, int(number), x[number], y[number], electrons[:, place], errors[:, place],
            total[:, place], profile,
        )  # fmt: skip
        if spectrum.usable.any() and 0 <= spectrum.x < image.data.shape[1]:
            spectra.append(spectrum)
    return Extraction(image, shift, profile, background, tuple(spectra))


def find_shift(image: SpectralImage, data: Values, x: Values, y: Values) -> tuple[float, float]:
    """Find the shift with which flat spectra at the sources' places explain most of an image.

    One axis after the other, in ever smaller steps: across the dispersion the traces say where they
    are, along it the edges of the band and the response.
    """
    model = _FlatSpectra(image, data, x, y)
    best = np.zeros(2)
    for reach, step in _SEARCHES:
        for axis in (0, 1):
            places = np.repeat(best[None], 2 * round(reach / step) + 1, axis=0)
            places[:, axis] += np.arange(len(places)) * step - reach
            best = max(places, key=lambda place: model.explained(place[0], place[1]))
    return float(best[0]), float(best[1])


_SEARCHES = ((WIDEST_SHIFT, 1.0), (WIDEST_SHIFT, 0.5), (1.0, 0.1), (0.1, 0.02))
"""How far and in which steps shifts are tried, pixels."""
_CORE = 3
_ALMOST_ALL = 0.9999


class _FlatSpectra:
    """What flat spectra at some places explain of an image."""

    def __init__(self, image: SpectralImage, data: Values, x: Values, y: Values) -> None:
        self._data = np.where(image.mask, 0.0, data)
        self._x, self._y = x, y
        self._rows = np.arange(data.shape[0])
        dispersion = image.dispersion
        self._offset = np.arange(np.floor(dispersion.offset[0]), dispersion.offset[-1] + 1, 0.25)
        self._response = dispersion.electrons_per_maggie(self._offset)

    def explained(self, dx: float, dy: float) -> float:
        """Give the likelihood, up to a factor, when sources are fitted one by one.

        Each has a noise of its own, which is not known: so the brightest do not decide alone.
        """
        total = 0.0
        for source_x, source_y in zip(self._x + dx, self._y + dy, strict=True):
            column = round(source_x)
            if not _CORE <= column < self._data.shape[1] - _CORE:
                continue
            columns = np.arange(column - _CORE, column + _CORE + 1)
            across = _in_pixel(columns - source_x, 0.7)
            along = np.interp(self._rows - source_y, self._offset, self._response, 0.0, 0.0)
            seen = self._data[:, columns[0] : columns[-1] + 1] @ across
            norm, signal = float((along**2).sum() * (seen**2).sum()), float(seen @ along)
            if norm > 0 and signal > 0:
                total -= float(np.log1p(-min(signal**2 / norm, _ALMOST_ALL)))
        return total


def fit_profile(image: SpectralImage, x: Values) -> Profile:
    """Find the profile with which the image is explained best."""
    rows = np.linspace(0, image.data.shape[0] - 1, _ROWS_FOR_PROFILE).astype(int)

    def misfit(parameters: Values) -> float:
        profile = _profile(parameters)
        _, _, _, chi2 = _rows_solved(image, x, profile, rows)
        return chi2

    first = [np.log(0.6), np.log(3.0), -1.5]
    found = minimize(misfit, first, method="Nelder-Mead", options={"maxiter": 40})
    return _profile(found.x)


def _profile(parameters: Values) -> Profile:
    core, wing = (float(np.exp(value)) for value in parameters[:2])
    return Profile(core, max(wing, core), float(1 / (1 + np.exp(-parameters[2]))))


def _solved(
    image: SpectralImage, x: Values, profile: Profile, rows: NDArray[np.int64]
) -> tuple[Values, Values, Values]:
    electrons, errors, background, _ = _rows_solved(image, x, profile, rows)
    return electrons, errors, background


def _rows_solved(
    image: SpectralImage, x: Values, profile: Profile, rows: NDArray[np.int64]
) -> tuple[Values, Values, Values, float]:
    """Solve rows for the light of all sources and the background; also the sum of χ²."""
    columns = np.arange(image.data.shape[1])
    shapes = profile(columns[:, None] - x[None, :])
    design = np.hstack([shapes, np.ones((len(columns), 1))])
    electrons = np.zeros((len(rows), len(x)))
    errors = np.full((len(rows), len(x)), np.inf)
    background, total = np.zeros(len(rows)), 0.0
    for place, row in enumerate(rows):
        weight = 1 / image.error[row]
        scaled, seen = design * weight[:, None], image.data[row] * weight
        normal = scaled.T @ scaled
        used = np.diag(normal) > 1e-9 * np.diag(normal).max()
        inverse = np.linalg.pinv(normal[np.ix_(used, used)])
        solution = inverse @ (scaled[:, used].T @ seen)
        total += float(((seen - scaled[:, used] @ solution) ** 2).sum())
        values, spread = np.zeros(len(used)), np.full(len(used), np.inf)
        values[used], spread[used] = solution, np.sqrt(np.clip(np.diag(inverse), 0, None))
        electrons[place], errors[place], background[place] = values[:-1], spread[:-1], values[-1]
    return electrons, errors, background, total


def _overlaps(x: Values, profile: Profile) -> Values:
    """Give what part of the light of a source (row) falls into the aperture of another (column)."""
    steps = np.arange(-APERTURE, APERTURE + 1)
    distance = np.round(x)[None, :, None] + steps - x[:, None, None]
    share: Values = profile(distance).sum(axis=-1)
    return share


def _spectrum(
    image: SpectralImage, number: int, x: float, y: float, electrons: Values, error: Values,
    total: Values, profile: Profile,
) -> Spectrum:  # fmt: skip
    dispersion = image.dispersion
    offset = np.arange(len(electrons)) - y
    own = electrons * float(_overlaps(np.array([x]), profile)[0, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        contamination = np.clip(np.nan_to_num((total - own) / total), 0.0, 1.0)
    calibrated = dispersion.calibrated(offset) & np.isfinite(error)
    factor = np.where(calibrated, dispersion.flux_per_electron(offset), np.nan)
    return Spectrum(
        number, float(x), float(y), dispersion.wavelength_at(offset), electrons, error,
        contamination, electrons * factor, np.where(calibrated, error, 0.0) * factor,
    )  # fmt: skip


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
