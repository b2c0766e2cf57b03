"""L2 images of a grism or prism, as the extraction takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.ssc.dispersion import Dispersion, dispersion_of

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SpectralImage:
    """An L2 image of a grism or prism.

    Parameters
    ----------
    name
        Official file name.
    data, error
        e/s.
    mask
        Pixels that are not to be used.
    wcs
        Pixels to sky, as planned.
    element, detector
        What it was taken with.
    meta
        Metadata that products need.
    """

    name: str
    data: Values
    error: Values
    mask: NDArray[np.bool_]
    wcs: Any
    element: OpticalElement
    detector: str
    meta: dict[str, Any]

    @property
    def dispersion(self) -> Dispersion:
        """Where light falls."""
        return dispersion_of(self.element, self.detector)

    def pixels(self, ra: Values, dec: Values) -> tuple[Values, Values]:
        """Return where the direct images of places on the sky would be, also outside (x, y)."""
        x, y = self.wcs.invert(np.asarray(ra), np.asarray(dec), with_bounding_box=False)
        return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def read_spectral_image(path: Path) -> SpectralImage:
    """Read an L2 spectral image; DN become electrons by the gain that CRDS has for it."""
    from astropy.time import Time
    from roman_datamodels import datamodels
    from roman_datamodels.dqflags import pixel
    from stpipe import crds_client

    with datamodels.open(path) as model:
        parameters = model.get_crds_parameters()
        gain_path = crds_client.get_multiple_reference_paths(parameters, ["gain"], "roman")["gain"]
        with datamodels.open(gain_path) as reference:
            gain = _active(np.array(reference.data, dtype=float), model.data.shape)
        data, error = (np.array(array, dtype=float) * gain for array in (model.data, model.err))
        mask = (np.array(model.dq) & int(pixel.DO_NOT_USE)) != 0
        mask |= ~np.isfinite(data) | ~np.isfinite(error) | (error <= 0)
        meta = {
            "s_region": model.meta.wcsinfo.s_region,
            "v3yangle": float(model.meta.wcsinfo.v3yangle),
            "start_mjd": float(Time(model.meta.exposure.start_time).mjd),
            "end_mjd": float(Time(model.meta.exposure.end_time).mjd),
            "exposure_time": float(model.meta.exposure.exposure_time),
            "exposure": int(model.meta.observation.exposure),
        }
        return SpectralImage(
            path.name, np.where(mask, 0.0, data), np.where(mask, np.inf, error), mask,
            model.meta.wcs, OpticalElement(str(model.meta.instrument.optical_element)),
            str(model.meta.instrument.detector), meta,
        )  # fmt: skip


def _active(reference: Values, shape: tuple[int, ...]) -> Values:
    """Cut the border of reference pixels off, which L2 images do not have."""
    border = (reference.shape[0] - shape[0]) // 2
    inner: Values = reference[border : border + shape[0], border : border + shape[1]]
    return inner
