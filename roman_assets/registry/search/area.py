"""Regions of the sky to search in: candidates by pixels, the decision by great circles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hpgeom
import numpy as np

from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.store.product_rows import HEALPIX_NSIDE

Cone = tuple[float, float, float]
"""Right ascension, declination (ICRS) and radius, deg."""
Polygon = Sequence[tuple[float, float]] | str
"""Corners (right ascension, declination; ICRS, deg) in order, or an s_region."""


@dataclass(frozen=True)
class Area(ABC):
    """A region of the sky that products are searched in."""

    @abstractmethod
    def pixel_ranges(self, margin: float) -> tuple[Any, Any]:
        """Return half-open ranges of nested pixels with all that is nearer than `margin`, deg."""

    @abstractmethod
    def meets(self, footprint: Footprint) -> bool:
        """Return whether a footprint has a point in common with it."""


@dataclass(frozen=True)
class _ConeArea(Area):
    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        if not (-90 <= self.dec <= 90 and 0 <= self.radius <= 180 and math.isfinite(self.ra)):
            raise ValueError(
                f"cone {(self.ra, self.dec, self.radius)} is not a direction and a radius between "
                "0 and 180 deg"
            )

    def pixel_ranges(self, margin: float) -> tuple[Any, Any]:
        return _circle(self.ra, self.dec, self.radius + margin)

    def meets(self, footprint: Footprint) -> bool:
        return footprint.meets_cone(self.ra, self.dec, self.radius)


@dataclass(frozen=True)
class _PolygonArea(Area):
    region: Footprint

    def pixel_ranges(self, margin: float) -> tuple[Any, Any]:
        """Take the circle around it, or the pixels on it with their neighbours, if these are less.

        The pixels are so wide that none within the margin is skipped.
        """
        circle = _circle(*self.region.centre, self.region.radius + margin)
        width = max(_WIDTHS_OF_MARGIN * margin, self.region.radius / _WIDTHS_IN_RADIUS)
        nside = HEALPIX_NSIDE
        while nside > 1 and hpgeom.nside_to_resolution(nside) < width:
            nside //= 2
        pixels = hpgeom.query_polygon(nside, *self.region.corners.T, inclusive=True, nest=True)
        grown = _as_ranges(nside, np.append(pixels, hpgeom.neighbors(nside, pixels, nest=True)))
        return min(circle, grown, key=lambda ranges: int((ranges[1] - ranges[0]).sum()))

    def meets(self, footprint: Footprint) -> bool:
        return self.region.meets(footprint)


def _circle(ra: float, dec: float, radius: float) -> tuple[Any, Any]:
    if radius >= 180:
        return np.array([0]), np.array([hpgeom.nside_to_npixel(HEALPIX_NSIDE)])
    ranges = hpgeom.query_circle(
        HEALPIX_NSIDE, ra, dec, radius, inclusive=True, nest=True, return_pixel_ranges=True
    )
    return ranges[:, 0], ranges[:, 1]


def _as_ranges(nside: int, pixels: Any) -> tuple[Any, Any]:
    """Return wide pixels (negative ones do not count) as ranges of those the registry knows."""
    known = np.unique(pixels[pixels >= 0])
    starts = np.flatnonzero(np.diff(known, prepend=-2) > 1)
    ends = np.append(starts[1:], len(known))
    scale = (HEALPIX_NSIDE // nside) ** 2
    return known[starts] * scale, (known[ends - 1] + 1) * scale


_WIDTHS_OF_MARGIN = 3
"""Least width of pixels in margins: some are narrower at some places than at others."""
_WIDTHS_IN_RADIUS = 100
"""Largest number of pixels in a polygon's radius, which could be millions."""


def areas_of(cone: Cone | None, polygon: Polygon | None) -> list[Area]:
    """Return the regions that a search names.

    Raises
    ------
    ValueError
        If one of them is not on the sky, or the polygon is not convex or too wide.
    """
    areas: list[Area] = []
    if cone is not None:
        areas.append(_ConeArea(*cone))
    if polygon is not None:
        areas.append(_PolygonArea(Footprint.of_region(polygon)))
    return areas
