"""Parts of L2 and L3 images, with all planes and an exact WCS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asdf
import gwcs
import numpy as np
import numpy.typing as npt
from astropy.modeling.models import Shift

from roman_assets.service.cutout.stencil import Stencil
from roman_assets.service.request_error import RequestError, TooLargeError

_COARSE = 32
"""Pixels between the first looks for a region."""
_FINE = 256
"""Looks along a side in the second pass."""


class NoOverlapError(RequestError):
    """The image has no pixel in the region."""

    status = 204


@dataclass(frozen=True)
class Window:
    """Pixels of an image: half-open ranges of columns and rows."""

    left: int
    right: int
    bottom: int
    top: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.top - self.bottom, self.right - self.left


@dataclass(frozen=True)
class Cutout:
    """A part of an image.

    Parameters
    ----------
    tree
        The image's tree with the arrays and the WCS of the part.
    planes
        The arrays by name, shape (..., ny, nx).
    wcs
        From pixels of the part to the sky: the image's own, after a shift by whole pixels.
    window
        Where the part is in the image.
    """

    tree: Mapping[str, Any]
    planes: Mapping[str, npt.NDArray[Any]]
    wcs: gwcs.WCS
    window: Window


class UnreadableError(RequestError):
    """The file of a product cannot be read as an image."""

    status = 500


@contextmanager
def opened_image(path: Path) -> Iterator[Any]:
    """Open an image file lazily, and yield its tree.

    Raises
    ------
    UnreadableError
        If it is not an image file.
    """
    with ExitStack() as stack, asdf.config_context() as config:
        # Products were validated when they were published.
        config.validate_on_read = False
        try:
            file = stack.enter_context(asdf.open(path, lazy_load=True, memmap=True))
            image = file["roman"]
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableError("the file of the product cannot be read as an image") from error
        yield image


def cut(image: Any, stencil: Stencil, most_pixels: int) -> Cutout:
    """Cut a region out of an image.

    Parameters
    ----------
    image
        The tree of an open L2 or L3 file.
    stencil
        The region.
    most_pixels
        Of the cutout.

    Returns
    -------
    Cutout
        The smallest rectangle of pixels with all those in the region, up to 1/256 of its size.

    Raises
    ------
    NoOverlapError
        If no pixel is in the region.
    TooLargeError
        If there are too many.
    """
    wcs, shape = image["meta"]["wcs"], image["data"].shape
    window = find_window(wcs, shape, stencil)
    rows, columns = window.shape
    if rows * columns > most_pixels:
        raise TooLargeError(
            f"the cutout has {columns} x {rows} pixels, more than {most_pixels}; fetch the file"
        )
    part = np.s_[..., window.bottom : window.top, window.left : window.right]
    planes = {
        name: np.array(value[part])
        for name, value in sorted(image.items(), key=lambda item: item[0] != "data")
        if getattr(value, "shape", ())[-2:] == shape
    }
    shifted = _shifted(wcs, window)
    return Cutout(_part_of_tree(image, planes, shifted), planes, shifted, window)


def find_window(wcs: gwcs.WCS, shape: tuple[int, int], stencil: Stencil) -> Window:
    """Return the pixels of an image in a region, looking coarsely first and then finely.

    Raises
    ------
    NoOverlapError
        If there are none.
    """
    whole = Window(0, shape[1], 0, shape[0])
    near = _looked(wcs, whole, stencil, _COARSE)
    step = max(1, math.ceil(max(near.shape) / _FINE))
    return _looked(wcs, near, stencil, step)


def _looked(wcs: gwcs.WCS, window: Window, stencil: Stencil, step: int) -> Window:
    """Return the window of all pixels of a grid that are as near the region as grid points are."""
    columns = _grid(window.left, window.right, step)
    rows = _grid(window.bottom, window.top, step)
    x, y = np.meshgrid(columns, rows)
    ra, dec = wcs(x.astype(float), y.astype(float), with_bounding_box=False)
    reach = 0.75 * step * _pixel_size(wcs, window)
    inside = np.asarray(stencil.distance(ra, dec)) <= reach
    if not inside.any():
        raise NoOverlapError("the image has no pixel in the region")
    found_rows, found_columns = rows[inside.any(axis=1)], columns[inside.any(axis=0)]
    margin = step - 1
    return Window(
        max(int(found_columns[0]) - margin, window.left),
        min(int(found_columns[-1]) + margin + 1, window.right),
        max(int(found_rows[0]) - margin, window.bottom),
        min(int(found_rows[-1]) + margin + 1, window.top),
    )


def _grid(low: int, high: int, step: int) -> npt.NDArray[np.int64]:
    points = np.arange(low, high, step)
    return points if points[-1] == high - 1 else np.append(points, high - 1)


def _pixel_size(wcs: gwcs.WCS, window: Window) -> float:
    """Return the longer side of a pixel in the middle of a window, deg."""
    x, y = (window.left + window.right - 1) / 2, (window.bottom + window.top - 1) / 2
    ra, dec = wcs(np.array([x, x + 1, x]), np.array([y, y, y + 1]), with_bounding_box=False)
    east, north = np.diff(ra[[0, 1, 0, 2]])[[0, 2]], np.diff(dec[[0, 1, 0, 2]])[[0, 2]]
    east = ((east + 180) % 360 - 180) * np.cos(np.radians(dec[0]))
    return float(np.hypot(east, north).max())


def _shifted(wcs: gwcs.WCS, window: Window) -> gwcs.WCS:
    first, *others = wcs.pipeline
    shift = Shift(float(window.left)) & Shift(float(window.bottom))
    steps = [
        (first.frame, shift | first.transform),
        *((step.frame, step.transform) for step in others),
    ]
    shifted = gwcs.WCS(steps)
    rows, columns = window.shape
    shifted.bounding_box = ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    shifted.array_shape = window.shape
    return shifted


def _part_of_tree(
    image: Any, planes: Mapping[str, npt.NDArray[Any]], wcs: gwcs.WCS
) -> dict[str, Any]:
    """Return the tree of the part: its metadata with another WCS and footprint, its planes.

    rad's schemas want arrays that a part has not, such as reference pixels. So it is a plain tree.
    """
    meta = dict(image["meta"].items())
    region = {"s_region": _footprint(wcs)}
    wcsinfo = dict(meta.get("wcsinfo", {}).items())
    return {"meta": meta | {"wcs": wcs, "wcsinfo": wcsinfo | region}, **planes}


def _footprint(wcs: gwcs.WCS) -> str:
    (left, right), (bottom, top) = wcs.bounding_box.bounding_box()[::-1]
    ra, dec = wcs([left, right, right, left], [bottom, bottom, top, top], with_bounding_box=False)
    corners = " ".join(f"{x:.9f} {y:.9f}" for x, y in zip(ra, dec, strict=True))
    return f"POLYGON ICRS {corners}"
