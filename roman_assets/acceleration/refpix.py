"""Correct for reference pixels with a third of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from roman_datamodels.dqflags import pixel
from romancal.refpix import _data, refpix
from scipy import fft

from roman_assets.acceleration.guest import Acceleration

_BLOCK = 2**14
"""Frequencies worked on at a time: their data stay in the processor's cache."""


def run_steps(
    datamodel: Any,
    refs: Any,
    zero_bad_ref_pix: bool = True,
    remove_offset: bool = True,
    remove_trends: bool = True,
    cosine_interpolate: bool = True,
    fft_interpolate: bool = True,
) -> Any:
    """Correct a ramp model in place as `romancal.refpix.refpix.run_steps` does, and return it.

    There is one copy of the data at a time, two while they are put in another order.
    """
    if zero_bad_ref_pix:
        refpix._mask_bad_ref_pixels(datamodel)
    coefficients = _data.Coefficients.from_ref(refs)
    standard = _data.StandardView.from_datamodel(datamodel)
    datamodel.data = np.empty((0, 0, 0), standard.data.dtype)
    if remove_offset:
        standard = standard.remove_offset()
    channel = standard.channels
    del standard
    if remove_trends:
        channel = channel.remove_trends()
    if cosine_interpolate:
        channel = channel.cosine_interpolate()
    if fft_interpolate:
        channel = channel.fft_interpolate()
    reference = channel.reference_fft
    for data, correction in zip(channel.data, _corrections(reference, coefficients), strict=False):
        data -= correction.reshape(data.shape).astype(data.dtype)
    standard = _standard(channel)
    del channel
    standard.apply_offset()
    return standard.update(datamodel)


def _corrections(reference: Any, coefficients: Any) -> Iterator[NDArray[np.float64]]:
    """Yield the correction of each channel but the last, which has none."""
    normalization = coefficients.gamma.shape[1] * 2
    total = np.empty(reference.left.shape, np.result_type(reference.left, coefficients.gamma))
    for gamma, zeta, alpha in coefficients:
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


def _standard(channel: Any) -> Any:
    """Return the standard view, without a copy between."""
    nchannels, nframes, nrows, ncols = channel.data.shape
    width = ncols - _data.Const.PAD
    data = np.empty((nframes, nrows, nchannels * width), channel.data.dtype)
    for number, values in enumerate(channel.data):
        step = -1 if number % 2 else 1
        place = np.s_[number * width : (number + 1) * width]
        data[:, :, place] = values[:, :, :width][:, :, ::step]
    return _data.StandardView(data, offset=channel.offset)


def _outputs(run: Callable[..., Any]) -> Any:
    random = np.random.default_rng(6)
    nframes, nrows = 3, 16
    dq = random.choice([0, pixel.BAD_REF_PIXEL], (nrows, 4096), p=[0.99, 0.01]).astype(np.uint32)
    length = nrows * (128 + _data.Const.PAD) // 2 + 1
    gamma, zeta, alpha = (
        1e-3 * (random.normal(size=(32, length)) + 1j * random.normal(size=(32, length)))
        for _ in range(3)
    )
    refs = SimpleNamespace(gamma=gamma, zeta=zeta, alpha=alpha)
    outputs = []
    for options in ((), (False, False, False, False, False)):
        model = SimpleNamespace(
            data=random.normal(9000, 50, (nframes, nrows, 4096)).astype(np.float32),
            amp33=random.integers(0, 9000, (nframes, nrows, 128)).astype(np.uint16),
            pixeldq=dq,
        )
        run(model, refs, *options)
        outputs.append(vars(model))
    return outputs


ACCELERATIONS = (
    Acceleration(
        replaces="romancal.refpix.refpix:run_steps",
        replacement=run_steps,
        reason=(
            "It holds the corrections of all channels twice, in double precision, and up to five "
            "copies of the data: the peak of a detector."
        ),
        obsolete="romancal subtracts the correction of a channel when it is computed.",
        checked_with={"romancal": "1.1.0", "numpy": "2.4.6", "scipy": "1.17.1"},
        source="0f951c0aaa536ea8d43f59010fe2b5776889b9e557b3cde70b42f3658d636c82",
        outputs=_outputs,
        mirrors=("romancal.refpix._data",),
    ),
)
