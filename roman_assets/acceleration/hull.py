"""Compute convex hulls without the points that are well inside."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tweakwcs import wcsimage

from roman_assets.acceleration.guest import Acceleration

_upstream = wcsimage.convex_hull

_DIRECTIONS = 16
_MARGIN = 1e-6
"""Distance from the outermost points at which a point is well inside, over their extent."""


def convex_hull(x: Any, y: Any, wcs: Any = None, min_separation: float | None = None) -> Any:
    """Compute a convex hull as `tweakwcs.wcsimage.convex_hull` does, from fewer points."""
    usual = (
        wcs is None
        and all(isinstance(values, np.ndarray) and values.dtype == np.float64 for values in (x, y))
        and all(np.isfinite(values).all() for values in (x, y))
        and x.ndim == y.ndim == 1
        and x.size > 1
        and np.ptp(x) + np.ptp(y) > 0
    )
    if not usual:
        return _upstream(x, y, wcs, min_separation)
    outer = ~_well_inside(x, y)
    return _upstream(x[outer], y[outer], None, min_separation)


def _well_inside(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points are well inside the polygon of the outermost in some directions."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    outermost = [int(np.argmax(np.cos(angle) * x + np.sin(angle) * y)) for angle in angles]
    corners = [point for point, _ in itertools.groupby(outermost)]
    extent = max(np.ptp(x), np.ptp(y))
    inside = np.full(x.shape, len(set(corners)) > 2)
    for begin, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        if begin == end:
            continue
        along, across = x[end] - x[begin], y[end] - y[begin]
        area = along * (y - y[begin]) - across * (x - x[begin])
        inside &= area > _MARGIN * extent * np.hypot(along, across)
    return inside


def _outputs(hull: Callable[..., Any]) -> Any:
    random = np.random.default_rng(9)
    x, y = random.normal(size=(2, 400))
    return [
        hull(x, y, wcs=None, min_separation=1e-11),
        hull(x, y, None, 0.5),
        hull(np.round(x), np.round(y)),
        hull(x, 3 * x),
        hull(x, y, lambda a, b: (a + 1, b - 1)),
        hull(x[:2], y[:2]),
        hull(x[:1], y[:1]),
    ]


ACCELERATIONS = (
    Acceleration(
        replaces="tweakwcs.wcsimage:convex_hull",
        replacement=convex_hull,
        reason="It sorts and compares 100,000 reference positions in Python, one by one.",
        obsolete="tweakwcs leaves out points that are well inside.",
        checked_with={"tweakwcs": "0.9.3"},
        source="3cc517a8cf23520642d62bd5d0d1560be9786f6230b53e2793217e786a23625d",
        outputs=_outputs,
    ),
)
