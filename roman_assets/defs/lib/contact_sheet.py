"""Quick looks of many images in one piece of Markdown, for an asset's page in the UI."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

_THUMBNAIL_SIZES = ((2, 256), (6, 128), (18, 80))
"""Longest side in pixels, up to a number of pictures: an event stays below about 100 kB."""

MOST_PICTURES = _THUMBNAIL_SIZES[-1][0]


def contact_sheet(
    images: Sequence[tuple[str, Path]],
    draw: Callable[[Sequence[Path], int], Sequence[bytes]],
    left_out: int = 0,
) -> str:
    """Draw small pictures of images side by side, as Markdown with everything inline.

    Parameters
    ----------
    images
        Label and path of each, at most `MOST_PICTURES`.
    draw
        Turns files into PNGs whose longest side has at most so many pixels.
    left_out
        How many more there are.
    """
    size = next(size for most, size in _THUMBNAIL_SIZES if len(images) <= most)
    drawings = draw([path for _, path in images], size)
    pictures = [
        inline(label, drawing) for (label, _), drawing in zip(images, drawings, strict=True)
    ]
    return " ".join([*pictures, f"and {left_out} more"] if left_out else pictures)


def shrunk(thumbnails: Sequence[Path], size: int) -> list[bytes]:
    """Shrink PNG files such that their longest side has at most `size` pixels."""
    from PIL import Image

    pictures = []
    for path in thumbnails:
        target = io.BytesIO()
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((size, size))
        small.quantize(64).save(target, format="png", optimize=True)
        pictures.append(target.getvalue())
    return pictures


def inline(label: str, drawing: bytes) -> str:
    """Return a PNG as Markdown with everything inline."""
    encoded = base64.b64encode(drawing).decode()
    return f"![{label}](data:image/png;base64,{encoded})"
