"""Where the detectors are on the sky: polynomial fits to SIAF, and the WCS of a pointing.

Pixels are those of the active area, counted from 0 at the centre of the first one, as
`romancal` counts them in an L2 image. A *window* is the square of active pixels around the
detector's centre that a small installation simulates; its pixels keep their places on the
sky. Four reference pixels surround the active area in ramps and references.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import coordinates, units
from astropy.modeling import Model, bind_bounding_box, models
from gwcs import WCS, coordinate_frames
from gwcs.wcs import Step
from romancal.assign_wcs.assign_wcs import _dva_corr_model, v23tosky
from stcal.alignment.util import wcs_bbox_from_shape

from roman_assets.products.observation import DETECTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL_ACTIVE_PIXELS = 4088
"""Active pixels along a side of a whole detector."""

BORDER_PIXELS = 4
"""Reference pixels on each side of the active area."""

SMALLEST_WINDOW = 64

_HALF = FULL_ACTIVE_PIXELS / 2
_CENTRE = (FULL_ACTIVE_PIXELS - 1) / 2
_ARCSEC = float(np.deg2rad(1 / 3600))
_FORWARD_DEGREE = 6
_INVERSE_DEGREE = 8


def active_pixels(window: int | None) -> int:
    """Return the active pixels along a side: ``window``, or 4088 for None.

    Raises
    ------
    ValueError
        If the window is odd or does not fit the detector.
    """
    if window is None:
        return FULL_ACTIVE_PIXELS
    if window % 2 or not SMALLEST_WINDOW <= window <= FULL_ACTIVE_PIXELS:
        raise ValueError(
            f"a window of {window} pixels: expected an even number "
            f"from {SMALLEST_WINDOW} to {FULL_ACTIVE_PIXELS}"
        )
    return window


def array_pixels(window: int | None) -> int:
    """Return the pixels along a side of ramps and references, reference border included."""
    return active_pixels(window) + 2 * BORDER_PIXELS


def window_origin(window: int | None) -> int:
    """Return the detector's active pixel (in x and in y) that is pixel 0 of the window."""
    return (FULL_ACTIVE_PIXELS - active_pixels(window)) // 2


@lru_cache(maxsize=1)
def _siaf() -> Any:
    # when imported, pysiaf warns of not having found out whether its JWST data are the newest
    logging.getLogger("pysiaf").setLevel(logging.ERROR)
    import pysiaf

    return pysiaf.Siaf("Roman")


def siaf_aperture(detector: str) -> Any:
    """Return pysiaf's aperture ``WFInn_FULL``; raises `ValueError` for an unknown detector."""
    if detector not in DETECTORS:
        raise ValueError(f"{detector!r} is not a detector: expected WFI01 to WFI18")
    return _siaf()[f"{detector}_FULL"]


def _fitted(degree: int, x: Any, y: Any, value: Any) -> models.Polynomial2D:
    polynomial = models.Polynomial2D(degree)
    exponents = [
        tuple(int(part) for part in name[1:].split("_")) for name in polynomial.param_names
    ]
    design = np.stack([x**i * y**j for i, j in exponents], axis=1)
    polynomial.parameters = np.linalg.lstsq(design, value, rcond=None)[0]
    return polynomial


@lru_cache(maxsize=len(DETECTORS))
def _fit(detector: str) -> tuple[Model, Model]:
    """Fit active pixel of the whole detector ↔ (V2, V3) in arcsec; residuals below 1e-5 pixel."""
    aperture = siaf_aperture(detector)
    nodes = np.cos(np.linspace(0, np.pi, 41))
    u, v = (axis.ravel() for axis in np.meshgrid(nodes, nodes))
    v2, v3 = aperture.sci_to_tel(u * _HALF + _CENTRE + 1, v * _HALF + _CENTRE + 1)
    reach = _HALF * 0.11
    p, q = (v2 - aperture.V2Ref) / reach, (v3 - aperture.V3Ref) / reach
    both = models.Mapping((0, 1, 0, 1))
    normalized = (models.Shift(-_CENTRE) & models.Shift(-_CENTRE)) | (
        models.Scale(1 / _HALF) & models.Scale(1 / _HALF)
    )
    forward = (
        normalized
        | both
        | (_fitted(_FORWARD_DEGREE, u, v, v2) & _fitted(_FORWARD_DEGREE, u, v, v3))
    )
    offset = (models.Shift(-aperture.V2Ref) & models.Shift(-aperture.V3Ref)) | (
        models.Scale(1 / reach) & models.Scale(1 / reach)
    )
    inverse = (
        offset
        | both
        | (_fitted(_INVERSE_DEGREE, p, q, u) & _fitted(_INVERSE_DEGREE, p, q, v))
        | normalized.inverse
    )
    return forward, inverse


def distortion(detector: str, window: int | None) -> Model:
    """Return the transform from active pixel (x, y) to telescope (V2, V3).

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    window
        Active pixels along a side, None for the whole detector.

    Returns
    -------
    Model
        Pixels from 0 to V2, V3 in arcsec, with an analytic inverse and a bounding box; a
        polynomial fit to pysiaf's aperture ``WFInn_FULL``.
    """
    forward, inverse = _fit(detector)
    origin = window_origin(window)
    shift = models.Shift(float(origin)) & models.Shift(float(origin))
    transform = shift | forward
    transform.inverse = inverse | shift.inverse
    transform.inputs, transform.outputs = ("x", "y"), ("v2", "v3")
    size = active_pixels(window)
    bind_bounding_box(transform, wcs_bbox_from_shape((size, size)), order="F")
    return transform


def pixel_area(detector: str, window: int | None) -> NDArray[np.float64]:
    """Return the solid angle of every active pixel.

    Returns
    -------
    ndarray
        Shape (active, active), steradian.
    """
    size = active_pixels(window)
    forward, _ = _fit(detector)
    centres = np.arange(size, dtype=float) + window_origin(window)
    return _jacobian_area(forward, *np.meshgrid(centres, centres))


@lru_cache(maxsize=len(DETECTORS))
def reference_pixel_area(detector: str) -> float:
    """Return the solid angle (sr) of the detector's central pixel, the one photom is made for."""
    forward, _ = _fit(detector)
    centre = np.array([[_CENTRE]])
    return float(_jacobian_area(forward, centre, centre)[0, 0])


def _jacobian_area(forward: Model, x: Any, y: Any) -> NDArray[np.float64]:
    right, left = forward(x + 0.5, y), forward(x - 0.5, y)
    top, bottom = forward(x, y + 0.5), forward(x, y - 0.5)
    v2_x, v3_x = right[0] - left[0], right[1] - left[1]
    v2_y, v3_y = top[0] - bottom[0], top[1] - bottom[1]
    latitude = np.cos((right[1] + left[1]) / 2 * _ARCSEC)
    area: NDArray[np.float64] = np.abs(v2_x * v3_y - v2_y * v3_x) * latitude * _ARCSEC**2
    return area


def wcsinfo(ra: float, dec: float, pa: float) -> dict[str, Any]:
    """Return rad's ``meta.wcsinfo`` for a pointing, all but ``s_region``.

    Parameters
    ----------
    ra, dec
        Where the centre of the Wide Field Instrument (SIAF's ``WFI_CEN``) points: ICRS, degrees.
    pa
        Position angle of the instrument's +Y axis, degrees east of north.

    Returns
    -------
    dict
        The same for all detectors of an exposure.
    """
    centre = _siaf()["WFI_CEN"]
    return {
        "aperture_name": "WFI_CEN",
        "v2_ref": float(centre.V2Ref),
        "v3_ref": float(centre.V3Ref),
        "vparity": int(centre.VIdlParity),
        "v3yangle": float(centre.V3IdlYAngle),
        "ra_ref": ra,
        "dec_ref": dec,
        "roll_ref": (pa - float(centre.V3IdlYAngle)) % 360.0,
        "pa_aperture": pa,
    }


def detector_wcs(
    detector: str,
    ra: float,
    dec: float,
    pa: float,
    window: int | None,
    *,
    velocity_aberration: float = 1.0,
) -> WCS:
    """Return the WCS that `romancal.assign_wcs` makes for a pointing with these references.

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    ra, dec, pa
        As in `wcsinfo`, degrees.
    window
        Active pixels along a side, None for the whole detector.
    velocity_aberration
        ``meta.velocity_aberration.scale_factor``.

    Returns
    -------
    gwcs.WCS
        Active pixel (x, y) to ICRS (RA, Dec) in degrees, through V2, V3.
    """
    reference = wcsinfo(ra, dec, pa)
    meta = SimpleNamespace(wcsinfo=SimpleNamespace(**reference))
    detector_frame = coordinate_frames.Frame2D(
        name="detector", axes_order=(0, 1), unit=(units.pix, units.pix)
    )
    telescope, corrected = (
        coordinate_frames.Frame2D(
            name=name,
            axes_order=(0, 1),
            axes_names=("v2", "v3"),
            unit=(units.arcsec, units.arcsec),
        )
        for name in ("v2v3", "v2v3vacorr")
    )
    world = coordinate_frames.CelestialFrame(reference_frame=coordinates.ICRS(), name="world")
    wcs = WCS(
        [
            Step(detector_frame, distortion(detector, window)),
            Step(
                telescope,
                _dva_corr_model(velocity_aberration, reference["v2_ref"], reference["v3_ref"]),
            ),
            Step(corrected, v23tosky(SimpleNamespace(meta=meta))),
            Step(world, None),
        ]
    )
    size = active_pixels(window)
    wcs.array_shape = (size, size)
    return wcs
