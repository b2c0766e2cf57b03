"""Previews and thumbnails of L2 and L3 images, as the mission's archive shows them.

They are drawn by stpreview as `romancal.scripts.static_preview` draws them, whose command of
romancal 1.1 fails on every file (docs/upstream.md). What draws is imported in the functions: only
workers need it.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roman_assets.products.kind import ProductKind, pictures_of
from roman_assets.products.name import FileSet, ProductName
from roman_assets.records.record import WorkFailure


@dataclass(frozen=True)
class PreviewStyle:
    """How a picture is drawn.

    Parameters
    ----------
    shape
        Largest height and width, pixels; the frame around the image is cut off.
    compass
        Whether arrows show where north and east are.
    """

    shape: tuple[int, int]
    compass: bool


STYLES = {
    "preview": PreviewStyle((1080, 1080), compass=True),
    "thumb": PreviewStyle((300, 300), compass=False),
}
"""By suffix of the product; the mission's requirements for static previews."""

PERCENTILE = 90
"""Percentage of the pixels between black and white, which are linear between them."""

COLORMAP = "afmhot"


def draw_previews(image: Any, name: ProductName, directory: Path) -> dict[str, Path]:
    """Draw the pictures of an L2 or L3 image.

    Parameters
    ----------
    image
        Its data model, with arrays ``data`` and perhaps ``err``, shape (ny, nx), and a WCS.
    name
        Its official name.
    directory
        Where the pictures are written.

    Returns
    -------
    dict
        The PNG files under their official names, by name of the product kind.
    """
    drawn = {}
    for kind in pictures_of(name.kind):
        drawn[kind.name] = directory / str(ProductName(name.file_set, kind))
        _draw(image, drawn[kind.name], STYLES[kind.suffix])
    return drawn


def with_pictures(
    marks: Mapping[ProductKind, str], kept: Container[str], file_set: FileSet
) -> dict[ProductKind, str]:
    """Add pictures to the kinds that are made, where their image is made as well.

    Parameters
    ----------
    marks
        Something of each kind, such as its fingerprint; pictures get that of their image.
    kept
        Names of products that stay: pictures of a kept image stay too.
    file_set
        Of the products.
    """
    drawn = {
        picture: mark
        for kind, mark in marks.items()
        if str(ProductName(file_set, kind)) not in kept
        for picture in pictures_of(kind)
    }
    return {**marks, **drawn}


def not_drawn(file_set: str, reason: str) -> list[WorkFailure]:
    """Return the failure of a file set whose image has no pictures, if a reason says so."""
    return [WorkFailure(file_set=file_set, error="PreviewError", message=reason)] if reason else []


@dataclass(frozen=True)
class Drawing:
    """The pictures of an image, or why there are none.

    Parameters
    ----------
    files
        By name of the product kind.
    failure
        Why they could not be drawn, empty if they were.
    """

    files: Mapping[str, Path]
    failure: str = ""


def try_previews(image: Any, name: ProductName, directory: Path) -> Drawing:
    """Draw the pictures of an image whose publication must not depend on them."""
    try:
        return Drawing(draw_previews(image, name, directory))
    except OSError:
        raise
    except Exception as error:
        return Drawing({}, f"its pictures cannot be drawn: {type(error).__name__}: {error}")


def downsample(image: Any, shape: tuple[int, int]) -> npt.NDArray[np.floating]:
    """Average an image down by whole numbers to fit a shape; NaN where no pixel has an error.

    The result is that of ``stpreview.downsample.downsample_asdf_to``, which reads the file of each
    image six times.

    Parameters
    ----------
    image
        As in `draw_previews`.
    shape
        Largest height and width.

    Returns
    -------
    numpy.ndarray
        Shape (height, width).
    """
    from skimage.measure import block_reduce

    data = np.asarray(image.data)
    if "err" in image:
        err = np.asarray(image.err)
        data = np.where(~np.isfinite(err) | (err <= 0), np.nan, data)
    factors = tuple(-(-have // want) for have, want in zip(data.shape, shape, strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        reduced: npt.NDArray[np.floating] = block_reduce(data, factors, func=np.nanmean)
    return reduced


def _draw(image: Any, target: Path, style: PreviewStyle) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from stpreview.image import percentile_normalization, write_image

    data = downsample(image, style.shape)
    seen = np.isfinite(data)
    try:
        write_image(
            data,
            target,
            shape=style.shape,
            normalization=percentile_normalization(data[seen], PERCENTILE) if seen.any() else None,
            colormap=COLORMAP,
            north_arrow_angle=_north(image) if style.compass else None,
        )
    finally:
        pyplot.close("all")


def _north(image: Any) -> float | None:
    """Return the angle of the compass, degrees; None for an image without a WCS."""
    from stpreview.image import north_pole_angle

    wcs = image.meta.get("wcs")
    return None if wcs is None else float(north_pole_angle(wcs).degree) - 90
