from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from photutils.psf import CircularGaussianPRF

from roman_assets.stand_in.photometry import CalibratedImage, Image, measure

SIDE = 160
NOISE = 0.3


@dataclass(frozen=True)
class Pixels:
    """A WCS of which the sky is the pixels."""

    def invert(self, x: Any, y: Any, **_: Any) -> tuple[Any, Any]:
        return x, y


@dataclass(frozen=True)
class Psf:
    """A PSF as sharp as that of F146."""

    def evaluate(self, x: Image, y: Image, flux: float, x_0: float, y_0: float) -> Image:
        stamp: Image = CircularGaussianPRF().evaluate(x, y, flux, x_0, y_0, 1.2)
        return stamp


def crowd(seed: int, density: float) -> tuple[CalibratedImage, Image, Image, Image]:
    """Give an image of stars, ``density`` to a pixel, their places and fluxes."""
    rng = np.random.default_rng(seed)
    count = round(density * SIDE**2)
    x, y = rng.uniform(8, SIDE - 9, (2, count))
    flux = 10 ** rng.uniform(1, 3, count)
    rows, columns = np.indices((SIDE, SIDE))
    data = np.zeros((SIDE, SIDE))
    for one in zip(flux, x, y, strict=True):
        data += Psf().evaluate(columns, rows, *one)
    error = np.sqrt(NOISE**2 + data / 50)
    data += rng.normal(0, error)
    mask = np.zeros(data.shape, dtype=bool)
    return CalibratedImage("x", data, error, mask, Pixels(), 0.0, {}, Psf()), x, y, flux


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
