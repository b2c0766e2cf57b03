"""Footprints on the sky: polygons of great circles in ICRS, as rad's ``s_region`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9

WIDEST = 60.0
"""How far the corners of a region to search in may be from its centre, deg."""

WIDEST_PRODUCT = 1.0
"""How far the corners of a product may be from its centre, deg.

The corners of the field of view, 0.8 by 0.4 deg, are 0.45 deg from its centre. The exposures of
one visit differ by dithers of some arcminutes, and no product covers more than one visit's field.
"""

MOST_CORNERS = 256
"""Corners a polygon may have."""

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Footprint:
    """A convex spherical polygon, smaller than a hemisphere.

    Parameters
    ----------
    corners
        Right ascension and declination, shape (N, 2), ICRS, deg, N ≥ 3, in order around it.
    """

    corners: Vectors

    @classmethod
    def parse(cls, s_region: str) -> Footprint:
        """Read ``POLYGON ICRS ra dec ra dec ...``, in a time linear in its length.

        Raises
        ------
        ValueError
            If the text is not a polygon of 3 to `MOST_CORNERS` directions.
        """
        shape, *words = s_region.split()[: 2 * MOST_CORNERS + 3] or [""]
        numbers = words[1:] if words and words[0].upper() == "ICRS" else words
        if shape.upper() != "POLYGON" or len(numbers) < 6 or len(numbers) % 2:
            raise ValueError(f"{_shown(s_region)} is not an s_region polygon")
        if len(numbers) > 2 * MOST_CORNERS:
            raise ValueError(f"{_shown(s_region)} has more than {MOST_CORNERS} corners")
        try:
            corners = np.array([_number(word) for word in numbers]).reshape(-1, 2)
        except ValueError as error:
            raise ValueError(f"{_shown(s_region)} is not an s_region polygon: {error}") from error
        _require_on_sky(corners, _shown(s_region))
        return cls(corners)

    @classmethod
    def of_product(cls, s_region: str) -> Footprint:
        """Read the footprint that a product states.

        Raises
        ------
        ValueError
            If it is not a polygon, has no area or edges that cross, or has a corner more than
            `WIDEST_PRODUCT` from its centre.
        """
        footprint = cls.parse(s_region)
        normals = _inward_normals(_unit_vectors(footprint.corners))
        if len(normals) < 3:
            raise ValueError(f"{_shown(s_region)} has fewer than three different corners")
        if not footprint.radius <= WIDEST_PRODUCT:  # also for NaN: corners opposite to each other
            raise ValueError(
                f"{_shown(s_region)} has corners {footprint.radius:.4g} deg from its centre; "
                f"no product is wider than {WIDEST_PRODUCT:g} deg"
            )
        if not footprint.meets(footprint):
            raise ValueError(f"{_shown(s_region)} has no area, or edges that cross")
        return footprint

    @property
    def centre(self) -> tuple[float, float]:
        """The direction of the corners' mean, right ascension and declination, ICRS, deg."""
        x, y, z = _normalised(_unit_vectors(self.corners).mean(axis=0))
        return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arcsin(z)))

    @property
    def radius(self) -> float:
        """The angle from the centre to the farthest corner, deg."""
        centre = _unit_vectors(np.array([self.centre]))[0]
        return float(np.degrees(_angles(_unit_vectors(self.corners), centre).max()))

    @classmethod
    def of_region(cls, corners: Sequence[tuple[float, float]] | str) -> Footprint:
        """Take a region of the sky that somebody searches in.

        Parameters
        ----------
        corners
            Right ascension and declination (ICRS, deg) of three or more corners in order, or
            ``POLYGON ICRS ra dec ra dec ...``.

        Raises
        ------
        ValueError
            If it is not a convex polygon, or has a corner more than `WIDEST` from its centre.
        """
        region = cls.parse(corners) if isinstance(corners, str) else cls(_pairs(corners))
        directions = region.corners
        source = _shown(corners)
        _require_on_sky(directions, f"polygon {source}")
        closed_twice = np.array_equal(directions[0], directions[-1])
        region = cls(directions[:-1]) if closed_twice and len(directions) > 3 else region
        if not region._is_convex:
            raise ValueError(
                f"polygon {_shown(corners)} is not convex: search its parts one by one"
            )
        if region.radius > WIDEST:
            raise ValueError(
                f"polygon {_shown(corners)} is wider than {WIDEST} deg: search its parts"
            )
        return region

    def meets(self, other: Footprint) -> bool:
        """Return whether two footprints have a point in common.

        Seen from the centre of the sphere they are convex, so they are apart if and only if the
        great circle of an edge of one of them has the other on its far side.
        """
        mine, theirs = _unit_vectors(self.corners), _unit_vectors(other.corners)
        if mine.mean(axis=0) @ theirs.mean(axis=0) <= 0:
            return False
        return not (_has_beyond(mine, theirs) or _has_beyond(theirs, mine))

    def covers(self, other: Footprint) -> bool:
        """Return whether another footprint lies within this one."""
        normals = _inward_normals(_unit_vectors(self.corners))
        return bool(np.all(normals @ _unit_vectors(other.corners).T >= -_ROUNDING))

    def covers_cone(self, ra: float, dec: float, radius: float) -> bool:
        """Return whether a cone (ICRS, deg) lies within the footprint."""
        normals = _inward_normals(_unit_vectors(self.corners))
        heights = np.degrees(
            np.arcsin(np.clip(normals @ _unit_vectors(np.array([[ra, dec]]))[0], -1, 1))
        )
        return bool(np.all(heights >= radius - np.degrees(_ROUNDING)))

    def distances_beyond(self, ra: Vectors, dec: Vectors) -> Vectors:
        """Return how far directions lie beyond the farthest edge, deg; zero within the footprint.

        Parameters
        ----------
        ra, dec
            Directions, ICRS, deg, of any one shape.

        Returns
        -------
        numpy.ndarray
            Angles from the great circles, of that shape: at most the distance from the footprint.
        """
        normals = _inward_normals(_unit_vectors(self.corners))
        directions = _unit_vectors(np.stack([np.ravel(ra), np.ravel(dec)], axis=-1))
        heights = np.arcsin(np.clip(normals @ directions.T, -1, 1)).min(axis=0)
        beyond: Vectors = np.maximum(-np.degrees(heights), 0).reshape(np.shape(ra))
        return beyond

    def is_in_cone(self, ra: float, dec: float, radius: float) -> bool:
        """Return whether the footprint lies within a cone (ICRS, deg).

        That of a cone wider than a hemisphere is decided by the corners alone.
        """
        axis = _unit_vectors(np.array([[ra, dec]]))[0]
        return bool(np.degrees(_angles(_unit_vectors(self.corners), axis).max()) <= radius)

    @property
    def _is_convex(self) -> bool:
        corners = _unit_vectors(self.corners)
        normals = _inward_normals(corners)
        return bool(len(normals) >= 3 and np.all(normals @ corners.T >= -_ROUNDING))

    def meets_cone(self, ra: float, dec: float, radius: float) -> bool:
        """Return whether the footprint and a cone have a point in common.

        Parameters
        ----------
        ra, dec, radius
            Centre (ICRS) and opening of the cone, deg.
        """
        axis = _unit_vectors(np.array([[ra, dec]]))[0]
        starts = _unit_vectors(self.corners)
        ends = np.roll(starts, -1, axis=0)
        normals = np.cross(starts, ends)
        keep = np.linalg.norm(normals, axis=1) > 0
        starts, ends, normals = starts[keep], ends[keep], _normalised(normals[keep])
        sides = normals @ axis
        same_hemisphere = starts.mean(axis=0) @ axis > 0
        if same_hemisphere and (np.all(sides >= 0) or np.all(sides <= 0)):
            return True
        return bool(_edge_distances(axis, starts, ends, normals).min() <= np.radians(radius))


def _shown(corners: Sequence[tuple[float, float]] | str) -> str:
    return repr(corners[:100])


def _number(word: str) -> float:
    if not word.isascii() or "_" in word:  # Python's own notations
        raise ValueError(f"{word!r} is not a number")
    return float(word)


def _require_on_sky(directions: Vectors, source: str) -> None:
    ra, dec = directions.T
    if not (np.isfinite(directions).all() and (abs(ra) <= 360).all() and (abs(dec) <= 90).all()):
        raise ValueError(f"{source} has corners that are not on the sky")


def _pairs(corners: Sequence[tuple[float, float]]) -> Vectors:
    pairs = np.array(corners, dtype=float)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) < 3:
        raise ValueError(
            f"polygon {_shown(corners)} is not a list of three or more corners (ra, dec)"
        )
    return pairs


def _has_beyond(corners: Vectors, others: Vectors) -> bool:
    """Return whether all others lie beyond one edge of a convex polygon."""
    return bool(np.any(np.all(_inward_normals(corners) @ others.T < 0, axis=1)))


def _inward_normals(corners: Vectors) -> Vectors:
    """Return the normals of the edges' great circles, towards the polygon, shape (≤ N, 3)."""
    normals = np.cross(corners, np.roll(corners, -1, axis=0))
    normals = _normalised(normals[np.linalg.norm(normals, axis=1) > 0])
    sides: Vectors = normals @ corners.mean(axis=0)
    return normals * np.where(sides.sum() < 0, -1.0, 1.0)


def _edge_distances(axis: Vectors, starts: Vectors, ends: Vectors, normals: Vectors) -> Vectors:
    """Return the angle from a direction to each great-circle arc, rad, shape (N,)."""
    to_circle = np.abs(np.arcsin(np.clip(normals @ axis, -1, 1)))
    foot = axis - (normals @ axis)[:, None] * normals
    between = (np.einsum("ij,ij->i", np.cross(starts, foot), normals) >= 0) & (
        np.einsum("ij,ij->i", np.cross(foot, ends), normals) >= 0
    )
    to_corner = np.minimum(_angles(starts, axis), _angles(ends, axis))
    return np.where(between, to_circle, to_corner)


def _unit_vectors(directions: Vectors) -> Vectors:
    ra, dec = np.radians(directions).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _normalised(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _angles(vectors: Vectors, axis: Vectors) -> Vectors:
    """Return angles accurate at any separation, rad."""
    across: Vectors = np.linalg.norm(np.cross(vectors, axis), axis=-1)
    return np.arctan2(across, vectors @ axis)
