"""The tessellation of the sky into the skycells that mosaics are made on.

The rule reproduces the official sky map: 52 rings on the latitudes of a HEALPix map of
``nside = 13``, cut into projection regions, each covered by skycells of its own tangent plane.
A skycell has 5000 by 5000 pixels of 0.055 arcsec and shares a border of 100 pixels with its
neighbours. The official map has 8 million skycells; a `skymap` holds whole regions of it
around some fields, under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.simulation.telescope.scene import SkyCircle

PIXEL_SCALE = 0.055
"""Arcsec per pixel at the tangent point."""
SKYCELL_PIXELS = 5000
BORDER_PIXELS = 100

_NSIDE = 13
_RINGS = 4 * _NSIDE
_PITCH = SKYCELL_PIXELS - 2 * BORDER_PIXELS
_POLAR_RA = 135.0
_PIXELS_PER_DEGREE = 3600 / PIXEL_SCALE
_MIDDLE = SKYCELL_PIXELS / 2 - 0.5
_EDGE_SAMPLES = 181
_EDGE_SPACING = 0.05

REGION_DTYPE = np.dtype(
    [
        ("index", "<i4"), ("ra_tangent", "<f8"), ("dec_tangent", "<f8"), ("ra_min", "<f8"),
        ("ra_max", "<f8"), ("dec_min", "<f8"), ("dec_max", "<f8"), ("orientat", "<f4"),
        ("x_tangent", "<f8"), ("y_tangent", "<f8"), ("nx", "<i4"), ("ny", "<i4"),
        ("skycell_start", "<i4"), ("skycell_end", "<i4"),
    ]
)  # fmt: skip
SKYCELL_DTYPE = np.dtype(
    [
        ("name", "<U16"), ("ra_center", "<f8"), ("dec_center", "<f8"), ("orientat", "<f4"),
        ("x_tangent", "<f8"), ("y_tangent", "<f8"), ("ra_corn1", "<f8"), ("dec_corn1", "<f8"),
        ("ra_corn2", "<f8"), ("dec_corn2", "<f8"), ("ra_corn3", "<f8"), ("dec_corn3", "<f8"),
        ("ra_corn4", "<f8"), ("dec_corn4", "<f8"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class ProjectionRegion:
    """A part of the sky with one tangent plane; bounds and tangent point in degrees.

    ``ra_min`` exceeds ``ra_max`` where the region contains RA 0.
    """

    ra_tangent: float
    dec_tangent: float
    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    @property
    def polar(self) -> bool:
        """Whether it is a cap around a pole."""
        return abs(self.dec_tangent) == 90.0

    @property
    def name(self) -> str:
        """The first part of its skycells' names: ``RRR[pm]DD``."""
        sign = "p" if self.dec_tangent >= 0 else "m"
        return f"{round(self.ra_tangent):03d}{sign}{round(abs(self.dec_tangent)):02d}"

    @property
    def half_extent(self) -> tuple[float, float]:
        """Half width and half height in degrees, as laid out on the tangent plane."""
        height = (self.dec_max - self.dec_min) / 2
        if self.polar:
            return 2 * height, 2 * height
        width = (self.ra_max - self.ra_min) % 360.0 / 2
        # the side next to the equator is the longer one
        nearest = min(abs(self.dec_min), abs(self.dec_max))
        return width * float(np.cos(np.deg2rad(nearest))), height

    def contains(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions (degrees) lie in the region, edges included."""
        in_ring = (dec >= self.dec_min) & (dec <= self.dec_max)
        if self.polar:
            return in_ring
        width = (self.ra_max - self.ra_min) % 360.0
        inside: NDArray[np.bool_] = in_ring & ((ra - self.ra_min) % 360.0 <= width)
        return inside


@cache
def projection_regions() -> tuple[ProjectionRegion, ...]:
    """Return all 4058 regions, from the north pole to the south pole, eastwards in a ring."""
    edges = _ring_edges()
    regions = [ProjectionRegion(_POLAR_RA, 90.0, 0.0, 360.0, edges[0], 90.0)]
    for ring in range(1, _RINGS):
        count = 8 * min(ring, _NSIDE, _RINGS - ring)
        step = 360.0 / count
        north, south = edges[ring - 1], edges[ring]
        latitude = _latitude(ring)
        for number in range(count):
            tangent = number * step
            regions.append(
                ProjectionRegion(
                    tangent,
                    latitude,
                    (tangent - step / 2) % 360.0,
                    tangent + step / 2,
                    south,
                    north,
                )
            )
    regions.append(ProjectionRegion(_POLAR_RA, -90.0, 0.0, 360.0, -90.0, edges[-1]))
    return tuple(regions)


def skymap(fields: Iterable[SkyCircle]) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return the regions of the sky map that touch some fields, with all their skycells.

    Parameters
    ----------
    fields
        Parts of the sky that are to be covered.

    Returns
    -------
    projection_regions, skycells
        The tables of rad's ``skycells`` schema (`REGION_DTYPE`, `SKYCELL_DTYPE`). ``index``
        counts the regions of this table, since romancal finds them by it.
    """
    circles = tuple(fields)
    return tabulate(
        region
        for region in projection_regions()
        if any(_touches(region, circle) for circle in circles)
    )


def tabulate(
    regions: Iterable[ProjectionRegion],
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return the tables of `skymap` for some regions."""
    rows: list[tuple[object, ...]] = []
    tables: list[NDArray[np.void]] = []
    start = 0
    for index, region in enumerate(regions):
        cells = skycells_of(region)
        half_x, half_y = (int(half * _PIXELS_PER_DEGREE) for half in region.half_extent)
        rows.append(
            (
                index, region.ra_tangent, region.dec_tangent, region.ra_min, region.ra_max,
                region.dec_min, region.dec_max, 0.0, half_x - 0.5, half_y - 0.5,
                2 * half_x, 2 * half_y, start, start + len(cells),
            )
        )  # fmt: skip
        tables.append(cells)
        start += len(cells)
    cells = np.concatenate(tables) if tables else np.empty(0, dtype=SKYCELL_DTYPE)
    return np.array(rows, dtype=REGION_DTYPE), cells


def skycells_of(region: ProjectionRegion) -> NDArray[np.void]:
    """Return the skycells of a region (`SKYCELL_DTYPE`), row by row from the lower left."""
    edge_x, edge_y = _plane(region, *_boundary(region))
    left, right, low, high = (
        int(np.rint(extreme / _PITCH))
        for extreme in (edge_x.min(), edge_x.max(), edge_y.min(), edge_y.max())
    )
    row, column = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(low - 1, high + 2), np.arange(left - 1, right + 2), indexing="ij"
        )
    )
    used = np.zeros(row.shape, dtype=bool)
    for x, y in _corners(_PITCH):
        used |= region.contains(*_sky(region, column * _PITCH + x, row * _PITCH + y))
    row, column = row[used], column[used]
    cells = np.empty(len(row), dtype=SKYCELL_DTYPE)
    cells["name"] = [
        f"{region.name}x{50 + i:02d}y{50 + j:02d}" for i, j in zip(row, column, strict=True)
    ]
    ra, dec = _sky(region, column * _PITCH, row * _PITCH)
    cells["ra_center"], cells["dec_center"] = ra, dec
    cells["x_tangent"] = _MIDDLE - column * _PITCH
    cells["y_tangent"] = _MIDDLE - row * _PITCH
    turn = region.ra_tangent - ra
    cells["orientat"] = turn if region.polar else (turn + 180.0) % 360.0 - 180.0
    for corner, (x, y) in enumerate(_corners(SKYCELL_PIXELS), start=1):
        ra, dec = _sky(region, column * _PITCH + x, row * _PITCH + y)
        cells[f"ra_corn{corner}"], cells[f"dec_corn{corner}"] = ra, dec
    return cells


def skycells_at(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> tuple[str, ...]:
    """Return the names, sorted, of the skycells in which some positions (ICRS, degrees) lie."""
    found: set[str] = set()
    reach = SKYCELL_PIXELS / 2
    numbers = _region_numbers(ra, dec)
    for number in np.unique(numbers).tolist():
        region = projection_regions()[number]
        inside = numbers == number
        columns, rows = (
            (np.ceil((axis - reach) / _PITCH), np.floor((axis + reach) / _PITCH))
            for axis in _plane(region, ra[inside], dec[inside])
        )
        # where skycells overlap, the two ends of a range are different ones
        places = [(50 + row) * 1000 + 50 + column for row in rows for column in columns]
        name = region.name
        for place in np.unique(places).astype(int).tolist():
            found.add(f"{name}x{place // 1000:02d}y{place % 1000:02d}")
    return tuple(sorted(found))


def _region_numbers(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places in `projection_regions` of the regions that contain positions (degrees)."""
    edges, counts, first = _ring_table()
    ring = np.searchsorted(-edges, -dec)
    count = counts[ring]
    polar = count == 0
    step = 360.0 / np.maximum(count, 1)
    within = np.where(polar, 0, np.floor(ra / step + 0.5) % np.maximum(count, 1))
    numbers: NDArray[np.int64] = (first[ring] + within).astype(np.int64)
    return numbers


@cache
def _ring_table() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the southern edges of the rings, how many regions each has, and its first region."""
    rings = np.arange(_RINGS + 1)
    counts = 8 * np.minimum(rings, np.minimum(_NSIDE, _RINGS - rings))
    first = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))])
    return np.array(_ring_edges()), counts, first


def _latitude(ring: float) -> float:
    """Return the declination of a HEALPix ring, counted from the north pole."""
    cap = min(ring, _RINGS - ring)
    if cap < _NSIDE:
        z = np.copysign(1 - cap**2 / (3 * _NSIDE**2), _RINGS / 2 - ring)
    else:
        z = 4 / 3 - 2 * ring / (3 * _NSIDE)
    return float(np.rad2deg(np.arcsin(z)))


def _ring_edges() -> list[float]:
    return [_latitude(ring + 0.5) for ring in range(_RINGS)]


def _corners(size: int) -> tuple[tuple[float, float], ...]:
    half = size / 2
    return ((-half, -half), (half, -half), (half, half), (-half, half))


def _sky(
    region: ProjectionRegion, x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deproject tangent-plane pixels, counted from the tangent point, to RA, Dec (degrees)."""
    east, north = (np.deg2rad(axis / _PIXELS_PER_DEGREE) for axis in (x, y))
    sine, cosine = _tangent_latitude(region)
    meridian = cosine - north * sine
    ra = region.ra_tangent + np.rad2deg(np.arctan2(east, meridian))
    dec = np.rad2deg(np.arctan2(sine + north * cosine, np.hypot(east, meridian)))
    # the pole has no right ascension: the map gives it that of its tangent point
    at_pole = np.hypot(east, meridian) == 0
    return np.where(at_pole, region.ra_tangent, ra) % 360.0, dec


def _plane(
    region: ProjectionRegion, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Undo `_sky`."""
    longitude, latitude = np.deg2rad(ra - region.ra_tangent), np.deg2rad(dec)
    sine, cosine = _tangent_latitude(region)
    depth = sine * np.sin(latitude) + cosine * np.cos(latitude) * np.cos(longitude)
    east = np.cos(latitude) * np.sin(longitude) / depth
    north = (cosine * np.sin(latitude) - sine * np.cos(latitude) * np.cos(longitude)) / depth
    return np.rad2deg(east) * _PIXELS_PER_DEGREE, np.rad2deg(north) * _PIXELS_PER_DEGREE


def _tangent_latitude(region: ProjectionRegion) -> tuple[float, float]:
    if region.polar:
        return float(np.sign(region.dec_tangent)), 0.0
    latitude = np.deg2rad(region.dec_tangent)
    return float(np.sin(latitude)), float(np.cos(latitude))


def _boundary(region: ProjectionRegion) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions along the edge of a region, at most a few arcmin apart."""
    along = np.linspace(0.0, 1.0, _EDGE_SAMPLES)
    if region.polar:
        edge = region.dec_min if region.dec_tangent > 0 else region.dec_max
        return 360.0 * along, np.full(_EDGE_SAMPLES, edge)
    width = (region.ra_max - region.ra_min) % 360.0
    ra = region.ra_min + width * along
    dec = region.dec_min + (region.dec_max - region.dec_min) * along
    ones = np.ones(_EDGE_SAMPLES)
    return (
        np.concatenate([ra, ra, ra[0] * ones, ra[-1] * ones]),
        np.concatenate([region.dec_min * ones, region.dec_max * ones, dec, dec]),
    )


def _touches(region: ProjectionRegion, circle: SkyCircle) -> bool:
    centre = np.array([circle.ra % 360.0]), np.array([circle.dec])
    if region.contains(*centre)[0]:
        return True
    nearest = _separation(*centre, *_boundary(region)).min()
    return bool(nearest <= circle.radius + _EDGE_SPACING)


def _separation(ra: Any, dec: Any, other_ra: Any, other_dec: Any) -> NDArray[np.float64]:
    """Angles between positions, all in degrees."""
    a, b = np.deg2rad(dec), np.deg2rad(other_dec)
    half = (
        np.sin((a - b) / 2) ** 2
        + np.cos(a) * np.cos(b) * np.sin(np.deg2rad(ra - other_ra) / 2) ** 2
    )
    angle: NDArray[np.float64] = np.rad2deg(2 * np.arcsin(np.sqrt(half)))
    return angle
