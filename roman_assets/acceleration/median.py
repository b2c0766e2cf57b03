"""Compute the median of a cube only where a plane has a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.acceleration.guest import Acceleration


def nanmedian3d(
    cube: NDArray[np.floating[Any]], overwrite_input: bool = True
) -> NDArray[np.floating[Any]]:
    """Return the median along the first axis, NaN where no plane has a value.

    Parameters
    ----------
    cube
        Shape (nplanes, ny, nx).
    overwrite_input
        As in `stcal.outlier_detection.median.nanmedian3D`.
    """
    result = np.full(cube.shape[1:], np.nan, dtype=cube.dtype)
    for row, values in enumerate(cube.swapaxes(0, 1)):
        seen = ~np.isnan(values).all(axis=0)
        if seen.any():
            result[row, seen] = np.nanmedian(
                values[:, seen], axis=0, overwrite_input=overwrite_input
            )
    return result


def _outputs(median: Callable[..., Any]) -> Any:
    random = np.random.default_rng(10)
    outputs = []
    for nplanes in (2, 3):
        cube = random.normal(size=(nplanes, 7, 60)).astype(np.float32)
        cube[random.random(cube.shape) < 0.4] = np.nan
        cube[:, 2] = np.nan
        cube[0, 3] = np.inf
        outputs.append(median(cube))
    return outputs


ACCELERATIONS = (
    Acceleration(
        replaces="stcal.outlier_detection.median:nanmedian3D",
        replacement=nanmedian3d,
        reason=(
            "numpy warns for each pixel without a value, 25 million times on a skycell that an "
            "image hardly touches: longer than the rest of the mosaic."
        ),
        obsolete="stcal leaves out pixels without a value.",
        checked_with={"stcal": "1.20.0", "numpy": "2.4.6"},
        source="16e0144310499dde796aa219a23d1cce5c1381db88b03fa4b90e3782272c6fa4",
        outputs=_outputs,
    ),
)
