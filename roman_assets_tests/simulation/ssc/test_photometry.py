from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from astropy.nddata import NDData
from photutils.psf import CircularGaussianPRF, GriddedPSFModel

from roman_assets.simulation.ssc.calibrated_image import CalibratedImage, Image
from roman_assets.simulation.ssc.epsf import EffectivePsf
from roman_assets.simulation.ssc.photometry import find_objects, measure, stack

SIDE = 160
NOISE = 0.3
LEAST_REAL = 0.95
"""Part of the objects that are found which are some."""
OVERSAMPLING, REACH = 4, 24


@dataclass(frozen=True)
class Pixels:
    """A WCS of which the sky is the pixels of another image, up to a shift."""

    x: float = 0.0
    y: float = 0.0

    def __call__(self, x: Any, y: Any, **_: Any) -> tuple[Any, Any]:
        return x + self.x, y + self.y

    def invert(self, x: Any, y: Any, **_: Any) -> tuple[Any, Any]:
        return x - self.x, y - self.y


@cache
def psf() -> EffectivePsf:
    """Give a PSF as sharp as that of F146, with a tenth of the light in wings."""
    row, column = np.indices((2 * OVERSAMPLING * REACH + 1,) * 2) / OVERSAMPLING
    core = CircularGaussianPRF().evaluate(column, row, 1.0, REACH, REACH, 1.2)
    wings = (1 + ((row - REACH) ** 2 + (column - REACH) ** 2) / 4) ** -1.5
    stamp = 0.9 * core + 0.1 * wings / wings.sum() * OVERSAMPLING**2
    meta = {"grid_xypos": [(SIDE / 2, SIDE / 2)], "oversampling": OVERSAMPLING}
    return EffectivePsf(GriddedPSFModel(NDData(stamp[None], meta=meta)))


def image_of(x: Image, y: Image, flux: Image, seed: int, side: int = SIDE) -> CalibratedImage:
    """Give an image of stars."""
    data = np.zeros((side + 2 * REACH,) * 2)
    place = np.arange(-psf().reach, psf().reach + 1)
    for one_x, one_y, one_flux in zip(x, y, flux, strict=True):
        rows, columns = round(one_y) + place, round(one_x) + place
        stamp = one_flux * psf().stamp(rows, columns, one_x, one_y)
        data[np.ix_(rows + REACH, columns + REACH)] += stamp
    data = data[REACH:-REACH, REACH:-REACH]
    error = np.sqrt(NOISE**2 + data / 50)
    data = data + np.random.default_rng(seed).normal(0, error)
    nowhere = np.zeros(data.shape, dtype=bool)
    meta: dict[str, Any] = {}
    return CalibratedImage("x", data, error, nowhere, nowhere, Pixels(), 0.0, meta, psf())


def crowd(
    seed: int, density: float, side: int = SIDE
) -> tuple[CalibratedImage, Image, Image, Image]:
    """Give an image of stars, ``density`` to a pixel, their places and fluxes."""
    rng = np.random.default_rng(seed)
    count = round(density * side**2)
    x, y = rng.uniform(8, side - 9, (2, count))
    flux = 10 ** rng.uniform(1, 3, count)
    return image_of(x, y, flux, seed, side), x, y, flux


def saturated(image: CalibratedImage, x: float, y: float) -> CalibratedImage:
    """Give an image in which the middle of a star is lost."""
    rows, columns = np.indices(image.data.shape)
    lost = np.hypot(rows - y, columns - x) < 1.5
    return replace(image, data=np.where(lost, 0, image.data), mask=lost, saturated=lost)


def test_fluxes_of_a_crowd_are_right_within_their_errors() -> None:
    image, x, y, flux = crowd(seed=1, density=1 / 25)
    measured, error = measure(image, x, y)
    pull = (measured - flux) / error
    assert np.all(np.isfinite(pull))
    assert abs(np.median(pull)) < 0.3
    assert 0.8 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.3


def test_a_neighbour_that_is_not_separated_makes_the_error_larger() -> None:
    image, *_ = crowd(seed=2, density=0.0004)
    alone = measure(image, np.array([80.0]), np.array([80.0]))[1][0]
    beside = measure(image, np.array([80.0, 80.7]), np.array([80.0, 80.0]))[1][0]
    far = measure(image, np.array([80.0, 88.0]), np.array([80.0, 80.0]))[1][0]
    assert beside > 1.2 * alone
    assert abs(far / alone - 1) < 0.01


def test_what_cannot_be_measured_is_no_number() -> None:
    image, x, y, _ = crowd(seed=3, density=0.001)
    image.mask[round(y[0]) - 1 : round(y[0]) + 2, round(x[0]) - 1 : round(x[0]) + 2] = True
    flux, error = measure(image, np.append(x, -30.0), np.append(y, 50.0))
    assert np.isnan(flux[[0, -1]]).all()
    assert np.isnan(error[[0, -1]]).all()
    assert np.isfinite(flux[1:-1]).all()


def test_objects_of_a_crowd_are_found_where_they_are() -> None:
    image, x, y, flux = crowd(seed=4, density=1 / 30, side=96)
    found = find_objects(stack([image]))
    distance = np.hypot(x[:, None] - found["ra"], y[:, None] - found["dec"])
    alone = np.sort(np.hypot(x[:, None] - x, y[:, None] - y), axis=1)[:, 1] > 1.5
    assert (distance.min(axis=1)[alone] < 0.2).mean() > 0.95
    assert (distance.min(axis=0) < 0.5).mean() > LEAST_REAL
    assert np.median(distance.min(axis=1)[alone & (flux > 50)]) < 0.02


def test_what_a_stack_makes_of_the_psf_is_no_objects() -> None:
    _, x, y, flux = crowd(seed=8, density=1 / 30, side=96)
    images = [
        replace(image_of(x - dx, y - dy, 3 * flux, seed, 96), wcs=Pixels(dx, dy))
        for seed, (dx, dy) in enumerate(((0.0, 0.0), (0.3, -0.4), (2.5, 1.5)))
    ]
    found = find_objects(stack(images))
    distance = np.hypot(x[:, None] - found["ra"], y[:, None] - found["dec"])
    assert (distance.min(axis=1) < 0.3).mean() > 0.7
    assert (distance.min(axis=0) < 0.6).mean() > LEAST_REAL


def test_the_wings_of_a_bright_star_are_neither_objects_nor_light_of_others() -> None:
    x, y, flux = np.array([48.2, 36.0]), np.array([47.6, 47.0]), np.array([1e5, 300.0])
    image = image_of(x, y, flux, seed=5, side=96)
    for seen in (image, saturated(image, x[0], y[0])):
        found = find_objects(stack([seen]))
        assert len(found) == 2
        assert np.hypot(found["ra"] - x, found["dec"] - y).max() < 0.1
        assert np.asarray(found["flux"]) == pytest.approx(flux, rel=0.03)


def test_a_saturated_star_is_no_number_and_its_neighbour_is_right() -> None:
    x, y, flux = np.array([48.2, 44.0]), np.array([47.6, 47.0]), np.array([1e5, 3000.0])
    image = saturated(image_of(x, y, flux, seed=6, side=96), x[0], y[0])
    measured, error = measure(image, x, y)
    assert np.isnan(measured[0])
    assert abs(measured[1] - flux[1]) < 4 * error[1]


def test_nothing_is_found_in_noise() -> None:
    nothing = np.empty(0)
    assert len(find_objects(stack([image_of(nothing, nothing, nothing, seed=7)]))) == 0
