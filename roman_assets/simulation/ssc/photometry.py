"""PSF photometry of crowded fields: objects of a reference frame, and their fluxes in each image.

Objects are found where the model of those that are known leaves light, from bright to faint, and
all are moved to where they fit best each time; so what hides beside a bright one is found when that
is known well. In the images of a season their places are known, since the WCS of L2 images is
aligned with Gaia to a hundredth of a pixel, and what is solved for is the fluxes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, label

from roman_assets.simulation.ssc.calibrated_image import CalibratedImage, Image, Mask, background
from roman_assets.simulation.ssc.crowd import (
    LEAST_SEPARATION,
    CoreFit,
    Crowd,
    cores,
    near,
    wings,
)

DETECTION_SIGMA = (100.0, 30.0, 12.0, 8.0, 6.0)
"""Objects rise above the noise by so much, round after round; of what they are at last, those with
`LEAST_SIGNIFICANCE` are kept."""
DETECTION_FWHM = 1.2
"""Pixels; the PSF of F146."""
ANY_SHAPE = (-10.0, 10.0)
"""Range of sharpness and roundness: what is blended has neither that of a star."""
MODEL_ERROR = 0.02
"""Part of the model of an image that may be wrong where places are not yet right."""
STACKED_MODEL_ERROR = 0.1
"""The same for a stack: undersampled images that were interpolated have not quite their PSF."""
MOVES = 2
"""Times that the places of all objects are improved in a round."""
BORDER = 6
"""Pixels at the edge where nothing is measured."""
PSF_SIZE = 25
"""Pixels along a side of the PSF that a reference frame carries."""


@dataclass(frozen=True)
class ReferenceFrame:
    """A stack of a visit's images of one detector, on the pixels of the first.

    Parameters
    ----------
    first
        The image whose pixels, WCS and PSF it has.
    data, uncertainty
        Mean weighted by inverse variance, and its standard error, DN/s.
    coverage
        Number of images in each pixel.
    """

    first: CalibratedImage
    data: Image
    uncertainty: Image
    coverage: NDArray[np.uint8]

    @property
    def mask(self) -> Mask:
        """Pixels without any image."""
        empty: Mask = self.coverage == 0
        return empty

    @property
    def image(self) -> CalibratedImage:
        """The frame as an image."""
        error = np.where(self.mask, 1.0, self.uncertainty)
        return replace(self.first, data=self.data, error=error, mask=self.mask)

    @property
    def psf(self) -> Image:
        """The PSF at the middle of the detector, of unit sum, shape (`PSF_SIZE`, `PSF_SIZE`)."""
        place = np.arange(PSF_SIZE) - PSF_SIZE // 2
        y, x = (side // 2 for side in self.data.shape)
        stamp = self.first.psf.stamp(y + place, x + place, float(x), float(y))
        normal: Image = stamp / stamp.sum()
        return normal


def stack(images: Sequence[CalibratedImage]) -> ReferenceFrame:
    """Stack images; those after the first are interpolated (cubic) onto its pixels by their WCS."""
    from scipy.ndimage import map_coordinates

    first = images[0]
    y, x = np.indices(first.data.shape)
    total, weight = np.zeros(first.data.shape), np.zeros(first.data.shape)
    coverage = np.zeros(first.data.shape, dtype=np.uint8)
    for image in images:
        data, variance, good = image.data, image.error**2, ~image.mask
        if image is not first:
            where = np.array(image.pixels_of(*first.wcs(x, y)))[::-1]
            data = map_coordinates(image.data, where, order=3, cval=0.0)
            variance = map_coordinates(variance, where, order=1, cval=np.inf)
            good = map_coordinates((~image.mask).astype(float), where, order=1, cval=0.0) > 0.99
            good &= np.isfinite(variance)
        inverse = np.where(good, 1 / np.where(good, variance, 1.0), 0.0)
        total += inverse * data
        weight += inverse
        coverage += good
    seen = weight > 0
    safe = np.where(seen, weight, 1.0)
    return ReferenceFrame(
        first,
        np.where(seen, total / safe, 0.0),
        np.where(seen, 1 / np.sqrt(safe), 0.0),
        coverage,
    )


def find_objects(frame: ReferenceFrame) -> Table:
    """Find the objects of a reference frame.

    Returns
    -------
    Table
        ``ra``, ``dec`` (ICRS, degrees), ``flux`` and ``flux_error`` (DN/s), brightest first. Among
        them are those at the edge and saturated stars, which can be seen by their wings: neither
        is measured, but their light is in the pixels of others.
    """
    image = frame.image
    model_error = STACKED_MODEL_ERROR if frame.coverage.max() > 1 else MODEL_ERROR
    crowd = Crowd.at(image, model_error, *_saturated_stars(image))
    for sigma in DETECTION_SIGMA:
        crowd = crowd.with_more(*_peaks(crowd, sigma))
        for _ in range(MOVES):
            crowd = crowd.settled()
    if not len(crowd.x):
        return Table(names=("ra", "dec", "flux", "flux_error"))
    ra, dec = image.sky_of(crowd.x, crowd.y)
    fit = CoreFit(image, cores(image, crowd.x, crowd.y))
    flux, error = fit.fluxes(image.data - crowd.far), fit.errors
    objects = Table({"ra": ra, "dec": dec, "flux": flux, "flux_error": error})
    objects.sort("flux", reverse=True)
    return objects


def _saturated_stars(image: CalibratedImage) -> tuple[Image, Image]:
    """Return the places (x, y) of stars of which the middle is missing."""
    touching = np.ones((3, 3))
    numbered, count = label(image.saturated, structure=touching)
    middles = center_of_mass(image.saturated, numbered, np.arange(1, count + 1))
    y, x = np.reshape(np.array(middles, dtype=float), (-1, 2)).T
    return x, y


def _peaks(crowd: Crowd, sigma: float) -> tuple[Image, Image]:
    """Return the places (x, y) where there is light that known objects do not explain."""
    from photutils.detection import DAOStarFinder
    from photutils.utils.exceptions import NoDetectionsWarning

    find = DAOStarFinder(
        sigma, DETECTION_FWHM, min_separation=LEAST_SEPARATION, sharpness_range=ANY_SHAPE,
        roundness_range=ANY_SHAPE,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = find(crowd.residual, mask=crowd.image.mask)
    if found is None:
        return np.empty(0), np.empty(0)
    x, y = (np.asarray(found[name], dtype=float) for name in ("x_centroid", "y_centroid"))
    new = crowd.is_free(x, y)
    return x[new], y[new]


def measure(image: CalibratedImage, ra: Image, dec: Image) -> tuple[Image, Image]:
    """Measure objects at known places in an image.

    Parameters
    ----------
    image
        The image.
    ra, dec
        ICRS, degrees.

    Returns
    -------
    flux, error : ndarray
        DN/s; NaN where an object is off the image or its pixels are of no use.
    """
    x, y = image.pixels_of(ra, dec)
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    places = np.flatnonzero(near(image, x, y))
    if not len(places):
        return flux, error
    x, y = x[places], y[places]
    models = cores(image, x, y)
    fit = CoreFit(image, models)
    first = fit.fluxes(image.data)
    far = wings(image, x, y, first)
    left = image.data - far - (models @ first).reshape(far.shape)
    far += background(left, image.mask)
    good = fit.seen & _usable(image, x, y)
    flux[places[good]] = fit.fluxes(image.data - far)[good]
    error[places[good]] = fit.errors[good]
    return flux, error


def _inside(shape: tuple[int, ...], x: Image, y: Image) -> Mask:
    inside: Mask = (x >= BORDER) & (x < shape[1] - BORDER) & (y >= BORDER) & (y < shape[0] - BORDER)
    return inside


def _usable(image: CalibratedImage, x: Image, y: Image) -> Mask:
    """Whether the pixel in which an object lies is there, and most around it may be used."""
    usable = _inside(image.data.shape, x, y)
    for number in np.flatnonzero(usable):
        column, row = round(x[number]), round(y[number])
        around = image.mask[row - 1 : row + 2, column - 1 : column + 2]
        usable[number] = not around[1, 1] and around.mean() < 0.5
    return usable
