"""Replacements give upstream's results for whatever they may meet, not only for the self-test."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.nddata import NDData
from hypothesis import given, settings
from hypothesis import strategies as st
from photutils.psf import GriddedPSFModel
from roman_datamodels.dqflags import pixel
from stcal.jump.jump_class import JumpData
from stcal.linearity.linearity import _linearity_correction_tile
from stcal.ramp_fitting.likely_fit import likely_ramp_fit
from tweakwcs import wcsimage

from roman_assets.acceleration import hull, linearity, ramp_fit, sample
from roman_assets.acceleration import psf_grid as psf
from roman_assets.acceleration.guest import first_difference

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        yield


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.integers(4, 66), st.integers(1, 8), st.integers(1, 130))
def test_ramps(seed: int, nresultants: int, nrows: int, ncols: int) -> None:
    ramps = sample.ramps(nresultants, nrows, ncols, seed)
    theirs, ours = copy.deepcopy(ramps.model), copy.deepcopy(ramps.model)
    assert (
        first_difference(
            (*likely_ramp_fit(theirs, ramps.readnoise, ramps.gain), theirs.groupdq),
            (*ramp_fit.likely_ramp_fit(ours, ramps.readnoise, ramps.gain), ours.groupdq),
        )
        is None
    )


def test_ramps_with_few_jumps_in_a_row() -> None:
    """Upstream adds up the terms of a single pixel in another order."""
    ramps = sample.ramps(14, 60, 9)
    ramps.model.data[...] = np.arange(14, dtype=np.float32)[:, None, None] * 10
    ramps.model.groupdq[...] = 0
    for row in range(60):
        ramps.model.data[0, row % 14 :, row, : row % 3 + 1] += np.float32(900 + 7 * row)
        ramps.model.data[0, (row + 5) % 14 :, row, : row % 2] += np.float32(500 + row)
    theirs, ours = copy.deepcopy(ramps.model), copy.deepcopy(ramps.model)
    expected = likely_ramp_fit(theirs, ramps.readnoise, ramps.gain)
    assert np.count_nonzero(theirs.groupdq & 4) > 60
    found = ramp_fit.likely_ramp_fit(ours, ramps.readnoise, ramps.gain)
    assert first_difference((*expected, theirs.groupdq), (*found, ours.groupdq)) is None


@pytest.mark.parametrize(
    "unusual",
    [
        {"rejection_threshold": None},
        {"zeroframe": np.zeros((1, 6, 40), np.float32), "nframes": 4},
    ],
)
def test_unusual_ramps_are_left_to_upstream(unusual: dict[str, Any]) -> None:
    ramps = sample.ramps(8, 6, 40)
    vars(ramps.model).update(unusual)
    if "zeroframe" in unusual:
        ramps.model.read_pattern[0] = np.array([1.0, 2.0])
    theirs, ours = copy.deepcopy(ramps.model), copy.deepcopy(ramps.model)
    expected = likely_ramp_fit(theirs, ramps.readnoise, ramps.gain)
    found = ramp_fit.likely_ramp_fit(ours, ramps.readnoise, ramps.gain)
    assert first_difference((*expected, theirs.groupdq), (*found, ours.groupdq)) is None


def test_snowballs() -> None:
    ramps = sample.ramps(8, 60, 60)
    y, x = np.mgrid[:60, :60]
    distance = np.hypot(y - 30, x - 30)
    ramps.model.groupdq[0, 4:, distance < 4] = 2
    ramps.model.data[0, 4:, (distance >= 4) & (distance < 9)] += 4000
    jump = JumpData(dqflags=pixel)
    jump.set_snowball_info(True, 6, 1, 1.9, True, 0.5, 4, 0)
    jump.max_cores = "1"
    theirs, ours = copy.deepcopy(ramps.model), copy.deepcopy(ramps.model)
    expected = likely_ramp_fit(theirs, ramps.readnoise, ramps.gain, copy.deepcopy(jump))
    found = ramp_fit.likely_ramp_fit(ours, ramps.readnoise, ramps.gain, copy.deepcopy(jump))
    assert first_difference((*expected, theirs.groupdq), (*found, ours.groupdq)) is None


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.integers(3, 12), st.integers(1, 3), st.integers(1, 300), st.sampled_from([1, 100]))
def test_linearity(seed: int, nresultants: int, nrows: int, ncols: int, step: int) -> None:
    random = np.random.default_rng(seed)
    nchannels = -(-ncols // 128)
    table = {
        f"science_channel_{n + 1:02d}": SimpleNamespace(correction=random.normal(size=100))
        for n in range(nchannels)
    }
    points = np.cumsum(random.integers(1, step + 1, 100)) * 300
    inl = linearity.InlCorrection(
        SimpleNamespace(value=points, inl_table=SimpleNamespace(**table)), ncols
    )
    model = sample.ramps(nresultants, nrows, ncols, seed).model
    coefficients = [
        (10.0 ** -np.arange(0, 4 * n, 4)[:, None, None] * random.normal(1, 0.1, (n, nrows, ncols)))
        for n in (3, 6)
    ]
    linear, inverse = (values.astype(np.float32) for values in coefficients)
    results = []
    for correct in (_linearity_correction_tile, linearity.correct_tile):
        data = model.data[0].copy()
        correct(
            data, model.groupdq[0], linear, {"SATURATED": 2}, inverse, inl,
            sample.read_pattern(nresultants), None,
        )  # fmt: skip
        results.append(data)
    assert first_difference(*results) is None


@settings(deadline=None, max_examples=100)
@given(
    st.floats(-30, 160),
    st.floats(-30, 160),
    st.floats(-1e9, 1e9),
    st.sampled_from([1, 2, 5]),
    SEEDS,
)
def test_psf(x_0: float, y_0: float, flux: float, oversampling: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = [(column, row) for column in (0, 64, 128) for row in (0, 128)]
    images = NDData(
        random.random((6, 21, 17)), meta={"grid_xypos": grid, "oversampling": oversampling}
    )
    model = GriddedPSFModel(images)
    y, x = np.mgrid[-3:4, -3:4] + np.array([y_0, x_0])[:, None, None].round()
    arguments = (x, y, np.array([flux]), np.array([x_0]), np.array([y_0]))
    expected = GriddedPSFModel.evaluate(model, *arguments)
    assert first_difference(expected, psf.evaluate(model, *arguments)) is None


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(1, 400), st.sampled_from([None, 1, 2, 7]), st.floats(0, 2e-3))
def test_convex_hulls(seed: int, npoints: int, decimals: int | None, width: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.uniform(-0.01, 0.01, (2, npoints))
    y = x + width * y if width > 1e-3 else y
    if decimals is not None:
        x, y = np.round(x * 100, decimals), np.round(y * 100, decimals)
    try:
        expected = wcsimage.convex_hull(x, y, None, 1e-11)
    except IndexError:
        return
    assert first_difference(expected, hull.convex_hull(x, y, None, 1e-11)) is None
