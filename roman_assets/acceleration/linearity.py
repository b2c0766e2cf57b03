"""Correct linearity read by read in compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from romancal.linearity import linearity_step
from stcal.linearity import linearity

from roman_assets.acceleration import linearity_kernels, sample
from roman_assets.acceleration.guest import Acceleration

_upstream_tile = linearity._linearity_correction_tile
_upstream_inl = linearity_step.make_inl_correction


class InlCorrection:
    """The correction of integral nonlinearity, as a function and as tables.

    Parameters
    ----------
    model
        The reference file.
    ncols
        Columns of the data.
    """

    def __init__(self, model: Any, ncols: int) -> None:
        self._correct = _upstream_inl(model, ncols)
        self.points = np.asarray(model.value, np.float32).astype(np.float64)
        channels = range(1, -(-ncols // linearity_kernels.CHANNEL_WIDTH) + 1)
        self.values = np.array(
            [getattr(model.inl_table, f"science_channel_{n:02d}").correction for n in channels],
            np.float64,
        )
        with np.errstate(all="ignore"):
            self.slopes = np.diff(self.values) / np.diff(self.points)

    def __call__(self, data: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return the correction of counts, to be added to them."""
        corrected: NDArray[np.floating[Any]] = self._correct(data)
        return corrected

    @property
    def is_regular(self) -> bool:
        """Whether all values are finite, at equidistant points."""
        return bool(
            self.points.size > 1
            and np.ptp(np.diff(self.points)) == 0 < self.points[1] - self.points[0]
            and np.isfinite(self.slopes).all()
            and np.isfinite(self.values).all()
        )


def correct_tile(
    data: NDArray[np.float32],
    gdq: NDArray[np.uint8],
    lin_coeffs: NDArray[np.float32],
    dqflags: Mapping[str, int],
    ilin_coeffs: NDArray[np.float32],
    additional_correction: Callable[..., Any] | None,
    read_pattern: Sequence[Sequence[int]],
    satval: NDArray[Any] | None,
) -> None:
    """Correct a tile as `stcal.linearity.linearity._linearity_correction_tile` does.

    Upstream's own function corrects what Roman does not have: a cap at saturation, another
    additional correction.
    """
    inl = additional_correction
    if (
        satval is not None
        or not (inl is None or (isinstance(inl, InlCorrection) and inl.is_regular))
        or len(data) < 3
        or not data.dtype == lin_coeffs.dtype == ilin_coeffs.dtype == np.float32
        or gdq.dtype != np.uint8
    ):
        _upstream_tile(
            data, gdq, lin_coeffs, dqflags, ilin_coeffs, additional_correction, read_pattern, satval
        )
        return
    mean_reads = np.array([np.mean(reads) for reads in read_pattern])
    since_first = [np.array(reads) - mean_reads[0] for reads in read_pattern]
    tables = (
        (np.zeros(2), np.zeros((1, 2)), np.zeros((1, 1)))
        if inl is None
        else (inl.points, inl.values, inl.slopes)
    )
    linearity_kernels.correct_tile(
        data,
        np.asarray(gdq),
        np.asarray(lin_coeffs),
        np.asarray(ilin_coeffs),
        int(dqflags["SATURATED"]),
        mean_reads,
        np.concatenate(since_first),
        np.cumsum([len(reads) for reads in read_pattern]),
        inl is not None,
        *tables,
    )


def _inl_model(nchannels: int) -> Any:
    random = np.random.default_rng(2)
    table = {
        f"science_channel_{n + 1:02d}": SimpleNamespace(
            correction=np.cumsum(random.normal(size=128))
        )
        for n in range(nchannels)
    }
    return SimpleNamespace(
        value=np.arange(0, 2**16, 512, dtype=np.uint16), inl_table=SimpleNamespace(**table)
    )


def _inl_outputs(make: Callable[..., Callable[..., Any]]) -> Any:
    values = np.random.default_rng(3).uniform(-600, 70_000, (2, 8, 264))
    values[0, 0, :5] = np.nan, np.inf, -np.inf, 512, 65_024
    return make(_inl_model(3), 264)(values)


def _tile_outputs(correct: Callable[..., Any]) -> Any:
    random = np.random.default_rng(4)
    outputs = []
    for nresultants, inl in ((9, InlCorrection(_inl_model(3), 264)), (5, None)):
        model = sample.ramps(nresultants, 8, 264).model
        data, flags = model.data[0], model.groupdq[0]
        # on the points of the correction, and outside of them
        data[-2, 0] = 512 * random.integers(0, 160, 264)
        shape = data.shape[1:]
        scale = 10.0 ** -np.arange(0, 24, 4)[:, None, None]
        inverse, linear = (
            (scale[:n] * random.normal(1, 0.1, (n, *shape))).astype(np.float32) for n in (6, 3)
        )
        correct(
            data, flags, linear, {"SATURATED": 2}, inverse, inl,
            sample.read_pattern(nresultants), None,
        )  # fmt: skip
        outputs.append(data)
    return outputs


ACCELERATIONS = (
    Acceleration(
        replaces="romancal.linearity.linearity_step:make_inl_correction",
        replacement=InlCorrection,
        reason="It interpolates a channel and tile at a time; its tables are not to be had.",
        obsolete="Its callers can see the tables, or stcal interpolates.",
        checked_with={"romancal": "1.1.0"},
        source="3107c68d36e6b5cf10ae19371462ee8a5ee3d493da6ccfb86ed6335dc9a875a1",
        outputs=_inl_outputs,
    ),
    Acceleration(
        replaces="stcal.linearity.linearity:_linearity_correction_tile",
        replacement=correct_tile,
        reason="It works on arrays of all reads of a tile, larger than the processor's caches.",
        obsolete="stcal corrects a few pixels at a time, in compiled code.",
        checked_with={"stcal": "1.20.0", "numpy": "2.4.6", "numba": "0.68.1"},
        source="f87e2ce24649ca69274ace7dd1f0db77759b1578eb74bd13d12184bd081fb3c8",
        outputs=_tile_outputs,
        mirrors=("stcal.linearity.linearity:apply_polynomial",),
    ),
)
