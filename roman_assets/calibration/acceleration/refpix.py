"""Correct for reference pixels one channel at a time, in a third of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from romancal.refpix._data import ChannelView, Coefficients
from scipy import fft

from roman_assets.calibration.acceleration.guest import Acceleration

_BLOCK = 2**14
"""Frequencies worked on at a time: what they need stays in the processor's cache."""


def apply_correction(self: Any, coeffs: Any) -> Any:
    """Correct in place as `ChannelView.apply_correction` does, and return the standard view."""
    reference = self.reference_fft
    for channel, correction in zip(self.data, _corrections(reference, coeffs), strict=False):
        channel -= correction.reshape(channel.shape).astype(channel.dtype)
    return self.standard


def _corrections(reference: Any, coeffs: Any) -> Iterator[NDArray[np.float64]]:
    """Yield the correction of each channel but the last, which has none."""
    normalization = coeffs.gamma.shape[1] * 2
    total = np.empty(reference.left.shape, np.result_type(reference.left, coeffs.gamma))
    for gamma, zeta, alpha in coeffs:
        for start in range(0, total.shape[1], _BLOCK):
            part = np.s_[start : start + _BLOCK]
            for frame, left, right, amp33 in zip(
                total, reference.left, reference.right, reference.amp33, strict=True
            ):
                block = frame[part]
                np.multiply(left[part], gamma[part], out=block)
                block += np.multiply(right[part], zeta[part])
                block += np.multiply(amp33[part], alpha[part])
                block *= normalization
        yield fft.irfft(total)


def _outputs(apply: Callable[..., Any]) -> Any:
    random = np.random.default_rng(6)
    nchannels, nframes, nrows, ncols = 33, 3, 16, 140
    length = nrows * ncols // 2 + 1
    view = ChannelView(random.normal(size=(nchannels, nframes, nrows, ncols)).astype(np.float32))
    parts = random.normal(size=(3, 2, nchannels - 1, length))
    standard = apply(view, Coefficients(*(real + 1j * imaginary for real, imaginary in parts)))
    return [view.data, standard.data, standard.offset]


ACCELERATIONS = (
    Acceleration(
        replaces="romancal.refpix._data:ChannelView.apply_correction",
        replacement=apply_correction,
        reason=(
            "It holds the corrections of all channels twice, in double precision: 2.6 GB, the "
            "peak of a detector."
        ),
        obsolete="romancal subtracts the correction of a channel when it is computed.",
        checked_with={"romancal": "1.1.0", "numpy": "2.4.6", "scipy": "1.17.1"},
        source="5073da707cb09527d92876da01e8063006b89d05a68281015257547595695e55",
        outputs=_outputs,
        mirrors=(
            "romancal.refpix._data:ChannelView.correction",
            "romancal.refpix._data:ChannelView.reference_fft",
            "romancal.refpix._data:ReferenceFFT",
        ),
    ),
)
