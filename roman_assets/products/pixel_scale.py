"""The pixel scale of coadds: native for prompt ones, the sky map's for releases (R9, R13)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

PIXEL_SCALE = "pixel_scale"
"""Name of the fact, among the metadata of a product: arcsec."""

NATIVE_ARCSEC = 0.11
"""Side of a pixel of the Wide Field Instrument."""


class PixelScale(StrEnum):
    """The pixels of a coadd.

    All of them lie on the grid of the sky map, so that coadds of one skycell cover the same sky.
    """

    NATIVE = "native"
    """Each pixel is exactly four pixels of the sky map."""
    SKYMAP = "skymap"
    """The pixels of the sky map, half of a native one along each side."""

    @property
    def skymap_pixels(self) -> int:
        """Sky-map pixels along a side of a pixel."""
        return 2 if self is PixelScale.NATIVE else 1

    @property
    def arcsec(self) -> float:
        """Side of a pixel at the tangent point."""
        return NATIVE_ARCSEC * self.skymap_pixels / PixelScale.NATIVE.skymap_pixels

    @classmethod
    def recorded(cls, metadata: Mapping[str, Any]) -> Self:
        """Return the scale on the record of a coadd, or of what was made with it.

        Those without a scale were made before there was a choice: on the pixels of the sky map.

        Raises
        ------
        ValueError
            If no scale has such pixels.
        """
        arcsec = metadata.get(PIXEL_SCALE, cls.SKYMAP.arcsec)
        for scale in cls:
            if scale.arcsec == arcsec:
                return scale
        raise ValueError(f"no coadd has pixels of {arcsec} arcsec")
