"""Compute the decay of darks for two readout channels, and repeat it for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from romancal.dark_decay import dark_decay

from roman_assets.acceleration import sample
from roman_assets.acceleration.guest import Acceleration

_upstream = dark_decay.subtract_dark_decay

_PERIOD = 256
"""Columns after which the read times repeat: two channels, read in opposite directions."""


def subtract_dark_decay(
    data: NDArray[np.float32],
    amplitude: float,
    time_constant: float,
    frame_time: float,
    read_pattern: Sequence[Sequence[int]],
    sca: int,
    frame_offset: float = 1.5,
) -> None:
    """Subtract the decay as `romancal.dark_decay.dark_decay.subtract_dark_decay` does.

    Upstream's own function corrects images whose read times do not repeat, and fails on those
    that are not a whole detector.
    """
    times = dark_decay.frame_read_times(frame_time, sca, 0)
    once = np.ascontiguousarray(times[:, :_PERIOD])
    places = [np.s_[:, start : start + _PERIOD] for start in range(0, times.shape[1], _PERIOD)]
    if (
        data.shape[1:] != times.shape
        or np.ndim(amplitude) + np.ndim(time_constant) > 0
        or not all(np.array_equal(times[place], once) for place in places)
    ):
        _upstream(data, amplitude, time_constant, frame_time, read_pattern, sca, frame_offset)
        return
    for resultant, reads in zip(data, read_pattern, strict=False):
        decays = [
            amplitude * np.exp(-(once + (read - frame_offset) * frame_time) / time_constant)
            for read in reads
        ]
        decay = np.mean(decays, axis=0)
        for place in places:
            resultant[place] -= decay


@contextmanager
def _small_frames() -> Iterator[None]:
    """Make both functions work on a frame of a few rows."""
    original = dark_decay.frame_read_times
    pattern = np.arange(8 * 128).reshape(8, 128) * 4.9e-6
    base = np.tile(np.concatenate([pattern, pattern[:, ::-1]], axis=1), (1, 2))[::-1]
    dark_decay.frame_read_times = lambda time, _, number: base + number * time
    try:
        yield
    finally:
        dark_decay.frame_read_times = original


def _outputs(subtract: Callable[..., Any]) -> Any:
    # of this shape are the data after the step before: a view of a wider array
    data = np.random.default_rng(5).normal(1000, 100, (5, 8, 640)).astype(np.float32)[..., :512]
    with _small_frames():
        subtract(data, 0.73, 23.5, sample.READ_TIME, sample.read_pattern(5), 2)
    return data


ACCELERATIONS = (
    Acceleration(
        replaces="romancal.dark_decay.dark_decay:subtract_dark_decay",
        replacement=subtract_dark_decay,
        reason=(
            "It computes the same decay for each of 32 channels, and for each read the read times."
        ),
        obsolete="romancal computes the decay of two channels and repeats it.",
        checked_with={"romancal": "1.1.0", "numpy": "2.4.6"},
        source="9c286a3c0b461e52cc307fac6c5296c73f789a8f348b460fe1ded007f4426e9e",
        outputs=_outputs,
        mirrors=("romancal.lib.basic_utils:frame_read_times",),
        imported_by=("romancal.dark_decay.dark_decay_step",),
    ),
)
