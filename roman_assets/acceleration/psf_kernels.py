"""Compiled evaluation of a grid of PSFs, in the order of operations of photutils and FITPACK."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import float64, int64, types
from numpy.typing import NDArray

from roman_assets.acceleration.compilation import compiled, readable

Array: TypeAlias = NDArray[Any]

_ORDER = 4
"""Coefficients of a cubic spline that count at a point."""


@compiled()
def _cell(value: float, grid: Array) -> int:
    """Return the number of the last grid line before a value, never the last line of all."""
    cell = 0
    while cell < grid.size - 2 and grid[cell + 1] < value:
        cell += 1
    return cell


@compiled(
    types.Tuple((types.UniTuple(int64, 4), types.UniTuple(float64, 4)))(
        float64, float64, readable(float64, 1), readable(float64, 1), readable(float64, 2)
    )
)
def neighbours(
    x: float, y: float, xgrid: Array, ygrid: Array, positions: Array
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float]]:
    """Return the numbers and weights of the four PSFs around a position."""
    xcell, ycell = _cell(x, xgrid), _cell(y, ygrid)
    x0, x1, y0, y1 = xgrid[xcell], xgrid[xcell + 1], ygrid[ycell], ygrid[ycell + 1]
    lower_left = lower_right = upper_left = upper_right = -1
    for number in range(len(positions) - 1, -1, -1):
        px, py = positions[number, 0], positions[number, 1]
        if px == x0 and py == y0:
            lower_left = number
        if px == x1 and py == y0:
            lower_right = number
        if px == x0 and py == y1:
            upper_left = number
        if px == x1 and py == y1:
            upper_right = number
    x = min(max(x, x0), x1)
    y = min(max(y, y0), y1)
    norm = (x1 - x0) * (y1 - y0)
    return (lower_left, lower_right, upper_left, upper_right), (
        (x1 - x) * (y1 - y) / norm,
        (x - x0) * (y1 - y) / norm,
        (x1 - x) * (y - y0) / norm,
        (x - x0) * (y - y0) / norm,
    )


@compiled()
def _basis(value: float, knots: Array, basis: Array, before: Array) -> int:
    """Compute the cubic B-splines at a point as ``fpbspl`` does; return the first's number."""
    last = knots.size - _ORDER
    value = min(max(value, knots[_ORDER - 1]), knots[last])
    cell = _ORDER
    while cell < last and value >= knots[cell]:
        cell += 1
    basis[0] = 1.0
    for degree in range(1, _ORDER):
        for i in range(degree):
            before[i] = basis[i]
        basis[0] = 0.0
        for i in range(degree):
            right, left = knots[cell + i], knots[cell + i - degree]
            if right == left:
                basis[i + 1] = 0.0
                continue
            factor = before[i] / (right - left)
            basis[i] = basis[i] + factor * (right - value)
            basis[i + 1] = factor * (value - left)
    return cell - _ORDER


@compiled(
    float64[::1](
        readable(float64, 1), readable(float64, 1), float64, float64, float64,
        types.UniTuple(float64, 4), float64[::1], float64[::1],
        types.UniTuple(readable(float64, 1), 4), types.UniTuple(float64, 4),
        types.UniTuple(float64, 2), float64,
    )
)  # fmt: skip
def evaluate(
    xs: Array,
    ys: Array,
    flux: float,
    x_0: float,
    y_0: float,
    sampling: tuple[float, float, float, float],
    xknots: Array,
    yknots: Array,
    coefficients: tuple[Array, Array, Array, Array],
    weights: tuple[float, float, float, float],
    limits: tuple[float, float],
    fill: float,
) -> Array:
    """Evaluate the weighted sum of four PSFs at some pixels.

    Parameters
    ----------
    xs, ys
        The pixels.
    flux, x_0, y_0
        Flux and position of the source.
    sampling
        Oversampling in x and y, and the origin in the PSF images.
    xknots, yknots
        Of the splines, which all have the same.
    coefficients, weights
        Of each PSF; those without weight are not looked at.
    limits
        The largest x and y in the PSF images; `fill` is the value outside.
    """
    xbasis, ybasis, before = np.empty(_ORDER), np.empty(_ORDER), np.empty(_ORDER)
    stride = yknots.size - _ORDER
    values = np.empty(xs.size)
    for pixel in range(xs.size):
        x = sampling[0] * (xs[pixel] - x_0) + sampling[2]
        y = sampling[1] * (ys[pixel] - y_0) + sampling[3]
        if x < 0 or x > limits[0] or y < 0 or y > limits[1]:
            values[pixel] = fill
            continue
        xfirst, yfirst = _basis(x, xknots, xbasis, before), _basis(y, yknots, ybasis, before)
        total = 0.0
        for number in range(4):
            if weights[number] == 0.0:
                continue
            part = 0.0
            for i in range(_ORDER):
                first = (xfirst + i) * stride + yfirst
                for j in range(_ORDER):
                    part += coefficients[number][first + j] * xbasis[i] * ybasis[j]
            total += part * weights[number]
        values[pixel] = flux * total
    return values
