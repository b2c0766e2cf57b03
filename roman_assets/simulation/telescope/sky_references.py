"""Reference files on the sky and the images of stars, as romancal reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from roman_datamodels import datamodels
from romanisim.models.parameters import collecting_area, pixel_scale

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.detector_geometry import distortion, reference_pixel_area
from roman_assets.simulation.telescope.effective_psf import (
    JITTER_MAS,
    NATIVE_SPECTRAL_TYPE,
    SPECTRAL_TYPES,
    EpsfGrid,
    enclosed_energy,
)
from roman_assets.simulation.telescope.response import DetectorResponse, effective_area, imaging

if TYPE_CHECKING:
    from numpy.typing import NDArray
from roman_assets.simulation.telescope.references import reference_meta, reference_model

_DUST_PIXELS = 64


def photom(response: DetectorResponse, *, scale: float = 1.0) -> Any:
    """Make the ``photom`` reference for all optical elements.

    Parameters
    ----------
    response
        The detector.
    scale
        Factor on ``photmjsr``: 1 for the truth.
    """
    return reference_model(
        datamodels.WfiImgPhotomRefModel,
        {
            "meta": reference_meta("photom", "photometric calibration", detector=response.detector),
            "phot_table": {
                str(element): _phot_table_entry(response, element, scale)
                for element in OpticalElement
            },
        },
    )


def _phot_table_entry(
    response: DetectorResponse, element: OpticalElement, scale: float
) -> dict[str, Any]:
    entry: dict[str, Any] = dict.fromkeys(
        (
            "photmjsr", "uncertainty", "pixelareasr", "collecting_area", "wavelength",
            "effective_area",
        )
    )  # fmt: skip
    if element is OpticalElement.DARK:
        return entry
    wavelength, area = effective_area(response.detector, element)
    entry |= {
        "collecting_area": collecting_area / 1e4,
        "wavelength": wavelength,
        "effective_area": area,
    }
    if imaging(element):
        conversion = response.conversion_megajanskys(element) * scale
        entry |= {
            "photmjsr": conversion,
            "uncertainty": 0.01 * conversion,
            "pixelareasr": reference_pixel_area(response.detector),
        }
    return entry


def distortion_reference(detector: str, element: OpticalElement, window: int | None) -> Any:
    """Make the ``distortion`` reference: active pixel to V2, V3 in arcsec, as in SIAF."""
    return reference_model(
        datamodels.DistortionRefModel,
        {
            "meta": reference_meta(
                "distortion", "fit to SIAF", detector=detector, optical_element=str(element)
            )
            | {"input_units": "pixel", "output_units": "arcsec"},
            "coordinate_distortion_transform": distortion(detector, window),
        },
    )


def epsf(detector: str, element: OpticalElement, grid: EpsfGrid) -> Any:
    """Make the ``epsf`` reference of a filter."""
    meta = reference_meta("epsf", "ePSF by galsim", detector=detector, optical_element=str(element))
    meta |= {
        "oversample": grid.oversampling,
        "spectral_type": list(SPECTRAL_TYPES),
        "defocus": list(grid.defocus),
        "pixel_x": list(grid.pixel_x),
        "pixel_y": list(grid.pixel_y),
        "jitter_major": JITTER_MAS,
        "jitter_minor": JITTER_MAS,
        "jitter_position_angle": 0.0,
    }
    return reference_model(datamodels.EpsfRefModel, {"meta": meta, "psf": grid.stamps})


def apcorr(detector: str, grids: Mapping[OpticalElement, EpsfGrid]) -> Any:
    """Make the ``apcorr`` reference from the ePSFs of the filters at hand; nulls elsewhere."""
    return reference_model(
        datamodels.ApcorrRefModel,
        {
            "meta": reference_meta("apcorr", "enclosed energy of the ePSF", detector=detector),
            "data": {str(element): _apcorr_entry(grids.get(element)) for element in OpticalElement},
        },
    )


def _apcorr_entry(grid: EpsfGrid | None) -> dict[str, Any]:
    if grid is None:
        return dict.fromkeys(
            (
                "ap_corrections", "ee_fractions", "ee_radii", "sky_background_rin",
                "sky_background_rout",
            )
        )  # fmt: skip
    radii, fractions = enclosed_energy(grid.stamps[0, NATIVE_SPECTRAL_TYPE, 0])
    wanted = np.linspace(0.05, 0.975, 60)
    wanted = wanted[(wanted > fractions[0]) & (wanted < fractions[-1])]
    # romancal looks fractions up by radius in arcsec, whatever rad's description says.
    return {
        "ap_corrections": 1 / wanted,
        "ee_fractions": wanted,
        "ee_radii": np.interp(wanted, fractions, radii) * pixel_scale,
        "sky_background_rin": 20.0,
        "sky_background_rout": 30.0,
    }


def skycells(regions: NDArray[np.void], cells: NDArray[np.void]) -> Any:
    """Make the ``skycells`` reference from tables of `roman_assets.simulation.telescope.skymap`."""
    from roman_assets.simulation.telescope import skymap

    meta = reference_meta("skycells", "part of the sky map")
    meta |= {
        "nxy_skycell": skymap.SKYCELL_PIXELS,
        "skycell_border_pixels": skymap.BORDER_PIXELS,
        "pixel_scale": skymap.PIXEL_SCALE,
    }
    return reference_model(
        datamodels.SkycellsRefModel,
        {"meta": meta, "projection_regions": regions, "skycells": cells},
    )


def dustmap(sign: int) -> fits.HDUList:
    """Make the ``dustmap`` reference of one Galactic hemisphere: E(B-V), zero everywhere.

    The simulated sky has no extinction.

    Parameters
    ----------
    sign
        1 for the north, -1 for the south.
    """
    projection = WCS(naxis=2)
    projection.wcs.ctype = ["GLON-ZEA", "GLAT-ZEA"]
    projection.wcs.crval = [0.0, 90.0 * sign]
    projection.wcs.crpix = [_DUST_PIXELS / 2 + 0.5] * 2
    scale = 2 * np.rad2deg(np.sqrt(2)) / _DUST_PIXELS
    projection.wcs.cdelt = [-scale, scale]
    data = np.zeros((_DUST_PIXELS, _DUST_PIXELS), dtype=np.float32)
    return fits.HDUList([fits.PrimaryHDU(data, projection.to_header())])
