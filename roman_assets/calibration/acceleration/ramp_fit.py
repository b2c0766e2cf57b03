"""Choose the resultant differences of one row without allocating a cube."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.calibration.acceleration.guest import Acceleration


def determine_diffs2use(
    row: int, diffs: NDArray[np.floating[Any]], gdq: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return 1 for each difference of a row to be used, 0 where a resultant is flagged.

    Parameters
    ----------
    row
        Number of the row.
    diffs
        Differences of resultants, shape (n - 1, nrows, ncols).
    gdq
        Flags of the resultants, shape (n, nrows, ncols).
    """
    flagged = gdq[:, row].astype(np.uint8) != 0
    used: NDArray[np.uint8] = (~(flagged[1:] | flagged[:-1])).astype(np.uint8)
    return used


def _outputs(determine: Callable[..., Any]) -> Any:
    random = np.random.default_rng(1)
    flags = random.choice(np.array([0, 2, 4, 6, 255], np.uint8), (8, 3, 200), p=[0.8, *[0.05] * 4])
    diffs = random.normal(size=(7, 3, 200))
    return [determine(row, diffs, flags) for row in range(3)]


ACCELERATION = Acceleration(
    replaces="stcal.ramp_fitting.likely_fit:determine_diffs2use",
    replacement=determine_diffs2use,
    reason="It allocates ones for the whole cube for each row, and uses one row: 70 s a detector.",
    obsolete="stcal allocates one row.",
    checked_with={"stcal": "1.20.0"},
    source="73aec39ecc2ce02901444e0639d30a63715cf76a202a2db886ddcb3b850e90e6",
    outputs=_outputs,
)
