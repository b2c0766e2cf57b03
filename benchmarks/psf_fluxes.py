"""Why the PSF fluxes of native-scale coadds are too faint: romancal's fit, one cause at a time.

Stars without noise are drizzled from undersampled pixels and fitted as romancal does: 5x5 pixels,
each weighted by its error. Three things vary:

- *pattern*: the two exposures of the demo, or four that are half a pixel apart along both axes;
- *PSF*: romancal's own, the same without the azimuthal average (``full``), and both with exact
  boxes for drop and output pixel (``exact``): `Box2DKernel` of an even width has half weights at
  its edges, which adds 0.02 square pixels to the variance of the model;
- *error of a pixel*: from the value that the pixel has, as in a coadd (``own``), from the value
  that the PSF says (``expected``), or the same for all (``equal``).

It prints the median of catalogue minus truth and the scatter, mmag. Positive is too faint.

    python benchmarks/psf_fluxes.py
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from drizzle.resample import Drizzle
from numpy.typing import NDArray
from photutils.psf import GriddedPSFModel, ImagePSF
from romancal.source_catalog.psf import (
    _azimuthally_average_via_fft,
    create_l3_psf_model,
    get_gridded_psf_model,
)
from scipy.optimize import least_squares

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.effective_psf import effective_psf
from roman_assets.simulation.telescope.sky_references import epsf

DETECTOR = "WFI02"
WINDOW = 512
PLACE = WINDOW / 2
PATTERNS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "2 exposures": ((0.0, 0.0), (22.136, 14.5)),
    "4, half a pixel apart": ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)),
}
PSFS = ("romancal", "full", "exact", "full exact")
ERRORS = ("own", "expected", "equal")

FLUX = 8e4
"""Electrons of a star: some 19.5 mag in 140 s."""
SKY, READ_NOISE = 70.0, 64.0
"""Variance of a pixel without a star, square electrons."""

SIZE = 31
OVERSAMPLE = 4
RADIUS = 10


@dataclass(frozen=True)
class Coadd:
    """A coadd of one star: electrons, its variance, and where the star is (x, y)."""

    data: NDArray[np.float64]
    variance: NDArray[np.float64]
    star: tuple[float, float]


def model_of(kind: str, grid: GriddedPSFModel, reference: object) -> ImagePSF:
    if kind == "romancal":
        return create_l3_psf_model(reference, pixel_scale=0.11, pixfrac=1.0)
    points = np.linspace(-RADIUS, RADIUS, 2 * RADIUS * OVERSAMPLE + 1) + PLACE
    x, y = np.meshgrid(points, points)
    psf = grid.evaluate(x, y, 1.0, PLACE, PLACE)
    for _ in ("drop", "output pixel"):
        psf = exact_box(psf) if "exact" in kind else astropy_box(psf)
    if "full" not in kind:
        psf = _azimuthally_average_via_fft(psf)
    return ImagePSF(psf, oversampling=OVERSAMPLE)


def exact_box(psf: NDArray[np.float64]) -> NDArray[np.float64]:
    response = np.sinc(np.fft.fftfreq(len(psf)) * OVERSAMPLE)
    return np.real(np.fft.ifft2(np.fft.fft2(psf) * response[:, None] * response))


def astropy_box(psf: NDArray[np.float64]) -> NDArray[np.float64]:
    from astropy.convolution import Box2DKernel, convolve

    return np.asarray(convolve(psf, Box2DKernel(OVERSAMPLE)))


def coadd(grid: GriddedPSFModel, pattern: str, rng: np.random.Generator) -> Coadd:
    y, x = np.mgrid[:SIZE, :SIZE]
    middle = SIZE // 2
    phase, place = rng.uniform(-0.5, 0.5, (2, 2))
    planes = [Drizzle(kernel="square", fillval=0.0, out_shape=(SIZE, SIZE)) for _ in range(2)]
    for offset in PATTERNS[pattern]:
        star = middle + phase + np.array(offset) % 1.0
        seen = FLUX * grid.evaluate(x - star[0] + PLACE, y - star[1] + PLACE, 1.0, PLACE, PLACE)
        variance = np.clip(seen, 0, None) + SKY + READ_NOISE
        pixmap = np.stack([x - star[0], y - star[1]], axis=-1) + middle + place
        for plane, values in zip(planes, (seen, variance), strict=True):
            plane.add_image(values.astype("f4"), 1.0, pixmap)
    data, variance = (plane.out_img.astype(float) for plane in planes)
    return Coadd(data, variance / len(PATTERNS[pattern]), tuple(middle + place))


def fitted_flux(image: Coadd, psf: ImagePSF, errors: str) -> float:
    x0, y0 = (round(place) for place in image.star)
    window = np.s_[y0 - 2 : y0 + 3, x0 - 2 : x0 + 3]
    y, x = np.mgrid[window]
    expected = np.clip(FLUX * psf.evaluate(x, y, 1.0, *image.star), 0, None) + SKY + READ_NOISE
    variance = {
        "own": image.variance[window],
        "expected": expected,
        "equal": np.full_like(expected, SKY + READ_NOISE),
    }[errors]
    weight = 1 / np.sqrt(variance)

    def residual(found: NDArray[np.float64]) -> NDArray[np.float64]:
        model = FLUX * psf.evaluate(x, y, *found)
        return np.ravel((model - image.data[window]) * weight)

    return float(least_squares(residual, [1.0, *image.star]).x[0])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--stars", type=int, default=60)
    stars = arguments.parse_args().stars
    logging.disable(logging.WARNING)
    for element in (OpticalElement.F106, OpticalElement.F158):
        reference = epsf(DETECTOR, element, effective_psf(DETECTOR, element, WINDOW))
        grid = get_gridded_psf_model(reference)
        models = {kind: model_of(kind, grid, reference) for kind in PSFS}
        for pattern in PATTERNS:
            rng = np.random.default_rng(1)
            images = [coadd(grid, pattern, rng) for _ in range(stars)]
            for kind, errors in itertools.product(PSFS, ERRORS):
                fluxes = [fitted_flux(image, models[kind], errors) for image in images]
                mmag = -2500 * np.log10(fluxes)
                print(
                    f"{element}  {pattern:22s} PSF {kind:10s} errors {errors:8s} "
                    f"{np.median(mmag):6.1f} +- {mmag.std():4.1f} mmag"
                )


if __name__ == "__main__":
    main()
