"""Cutouts as files: ASDF as the image is, FITS for other programs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import asdf
import numpy as np
from astropy.io import fits

from roman_assets.service.cutout.image import Cutout
from roman_assets.service.public_files import Content
from roman_assets.service.request_error import UsageError

_WCS_ERROR = 0.005
"""Largest difference between the WCS of FITS and that of the image, pixels."""
_UNITS = {"cal": "DN/s", "coadd": "MJy/sr"}
_EXTENSIONS = {"data": "SCI"}


@dataclass(frozen=True)
class CutoutFormat:
    """A format of cutouts."""

    media_type: str
    extension: str
    write: Callable[[Cutout, Content, BinaryIO], None]


def write_asdf(cutout: Cutout, content: Content, stream: BinaryIO) -> None:
    """Write a cutout with the image's tree: metadata, all planes, and the exact WCS.

    Parameters
    ----------
    cutout, content
        The part, and the file that it is a part of.
    stream
        Where it goes.
    """
    window = cutout.window
    about = {
        "of": str(content.name), "sha256": content.sha256, "left": window.left,
        "bottom": window.bottom,
    }  # fmt: skip
    asdf.AsdfFile({"roman": cutout.tree, "cutout": about}).write_to(stream)


def write_fits(cutout: Cutout, content: Content, stream: BinaryIO) -> None:
    """Write a cutout with one extension a plane, and the WCS as a projection with SIP.

    Parameters
    ----------
    cutout, content
        The part, and the file that it is a part of.
    stream
        Where it goes.
    """
    kind = content.name.kind.name
    header = cutout.wcs.to_fits_sip(
        bounding_box=cutout.wcs.bounding_box.bounding_box()[::-1],
        max_pix_error=_WCS_ERROR,
        max_inv_pix_error=None,
    )
    for key in ("NAXIS", "NAXIS1", "NAXIS2", "SIMPLE", "BITPIX"):
        header.remove(key, ignore_missing=True)
    extensions = [
        _extension(name, plane, header, _UNITS[kind] if name in ("data", "err") else None)
        for name, plane in cutout.planes.items()
    ]
    # astropy asks for the name of a file, which a temporary one in memory has not.
    buffer = io.BytesIO()
    fits.HDUList([_primary(cutout, content), *extensions]).writeto(buffer)
    stream.write(buffer.getbuffer())


def _primary(cutout: Cutout, content: Content) -> fits.PrimaryHDU:
    primary = fits.PrimaryHDU()
    file_set = content.name.file_set
    cards: list[tuple[str, Any, str]] = [
        ("TELESCOP", "ROMAN", "telescope"),
        ("INSTRUME", "WFI", "instrument"),
        ("FILTER", str(file_set.optical_element), "optical element"),
        ("DETECTOR", getattr(file_set, "detector", None), "detector"),
        ("CUTLEFT", cutout.window.left, "first column in the image, from 0"),
        ("CUTBOTT", cutout.window.bottom, "first row in the image, from 0"),
        ("DATE", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}", "when this file was written, UTC"),
    ]
    for key, value, comment in cards:
        if value is not None:
            primary.header[key] = (value, comment)
    primary.header.add_history(f"Cutout of {content.name}")
    primary.header.add_history(f"with the SHA-256 {content.sha256}")
    return primary


def _extension(name: str, plane: Any, header: fits.Header, unit: str | None) -> fits.ImageHDU:
    # FITS has no half-precision numbers.
    values = plane.astype(np.float32) if plane.dtype == np.float16 else plane
    extension = fits.ImageHDU(values, header.copy(), name=_EXTENSIONS.get(name, name.upper()))
    if unit is not None:
        extension.header["BUNIT"] = unit
    return extension


FITS = CutoutFormat("application/fits", "fits", write_fits)
ASDF = CutoutFormat("application/x-asdf", "asdf", write_asdf)
_FORMATS: Mapping[str, CutoutFormat] = {
    "fits": FITS, "application/fits": FITS, "image/fits": FITS,
    "asdf": ASDF, "application/x-asdf": ASDF,
}  # fmt: skip


def format_named(name: str) -> CutoutFormat:
    """Return a format by its name or media type.

    Raises
    ------
    UsageError
        If it is not known.
    """
    found = _FORMATS.get(name.lower())
    if found is None:
        raise UsageError(f"RESPONSEFORMAT: give one of {', '.join(_FORMATS)}")
    return found
