"""Quick looks of many images in one piece of Markdown, for an asset's page in the UI."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from roman_assets.pipelines.quicklook import quicklooks

_THUMBNAIL_SIZES = ((2, 256), (6, 128), (18, 80))
"""Longest side in pixels, up to a number of pictures: an event stays below about 100 kB."""

MOST_PICTURES = _THUMBNAIL_SIZES[-1][0]


def contact_sheet(images: Sequence[tuple[str, Path]], left_out: int = 0) -> str:
    """Draw small pictures of images side by side, as Markdown with everything inline.

    Parameters
    ----------
    images
        Label and path of each, at most `MOST_PICTURES`.
    left_out
        How many more there are.
    """
    size = next(size for most, size in _THUMBNAIL_SIZES if len(images) <= most)
    drawings = quicklooks([path for _, path in images], size)
    pictures = [
        inline(label, drawing) for (label, _), drawing in zip(images, drawings, strict=True)
    ]
    return " ".join([*pictures, f"and {left_out} more"] if left_out else pictures)


def inline(label: str, drawing: bytes) -> str:
    """Return a PNG as Markdown with everything inline."""
    encoded = base64.b64encode(drawing).decode()
    return f"![{label}](data:image/png;base64,{encoded})"
