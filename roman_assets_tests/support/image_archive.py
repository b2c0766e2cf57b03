"""An installation with images that can be cut: an L2 image and the coadd made from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import asdf
import gwcs
import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS
from astropy.modeling import models
from gwcs import coordinate_frames as frames

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.sky_archive import FIRST, SKYCELL, VISIT, facts
from roman_assets_tests.support.small_archive import made_from, publish

CAL, UNCAL, COADD = f"{FIRST}_cal.asdf", f"{FIRST}_uncal.asdf", f"{SKYCELL}_coadd.asdf"
CENTRE = (270.0, 66.0)
PIXEL = 0.11 / 3600
SHAPE = (200, 300)


def sky_wcs(shape: tuple[int, int] = SHAPE, angle: float = 30.0) -> gwcs.WCS:
    """Return a tangential projection around the centre, turned by an angle (deg)."""
    ny, nx = shape
    transform = (
        models.Shift(-(nx - 1) / 2) & models.Shift(-(ny - 1) / 2)
        | models.Rotation2D(angle)
        | models.Scale(PIXEL) & models.Scale(PIXEL)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(*CENTRE, 180.0)
    )
    pixels = frames.Frame2D(name="detector", axes_order=(0, 1), unit=(u.pix, u.pix))
    sky = frames.CelestialFrame(reference_frame=ICRS(), name="world", unit=(u.deg, u.deg))
    wcs = gwcs.WCS([(pixels, transform), (sky, None)])
    wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    return wcs


def planes(shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    """Return planes whose values tell where they are."""
    values = np.arange(shape[0] * shape[1]).reshape(shape)
    return {
        "data": values.astype(np.float32),
        "dq": values.astype(np.uint32),
        "err": (values % 7).astype(np.float16),
        "context": values[None].astype(np.uint32),
        "amp33": np.zeros((2, 5, 5), np.uint16),
    }


def image_file() -> bytes:
    """Return an image file."""
    stream = io.BytesIO()
    meta = {"wcs": sky_wcs(), "wcsinfo": {"s_region": "of the whole"}, "title": "kept"}
    asdf.AsdfFile({"roman": {"meta": meta, **planes()}}).write_to(
        stream, all_array_compression="lz4"
    )
    return stream.getvalue()


def image_archive(path: Path, start: int = 0) -> DataRoot:
    """Return an installation to which images are added at a time."""
    root, image = DataRoot(path), image_file()
    about = {"metadata": facts(*CENTRE, 0)}
    publish(root, {UNCAL: b"ramp"}, start, step=Step.FORMATTING, **about)
    publish(root, {CAL: image}, start + 1, inputs=made_from({UNCAL: b"ramp"}), **about)
    publish(
        root, {COADD: image + b"\0"}, start + 2, step=Step.VISIT, partition=VISIT,
        inputs=made_from({CAL: image}), **about,
    )  # fmt: skip
    publish(root, {f"{FIRST}_cat.parquet": b"sources"}, start + 3, **about)
    fold(root)
    return root
