"""Compiled loops of the linearity correction, in the order of operations of stcal and numpy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import boolean, float32, float64, int64, types, uint8, void
from numpy.typing import NDArray

from roman_assets.calibration.acceleration.compilation import compiled, readable

Array: TypeAlias = NDArray[Any]

_LANES = 128
_FIRST, _RATE, _OFFSET, _SUM, _READS = (number * _LANES for number in range(5))


@compiled()
def _polynomial(value: float, coefficients: Array, row: int, column: int) -> float:
    """Evaluate a polynomial as `stcal.linearity.linearity.apply_polynomial` does."""
    last = coefficients.shape[0] - 1
    result = coefficients[last, row, column] * value
    for power in range(last - 1, 0, -1):
        result += coefficients[power, row, column]
        result *= value
    return result + coefficients[0, row, column]  # type: ignore[no-any-return]


@compiled()
def _interpolate(
    value: float, points: Array, values: Array, slopes: Array, per_point: float
) -> float:
    """Interpolate as `numpy.interp` does between finite values at increasing points."""
    last = points.size - 1
    position = (value - points[0]) * per_point
    position = position if position > 0.0 else 0.0
    position = position if position < last - 1.0 else last - 1.0
    index = int(position)
    while index > 0 and value < points[index]:
        index -= 1
    while index < last - 1 and value >= points[index + 1]:
        index += 1
    if value >= points[last]:
        return values[last]  # type: ignore[no-any-return]
    if value < points[0] or value == points[index]:
        return values[index]  # type: ignore[no-any-return]
    return slopes[index] * (value - points[index]) + values[index]  # type: ignore[no-any-return]


@compiled(
    void(
        types.Array(float32, 3, "A"), readable(uint8, 3), readable(float32, 3),
        readable(float32, 3), int64, float64[::1], float64[::1], int64[::1],
        boolean, int64, float64[::1], float64[:, ::1], float64[:, ::1],
    )
)  # fmt: skip
def correct_tile(
    data: Array,
    flags: Array,
    linear: Array,
    inverse: Array,
    saturated: int,
    mean_reads: Array,
    reads: Array,
    ends: Array,
    corrected: bool,
    channel_width: int,
    points: Array,
    values: Array,
    slopes: Array,
) -> None:
    """Correct some rows in place.

    Parameters
    ----------
    data, flags
        Resultants and their flags, shape (nresultants, nrows, ncols).
    linear, inverse
        Coefficients of the polynomials, shape (ncoefficients, nrows, ncols).
    saturated
        The flag of saturation.
    mean_reads
        Mean read of each resultant.
    reads, ends
        Reads of all resultants since the first, and where those of each resultant end.
    corrected
        Whether to correct for integral nonlinearity, by the following.
    channel_width
        Columns of a channel.
    points
        Where the correction is known.
    values, slopes
        The correction, and its slope to the next point, of each channel.
    """
    nresultants, nrows, ncols = data.shape
    most, begin = 0, 0
    for end in ends:
        most, begin = max(most, end - begin), end
    per_point = (points.size - 1) / (points[-1] - points[0]) if corrected else 0.0
    w = np.empty(_READS + most * _LANES)
    for row in range(nrows):
        for start in range(0, ncols, _LANES):
            stop = min(start + _LANES, ncols)
            for column in range(start, stop):
                good = -1
                for resultant in range(nresultants):
                    good += (flags[resultant, row, column] & saturated) == 0
                last = max(good, 2) - 1
                begun, ended = data[0, row, column], data[last, row, column]
                first = begun
                if not flags[0, row, column] & saturated:
                    first = _polynomial(begun, linear, row, column)
                final = ended
                if not flags[last, row, column] & saturated:
                    final = _polynomial(ended, linear, row, column)
                w[_FIRST + column - start] = first
                w[_RATE + column - start] = np.float64(final - first) / (
                    mean_reads[last] - mean_reads[0]
                )
            begin = 0
            for resultant in range(nresultants):
                count = ends[resultant] - begin
                w[_SUM : _SUM + _LANES] = 0.0
                for read in range(count):
                    since = reads[begin + read]
                    for column in range(start, stop):
                        p = column - start
                        value = _polynomial(
                            w[_FIRST + p] + w[_RATE + p] * since, inverse, row, column
                        )
                        w[_READS + read * _LANES + p] = value
                        w[_SUM + p] += value
                for column in range(start, stop):
                    p = column - start
                    w[_OFFSET + p] = data[resultant, row, column] - w[_SUM + p] / count
                    w[_SUM + p] = 0.0
                for read in range(count):
                    for column in range(start, stop):
                        p = column - start
                        value = w[_READS + read * _LANES + p] + w[_OFFSET + p]
                        if corrected:
                            channel = column // channel_width
                            value += _interpolate(
                                value, points, values[channel], slopes[channel], per_point
                            )
                        w[_SUM + p] += _polynomial(value, linear, row, column)
                for column in range(start, stop):
                    if not flags[resultant, row, column] & saturated:
                        data[resultant, row, column] = w[_SUM + column - start] / count
                begin = ends[resultant]
