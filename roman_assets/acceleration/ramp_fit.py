"""Fit ramps in compiled loops over blocks of pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray
from romancal.ramp_fitting import ramp_fit_step
from stcal.jump.jump import flag_large_events
from stcal.ramp_fitting import likely_fit
from stcal.ramp_fitting.likely_algo_classes import Covar, IntegInfo

from roman_assets.acceleration import ramp_kernels, sample
from roman_assets.acceleration.guest import Acceleration

_upstream = likely_fit.likely_ramp_fit
_upstream_slopes = ramp_fit_step.slopes_uniform_weights
_log = logging.getLogger(likely_fit.__name__)

_CHUNK = 2**17
"""Pixels worked on at a time."""

_DN_SCALE = 10
"""Differences after which upstream rescales the determinant."""


def likely_ramp_fit(
    ramp_data: Any,
    readnoise_2d: NDArray[np.floating[Any]],
    gain_2d: NDArray[np.floating[Any]],
    jump_data: Any = None,
) -> tuple[Any, Any, Any]:
    """Fit ramps as `stcal.ramp_fitting.likely_fit.likely_ramp_fit` does, with the same results.

    Upstream's own function fits what Roman does not have: several integrations, zero frames.
    """
    if not _is_usual(ramp_data, gain_2d):
        result: tuple[Any, Any, Any] = _upstream(ramp_data, readnoise_2d, gain_2d, jump_data)
        return result
    _, _, nrows, ncols = ramp_data.data.shape
    data = np.asarray(ramp_data.data[0])
    flags = ramp_data.groupdq[0].copy()
    fit = _RampFit(
        data,
        Covar(likely_fit.get_readtimes(ramp_data)),
        np.asarray(readnoise_2d / likely_fit.SQRT2, np.float64),
        np.asarray(gain_2d),
    )
    good = flags == 0
    used = (good[1:] & good[:-1]).astype(np.uint8)
    before = used.copy()
    counts = np.empty((nrows, ncols))
    fit.find_jumps(used, counts, ramp_data.rejection_threshold)
    flags[1:] |= np.where(before ^ used, flags.dtype.type(ramp_data.flags_jump_det), 0)
    del before, good
    guess = counts * (counts > 0) + ramp_data.average_dark_current
    del counts
    if getattr(jump_data, "expand_large_events", False):
        _log.info('Searching for and expanding "snowballs"')
        _, found = flag_large_events(
            flags[None], ramp_data.flags_jump_det, ramp_data.flags_saturated, jump_data
        )
        _log.info("Total snowballs = %i", found)
        used &= flags[1:] & ramp_data.flags_jump_det == 0
    ramp_data.groupdq[0] |= flags
    results = IntegInfo(1, nrows, ncols)
    out = (results.data, results.err, results.var_poisson, results.var_rnoise, results.chisq)
    fit.rates(used, guess, out)
    results.dq[0] = _pixel_flags(ramp_data, flags)
    info = results.prepare_info()
    return likely_fit.compute_image_info(results, ramp_data), info, None


def slopes_uniform_weights(input_model: Any) -> NDArray[np.float64]:
    """Return slopes of uniform weights as `romancal.ramp_fitting` does, plane by plane."""
    data = input_model.data
    if data.ndim not in (3, 4):
        upstream: NDArray[np.float64] = _upstream_slopes(input_model)
        return upstream
    read_times = ramp_fit_step._get_readtimes(input_model)
    counts = np.array([len(times) for times in read_times])
    means = np.array([np.mean(times) for times in read_times])
    total, first, second = np.sum(counts), np.sum(counts * means), np.sum(counts * means**2)
    weights = (total * counts * means - first * counts) / (total * second - first**2)
    slopes = np.zeros(data.shape[-2:])
    for weight, plane in zip(weights, data if data.ndim == 3 else data[0], strict=True):
        slopes += weight * plane
    return slopes


def _is_usual(ramp_data: Any, gain: NDArray[Any]) -> bool:
    nints, nresultants, _, ncols = ramp_data.data.shape
    return (
        nints == 1
        and likely_fit.LIKELY_MIN_NGROUPS <= nresultants <= ramp_kernels.MAX_DIFFERENCES + 1
        and ncols > 1
        and ramp_data.zeroframe is None
        and ramp_data.rejection_threshold is not None
        and ramp_data.data.dtype == gain.dtype == np.float32
        and ramp_data.groupdq.dtype == np.uint8
    )


def _pixel_flags(ramp_data: Any, flags: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the flags of pixels as `stcal.ramp_fitting.utils.dq_compress_sect` sets them."""
    pixels: NDArray[np.uint32] = ramp_data.pixeldq.copy()
    unused = flags & (ramp_data.flags_saturated | ramp_data.flags_do_not_use)
    pixels[(unused != 0).all(axis=0)] |= np.uint32(ramp_data.flags_do_not_use)
    found = np.bitwise_or.reduce(flags, axis=0)
    for flag in (ramp_data.flags_saturated, ramp_data.flags_jump_det):
        pixels[found & flag != 0] |= np.uint32(flag)
    return pixels


class _RampFit:
    """The ramps of an image and their noise model, worked on in chunks of rows."""

    def __init__(
        self,
        data: NDArray[np.float32],
        covar: Any,
        readnoise: NDArray[np.float64],
        gain: NDArray[np.float32],
    ) -> None:
        self._data, self._gain, self._readnoise = data, gain, readnoise
        self._delta_t = np.asarray(covar.delta_t, np.float64)
        self._covar = (
            np.ascontiguousarray(covar.alpha_phnoise, np.float64),
            np.ascontiguousarray(covar.alpha_readnoise, np.float64),
            np.ascontiguousarray(covar.beta_phnoise, np.float64),
            np.ascontiguousarray(covar.beta_readnoise, np.float64),
        )
        self._nreads = covar.Nreads

    def find_jumps(
        self, used: NDArray[np.uint8], counts: NDArray[np.float64], threshold: float
    ) -> None:
        """Mask the differences with jumps, and write the count rates without them."""
        one, two = (
            threshold**2,
            scipy.stats.chi2.isf(scipy.special.erfc(threshold / likely_fit.SQRT2), 2),
        )
        thresholds = (float(one), float(one + 10 if np.isinf(two) else two))
        one_ok = (self._nreads[1:] * self._nreads[:-1] >= 1).astype(np.float64)
        one_ok[0] = one_ok[-1] = 1
        two_ok = (self._nreads[1:-1] > 1).astype(np.float64)
        for rows in self._chunks():
            guess, rate = np.empty((2, rows.stop - rows.start, self._data.shape[2]))
            ramp_kernels.guess_rates(
                self._data, self._delta_t, self._gain, rows.start, rows.stop, guess, rate
            )
            ramp_kernels.find_jumps(
                self._data, self._delta_t, *self._noise(rate, rows), self._covar,
                rows.start, rows.stop, one_ok, two_ok, thresholds, used, counts,
            )  # fmt: skip

    def rates(
        self,
        used: NDArray[np.uint8],
        guess: NDArray[np.float64],
        out: tuple[NDArray[np.float32], ...],
    ) -> None:
        """Write count rates, their errors and variances, and chi squared."""
        for rows in self._chunks():
            rate = guess[rows] / self._gain[rows]
            fitted = tuple(array[0] for array in out)
            ramp_kernels.fit_rates(
                self._data, self._delta_t, *self._noise(rate, rows), self._covar,
                rows.start, rows.stop, used, fitted,
            )  # fmt: skip

    def _chunks(self) -> list[slice]:
        _, nrows, ncols = self._data.shape
        step = max(1, _CHUNK // ncols)
        return [slice(first, min(first + step, nrows)) for first in range(0, nrows, step)]

    def _noise(
        self, rate: NDArray[np.float64], rows: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the photon rate, the read noise squared, and the scale of the covariance."""
        read2 = self._readnoise[rows] ** 2
        scale, before = np.ones_like(rate), np.ones_like(rate)
        aph, arn, _, _ = self._covar
        last = rate * aph[0] + read2 * arn[0]
        begin, ndiffs = 2, self._delta_t.size
        while begin <= ndiffs:
            end = min(-(-begin // _DN_SCALE) * _DN_SCALE, ndiffs)
            ramp_kernels.advance_determinant(
                rate.ravel(), read2.ravel(), self._covar, begin, end,
                last.ravel(), before.ravel(), scale.ravel(),
            )  # fmt: skip
            factor = last ** (1 / end)
            scale *= factor
            before /= last / factor
            last[:] = 1
            begin = end + 1
        return rate, read2, scale


def _outputs(fit: Callable[..., Any]) -> Any:
    """Fit ramps of few and many resultants: upstream adds up their terms differently."""
    outputs = []
    for nresultants, nrows, ncols in ((8, 12, 264), (12, 24, 24)):
        ramps = sample.ramps(nresultants, nrows, ncols)
        results = fit(ramps.model, ramps.readnoise, ramps.gain)
        outputs.append((*results, ramps.model.groupdq))
    return outputs


def _slopes_outputs(slopes: Callable[..., Any]) -> Any:
    data = sample.ramps(9, 12, 40).model.data
    exposure = SimpleNamespace(
        nresultants=9, frame_time=sample.READ_TIME, read_pattern=sample.read_pattern(9)
    )
    meta = SimpleNamespace(exposure=exposure)
    return [slopes(SimpleNamespace(data=each, meta=meta)) for each in (data, data[0])]


ACCELERATIONS = (
    Acceleration(
        replaces="stcal.ramp_fitting.likely_fit:likely_ramp_fit",
        replacement=likely_ramp_fit,
        reason=(
            "It fits row by row in some 200 numpy calls each, computes what jump detection does"
            " not use, and allocates ones for the whole cube for each row: half of the time of "
            "a detector."
        ),
        obsolete="stcal fits many rows at once, in compiled code.",
        checked_with={"stcal": "1.20.0", "numpy": "2.4.6", "numba": "0.68.1"},
        source="8296f7990d2dc9ae4f025973bc0432307d1a63edeaf03bd9edbc2cc679ccd259",
        outputs=_outputs,
        mirrors=(
            "stcal.ramp_fitting.likely_fit",
            "stcal.ramp_fitting.likely_algo_classes",
            "stcal.ramp_fitting.utils",
        ),
        imported_by=("romancal.ramp_fitting.ramp_fit_step",),
    ),
    Acceleration(
        replaces="romancal.ramp_fitting.ramp_fit_step:slopes_uniform_weights",
        replacement=slopes_uniform_weights,
        reason="It multiplies the whole cube in double precision: 1.2 GB.",
        obsolete="romancal adds up the resultants one by one.",
        checked_with={"romancal": "1.1.0", "numpy": "2.4.6"},
        source="73a8f79e29a887820ceb24dec6786e0cfa6f0de77e44ca7200f2e9bded096df4",
        outputs=_slopes_outputs,
        mirrors=("romancal.ramp_fitting.ramp_fit_step:_get_readtimes",),
    ),
)
