"""PSF photometry of crowded fields: objects of a reference frame, and their fluxes in each image.

Objects are found and fitted together with their neighbours, twice, so that what hides beside a
bright one is found in the second round. In the images of a season their places are known, since the
WCS of L2 images is aligned with Gaia to a hundredth of a pixel. Then a model of the image is linear
in the fluxes, and those of all objects are solved for at once: in the Bulge everything is blended
with its neighbours, and these with theirs, so that there are no groups to be fitted apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.time import Time
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Image = NDArray[np.float64]

FIT_SIZE = 5
"""Pixels along a side of what is fitted around an object, to find its place."""
DETECTION_SIGMA = 25.0
"""Objects of the reference frame rise above the noise by so much."""
DETECTION_FWHM = 1.2
"""Pixels; the PSF of F146."""
LEAST_SEPARATION = 1.0
"""Pixels between two objects; what is nearer is one."""
GROUP_PIXELS = 1.5
"""Objects nearer to each other than this are found together."""
MODEL_RADIUS = 8
"""Pixels from an object to the edge of its model, when the fluxes of all are solved for."""
CORRELATED = 0.05
"""Models that overlap by more than this part add to each other's errors."""
BORDER = 6
"""Pixels at the edge where nothing is measured."""
BACKGROUND_BOX = 64
_CROWDED_BOX = 90
"""Per cent of a box that may be stars; where everything is, a few pixels between them do."""
PSF_SIZE = 25
"""Pixels along a side of the PSF that a reference frame carries."""


@dataclass(frozen=True)
class CalibratedImage:
    """An L2 image without its background.

    Parameters
    ----------
    name
        Official file name.
    data, error
        DN/s; where `mask` is true they mean nothing.
    mask
        Pixels that are not to be used.
    wcs
        Pixels to sky (ICRS, degrees).
    mjd
        Mid-exposure.
    meta
        The metadata as a plain mapping.
    psf
        A photutils model of the PSF.
    """

    name: str
    data: Image
    error: Image
    mask: NDArray[np.bool_]
    wcs: Any
    mjd: float
    meta: dict[str, Any]
    psf: Any

    @property
    def detector(self) -> str:
        """WFI01 to WFI18."""
        return str(self.meta["instrument"]["detector"])


def read_image(path: Path) -> CalibratedImage:
    """Read an L2 image with the PSF that CRDS has for it, and take its background away."""
    from roman_datamodels import datamodels
    from roman_datamodels.dqflags import pixel
    from romancal.source_catalog.psf import get_gridded_psf_model
    from stpipe import crds_client

    with datamodels.open(path) as model:
        data = np.array(model.data, dtype=float)
        error = np.array(model.err, dtype=float)
        mask = (np.array(model.dq) & int(pixel.DO_NOT_USE)) != 0
        mask |= ~np.isfinite(data) | ~np.isfinite(error) | (error <= 0)
        wcs = model.meta.wcs
        start, end = model.meta.exposure.start_time, model.meta.exposure.end_time
        parameters = model.get_crds_parameters()
        meta = {
            "instrument": {"detector": model.meta.instrument.detector},
            "s_region": model.meta.wcsinfo.s_region,
            "start": Time(start), "end": Time(end),
            "exposure_time": float(model.meta.exposure.exposure_time),
            "category": model.meta.program.category,
        }  # fmt: skip
    references = crds_client.get_multiple_reference_paths(parameters, ["epsf"], "roman")
    with datamodels.open(references["epsf"]) as reference:
        psf = get_gridded_psf_model(reference)
    data[mask], error[mask] = 0.0, 1.0
    data -= _background(data, mask)
    middle = (Time(start).mjd + Time(end).mjd) / 2
    return CalibratedImage(path.name, data, error, mask, wcs, float(middle), meta, psf)


def _background(data: Image, mask: NDArray[np.bool_]) -> Image:
    """Give the background between the stars: the mode of boxes, as DAOPHOT estimates it."""
    from photutils.background import Background2D, MMMBackground

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        found = Background2D(
            data, BACKGROUND_BOX, mask=mask, exclude_percentile=_CROWDED_BOX,
            bkg_estimator=MMMBackground(),
        )  # fmt: skip
    return np.asarray(found.background, dtype=float)


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
    def mask(self) -> NDArray[np.bool_]:
        """Pixels without any image."""
        empty: NDArray[np.bool_] = self.coverage == 0
        return empty

    @property
    def psf(self) -> Image:
        """The PSF at the middle of the detector, of unit sum, shape (`PSF_SIZE`, `PSF_SIZE`)."""
        half = PSF_SIZE // 2
        y0, x0 = (side // 2 for side in self.data.shape)
        y, x = np.mgrid[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1]
        stamp: Image = np.asarray(self.first.psf.evaluate(x, y, 1.0, x0, y0), dtype=float)
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
            where = np.array(sky_to_pixel(image, *first.wcs(x, y)))[::-1]
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
        ``ra``, ``dec`` (ICRS, degrees), ``flux`` and ``flux_error`` (DN/s), brightest first.
    """
    from photutils.detection import DAOStarFinder
    from photutils.psf import IterativePSFPhotometry, SourceGrouper

    noise = float(np.median(frame.uncertainty[~frame.mask]))
    fit = IterativePSFPhotometry(
        frame.first.psf,
        (FIT_SIZE, FIT_SIZE),
        DAOStarFinder(
            DETECTION_SIGMA * noise,
            DETECTION_FWHM,
            min_separation=LEAST_SEPARATION,
            exclude_border=True,
        ),
        grouper=SourceGrouper(GROUP_PIXELS),
        maxiters=2,
        mode="new",
        aperture_radius=2.0,
        sub_shape=(PSF_SIZE, PSF_SIZE),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(frame.data, error=np.where(frame.mask, 1, frame.uncertainty), mask=frame.mask)
    if found is None:
        return Table(names=("ra", "dec", "flux", "flux_error"))
    x, y = np.asarray(found["x_fit"]), np.asarray(found["y_fit"])
    flux, error = np.asarray(found["flux_fit"]), np.asarray(found["flux_err"])
    good = _inside(frame.data.shape, x, y) & (flux > DETECTION_SIGMA * error)
    good[good] = _apart(x[good], y[good], flux[good])
    ra, dec = frame.first.wcs(x[good], y[good])
    objects = Table({"ra": ra, "dec": dec, "flux": flux[good], "flux_error": error[good]})
    objects.sort("flux", reverse=True)
    return objects


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
    x, y = sky_to_pixel(image, ra, dec)
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    places = np.flatnonzero(_usable(image, x, y))
    if not len(places):
        return flux, error
    models = _models(image, x[places], y[places])
    first, _ = _solved(models, image, image.data)
    left = image.data - (models @ first).reshape(image.data.shape)
    flux[places], error[places] = _solved(models, image, image.data - _background(left, image.mask))
    return flux, error


def _models(image: CalibratedImage, x: Image, y: Image) -> sparse.csr_matrix:
    """Give the PSF of each object, of unit flux: a column for each, a row for each pixel."""
    height, width = image.data.shape
    offsets = np.arange(-MODEL_RADIUS, MODEL_RADIUS + 1)
    pixels, values, ends = [], [], [0]
    for x0, y0 in zip(x, y, strict=True):
        columns, rows = round(x0) + offsets, round(y0) + offsets
        columns = columns[(columns >= 0) & (columns < width)]
        rows = rows[(rows >= 0) & (rows < height)]
        row, column = np.meshgrid(rows, columns, indexing="ij")
        values.append(np.ravel(image.psf.evaluate(column, row, 1.0, x0, y0)))
        pixels.append(np.ravel(row * width + column))
        ends.append(ends[-1] + len(pixels[-1]))
    shape = (height * width, len(x))
    return sparse.csc_matrix(
        (np.concatenate(values), np.concatenate(pixels), ends), shape=shape
    ).tocsr()


def _solved(models: sparse.csr_matrix, image: CalibratedImage, data: Image) -> tuple[Image, Image]:
    """Give the fluxes that fit best, and their standard errors, neighbours being free as well."""
    weight = np.where(image.mask, 0.0, 1 / image.error**2).ravel()
    normal = (models.T @ models.multiply(weight[:, None])).tocsc()
    diagonal = normal.diagonal()
    # what has no pixel left gets no flux, and an error that says so
    seen = diagonal > 0
    damped = normal + sparse.diags(np.where(seen, 1e-9 * diagonal, 1.0), format="csc")
    flux: Image = splu(damped).solve(models.T @ (weight * data.ravel()))
    scale = np.sqrt(np.where(seen, diagonal, 1.0))
    overlap = sparse.diags(1 / scale) @ normal @ sparse.diags(1 / scale)
    error = np.sqrt(_marginal_variance(overlap.tocsr())) / scale
    return np.where(seen, flux, np.nan), np.where(seen, error, np.nan)


def _marginal_variance(overlap: sparse.csr_matrix) -> Image:
    """Give the variances of fluxes from those that correlate with each; 1 is an object alone."""
    variance = np.ones(overlap.shape[0])
    for number in range(len(variance)):
        row = slice(overlap.indptr[number], overlap.indptr[number + 1])
        others = overlap.indices[row][overlap.data[row] > CORRELATED]
        others = np.append(others[others != number], number)
        block = overlap[others][:, others].toarray()
        variance[number] = np.linalg.pinv(block, hermitian=True)[-1, -1]
    return variance


def _apart(x: Image, y: Image, flux: Image) -> NDArray[np.bool_]:
    """Tell which objects have no brighter one within `LEAST_SEPARATION`."""
    from scipy.spatial import cKDTree

    apart = np.ones(len(x), dtype=bool)
    for one, other in cKDTree(np.stack([x, y], axis=1)).query_pairs(LEAST_SEPARATION):
        apart[one if flux[one] < flux[other] else other] = False
    return apart


def sky_to_pixel(image: CalibratedImage, ra: Any, dec: Any) -> tuple[Image, Image]:
    """Give pixels (x, y) of places on the sky, also off the image."""
    x, y = image.wcs.invert(np.asarray(ra), np.asarray(dec), with_bounding_box=False)
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def _inside(shape: tuple[int, ...], x: Image, y: Image) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (
        (x >= BORDER) & (x < shape[1] - BORDER) & (y >= BORDER) & (y < shape[0] - BORDER)
    )
    return inside


def _usable(image: CalibratedImage, x: Image, y: Image) -> NDArray[np.bool_]:
    """Whether the pixel in which an object lies is there, and most around it may be used."""
    usable = _inside(image.data.shape, x, y)
    for number in np.flatnonzero(usable):
        column, row = round(x[number]), round(y[number])
        around = image.mask[row - 1 : row + 2, column - 1 : column + 2]
        usable[number] = not around[1, 1] and around.mean() < 0.5
    return usable
