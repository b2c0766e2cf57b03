"""Small data with everything that ramps of a detector have, for the self-tests."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ_TIME = 3.04
"""Seconds."""

_SATURATED, _DO_NOT_USE, _JUMP = 2, 1, 4
_FULL_WELL = 30_000


@dataclass(frozen=True)
class Ramps:
    """Ramps as the fit receives them.

    Parameters
    ----------
    model
        The attributes of a ramp model that the fit uses.
    readnoise, gain
        As in the reference files, with bad values.
    """

    model: Any
    readnoise: NDArray[np.float64]
    gain: NDArray[np.float32]


def read_pattern(nresultants: int) -> list[list[int]]:
    """Return a read pattern with resultants of one, two and six reads."""
    middle = [[4 + 6 * k + read for read in range(6)] for k in range(nresultants - 3)]
    return [[1], [2, 3], *middle, [4 + 6 * (nresultants - 3)]]


def ramps(nresultants: int, nrows: int, ncols: int, seed: int = 1) -> Ramps:
    """Return ramps from dark to saturated, with cosmic rays, flags, NaN and infinite values."""
    random = np.random.default_rng(seed)
    shape = (nrows, ncols)
    pattern = read_pattern(nresultants)
    times = READ_TIME * np.array([np.mean(reads) for reads in pattern])
    rate = 10 ** random.uniform(-1, 3.5, shape)
    gain = random.normal(1.8, 0.05, shape).astype(np.float32)
    readnoise = random.normal(5, 0.5, shape).astype(np.float32)
    intervals = np.diff(times, prepend=0)[:, None, None]
    electrons = np.cumsum(random.poisson(rate * intervals), axis=0).astype(float)
    electrons += random.normal(size=electrons.shape) * readnoise
    hits = random.random(electrons.shape) < 0.02
    electrons += np.cumsum(hits * random.exponential(3000, electrons.shape), axis=0)
    data = (electrons / gain).astype(np.float32)
    flags = np.where(data > _FULL_WELL, _SATURATED, 0).astype(np.uint8)
    flags[random.random(data.shape) < 0.01] = _DO_NOT_USE
    kind = random.integers(0, 500, shape)
    data[:, kind == 0] = np.nan
    data[2, kind == 1] = np.inf
    data[:, kind == 2] = 7
    gain[kind == 3] = np.nan
    gain[kind == 4] = -1
    readnoise[kind == 5] = 0
    model = SimpleNamespace(
        data=data[None],
        groupdq=flags[None],
        pixeldq=np.zeros(shape, np.uint32),
        zeroframe=None,
        rejection_threshold=4.5,
        flags_do_not_use=_DO_NOT_USE,
        flags_saturated=_SATURATED,
        flags_jump_det=_JUMP,
        read_pattern=[list(READ_TIME * np.array(reads)) for reads in pattern],
        average_dark_current=np.zeros(shape),
    )
    return Ramps(model, readnoise * np.sqrt(2), gain)
