"""Footprints on the sky as a drawing (SVG) that needs no JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from roman_assets.registry.catalog.footprint import Footprint

SIDE = 640
_WIDEST = 30.0
"""Largest angle between places that are drawn together, deg."""
_ROOM = 1.1


@dataclass(frozen=True)
class Drawing:
    """A tangential projection of footprints, north up and east to the left.

    Parameters
    ----------
    side
        Width and height, in the units of the polygons.
    polygons
        Name and link of each product, and the corners as SVG has them.
    centre
        Right ascension and declination, ICRS, deg.
    width
        Of the drawing, deg.
    """

    side: int
    polygons: tuple[tuple[str, str, str], ...]
    centre: tuple[float, float]
    width: float


def drawing_of(rows: Iterable[Mapping[str, Any]], base: str) -> Drawing | None:
    """Draw the footprints of products.

    Parameters
    ----------
    rows
        With ``name`` and ``footprint`` (an s_region).
    base
        Path before those of pages.

    Returns
    -------
    Drawing or None
        None if there are no footprints, or if they are too far apart for one drawing.
    """
    placed = [
        (str(row["name"]), _vectors(Footprint.parse(row["footprint"]).corners))
        for row in rows
        if row.get("footprint")
    ]
    if not placed:
        return None
    middle = np.concatenate([corners for _, corners in placed]).mean(axis=0)
    length = float(np.linalg.norm(middle))
    if length == 0:
        return None
    middle = middle / length
    if any((corners @ middle).min() < np.cos(np.radians(_WIDEST / 2)) for _, corners in placed):
        return None
    flat = [(name, _projected(corners, middle)) for name, corners in placed]
    reach = max(float(np.abs(points).max()) for _, points in flat) * _ROOM
    polygons = tuple(
        (name, f"{base}/products/{quote(name)}", _corners(points, reach)) for name, points in flat
    )
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])) % 360, np.degrees(np.arcsin(middle[2]))
    return Drawing(SIDE, polygons, (float(ra), float(dec)), float(2 * np.degrees(reach)))


def _vectors(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    ra, dec = np.radians(corners).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _projected(
    vectors: npt.NDArray[np.float64], middle: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return tangential coordinates: to the west and to the south, rad."""
    pole = np.array([0.0, 0.0, 1.0]) if abs(middle[2]) < 1 else np.array([1.0, 0.0, 0.0])
    east = np.cross(pole, middle)
    east /= np.linalg.norm(east)
    north = np.cross(middle, east)
    depth = vectors @ middle
    return np.stack([-(vectors @ east) / depth, -(vectors @ north) / depth], axis=-1)


def _corners(points: npt.NDArray[np.float64], reach: float) -> str:
    scaled = (points / reach + 1) * SIDE / 2
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled)
