"""L2 images as photometry of point sources takes them: without background, with their PSF."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from roman_assets.simulation.ssc.epsf import EffectivePsf

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]

BACKGROUND_BOX = 64
_CROWDED_BOX = 90
"""Per cent of a box that may be stars; where everything is, a few pixels between them do."""


@dataclass(frozen=True)
class CalibratedImage:
    """An L2 image without its background.

    Parameters
    ----------
    name
        Official file name.
    data, error
        DN/s; where `mask` is true they mean nothing.
    mask
        Pixels that are not to be used.
    saturated
        Those of them that are saturated from the first read.
    wcs
        Pixels to sky (ICRS, degrees).
    mjd
        Mid-exposure.
    meta
        The metadata as a plain mapping.
    psf
        The PSF.
    """

    name: str
    data: Image
    error: Image
    mask: Mask
    saturated: Mask
    wcs: Any
    mjd: float
    meta: dict[str, Any]
    psf: EffectivePsf

    @property
    def detector(self) -> str:
        """WFI01 to WFI18."""
        return str(self.meta["instrument"]["detector"])

    @property
    def noise(self) -> float:
        """Median error, DN/s."""
        return float(np.median(self.error[~self.mask]))

    def pixels_of(self, ra: Any, dec: Any) -> tuple[Image, Image]:
        """Return pixels (x, y) of places on the sky (ICRS, degrees), also off the image."""
        x, y = self.wcs.invert(np.asarray(ra), np.asarray(dec), with_bounding_box=False)
        return np.asarray(x, dtype=float), np.asarray(y, dtype=float)

    def sky_of(self, x: Image, y: Image) -> tuple[Image, Image]:
        """Return places on the sky (ICRS, degrees) of pixels, also off the image."""
        ra, dec = self.wcs(x, y, with_bounding_box=False)
        return np.asarray(ra, dtype=float), np.asarray(dec, dtype=float)


def read_image(path: Path) -> CalibratedImage:
    """Read an L2 image with the PSF that CRDS has for it, and take its background away."""
    from roman_datamodels import datamodels
    from roman_datamodels.dqflags import pixel
    from romancal.source_catalog.psf import get_gridded_psf_model
    from stpipe import crds_client

    with datamodels.open(path) as model:
        data = np.array(model.data, dtype=float)
        error = np.array(model.err, dtype=float)
        quality = np.array(model.dq)
        wcs = model.meta.wcs
        start, end = model.meta.exposure.start_time, model.meta.exposure.end_time
        parameters = model.get_crds_parameters()
        meta = {
            "instrument": {"detector": model.meta.instrument.detector},
            "s_region": model.meta.wcsinfo.s_region,
            "start": Time(start), "end": Time(end),
            "exposure_time": float(model.meta.exposure.exposure_time),
            "category": model.meta.program.category,
        }  # fmt: skip
    references = crds_client.get_multiple_reference_paths(parameters, ["epsf"], "roman")
    with datamodels.open(references["epsf"]) as reference:
        psf = EffectivePsf(get_gridded_psf_model(reference))
    mask = (quality & int(pixel.DO_NOT_USE)) != 0
    mask |= ~np.isfinite(data) | ~np.isfinite(error) | (error <= 0)
    saturated = mask & ((quality & int(pixel.SATURATED)) != 0)
    data[mask], error[mask] = 0.0, 1.0
    data -= background(data, mask)
    middle = (Time(start).mjd + Time(end).mjd) / 2
    return CalibratedImage(path.name, data, error, mask, saturated, wcs, float(middle), meta, psf)


def background(data: Image, mask: Mask) -> Image:
    """Return the background between the stars: the mode of boxes, as DAOPHOT estimates it."""
    from photutils.background import Background2D, MMMBackground

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        found = Background2D(
            data, BACKGROUND_BOX, mask=mask, exclude_percentile=_CROWDED_BOX,
            bkg_estimator=MMMBackground(),
        )  # fmt: skip
    return np.asarray(found.background, dtype=float)
