"""The model of a crowded image: the sum of the PSFs of its objects.

In the Bulge everything is blended with its neighbours, and these with theirs, so that there are no
groups to be fitted apart. All objects of an image are solved for at once: their fluxes, in which
the model is linear, and small changes of their places, in which it nearly is (as crowdsource does:
Schlafly et al. 2018, ApJS 234, 39). Within `CORE_RADIUS` the light of an object takes part in that;
what is farther out, some per cent spread over thousands of pixels, is taken away as follows from
the flux.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import lsmr, splu
from scipy.spatial import cKDTree

from roman_assets.simulation.ssc.calibrated_image import CalibratedImage, Image, Mask, background

CORE_RADIUS = 8
"""Pixels from that in which an object lies to the edge of its core."""
WING_PART = 0.2
"""Of the noise of a pixel; objects whose wings are brighter somewhere have wings in the model."""
LEAST_SEPARATION = 0.9
"""Pixels between two objects; what is nearer is one."""
LEAST_SIGNIFICANCE = 8.0
"""Flux of an object over the error that it had alone."""
CORRELATED = 0.05
"""Models that overlap by more than this part add to each other's errors."""
_STEP_RADIUS = 3
"""Pixels around an object that tell its place."""
_STEP = 0.05
"""Pixels by which models are moved to see how they change."""
_USUAL_MOVE, _LARGEST_MOVE = 0.3, 0.4
"""Pixels."""
_LEAST_FLUX = 1e-3
"""DN/s; objects without any would not be moved."""
_ACCURACY = 1e-5
"""Relative, of solutions for places."""


def cores(image: CalibratedImage, x: Image, y: Image) -> sparse.csr_matrix:
    """Return the cores of objects of unit flux: a column for each, a row for each pixel."""
    return _stamps(image, x, y, CORE_RADIUS, (0.0, 0.0))


def _stamps(
    image: CalibratedImage, x: Image, y: Image, radius: int, moved: tuple[float, float]
) -> sparse.csr_matrix:
    """Return objects as they are if moved by (x, y), in the pixels around where they were."""
    height, width = image.data.shape
    pixels, values, ends = [], [], [0]
    for x0, y0 in zip(x.tolist(), y.tolist(), strict=True):
        rows, columns = _around(y0, radius, height), _around(x0, radius, width)
        values.append(image.psf.stamp(rows, columns, x0 + moved[0], y0 + moved[1]).ravel())
        pixels.append((rows[:, None] * width + columns).ravel())
        ends.append(ends[-1] + len(pixels[-1]))
    empty: list[NDArray[np.float64]] = [np.empty(0)]
    return sparse.csc_matrix(
        (np.concatenate(values + empty), np.concatenate(pixels + empty).astype(np.int64), ends),
        shape=(height * width, len(x)),
    ).tocsr()


def _around(place: float, radius: int, side: int) -> NDArray[np.int_]:
    """Return the pixels along an axis around a place that are there."""
    middle = round(place)
    return np.arange(max(middle - radius, 0), min(middle + radius + 1, side))


def wings(image: CalibratedImage, x: Image, y: Image, flux: Image) -> Image:
    """Return the light outside the cores of objects, of those for which it matters."""
    height, width = image.data.shape
    light = np.zeros((height, width))
    for number in np.flatnonzero(flux * _brightest_wing(image) > WING_PART * image.noise):
        x0, y0 = x[number], y[number]
        rows = _around(y0, image.psf.reach, height)
        columns = _around(x0, image.psf.reach, width)
        stamp = flux[number] * image.psf.stamp(rows, columns, x0, y0)
        core = np.abs(rows - round(y0)) <= CORE_RADIUS, np.abs(columns - round(x0)) <= CORE_RADIUS
        stamp[np.ix_(*core)] = 0.0
        light[np.ix_(rows, columns)] += stamp
    return light


def _brightest_wing(image: CalibratedImage) -> float:
    """Return the largest part of an object's flux that a pixel outside its core has."""
    place = np.arange(-image.psf.reach, image.psf.reach + 1)
    y, x = (side // 2 for side in image.data.shape)
    stamp = image.psf.stamp(y + place, x + place, float(x), float(y))
    inside = np.abs(place) <= CORE_RADIUS
    stamp[np.ix_(inside, inside)] = 0.0
    return float(stamp.max())


class CoreFit:
    """The fluxes with which cores fit an image best.

    Parameters
    ----------
    image
        Its errors are the weights.
    models
        The `cores`.
    """

    def __init__(self, image: CalibratedImage, models: sparse.csr_matrix) -> None:
        self._models = models
        self._weight = np.where(image.mask, 0.0, 1 / image.error**2).ravel()
        self._normal = (models.T @ models.multiply(self._weight[:, None])).tocsc()
        diagonal = self._normal.diagonal()
        self.seen: NDArray[np.bool_] = diagonal > 0
        """Objects of which a pixel may be used."""
        # what has no pixel left gets no flux
        damping = np.where(self.seen, 1e-9 * diagonal, 1.0)
        self._factors = splu(self._normal + sparse.diags(damping, format="csc"))

    def fluxes(self, data: Image) -> Image:
        """Return the fluxes that fit best, DN/s; 0 for what is not `seen`."""
        flux: Image = self._factors.solve(self._models.T @ (self._weight * data.ravel()))
        return flux

    @property
    def errors(self) -> Image:
        """Standard errors of the fluxes, DN/s, with the neighbours' free as well."""
        scale = np.sqrt(np.where(self.seen, self._normal.diagonal(), 1.0))
        unit = sparse.diags(1 / scale)
        return np.sqrt(_marginal_variance((unit @ self._normal @ unit).tocsr())) / scale


def _marginal_variance(overlap: sparse.csr_matrix) -> Image:
    """Return the variances of fluxes from those that correlate with each; 1 is an object alone."""
    variance = np.ones(overlap.shape[0])
    for number in range(len(variance)):
        row = slice(overlap.indptr[number], overlap.indptr[number + 1])
        others = overlap.indices[row][overlap.data[row] > CORRELATED]
        others = np.append(others[others != number], number)
        block = overlap[others][:, others].toarray()
        variance[number] = np.linalg.pinv(block, hermitian=True)[-1, -1]
    return variance


@dataclass(frozen=True)
class Crowd:
    """Objects of an image whose places are not yet known well.

    Parameters
    ----------
    image
        The image.
    model_error
        Part of the model that may be wrong.
    x, y
        Pixels.
    flux
        DN/s, 0 for what has just been added.
    light, far
        What the cores of the objects make of the image, and what their wings and the background.
    """

    image: CalibratedImage
    model_error: float
    x: Image
    y: Image
    flux: Image
    light: Image
    far: Image

    @classmethod
    def at(cls, image: CalibratedImage, model_error: float, x: Image, y: Image) -> Self:
        """Return objects at some places, of which nothing else is known."""
        nothing = np.zeros(image.data.shape)
        return cls(image, model_error, x, y, np.zeros(len(x)), nothing, nothing)

    @property
    def residual(self) -> Image:
        """What the objects do not explain, in units of `error`; 0 where there is no data."""
        left = self.image.data - self.light - self.far
        return np.where(self.image.mask, 0.0, left / self.error)

    @cached_property
    def error(self) -> Image:
        """That of the pixels and of the model, DN/s."""
        error: Image = np.hypot(self.image.error, self.model_error * np.abs(self.light + self.far))
        return error

    def with_more(self, x: Image, y: Image) -> Self:
        """Add objects."""
        flux = np.append(self.flux, np.zeros(len(x)))
        return replace(self, x=np.append(self.x, x), y=np.append(self.y, y), flux=flux)

    def is_free(self, x: Image, y: Image) -> Mask:
        """Return the places without an object so far."""
        if not len(self.x) or not len(x):
            return np.ones(len(x), dtype=bool)
        known = cKDTree(np.stack([self.x, self.y], axis=1))
        distance, _ = known.query(np.stack([x, y], axis=1))
        free: Mask = distance > LEAST_SEPARATION
        return free

    def settled(self) -> Self:
        """Move the objects to where they fit best, and drop those that are not objects."""
        if not len(self.x):
            return self
        models = cores(self.image, self.x, self.y)
        flux, _ = self._fitted(models)
        changes = [self._change(_STEP, 0.0), self._change(0.0, _STEP)]
        usual = np.tile(_USUAL_MOVE * np.maximum(np.abs(flux), _LEAST_FLUX), 2)
        found, alone = self._fitted(sparse.hstack([models, *changes]).tocsr(), usual)
        flux, *moved = found.reshape(3, -1)
        x, y = (at + _move(by, flux) for at, by in zip((self.x, self.y), moved, strict=True))
        real = (flux > LEAST_SIGNIFICANCE * alone[: len(flux)]) & near(self.image, x, y)
        real[real] = _apart(x[real], y[real], flux[real])
        return self._at(x[real], y[real])

    def _at(self, x: Image, y: Image) -> Self:
        """Return the objects at other places, and what they make of the image."""
        if not len(x):
            return replace(self, x=x, y=y, flux=x, light=np.zeros(self.image.data.shape))
        models = cores(self.image, x, y)
        flux, _ = self._fitted(models)
        light = (models @ flux).reshape(self.image.data.shape)
        far = wings(self.image, x, y, flux)
        far += background(self.image.data - light - far, self.image.mask)
        return replace(self, x=x, y=y, flux=flux, light=light, far=far)

    def _change(self, dx: float, dy: float) -> sparse.csr_matrix:
        """Return how cores change with the place, by pixel, in one direction."""
        ahead = _stamps(self.image, self.x, self.y, _STEP_RADIUS, (dx, dy))
        behind = _stamps(self.image, self.x, self.y, _STEP_RADIUS, (-dx, -dy))
        return (ahead - behind) / (2 * (dx + dy))

    def _fitted(self, models: sparse.csr_matrix, usual: Image | None = None) -> tuple[Image, Image]:
        """Fit models to what is neither wing nor background.

        Parameters
        ----------
        models
            A column for each, a row for each pixel.
        usual
            How large the coefficients of the last ones are expected to be, give or take.

        Returns
        -------
        coefficient, alone : ndarray
            The latter is the error of each if it were alone.
        """
        weight = np.where(self.image.mask, 0.0, 1 / self.error).ravel()
        weighted = sparse.diags(weight) @ models
        norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
        alone = 1 / np.where(norm > 0, norm, 1.0)
        system = weighted @ sparse.diags(alone)
        target = weight * (self.image.data - self.far).ravel()
        if usual is not None:
            expected = sparse.diags(alone[-len(usual) :] / usual)
            free = sparse.csr_matrix((len(usual), len(alone) - len(usual)))
            system = sparse.vstack([system, sparse.hstack([free, expected])])
            target = np.append(target, np.zeros(len(usual)))
        solution: Image = lsmr(system.tocsr(), target, atol=_ACCURACY, btol=_ACCURACY)[0]
        return solution * alone, alone


def near(image: CalibratedImage, x: Image, y: Image) -> Mask:
    """Return which places are on an image, or so near that cores there reach into it."""
    height, width = image.data.shape
    inside: Mask = (
        (x > -CORE_RADIUS) & (x < width - 1 + CORE_RADIUS)
        & (y > -CORE_RADIUS) & (y < height - 1 + CORE_RADIUS)
    )  # fmt: skip
    return inside


def _move(change: Image, flux: Image) -> Image:
    """Return the move that a change of the model, flux times move, stands for."""
    positive = flux > 0
    move = np.where(positive, change, 0.0) / np.where(positive, flux, 1.0)
    return np.clip(move, -_LARGEST_MOVE, _LARGEST_MOVE)


def _apart(x: Image, y: Image, flux: Image) -> Mask:
    """Return which objects have no brighter one within `LEAST_SEPARATION`."""
    apart = np.ones(len(x), dtype=bool)
    for one, other in cKDTree(np.stack([x, y], axis=1)).query_pairs(LEAST_SEPARATION):
        apart[one if flux[one] < flux[other] else other] = False
    return apart
