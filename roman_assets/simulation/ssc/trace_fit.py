"""All spectra of an image at once, row by row: which light is whose.

Spectra lie along columns, so that in a row each source is one profile across the dispersion at a
known place. The fluxes of all of them are solved for together, which is how those that overlap are
told apart. Where a direct image gives the brightness of a source, a flat spectrum of that
brightness, give or take as much again, is what is expected: it settles sources in one and the same
column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.optimize import minimize
from scipy.special import erf

from roman_assets.simulation.ssc.dispersion import Dispersion
from roman_assets.simulation.ssc.spectral_image import SpectralImage, Values

EXPECTED_SCATTER = 1.0
"""Of a source's flux in a row around a flat spectrum, over that."""
_ROWS_FOR_PROFILE = 10
_RIDGE = 1e-7
"""Separates two sources of unknown brightness in one column."""
_BACKGROUND_TERMS = 3
"""Spectral images are not flat-fielded, so the sky is not flat along a row."""
_WORST_MATCH = 0.02
"""Part of a pixel's light to which the profile is right."""


WING, WING_SHARE = 1.95, 0.28
"""Of the optical model of the telescope (galsim), to 1 % of the light in 7 pixels, 0.76 to 1.93 µm.

They are not fitted: in an image, wings cannot be distinguished from a core that is not quite
Gaussian.
"""


@dataclass(frozen=True)
class Profile:
    """How light spreads across the dispersion: a Gaussian core in Lorentzian wings.

    A telescope's PSF falls with the third power of the distance, so its sum along the dispersion
    with the second, as a Lorentzian does; it grows with the wavelength.

    Parameters
    ----------
    blur
        Standard deviation of the core at short wavelengths, pixels.
    spread
        What is added to it in quadrature, pixels by micrometre.
    wing
        Half-width at half-maximum of the wings, pixels by micrometre.
    share
        Part of the light in the wings.
    """

    blur: float = 0.4
    spread: float = 0.35
    wing: float = WING
    share: float = WING_SHARE

    def between(self, edges: Values, wavelength: Values, size: Values) -> Values:
        """Return the parts of the light between edges.

        Parameters
        ----------
        edges
            Distances from the source, ascending along the first axis, pixels.
        wavelength
            nm; broadcasts with the edges.
        size
            Rms size of the source itself across the dispersion, pixels; broadcasts as well.
        """
        microns = wavelength / 1e3
        core = np.sqrt(self.blur**2 + (self.spread * microns) ** 2 + size**2)
        wing = np.hypot(self.wing * microns, size)
        below: Values = (1 - self.share) * erf(edges / (core * np.sqrt(2))) / 2
        below = below + self.share * np.arctan(edges / wing) / np.pi
        return np.diff(below, axis=0)


def in_pixel(distance: Values, width: Values) -> Values:
    """Return the part of a Gaussian in pixels whose centres are so far from its own."""
    scale = width * np.sqrt(2)
    share: Values = (erf((distance + 0.5) / scale) - erf((distance - 0.5) / scale)) / 2
    return share


@dataclass(frozen=True)
class Traces:
    """Where the spectra of some sources are.

    Parameters
    ----------
    x, y
        Where their direct images would be, pixels.
    size
        Their rms sizes across the dispersion without the PSF, pixels.
    flux
        Maggies, NaN where nobody knows.
    dispersion
        Of the image.
    """

    x: Values
    y: Values
    size: Values
    flux: Values
    dispersion: Dispersion

    def wavelength(self, rows: NDArray[np.int64]) -> Values:
        """Return wavelengths (nm) by row and source, NaN beyond the order."""
        return self.dispersion.wavelength_at(rows[:, None] - self.y[None, :])

    def wavelength_of(self, place: int, rows: NDArray[np.int64]) -> Values:
        """Return wavelengths (nm) by row of one source, NaN beyond the order."""
        return self.dispersion.wavelength_at(rows - self.y[place])

    def expected(self, rows: NDArray[np.int64]) -> Values:
        """Return e/s by row and source of flat spectra as bright as direct images say."""
        return self.flux * self.dispersion.electrons_per_maggie(rows[:, None] - self.y[None, :])


@dataclass(frozen=True)
class Solution:
    """The light of each source in some rows.

    Parameters
    ----------
    electrons
        e/s by row and source.
    background
        By row and column, e/s.
    chi2
        Of all rows together.
    """

    electrons: Values
    background: Values
    chi2: float


def fit_profile(image: SpectralImage, traces: Traces) -> tuple[Profile, float]:
    """Find the profile, and by how many columns sources are beside their places.

    Returns
    -------
    Profile, float
        With which the image is explained best.
    """
    rows = np.linspace(0, image.data.shape[0] - 1, _ROWS_FOR_PROFILE).astype(int)

    def misfit(parameters: Values) -> float:
        moved = replace(traces, x=traces.x + parameters[-1])
        return solve(image, moved, _profile(parameters), rows).chi2

    first = Profile()
    start = np.array([np.log(first.blur), np.log(first.spread), 0.0])
    found = minimize(
        misfit, start, method="Nelder-Mead",
        options={
            "maxiter": 60, "xatol": 0.01, "fatol": 1.0,
            "initial_simplex": np.vstack([start, start + np.diag(_FIRST_STEPS)]),
        },
    )  # fmt: skip
    return _profile(found.x), float(found.x[-1])


_FIRST_STEPS = (0.3, 0.3, 0.3)


def _profile(parameters: Values) -> Profile:
    blur, spread = np.exp(parameters[:2])
    return Profile(float(blur), float(spread))


def solve(
    image: SpectralImage, traces: Traces, profile: Profile, rows: NDArray[np.int64]
) -> Solution:
    """Solve rows for the light of all sources and the background."""
    edges = np.arange(image.data.shape[1] + 1) - 0.5
    wavelength, expected = traces.wavelength(rows), traces.expected(rows)
    electrons = np.zeros((len(rows), len(traces.x)))
    background, chi2 = np.zeros((len(rows), image.data.shape[1])), 0.0
    for place, row in enumerate(rows):
        seen, shapes = _shapes(traces, profile, wavelength[place], edges)
        solution, background[place], misfit = _solve_row(
            image.data[row], image.error[row], shapes, expected[place, seen]
        )
        electrons[place, seen] = solution
        chi2 += misfit
    return Solution(electrons, background, chi2)


def _shapes(
    traces: Traces, profile: Profile, wavelength: Values, edges: Values
) -> tuple[NDArray[np.int64], Values]:
    """Return the sources that have light in a row, and its parts by column and source.

    Parameters
    ----------
    traces, profile
        Of all sources.
    wavelength
        In the row, by source, nm.
    edges
        Of the columns, pixels.
    """
    seen = np.flatnonzero(np.isfinite(wavelength))
    shapes = profile.between(edges[:, None] - traces.x[seen], wavelength[seen], traces.size[seen])
    return seen, shapes


def _solve_row(
    data: Values, error: Values, shapes: Values, expected: Values
) -> tuple[Values, Values, float]:
    """Return the light of each source, the background, and the sum of squares over the errors."""
    along = np.linspace(-1, 1, len(data))
    design = np.hstack([shapes, np.vander(along, _BACKGROUND_TERMS, increasing=True)])
    # Where the profile's own errors are larger than the noise, they decide on the weight.
    error = np.hypot(error, _WORST_MATCH * np.clip(data - np.median(data), 0, None))
    weighted, target = design / error[:, None], data / error
    normal, right = weighted.T @ weighted, weighted.T @ target
    scatter = np.where(expected > 0, EXPECTED_SCATTER * np.nan_to_num(expected, nan=1.0), np.inf)
    places = np.arange(shapes.shape[1])
    normal[places, places] += scatter**-2
    right[places] += np.where(np.isfinite(scatter), np.nan_to_num(expected) / scatter**2, 0.0)
    scale = np.sqrt(np.diag(normal))
    normal /= np.outer(scale, scale)
    normal[np.diag_indices_from(normal)] += _RIDGE
    solution = linalg.cho_solve(linalg.cho_factor(normal), right / scale) / scale
    misfit = float(((target - weighted @ solution) ** 2).sum())
    nsources = shapes.shape[1]
    return solution[:nsources], design[:, nsources:] @ solution[nsources:], misfit


def render(image: SpectralImage, traces: Traces, profile: Profile, electrons: Values) -> Values:
    """Draw the spectra of all sources as they were solved for, e/s, without background."""
    edges = np.arange(image.data.shape[1] + 1) - 0.5
    rows = np.arange(image.data.shape[0])
    wavelength = traces.wavelength(rows)
    drawn = np.zeros(image.data.shape)
    for row in rows:
        seen, shapes = _shapes(traces, profile, wavelength[row], edges)
        drawn[row] = shapes @ electrons[row, seen]
    return drawn
