"""Compute convex hulls with Python's own numbers, which are faster one by one than numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tweakwcs import wcsimage

from roman_assets.calibration.acceleration.guest import Acceleration

_upstream = wcsimage.convex_hull


def convex_hull(x: Any, y: Any, wcs: Any = None, min_separation: float | None = None) -> Any:
    """Compute a convex hull as `tweakwcs.wcsimage.convex_hull` does, by calling it with lists."""
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
    hull_x, hull_y = _upstream(x.tolist(), y.tolist(), None, min_separation)
    return np.array(hull_x), np.array(hull_y)


def _outputs(hull: Callable[..., Any]) -> Any:
    random = np.random.default_rng(9)
    x, y = random.normal(size=(2, 400))
    return [
        hull(x, y, wcs=None, min_separation=1e-11),
        hull(x, y, None, 0.5),
        hull(np.round(x), np.round(y)),
        hull(x, y, lambda a, b: (a + 1, b - 1)),
        hull(x[:2], y[:2]),
        hull(x[:1], y[:1]),
    ]


ACCELERATIONS = (
    Acceleration(
        replaces="tweakwcs.wcsimage:convex_hull",
        replacement=convex_hull,
        reason="It computes with numpy scalars; the reference catalogue has 100,000 positions.",
        obsolete="tweakwcs computes with floats, or leaves out positions inside the hull.",
        checked_with={"tweakwcs": "0.9.3"},
        source="3cc517a8cf23520642d62bd5d0d1560be9786f6230b53e2793217e786a23625d",
        outputs=_outputs,
    ),
)
