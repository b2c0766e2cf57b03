"""How point sources and galaxies look on a detector, and where: stamps to add to an image."""

from __future__ import annotations

from functools import cached_property

import galsim
import numpy as np
from astropy.table import Row, Table
from gwcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from roman_assets.simulation.telescope.effective_psf import NATIVE_SPECTRAL_TYPE, EpsfGrid

PSF_RADIUS = 44
"""Native pixels from a star's centre to which it is drawn."""
GALAXY_RADIUS = 24
PIXEL_SCALE = 0.11
"""Arcsec, for the shapes of galaxies; the places of sources come from the WCS."""


class PointSpread:
    """Draws point sources with the ePSFs of one detector and filter.

    Parameters
    ----------
    grid
        The ePSFs, at places that form a rectangular grid.
    """

    def __init__(self, grid: EpsfGrid) -> None:
        kind = min(NATIVE_SPECTRAL_TYPE, grid.stamps.shape[1] - 1)
        self._stamps = grid.stamps[0, kind].astype(float)
        self._oversampling = grid.oversampling
        self._x, self._y = np.unique(grid.pixel_x), np.unique(grid.pixel_y)
        self._place = {
            (x, y): i for i, (x, y) in enumerate(zip(grid.pixel_x, grid.pixel_y, strict=True))
        }

    @cached_property
    def _splines(self) -> tuple[RectBivariateSpline, ...]:
        axis = (np.arange(self._stamps.shape[-1]) - (self._stamps.shape[-1] - 1) / 2) / (
            self._oversampling
        )
        return tuple(RectBivariateSpline(axis, axis, stamp, s=0) for stamp in self._stamps)

    def stamp(
        self, x: float, y: float, radius: int = PSF_RADIUS
    ) -> tuple[NDArray[np.float64], int, int]:
        """Draw a source of unit flux.

        Parameters
        ----------
        x, y
            Its place in active pixels, from 0 at the centre of the first one.
        radius
            Pixels from its centre to the edge.

        Returns
        -------
        ndarray, int, int
            Fractions of the flux by pixel, and the column and row of the first of them.
        """
        column, row = round(x) - radius, round(y) - radius
        offsets = np.arange(2 * radius + 1)
        image = np.zeros((len(offsets), len(offsets)))
        for index, weight in self._weights(x, y):
            image += weight * self._splines[index](row + offsets - y, column + offsets - x)
        return image, column, row

    def oversampled_stamp(self, x: float, radius: int, oversampling: int) -> NDArray[np.float64]:
        """Draw a source of unit flux at the middle of the grid, sampled more finely in y.

        Parameters
        ----------
        x
            Its column.
        radius
            Native pixels from its centre to the edge.
        oversampling
            Samples per row.

        Returns
        -------
        ndarray
            What a pixel centred there would hold; shape (2 * radius * oversampling + 1,
            2 * radius + 1), the first column being ``round(x) - radius``, the middle row the
            source's.
        """
        rows = np.arange(2 * radius * oversampling + 1) / oversampling - radius
        columns = round(x) - radius + np.arange(2 * radius + 1) - x
        image: NDArray[np.float64] = self._splines[len(self._stamps) // 2](rows, columns)
        return image

    def profile(self) -> galsim.InterpolatedImage:
        """Return the ePSF at the middle of the grid as a profile of unit flux, scale in arcsec."""
        middle = self._stamps[len(self._stamps) // 2]
        half, keep = middle.shape[0] // 2, self._oversampling * GALAXY_RADIUS
        image = galsim.Image(
            np.ascontiguousarray(
                middle[half - keep : half + keep + 1, half - keep : half + keep + 1]
            ),
            scale=PIXEL_SCALE / self._oversampling,
        )
        flux = image.array.sum() / self._oversampling**2
        return galsim.InterpolatedImage(image, flux=flux, x_interpolant="lanczos5")

    def _weights(self, x: float, y: float) -> list[tuple[int, float]]:
        """Return the stamps to mix and their bilinear weights, as photutils does."""
        (x0, x1, tx), (y0, y1, ty) = _bracket(self._x, x), _bracket(self._y, y)
        weights = [
            (self._place[x0, y0], (1 - tx) * (1 - ty)),
            (self._place[x1, y0], tx * (1 - ty)),
            (self._place[x0, y1], (1 - tx) * ty),
            (self._place[x1, y1], tx * ty),
        ]
        return [(index, weight) for index, weight in weights if weight > 0]


def _bracket(nodes: NDArray[np.float64], value: float) -> tuple[float, float, float]:
    inside = float(np.clip(value, nodes[0], nodes[-1]))
    upper = int(np.clip(np.searchsorted(nodes, inside), 1, len(nodes) - 1))
    low, high = float(nodes[upper - 1]), float(nodes[upper])
    return low, high, (inside - low) / (high - low)


def pixel_positions(sources: Table, wcs: WCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the active pixels (x, y) of sources, also outside of the detector."""
    x, y = wcs.invert(
        np.asarray(sources["ra"]), np.asarray(sources["dec"]), with_bounding_box=False
    )
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def galaxy_shape(galaxy: Row, x: float, y: float, wcs: WCS) -> galsim.GSObject:
    """Return a galaxy of unit flux as it lies on the detector, scale in arcsec, without the PSF."""
    return galsim.Sersic(
        float(galaxy["sersic_index"]),
        half_light_radius=float(galaxy["half_light_radius"] * np.sqrt(galaxy["axis_ratio"])),
    ).shear(
        q=float(galaxy["axis_ratio"]),
        beta=_pixel_angle(galaxy, x, y, wcs) * galsim.radians,
    )


def galaxy_stamp(
    galaxy: Row, x: float, y: float, wcs: WCS, psf: galsim.InterpolatedImage
) -> tuple[NDArray[np.float64], int, int]:
    """Draw a galaxy of unit flux; gives its image, and the column and row of the first pixel."""
    shape = galaxy_shape(galaxy, x, y, wcs)
    column, row = round(x) - GALAXY_RADIUS, round(y) - GALAXY_RADIUS
    stamp = galsim.ImageD(2 * GALAXY_RADIUS + 1, 2 * GALAXY_RADIUS + 1, scale=PIXEL_SCALE)
    offset = (x - round(x), y - round(y))
    galsim.Convolve(shape, psf).drawImage(stamp, method="no_pixel", offset=offset)
    return stamp.array, column, row


def _pixel_angle(galaxy: Row, x: float, y: float, wcs: WCS) -> float:
    """Turn a position angle into the angle (rad) from the pixels' x axis towards y."""
    step = 1 / 3600
    angle = np.radians(galaxy["position_angle"])
    ra = galaxy["ra"] + step * np.sin(angle) / np.cos(np.radians(galaxy["dec"]))
    dec = galaxy["dec"] + step * np.cos(angle)
    x1, y1 = wcs.invert(ra, dec, with_bounding_box=False)
    return float(np.arctan2(y1 - y, x1 - x))


def near(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, ...], reach: int
) -> NDArray[np.bool_]:
    """Return which places are on a detector or at most ``reach`` pixels from it."""
    inside: NDArray[np.bool_] = (
        (x > -reach) & (x < shape[1] + reach) & (y > -reach) & (y < shape[0] + reach)
    )
    return inside


def add_stamp(
    rates: NDArray[np.float64], flux: float, stamp: NDArray[np.float64], column: int, row: int
) -> None:
    """Add the part of a stamp that falls on the detector."""
    left, bottom = max(column, 0), max(row, 0)
    right = min(column + stamp.shape[1], rates.shape[1])
    top = min(row + stamp.shape[0], rates.shape[0])
    if right > left and top > bottom:
        rates[bottom:top, left:right] += (
            flux * stamp[bottom - row : top - row, left - column : right - column]
        )
