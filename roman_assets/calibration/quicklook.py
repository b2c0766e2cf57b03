"""Small pictures of L2 and L3 images, for people to glance at.

What draws is imported in the functions: `quicklooks` needs it in its workers only.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from roman_assets.errors import BadInputError
from roman_assets.publishing.workers import WorkerPool, worker_count

MAXIMUM_SIZE = 256
"""Longest side of a quick look, pixels."""

_NO_DATA = 64
_FAINTEST, _BRIGHTEST = 80, 255
_SOFTENING = 0.1
_HEADROOM = 6.0
_MEMORY = 600 * 2**20


def quicklook(path: Path, size: int = MAXIMUM_SIZE) -> bytes:
    """Draw the image of an L2 or L3 file.

    Parameters
    ----------
    path
        A file whose model has a two-dimensional ``data`` array (``_cal`` or ``_coadd``).
    size
        Longest side of the picture, pixels.

    Returns
    -------
    bytes
        A PNG in grey, see `draw`.

    Raises
    ------
    BadInputError
        If the file has no such array.
    """
    from roman_datamodels import datamodels

    try:
        with datamodels.open(path) as model:
            data = np.array(model.data)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInputError(
            path, "data", f"no image can be read ({error})", "give an L2 or L3 image file"
        ) from error
    if data.ndim != 2:
        raise BadInputError(
            path, "data", f"it has {data.ndim} dimensions, not 2", "give an L2 or L3 image file"
        )
    return draw(data, size)


def quicklooks(
    paths: Sequence[Path], size: int = MAXIMUM_SIZE, *, workers: int | None = None
) -> list[bytes]:
    """Draw the images of several files in workers, which have what it takes to read them.

    A process that has not read an L2 or L3 file before needs seconds to get ready for the first,
    so a run that calibrated in workers lets them draw as well.

    Parameters
    ----------
    paths, size
        As in `quicklook`.
    workers
        Processes side by side; None for as many as the machine can feed.

    Returns
    -------
    list of bytes
        PNGs in the order of `paths`.

    Raises
    ------
    BadInputError
        If a file has no image.
    PassingFaultError
        If a worker was lost.
    """
    if not paths:
        return []
    tasks = {str(number): (path, size) for number, path in enumerate(paths)}
    count = min(workers or worker_count(_MEMORY), len(tasks))
    pictures: dict[str, bytes] = {}
    with WorkerPool(count) as pool:
        for done in pool.run(_quicklook, tasks):
            if done.value is None:
                raise done.error or ValueError(f"{done.key} gave no picture")
            pictures[done.key] = done.value
    return [pictures[key] for key in tasks]


def _quicklook(task: tuple[Path, int]) -> bytes:
    return quicklook(*task)


def draw(data: npt.NDArray[np.floating], size: int = MAXIMUM_SIZE) -> bytes:
    """Draw an image in grey, cut to the pixels that have data, first row at the bottom.

    Parameters
    ----------
    data
        Image, shape (ny, nx), any unit; pixels without data are NaN (or zero throughout a
        margin, as where nothing was added up). They are drawn in a dark grey.
    size
        Longest side of the picture, pixels. Larger images are averaged down, smaller ones left.

    Returns
    -------
    bytes
        PNG, 8 bits of grey; sky dark, sources bright, asinh-stretched over a z-scale interval.
    """
    from astropy.visualization import AsinhStretch, ZScaleInterval
    from PIL import Image

    small = _reduce(_cut_to_data(np.asarray(data, dtype=np.float32)), size)
    grey = np.full(small.shape, _NO_DATA, dtype=np.uint8)
    seen = np.isfinite(small)
    if seen.any():
        low, high = ZScaleInterval().get_limits(small[seen])
        # z-scale brackets the sky; stars want some room above it
        span = max((high - low) * _HEADROOM, np.finfo(np.float32).tiny)
        level = AsinhStretch(_SOFTENING)(np.clip((small[seen] - low) / span, 0.0, 1.0))
        grey[seen] = np.round(_FAINTEST + level * (_BRIGHTEST - _FAINTEST)).astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(grey[::-1], mode="L").save(picture, format="png", optimize=True)
    return picture.getvalue()


def _cut_to_data(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the smallest window with every finite pixel; the whole image without any."""
    seen = np.isfinite(data)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if rows.size == 0:
        return data
    return data[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _reduce(data: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    from astropy.nddata import block_reduce

    factor = math.ceil(max(data.shape) / size)
    if factor <= 1:
        return data
    factors = tuple(min(factor, side) for side in data.shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        reduced: npt.NDArray[np.float32] = block_reduce(data, factors, func=np.nanmean)
    return reduced
