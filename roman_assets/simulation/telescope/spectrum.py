"""True spectra of the simulated sources: continua through their fluxes in the filters, and lines.

Continua follow a power law from filter to filter, so that spectra and images agree: black bodies
for simulated stars, power laws for galaxies, flat ones for Gaia stars. Lines are there to tell
wavelengths by. All stars have the Paschen lines of an A star, whatever their temperature; galaxies
shine in H-alpha and [O III], at redshifts at which the grism sees H-alpha. Images are without
lines, which would add some percent to a galaxy in one or two filters.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from astropy.table import Row, Table
from numpy.typing import NDArray

from roman_assets.simulation.telescope.scene import FILTERS, PIVOT_WAVELENGTH, SourceKind

PASCHEN_LINES = (954.86, 1005.21, 1094.11, 1282.16)
"""Vacuum wavelengths (nm) of Paschen ε to β."""
ABSORBED_WIDTHS = (0.6, 1.2)
"""Range of the equivalent width (nm) of each of them, evenly filled."""
ABSORPTION_SIGMA = 1.5
"""Their standard deviation, nm."""
EMISSION_LINES: tuple[tuple[float, float], ...] = ((656.46, 1.0), (500.82, 0.5))
"""H-alpha and [O III]: vacuum wavelengths (nm) at rest, and equivalent widths over H-alpha's."""
EMITTED_WIDTHS = (5.0, 25.0)
"""Range of the equivalent width (nm, at rest) of H-alpha, evenly filled."""
REDSHIFTS = (0.6, 1.85)
"""Range of the redshifts of galaxies, evenly filled."""
VELOCITY_DISPERSION = 150.0
"""Of the gas in galaxies, km/s."""

_LIGHT_SPEED = 299792.458


def with_lines(sources: Table, seed: int) -> Table:
    """Return the truth table with what a spectrograph sees more than a camera.

    Parameters
    ----------
    sources
        As from `roman_assets.simulation.telescope.scene.Scene.sources`.
    seed
        Of the simulated sky; with a source's name it decides its lines.

    Returns
    -------
    Table
        With ``redshift`` (0 for stars) and ``line_width``: the equivalent width at rest, nm, of
        H-alpha of galaxies (emitted, positive) and each Paschen line of stars (absorbed, negative).
    """
    described = sources.copy()
    galaxy = np.asarray(sources["kind"] == str(SourceKind.GALAXY))
    lots = np.array([_lots(seed, str(name)) for name in sources["name"]]).reshape(-1, 2)
    described["redshift"] = np.where(galaxy, np.interp(lots[:, 0], (0, 1), REDSHIFTS), 0.0)
    described["line_width"] = np.where(
        galaxy,
        np.interp(lots[:, 1], (0, 1), EMITTED_WIDTHS),
        -np.interp(lots[:, 1], (0, 1), ABSORBED_WIDTHS),
    )
    return described


def _lots(seed: int, name: str) -> tuple[float, float]:
    first, second = np.random.default_rng([seed, crc32(name.encode()), 37]).random(2)
    return float(first), float(second)


def spectral_flux(source: Row, wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the flux of a source by wavelength.

    Parameters
    ----------
    source
        A row of `with_lines`.
    wavelength
        Vacuum, nm.

    Returns
    -------
    ndarray
        Maggies (AB), that is in units of 3631 Jy, of the whole source.
    """
    pivots = np.log([PIVOT_WAVELENGTH[element] * 1e3 for element in FILTERS])
    filters = np.log([float(source[str(element)]) for element in FILTERS])
    order = np.argsort(pivots)
    continuum = np.exp(np.interp(np.log(wavelength), pivots[order], filters[order]))
    lines = np.ones(len(wavelength))
    width = float(source["line_width"])
    for centre, sigma, share in _lines(source):
        profile = np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        lines += width * share * profile
    flux: NDArray[np.float64] = continuum * lines
    return flux


def _lines(source: Row) -> list[tuple[float, float, float]]:
    """Return centre and standard deviation (nm) of lines, and observed over stated widths."""
    if source["kind"] != str(SourceKind.GALAXY):
        return [(line, ABSORPTION_SIGMA, 1.0) for line in PASCHEN_LINES]
    stretch = 1 + float(source["redshift"])
    return [
        (line * stretch, line * stretch * VELOCITY_DISPERSION / _LIGHT_SPEED, share * stretch)
        for line, share in EMISSION_LINES
    ]
