"""Compiled loops of the linearity correction, in the order of operations of stcal and numpy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import boolean, float32, float64, int64, types, uint8, void
from numpy.typing import NDArray

from roman_assets.acceleration.compilation import compiled, readable

Array: TypeAlias = NDArray[Any]

CHANNEL_WIDTH = 128
"""Columns of a readout channel, worked on together."""

_LANES = CHANNEL_WIDTH
_FIRST, _RATE, _OFFSET, _SUM, _VALUE, _RESULT, _ROWS = (number * _LANES for number in range(7))


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
def _load(w: Array, place: int, coefficients: Array, row: int, start: int, size: int) -> None:
    for power in range(coefficients.shape[0]):
        for p in range(size):
            w[place + power * _LANES + p] = coefficients[power, row, start + p]


@compiled()
def _polynomials(w: Array, place: int, ncoefficients: int) -> None:
    """Evaluate the polynomials at `place` for the values of a block."""
    last = place + (ncoefficients - 1) * _LANES
    for p in range(_LANES):
        w[_RESULT + p] = w[last + p] * w[_VALUE + p]
    for power in range(ncoefficients - 2, 0, -1):
        for p in range(_LANES):
            w[_RESULT + p] = (w[_RESULT + p] + w[place + power * _LANES + p]) * w[_VALUE + p]
    for p in range(_LANES):
        w[_RESULT + p] += w[place + p]


@compiled()
def _add_interpolated(w: Array, points: Array, values: Array, slopes: Array) -> None:
    """Add to the values of a block what `numpy.interp` gives between equidistant points."""
    last = points.size - 1
    begin, end, lowest, highest = points[0], points[last], values[0], values[last]
    per_point = last / (end - begin)
    for p in range(_LANES):
        value = w[_VALUE + p]
        position = (value - begin) * per_point
        position = position if position > 0.0 else 0.0
        position = position if position < last - 1.0 else last - 1.0
        index = int(position)
        # rounding may be off by one point
        index -= value < points[index]
        index = max(index, 0)
        index += value >= points[index + 1]
        index = min(index, last - 1)
        point, here = points[index], values[index]
        between = slopes[index] * (value - point) + here
        between = here if value == point else between
        between = highest if value >= end else between
        between = lowest if value < begin else between
        w[_VALUE + p] = value + between


@compiled(
    void(
        types.Array(float32, 3, "A"), readable(uint8, 3), readable(float32, 3),
        readable(float32, 3), int64, float64[::1], float64[::1], int64[::1],
        boolean, float64[::1], float64[:, ::1], float64[:, ::1],
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
    points
        Where the correction is known: equidistant.
    values, slopes
        The correction, and its slope to the next point, of each channel.
    """
    nresultants, nrows, ncols = data.shape
    most, begin = 0, 0
    for end in ends:
        most, begin = max(most, end - begin), end
    nlinear, ninverse = linear.shape[0], inverse.shape[0]
    at_linear = _ROWS
    at_inverse = at_linear + nlinear * _LANES
    at_reads = at_inverse + ninverse * _LANES
    w = np.zeros(at_reads + most * _LANES)
    for row in range(nrows):
        for start in range(0, ncols, _LANES):
            size = min(_LANES, ncols - start)
            _load(w, at_linear, linear, row, start, size)
            _load(w, at_inverse, inverse, row, start, size)
            for p in range(size):
                column = start + p
                good = -1
                for resultant in range(nresultants):
                    good += (flags[resultant, row, column] & saturated) == 0
                last = max(good, 2) - 1
                first, final = data[0, row, column], data[last, row, column]
                if not flags[0, row, column] & saturated:
                    first = _polynomial(first, linear, row, column)
                if not flags[last, row, column] & saturated:
                    final = _polynomial(final, linear, row, column)
                w[_FIRST + p] = first
                w[_RATE + p] = np.float64(final - first) / (mean_reads[last] - mean_reads[0])
            begin = 0
            for resultant in range(nresultants):
                count = ends[resultant] - begin
                w[_SUM : _SUM + _LANES] = 0.0
                for read in range(count):
                    since = reads[begin + read]
                    for p in range(_LANES):
                        w[_VALUE + p] = w[_FIRST + p] + w[_RATE + p] * since
                    _polynomials(w, at_inverse, ninverse)
                    for p in range(_LANES):
                        w[at_reads + read * _LANES + p] = w[_RESULT + p]
                        w[_SUM + p] += w[_RESULT + p]
                for p in range(size):
                    w[_OFFSET + p] = data[resultant, row, start + p] - w[_SUM + p] / count
                w[_SUM : _SUM + _LANES] = 0.0
                for read in range(count):
                    for p in range(_LANES):
                        w[_VALUE + p] = w[at_reads + read * _LANES + p] + w[_OFFSET + p]
                    if corrected:
                        channel = start // CHANNEL_WIDTH
                        _add_interpolated(w, points, values[channel], slopes[channel])
                    _polynomials(w, at_linear, nlinear)
                    for p in range(_LANES):
                        w[_SUM + p] += w[_RESULT + p]
                for p in range(size):
                    if not flags[resultant, row, start + p] & saturated:
                        data[resultant, row, start + p] = w[_SUM + p] / count
                begin = ends[resultant]
