"""Regions of the sky that users cut out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.service.request_error import UsageError
from roman_assets.service.vo.parameters import Parameters


class Stencil(ABC):
    """A region of the sky."""

    @abstractmethod
    def distance(self, ra: Any, dec: Any) -> Any:
        """Return how far directions are from the region at least, deg; zero within it."""


@dataclass(frozen=True)
class Circle(Stencil):
    """All directions within a radius; ICRS, deg."""

    ra: float
    dec: float
    radius: float

    def distance(self, ra: Any, dec: Any) -> Any:
        """Return the distances from the circle, deg."""
        x, y = np.radians(dec - self.dec), np.radians(ra - self.ra)
        across = np.cos(np.radians(dec)) * np.cos(np.radians(self.dec)) * np.sin(y / 2) ** 2
        angles = 2 * np.arcsin(np.sqrt(np.clip(np.sin(x / 2) ** 2 + across, 0, 1)))
        return np.maximum(np.degrees(angles) - self.radius, 0)


@dataclass(frozen=True)
class Polygon(Stencil):
    """A convex polygon of great circles."""

    footprint: Footprint

    def distance(self, ra: Any, dec: Any) -> Any:
        """Return the distances from the farthest great circle that a direction is beyond, deg."""
        return self.footprint.distances_beyond(np.asarray(ra), np.asarray(dec))


@dataclass(frozen=True)
class Range(Stencil):
    """A range of right ascension and declination, deg."""

    west: float
    east: float
    south: float
    north: float

    def distance(self, ra: Any, dec: Any) -> Any:
        """Return the distances in declination, or along the parallel near the range, deg."""
        middle, half = (self.west + self.east) / 2, (self.east - self.west) / 2
        off = np.abs((ra - middle + 180) % 360 - 180) - half
        along = np.maximum(off, 0) * np.cos(np.radians(np.clip(np.abs(dec), 0, 90)))
        beyond = np.maximum(np.maximum(self.south - dec, dec - self.north), 0)
        return np.maximum(along, beyond)


class MultiValuedParameterError(UsageError):
    """More than one region is asked for."""


def stencil_of(parameters: Parameters) -> Stencil:
    """Return the region that a request names.

    Raises
    ------
    MultiValuedParameterError
        If there is more than one.
    UsageError
        If there is none, or it is invalid.
    """
    given = [
        (name, value) for name in ("CIRCLE", "POLYGON", "POS") for value in parameters.all(name)
    ]
    if len(given) > 1:
        raise MultiValuedParameterError("give one CIRCLE, POLYGON or POS")
    if not given:
        raise UsageError("give a CIRCLE, POLYGON or POS; /files has whole products")
    name, value = given[0]
    shape, *words = value.split() if name == "POS" else (name, *value.split())
    try:
        numbers = [float(word.replace("Inf", "inf")) for word in words]
        return _SHAPES[shape.upper()](numbers)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{name}: {value[:100]!r} is not a region of the sky") from error


def _circle(numbers: Sequence[float]) -> Circle:
    ra, dec, radius = numbers
    if not (np.isfinite(ra) and -90 <= dec <= 90 and 0 <= radius <= 180):
        raise ValueError("not on the sky")
    return Circle(ra, dec, radius)


def _polygon(numbers: Sequence[float]) -> Polygon:
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError("a polygon has three or more corners")
    return Polygon(Footprint.of_region(list(zip(numbers[::2], numbers[1::2], strict=True))))


def _range(numbers: Sequence[float]) -> Range:
    west, east, south, north = numbers
    west, east = max(west, 0.0), min(east, 360.0)
    if not (west <= east and south <= north):
        raise ValueError("not in order")
    return Range(west, east, max(south, -90.0), min(north, 90.0))


_SHAPES: Mapping[str, Callable[[Sequence[float]], Stencil]] = {
    "CIRCLE": _circle,
    "POLYGON": _polygon,
    "RANGE": _range,
}
