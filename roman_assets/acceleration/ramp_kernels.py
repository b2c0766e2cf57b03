"""Compiled loops of the likelihood ramp fit, in the order of operations of `stcal.ramp_fitting`.

Pixels are worked on in blocks of `LANES`, so that the compiler uses vector instructions over them;
all quantities of a block lie in one array, each at an offset known when compiling. There is no
fast-math and no fused multiply-add: every operation rounds as numpy's does. Powers are left to
numpy, whose results differ from the C library's in the last bit on some processors.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import float32, float64, int64, types, uint8, void
from numpy.typing import NDArray

from roman_assets.acceleration.compilation import compiled, readable

Array: TypeAlias = NDArray[Any]
Covariance: TypeAlias = tuple[Array, Array, Array, Array]

LANES = 64
MAX_DIFFERENCES = 63
"""More resultant differences do not fit the work array."""

_SLOT = (MAX_DIFFERENCES + 1) * LANES + 24  # no multiple of a page: slots share no cache lines
(
    _D, _U, _AL, _BE, _TH, _PH, _TT, _PP, _TD, _PD, _DM, _DC, _DB,
    _CD, _CO, _A1, _X1, _A2, _X2, _TMP,
) = (slot * _SLOT for slot in range(20))  # fmt: skip
_PIXEL = 20 * _SLOT
(_G, _R, _S, _INV, _A, _B, _C, _RATE, _CHI, _ERR, _VP, _VR, _NEW, _DROP) = (
    _PIXEL + number * LANES for number in range(14)
)
WORK_SIZE = _PIXEL + 14 * LANES

_PAIRWISE = 8
"""numpy adds up this many elements or more along a contiguous axis in eight interleaved parts."""

_COVARIANCE = types.UniTuple(float64[::1], 4)


@compiled()
def _load(w: Array, data: Array, delta_t: Array, row: int, columns: Array, count: int) -> None:
    """Load the differences of pixels of a row; the last pixel fills up the block."""
    for i in range(delta_t.size):
        for p in range(LANES):
            column = columns[min(p, count - 1)]
            w[_D + i * LANES + p] = (
                np.float64(data[i + 1, row, column] - data[i, row, column]) / delta_t[i]
            )


@compiled()
def _median(w: Array, n: int, out: int) -> None:
    """Write the median of the differences of each pixel, which `_TMP` is spoilt for."""
    for k in range(n * LANES):
        w[_TMP + k] = w[_D + k]
    for turn in range(n):
        for i in range(turn & 1, n - 1, 2):
            for p in range(LANES):
                a = w[_TMP + i * LANES + p]
                b = w[_TMP + i * LANES + LANES + p]
                w[_TMP + i * LANES + p] = a if a < b else b
                w[_TMP + i * LANES + LANES + p] = b if a < b else a
    middle = n // 2
    for p in range(LANES):
        if n % 2:
            w[out + p] = 0.0 + w[_TMP + middle * LANES + p]
        else:
            low, high = w[_TMP + (middle - 1) * LANES + p], w[_TMP + middle * LANES + p]
            w[out + p] = (0.0 + low + high) / 2.0
    for i in range(n):
        for p in range(LANES):
            d = w[_D + i * LANES + p]
            w[out + p] = w[out + p] if d == d else np.nan


@compiled()
def _sum(w: Array, terms: int, n: int, out: int, pairwise: bool) -> None:
    """Add up n terms of each pixel as `numpy.sum` over the first axis does."""
    for p in range(LANES):
        w[out + p] = 0.0
    if pairwise and n >= _PAIRWISE:
        # a single pixel, in the first lane: numpy sees a contiguous axis of n elements
        for p in range(1):
            whole = n - n % 8
            total = 0.0
            r0, r1 = w[terms], w[terms + LANES]
            r2, r3 = w[terms + 2 * LANES], w[terms + 3 * LANES]
            r4, r5 = w[terms + 4 * LANES], w[terms + 5 * LANES]
            r6, r7 = w[terms + 6 * LANES], w[terms + 7 * LANES]
            for i in range(8, whole, 8):
                r0 += w[terms + i * LANES]
                r1 += w[terms + (i + 1) * LANES]
                r2 += w[terms + (i + 2) * LANES]
                r3 += w[terms + (i + 3) * LANES]
                r4 += w[terms + (i + 4) * LANES]
                r5 += w[terms + (i + 5) * LANES]
                r6 += w[terms + (i + 6) * LANES]
                r7 += w[terms + (i + 7) * LANES]
            total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
            for i in range(whole, n):
                total += w[terms + i * LANES]
            w[out + p] = 0.0 + total
        return
    for i in range(n):
        for p in range(LANES):
            w[out + p] += w[terms + i * LANES + p]


@compiled()
def _fit(w: Array, n: int, covar: Covariance, pairwise: bool) -> None:
    """Fit the ramps of a block: count rate, chi squared, and the input of the other functions."""
    aph, arn, bph, brn = covar
    for i in range(n):
        for p in range(LANES):
            w[_AL + i * LANES + p] = (w[_G + p] * aph[i] + w[_R + p] * arn[i]) / w[_S + p]
            w[_DM + i * LANES + p] = w[_D + i * LANES + p] * w[_U + i * LANES + p]
    for i in range(n - 1):
        for p in range(LANES):
            beta = (w[_G + p] * bph[i] + w[_R + p] * brn[i]) / w[_S + p]
            w[_BE + i * LANES + p] = beta * w[_U + i * LANES + LANES + p] * w[_U + i * LANES + p]
    for p in range(LANES):
        w[_TH + p] = 1.0
        w[_TH + LANES + p] = w[_AL + p]
        w[_PH + n * LANES + p] = 1.0
        w[_PH + (n - 1) * LANES + p] = w[_AL + (n - 1) * LANES + p]
        w[_PP + (n - 1) * LANES + p] = 0.0
        w[_PD + (n - 1) * LANES + p] = 0.0
        w[_TT + p] = -1.0
        w[_TD + p] = 0.0
        w[_TD + LANES + p] = -w[_DM + p] * 1.0
    for i in range(2, n + 1):
        for p in range(LANES):
            k = (i - 1) * LANES + p
            beta = w[_BE + k - LANES]
            w[_TH + k + LANES] = w[_AL + k] * w[_TH + k] - beta * beta * w[_TH + k - LANES]
    for step in range(n - 1):
        i = n - 2 - step
        sign = 1.0 if (i + 1) % 2 else -1.0
        for p in range(LANES):
            k = i * LANES + p
            beta = w[_BE + k]
            after, beyond = w[_PH + k + LANES], w[_PH + k + 2 * LANES]
            w[_PH + k] = w[_AL + k] * after - beta * beta * beyond
            w[_PP + k] = w[_PP + k + LANES] * beta + sign * beta * beyond
            w[_PD + k] = (w[_PD + k + LANES] + sign * w[_DM + k + LANES] * beyond) * beta
    for i in range(1, n):
        sign = 1.0 if i % 2 else -1.0
        for p in range(LANES):
            k = i * LANES + p
            beta = w[_BE + k - LANES]
            theta = w[_TH + k]
            w[_TT + k] = w[_TT + k - LANES] * beta + sign * theta
            w[_TD + k + LANES] = beta * w[_TD + k] + sign * w[_DM + k] * theta
    for p in range(LANES):
        w[_INV + p] = 1.0 / w[_TH + n * LANES + p]
    for i in range(n):
        sign = 1.0 if i % 2 else -1.0
        for p in range(LANES):
            k = i * LANES + p
            scaled = sign * w[_INV + p]
            theta, phi = w[_TH + k], w[_PH + k + LANES]
            w[_DC + k] = scaled * (phi * w[_TT + k] + theta * w[_PP + k]) * w[_U + k]
            w[_DB + k] = scaled * (phi * w[_TD + k + LANES] + theta * w[_PD + k])
            w[_TMP + k] = w[_DM + k] * w[_DC + k]
    _sum(w, _TMP, n, _B, pairwise)
    _sum(w, _DC, n, _C, pairwise)
    for i in range(n):
        sign = 1.0 if i % 2 else -1.0
        for p in range(LANES):
            k = i * LANES + p
            beta = w[_BE + k - LANES] if i else 1.0
            w[_TMP + k] = (
                w[_DM + k] * sign / w[_TH + n * LANES + p] * beta * w[_PH + k + LANES] * w[_TD + k]
            )
    _sum(w, _TMP, n, _A, pairwise)
    for i in range(n):
        for p in range(LANES):
            k = i * LANES + p
            w[_TMP + k] = (
                w[_DM + k] * w[_DM + k] * w[_TH + k] * w[_PH + k + LANES] / w[_TH + n * LANES + p]
            )
    _sum(w, _TMP, n, _CHI, pairwise)
    for p in range(LANES):
        a = 2.0 * w[_A + p] + w[_CHI + p]
        b, c = w[_B + p], w[_C + p]
        w[_A + p] = a
        w[_RATE + p] = b * (1.0 / c)
        w[_CHI + p] = (a - b * b / c) / w[_S + p]


@compiled()
def _omit(w: Array, n: int) -> None:
    """Fit without each difference, and without each pair of neighbours."""
    for i in range(n):
        for p in range(LANES):
            k = i * LANES + p
            w[_CD + k] = w[_TH + k] * w[_PH + k + LANES] / w[_TH + n * LANES + p] * w[_U + k]
    for i in range(n - 1):
        for p in range(LANES):
            k = i * LANES + p
            w[_CO + k] = -w[_BE + k] * w[_TH + k] * w[_PH + k + 2 * LANES] / w[_TH + n * LANES + p]
    for i in range(n):
        for p in range(LANES):
            k = i * LANES + p
            aa, bb, cc = w[_A + p], w[_B + p], w[_C + p]
            cd, dc, db = w[_CD + k], w[_DC + k], w[_DB + k]
            a = (cd * bb - db * dc) / (cc * cd - dc * dc)
            b = (db - a * dc) / cd
            chisq = (
                aa + a * a * cc - 2.0 * a * bb + b * b * cd - 2.0 * b * db + 2.0 * a * b * dc
            ) / w[_S + p]
            used = w[_U + k] != 0.0
            w[_A1 + k] = a if used else w[_RATE + p] * 1.0
            w[_X1 + k] = chisq if used else w[_CHI + p] * 1.0
    for i in range(n - 1):
        for p in range(LANES):
            k = i * LANES + p
            aa, bb, cc = w[_A + p], w[_B + p], w[_C + p]
            cd, dc, db = w[_CD + k], w[_DC + k], w[_DB + k]
            cd1, dc1, db1 = w[_CD + k + LANES], w[_DC + k + LANES], w[_DB + k + LANES]
            off = w[_CO + k]
            cpj = dc * dc - cc * cd
            cjck = dc * dc1 - cc * off
            bcpj = bb * dc - db * cc
            c = bcpj / cpj - (bb * dc1 - db1 * cc) / cjck
            c = c / (cjck / cpj - (dc1 * dc1 - cc * cd1) / cjck)
            b = (bcpj - c * cjck) / cpj
            a = (bb - b * dc - c * dc1) / cc
            chisq = aa + a * a * cc + b * b * cd + c * c * cd1
            chisq = chisq - (2.0 * a * bb + 2.0 * b * db + 2.0 * c * db1)
            chisq = chisq + (2.0 * a * b * dc + 2.0 * a * c * dc1 + 2.0 * b * c * off)
            chisq = chisq / w[_S + p]
            first, second = w[_U + k] != 0.0, w[_U + k + LANES] != 0.0
            a = a if second else w[_A1 + k]
            chisq = chisq if second else w[_X1 + k]
            w[_A2 + k] = a if first else w[_A1 + k + LANES]
            w[_X2 + k] = chisq if first else w[_X1 + k + LANES]


@compiled()
def _drop(
    w: Array,
    n: int,
    one_ok: Array,
    two_ok: Array,
    threshold_one: float,
    threshold_two: float,
    pairwise: bool,
) -> bool:
    """Drop the differences whose omission improves the fit most; `_DROP` says where any was."""
    for p in range(LANES):
        w[_NEW + p] = -np.inf
        w[_DROP + p] = -np.inf
    for i in range(n):
        for p in range(LANES):
            k = i * LANES + p
            gain = w[_CHI + p] - w[_X1 + k]
            w[_CD + k] = gain
            gain = gain * one_ok[i]
            best = w[_NEW + p]
            w[_NEW + p] = best if (best >= gain or best != best) else gain
    for i in range(n - 1):
        for p in range(LANES):
            k = i * LANES + p
            gain = w[_CHI + p] - w[_X2 + k]
            w[_CO + k] = gain
            gain = gain * two_ok[i]
            best = w[_DROP + p]
            w[_DROP + p] = best if (best >= gain or best != best) else gain
    found = False
    for p in range(LANES):
        one, two = w[_NEW + p], w[_DROP + p]
        one_better = one - threshold_one > two - threshold_two
        best = one * (1.0 if one > threshold_one else 0.0) * (1.0 if one_better else 0.0)
        best += two * (1.0 if two > threshold_two else 0.0) * (0.0 if one_better else 1.0)
        w[_TMP + p] = best
        w[_TMP + LANES + p] = 1.0 if one_better else 0.0
        w[_DROP + p] = 0.0
        if best == best and best != 0.0:
            found = True
    if not found:
        return False
    any_dropped = False
    for p in range(LANES):
        best, one_better = w[_TMP + p], w[_TMP + LANES + p] != 0.0
        if best == 0.0 or best != best:
            continue
        terms = n if one_better else n - 1
        gains, rates = (_CD, _A1) if one_better else (_CO, _A2)
        hit = False
        for i in range(terms):
            dropped = w[gains + i * LANES + p] == best
            hit = hit or dropped
            # upstream multiplies by False too, which keeps NaN and infinity
            w[_DM + i * LANES + p] = w[rates + i * LANES + p] * (1.0 if dropped else 0.0)
        if not hit:
            continue
        any_dropped = True
        w[_DROP + p] = 1.0
        total = 0.0
        if pairwise and terms >= _PAIRWISE:
            _sum(w, _DM, terms, _NEW, True)
            total = w[_NEW]
        else:
            for i in range(terms):
                total += w[_DM + i * LANES + p]
        w[_NEW + p] = total
        for i in range(terms):
            if w[gains + i * LANES + p] == best:
                w[_U + i * LANES + p] = 0.0
                if not one_better:
                    w[_U + (i + 1) * LANES + p] = 0.0
    return any_dropped


@compiled()
def _errors(w: Array, n: int, covar: Covariance) -> None:
    """Compute the uncertainty and the variances of the fitted count rates."""
    aph, arn, bph, brn = covar
    for i in range(n):
        for p in range(LANES):
            k = i * LANES + p
            w[_CD + k] = w[_DC + k] / w[_C + p]
    for p in range(LANES):
        w[_ERR + p] = np.sqrt(w[_S + p] / w[_C + p])
        w[_VP + p] = 0.0
        w[_VR + p] = 0.0
        w[_A + p] = 0.0
        w[_B + p] = 0.0
    for i in range(n):
        for p in range(LANES):
            weight = w[_CD + i * LANES + p]
            w[_VP + p] += weight * weight * (w[_G + p] * aph[i])
            w[_VR + p] += weight * weight * (w[_R + p] * arn[i])
    for i in range(n - 1):
        for p in range(LANES):
            k = i * LANES + p
            both = w[_CD + k + LANES] * w[_CD + k]
            w[_A + p] += both * (w[_G + p] * bph[i])
            w[_B + p] += both * (w[_R + p] * brn[i])
    for p in range(LANES):
        w[_VP + p] += 2.0 * w[_A + p]
        w[_VR + p] += 2.0 * w[_B + p]


@compiled(
    void(
        readable(float32, 3), float64[::1], readable(float32, 2), int64, int64,
        float64[:, ::1], float64[:, ::1],
    )
)  # fmt: skip
def guess_rates(
    data: Array, delta_t: Array, gain: Array, first: int, last: int, guess: Array, rate: Array
) -> None:
    """Write the median rate of each pixel of some rows, and that rate over the gain."""
    w = np.empty(WORK_SIZE)
    columns = np.arange(data.shape[2])
    for row in range(first, last):
        for start in range(0, columns.size, LANES):
            block = columns[start : start + LANES]
            _load(w, data, delta_t, row, block, block.size)
            _median(w, delta_t.size, _NEW)
            for p in range(block.size):
                median = w[_NEW + p]
                guess[row - first, start + p] = median * (1.0 if median > 0.0 else 0.0)
                rate[row - first, start + p] = guess[row - first, start + p] / np.float64(
                    gain[row, start + p]
                )


@compiled(
    void(
        float64[::1], float64[::1], _COVARIANCE, int64, int64,
        float64[::1], float64[::1], float64[::1],
    )
)  # fmt: skip
def advance_determinant(
    rate: Array,
    read2: Array,
    covar: Covariance,
    begin: int,
    end: int,
    last: Array,
    before: Array,
    scale: Array,
) -> None:
    """Advance the determinant of the covariance matrix from ``begin`` to ``end`` differences."""
    aph, arn, bph, brn = covar
    for p in range(rate.size):
        g, r, s = rate[p], read2[p], scale[p]
        now, past = last[p], before[p]
        for i in range(begin, end + 1):
            alpha = g * aph[i - 1] + r * arn[i - 1]
            beta = g * bph[i - 2] + r * brn[i - 2]
            following = alpha / s * now - beta * beta / (s * s) * past
            past, now = now, following
        last[p], before[p] = now, past


@compiled(
    void(
        readable(float32, 3), float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],
        _COVARIANCE, int64, int64, float64[::1], float64[::1], types.UniTuple(float64, 2),
        uint8[:, :, ::1], float64[:, ::1],
    )
)  # fmt: skip
def find_jumps(
    data: Array,
    delta_t: Array,
    rate: Array,
    read2: Array,
    scale: Array,
    covar: Covariance,
    first: int,
    last: int,
    one_ok: Array,
    two_ok: Array,
    thresholds: tuple[float, float],
    used: Array,
    counts: Array,
) -> None:
    """Mask differences with jumps in some rows of ``used``, and write count rates without them."""
    n, ncols = delta_t.size, data.shape[2]
    w = np.empty(WORK_SIZE)
    active = np.empty(ncols, np.int64)
    for row in range(first, last):
        count = ncols
        for column in range(ncols):
            active[column] = column
        for turn in range(n):
            pairwise = turn > 0 and count == 1
            remaining = 0
            for start in range(0, count, LANES):
                size = min(LANES, count - start)
                block = active[start : start + size]
                _load(w, data, delta_t, row, block, size)
                for p in range(LANES):
                    column = block[min(p, size - 1)]
                    w[_G + p] = rate[row - first, column]
                    w[_R + p] = read2[row - first, column]
                    w[_S + p] = scale[row - first, column]
                    for i in range(n):
                        w[_U + i * LANES + p] = used[i, row, column]
                _fit(w, n, covar, pairwise)
                _omit(w, n)
                if turn == 0:
                    for p in range(size):
                        counts[row, block[p]] = w[_RATE + p]
                if not _drop(w, n, one_ok, two_ok, thresholds[0], thresholds[1], pairwise):
                    continue
                for p in range(size):
                    if w[_DROP + p] == 0.0:
                        continue
                    column = block[p]
                    counts[row, column] = counts[row, column] * 0.0 + w[_NEW + p]
                    left = 0
                    for i in range(n):
                        kept = int(w[_U + i * LANES + p])
                        used[i, row, column] = kept
                        left += kept
                    if left > 3:
                        # at or before its own place: not read again in this turn
                        active[remaining] = column
                        remaining += 1
            count = remaining
            if count == 0:
                break


@compiled(
    void(
        readable(float32, 3), float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],
        _COVARIANCE, int64, int64, readable(uint8, 3), types.UniTuple(float32[:, ::1], 5),
    )
)  # fmt: skip
def fit_rates(
    data: Array,
    delta_t: Array,
    rate: Array,
    read2: Array,
    scale: Array,
    covar: Covariance,
    first: int,
    last: int,
    used: Array,
    out: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Write count rates, errors, variances and chi squared of some rows to ``out``."""
    n, ncols = delta_t.size, data.shape[2]
    rates, errors, poisson, readnoise, chisq = out
    w = np.empty(WORK_SIZE)
    columns = np.arange(ncols)
    for row in range(first, last):
        for start in range(0, ncols, LANES):
            size = min(LANES, ncols - start)
            _load(w, data, delta_t, row, columns[start:], size)
            for p in range(LANES):
                column = start + min(p, size - 1)
                w[_G + p] = rate[row - first, column]
                w[_R + p] = read2[row - first, column]
                w[_S + p] = scale[row - first, column]
            for i in range(n):
                for p in range(LANES):
                    w[_U + i * LANES + p] = used[i, row, start + min(p, size - 1)]
            _fit(w, n, covar, False)
            _errors(w, n, covar)
            for p in range(size):
                column = start + p
                rates[row, column] = w[_RATE + p]
                errors[row, column] = w[_ERR + p]
                poisson[row, column] = w[_VP + p]
                readnoise[row, column] = w[_VR + p]
                chisq[row, column] = w[_CHI + p]
