"""The simulated sky: real Gaia stars, simulated fainter stars and galaxies, and their truth.

Real stars come from romanisim's Gaia extract (about one degree around RA 270, Dec 66, epoch
2027-06-01; the same brightness in all filters). There are between none and ten of them in a
512x512 window of a detector, too few for an astrometric fit. So stars are simulated all over the
sky, at a density well above the true one at that Galactic latitude, and marked as what they are in
the truth table; the astrometric reference catalogue holds both.

In the fields of the Galactic Bulge survey the stars of the Bulge come on top, as many as are
expected there: one for every 25 pixels. Of these the catalogue has the brightest only, as Gaia does
where there are so many.

Simulated sources are drawn HEALPix cell by HEALPix cell from a seed and the cell's number, so that
a place on the sky looks the same whatever part of it is asked for, in whatever order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib import resources

import hpgeom
import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from roman_assets.products.observation import OpticalElement

PIVOT_WAVELENGTH: Mapping[OpticalElement, float] = {
    OpticalElement.F062: 0.62, OpticalElement.F087: 0.87, OpticalElement.F106: 1.06,
    OpticalElement.F129: 1.29, OpticalElement.F146: 1.46, OpticalElement.F158: 1.58,
    OpticalElement.F184: 1.84, OpticalElement.F213: 2.13,
}  # fmt: skip
"""Micrometres; the filters are named after them."""

FILTERS: tuple[OpticalElement, ...] = tuple(PIVOT_WAVELENGTH)

GAIA_EXTRACT = "gaia-270-66-2027-06-01.ecsv"

STAR_DENSITY = 30.0
"""Simulated stars per square arcminute."""
STAR_MAGNITUDES = (18.0, 22.0)
"""Range of their AB magnitudes in F158, evenly filled."""
STAR_TEMPERATURES = (3500.0, 7000.0)
"""Range of their temperatures in K; black bodies."""
GALAXY_DENSITY = 12.0
"""Galaxies per square arcminute."""
GALAXY_MAGNITUDES = (20.5, 24.0)
"""Range of their AB magnitudes in F158."""
SERSIC_INDICES = (1.0, 2.5, 4.0)
REFERENCE_LIMIT = 21.5
"""Faintest AB magnitude in F158 of the astrometric reference catalogue."""

BULGE_COUNTS: tuple[tuple[float, float], ...] = ((14.0, 39.0), (15.4, 99.0), (21.0, 3970.0),
                                                 (23.0, 11900.0))  # fmt: skip
"""Pairs (AB magnitude in F158, stars per square arcminute down to it), the first extrapolated.

10^6, 4 10^7 and 1.2 10^8 stars with H < 14, 19.6 and 21.6 (Vega) in 2.8 square degrees of the
microlensing survey (Gould, Huber, Penny & Stello 2015, JKAS 48, 93); H(AB) = H + 1.39. Brighter
and fainter stars are left out.
"""
BULGE_REFERENCE_LIMIT = 18.0
"""Faintest AB magnitude in F158 of Bulge stars in the astrometric reference catalogue.

Some 530 per square arcminute are between the first limit of `BULGE_COUNTS` and this one, twice what
Gaia can follow in a crowded field (1,050,000 a square degree, Gaia Collaboration 2016, A&A 595,
A1). Half of them saturate in a minute, and romancal does not deblend by default: with those to
magnitude 17 alone its alignment took a wrong match and was off by a quarter of a pixel.
"""

_CELL_NSIDE = 1024
_CELL_AREA = float(hpgeom.nside_to_pixel_area(_CELL_NSIDE, degrees=True)) * 3600
"""Square arcminutes."""
_POSITION_NSIDE = 2**29
_H_C_OVER_K = 14387.77
"""h c / k in micrometre kelvin."""


class SourceKind(StrEnum):
    """What a source of the truth table is."""

    GAIA = "gaia"
    STAR = "simulated_star"
    BULGE = "bulge_star"
    GALAXY = "galaxy"


@dataclass(frozen=True)
class SkyCircle:
    """A circle on the sky: centre (ICRS) and radius, degrees."""

    ra: float
    dec: float
    radius: float


BULGE_FIELD = SkyCircle(268.073, -29.229, 1.5)
"""Where the Bulge is: around the fields of its survey, at Galactic longitude 0.5, latitude -1.4."""


@dataclass(frozen=True)
class Scene:
    """The simulated sky that belongs to a seed.

    Parameters
    ----------
    seed
        Decides every simulated source; Gaia stars are always the same.
    """

    seed: int

    def sources(self, circles: Iterable[SkyCircle]) -> Table:
        """Return the truth table of all sources within any of some circles.

        Parameters
        ----------
        circles
            Parts of the sky; overlaps do no harm.

        Returns
        -------
        Table
            A row per source: ``name``, ``kind`` (`SourceKind`), ``ra``, ``dec`` (ICRS, degrees,
            epoch of the extract), total flux in maggies for each of `FILTERS`, and for galaxies
            ``sersic_index``, ``half_light_radius`` (arcsec, along the major axis),
            ``axis_ratio`` and ``position_angle`` (degrees east of north); zeros for stars.
        """
        return self._within(circles, BULGE_COUNTS[-1][0])

    def reference_stars(self, circles: Iterable[SkyCircle]) -> Table:
        """Return the astrometric reference catalogue for parts of the sky.

        Returns
        -------
        Table
            ``RA`` and ``DEC`` (ICRS, degrees) and ``kind`` of stars brighter than
            `REFERENCE_LIMIT`, or `BULGE_REFERENCE_LIMIT`.
        """
        sources = self._within(circles, BULGE_REFERENCE_LIMIT)
        stars = sources[sources["kind"] != str(SourceKind.GALAXY)]
        stars = stars[stars["F158"] > 10 ** (-0.4 * REFERENCE_LIMIT)]
        return Table({"RA": stars["ra"], "DEC": stars["dec"], "kind": stars["kind"]})

    def _within(self, circles: Iterable[SkyCircle], bulge_limit: float) -> Table:
        circles = tuple(circles)
        parts = [_gaia_stars()]
        for cell in map(int, _cells(circles)):
            parts += _simulated(self.seed, cell)
            parts += _bulge_stars(self.seed, cell, bulge_limit)
        filled = [part for part in parts if len(part)]
        table = vstack(filled, join_type="exact", metadata_conflicts="silent")
        return table[_inside(table["ra"], table["dec"], circles)]


def _simulated(seed: int, cell: int) -> tuple[Table, Table]:
    rng = np.random.default_rng([seed, cell])
    nstars, ngalaxies = (
        int(rng.poisson(density * _CELL_AREA)) for density in (STAR_DENSITY, GALAXY_DENSITY)
    )
    return _stars(rng, cell, nstars), _galaxies(rng, cell, ngalaxies)


def _bulge_stars(seed: int, cell: int, limit: float) -> list[Table]:
    """Return the Bulge stars of a cell there: those of the catalogue, and the others."""
    ra, dec = hpgeom.pixel_to_angle(_CELL_NSIDE, np.array([cell]))
    if not _inside(ra, dec, (BULGE_FIELD,)).all():
        return []
    ends = (BULGE_COUNTS[0][0], BULGE_REFERENCE_LIMIT, BULGE_COUNTS[-1][0])
    return [
        _bulge_layer(seed, cell, bright, faint)
        for bright, faint in itertools.pairwise(ends)
        if faint <= limit
    ]


@lru_cache(maxsize=16)
def _bulge_layer(seed: int, cell: int, bright: float, faint: float) -> Table:
    rng = np.random.default_rng([seed, cell, round(10 * bright)])
    magnitudes, counts = np.array(BULGE_COUNTS).T
    first, last = np.interp([bright, faint], magnitudes, np.log10(counts))
    count = int(rng.poisson((10**last - 10**first) * _CELL_AREA))
    ra, dec = _positions(rng, cell, count)
    drawn = np.log10(rng.uniform(10**first, 10**last, count))
    flux = 10 ** (-0.4 * np.interp(drawn, np.log10(counts), magnitudes))
    temperature = rng.uniform(*STAR_TEMPERATURES, count)
    names = [f"bulge-{cell}-{faint:.0f}-{i}" for i in range(count)]
    return _table(SourceKind.BULGE, names, ra, dec, _black_body(flux, temperature))


def _cells(circles: tuple[SkyCircle, ...]) -> NDArray[np.int64]:
    cells = [
        hpgeom.query_circle(_CELL_NSIDE, c.ra, c.dec, c.radius, inclusive=True) for c in circles
    ]
    return np.unique(np.concatenate(cells)) if cells else np.empty(0, dtype=np.int64)


def _inside(ra: object, dec: object, circles: tuple[SkyCircle, ...]) -> NDArray[np.bool_]:
    vectors = hpgeom.angle_to_vector(ra, dec)
    inside = np.zeros(len(vectors), dtype=bool)
    for circle in circles:
        centre = hpgeom.angle_to_vector(circle.ra, circle.dec)
        chord = np.linalg.norm(vectors - centre, axis=1)
        inside |= chord <= 2 * np.sin(np.radians(circle.radius) / 2)
    return inside


@cache
def _gaia_stars() -> Table:
    path = resources.files("romanisim") / "data" / GAIA_EXTRACT
    extract = Table.read(str(path), format="ascii.ecsv")
    rows = np.arange(len(extract))
    usable = np.isfinite(extract["ra"]) & np.isfinite(extract["dec"]) & (extract["F158"] > 0)
    extract, rows = extract[usable], rows[usable]
    fluxes = {str(f): np.asarray(extract[str(f)], dtype=float) for f in FILTERS}
    names = [f"gaia-{row:05d}" for row in rows]
    return _table(
        SourceKind.GAIA, names, np.asarray(extract["ra"]), np.asarray(extract["dec"]), fluxes
    )


def _positions(
    rng: np.random.Generator, cell: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # A random pixel of a 0.4 mas grid inside the cell is uniform on the sphere.
    children = (_POSITION_NSIDE // _CELL_NSIDE) ** 2
    ra, dec = hpgeom.pixel_to_angle(
        _POSITION_NSIDE, cell * children + rng.integers(0, children, count)
    )
    return np.atleast_1d(ra), np.atleast_1d(dec)


def _stars(rng: np.random.Generator, cell: int, count: int) -> Table:
    ra, dec = _positions(rng, cell, count)
    flux = 10 ** (-0.4 * rng.uniform(*STAR_MAGNITUDES, count))
    temperature = rng.uniform(*STAR_TEMPERATURES, count)
    names = [f"star-{cell}-{i}" for i in range(count)]
    return _table(SourceKind.STAR, names, ra, dec, _black_body(flux, temperature))


def _galaxies(rng: np.random.Generator, cell: int, count: int) -> Table:
    ra, dec = _positions(rng, cell, count)
    flux = 10 ** (-0.4 * rng.uniform(*GALAXY_MAGNITUDES, count))
    slope = rng.uniform(0.0, 2.0, count)
    fluxes = {
        str(f): flux * (wavelength / PIVOT_WAVELENGTH[OpticalElement.F158]) ** slope
        for f, wavelength in PIVOT_WAVELENGTH.items()
    }
    names = [f"galaxy-{cell}-{i}" for i in range(count)]
    table = _table(SourceKind.GALAXY, names, ra, dec, fluxes)
    table["sersic_index"] = rng.choice(SERSIC_INDICES, count)
    table["half_light_radius"] = rng.uniform(0.12, 0.5, count)
    table["axis_ratio"] = rng.uniform(0.4, 1.0, count)
    table["position_angle"] = rng.uniform(0.0, 180.0, count)
    return table


def _black_body(
    flux: NDArray[np.float64], temperature: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Scale fluxes per unit frequency from F158 to all filters along a Planck curve."""

    def planck(wavelength: float) -> NDArray[np.float64]:
        return wavelength**-3 / np.expm1(_H_C_OVER_K / (wavelength * temperature))

    reference = planck(PIVOT_WAVELENGTH[OpticalElement.F158])
    return {str(f): flux * planck(w) / reference for f, w in PIVOT_WAVELENGTH.items()}


def _table(
    kind: SourceKind,
    names: list[str],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    fluxes: Mapping[str, NDArray[np.float64]],
) -> Table:
    zeros = np.zeros(len(names))
    return Table(
        {
            "name": np.array(names, dtype="U32"),
            "kind": np.full(len(names), str(kind), dtype="U16"),
            "ra": ra,
            "dec": dec,
            **fluxes,
            "sersic_index": zeros,
            "half_light_radius": zeros.copy(),
            "axis_ratio": zeros.copy(),
            "position_angle": zeros.copy(),
        }
    )
