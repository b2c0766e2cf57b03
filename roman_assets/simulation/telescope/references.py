"""Reference files of the simulated instrument, as romancal reads them.

Each function makes the model of one kind from the truth of `DetectorResponse`, `EpsfGrid` and
the geometry, so romancal takes out what the ramp simulator put in. Models are valid by rad's
``reference_files`` schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from roman_datamodels import datamodels
from roman_datamodels.dqflags import pixel
from romanisim.models.parameters import collecting_area, pixel_scale
from stpipe._config import StepConfig

from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement
from roman_assets.simulation.telescope.detector_geometry import distortion, reference_pixel_area
from roman_assets.simulation.telescope.effective_psf import (
    JITTER_MAS,
    NATIVE_SPECTRAL_TYPE,
    SPECTRAL_TYPES,
    EpsfGrid,
    enclosed_energy,
)
from roman_assets.simulation.telescope.multiaccum import (
    MA_TABLES,
    SPECTRAL_FRAME_TIME,
    MultiAccumTable,
    ma_table,
)
from roman_assets.simulation.telescope.response import (
    CHANNEL_COLUMNS,
    CONVERTER_CHANNELS,
    DetectorResponse,
    effective_area,
    imaging,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

USE_AFTER = Time("2020-01-01T00:00:00")
AUTHOR = "roman-assets observatory"

_INVERSE_TERMS = 5
_AMP33_PADDED_COLUMNS = CHANNEL_COLUMNS + 12
_FULL_ROWS = 4096
_LOW_FREQUENCIES = 1000
_DUST_PIXELS = 64


def _meta(kind: str, about: str, **instrument: Any) -> dict[str, Any]:
    return {
        "reftype": kind.upper(),
        "pedigree": "GROUND",
        "description": f"Simulated instrument: {about}",
        "author": AUTHOR,
        "useafter": USE_AFTER,
        "telescope": "ROMAN",
        "origin": "STSCI",
        "instrument": {"name": "WFI", **instrument},
    }


def _model(model: Any, content: Mapping[str, Any]) -> Any:
    made = model.create_minimal(content)
    # create_minimal leaves out what the schema does not require
    for name, value in content.items():
        if name == "meta":
            made.meta.update(value)
        else:
            made[name] = value
    return made


def _exposure_meta(exposure_type: ExposureType) -> dict[str, str]:
    return {"type": str(exposure_type), "p_exptype": f"{exposure_type}|"}


def mask(response: DetectorResponse) -> Any:
    """Make the ``mask`` reference: bad pixels and the reference border."""
    return _model(
        datamodels.MaskRefModel,
        {
            "meta": _meta("mask", "bad pixels", detector=response.detector),
            "dq": response.dq,
        },
    )


def saturation(response: DetectorResponse) -> Any:
    """Make the ``saturation`` reference: thresholds in raw DN."""
    return _model(
        datamodels.SaturationRefModel,
        {
            "meta": _meta("saturation", "saturation", detector=response.detector),
            "data": response.saturation,
            "dq": np.zeros(response.shape, dtype=np.uint32),
        },
    )


def gain(response: DetectorResponse) -> Any:
    """Make the ``gain`` reference: e/DN."""
    return _model(
        datamodels.GainRefModel,
        {"meta": _meta("gain", "gain", detector=response.detector), "data": response.gain},
    )


def readnoise(response: DetectorResponse) -> Any:
    """Make the ``readnoise`` reference: DN, for all exposure types."""
    meta = _meta("readnoise", "read noise", detector=response.detector)
    meta["exposure"] = _exposure_meta(ExposureType.WFI_IMAGE)
    return _model(datamodels.ReadnoiseRefModel, {"meta": meta, "data": response.read_noise})


def dark(response: DetectorResponse) -> Any:
    """Make the ``dark`` reference: DN/s, for all exposure types."""
    meta = _meta(
        "dark", "dark rate", detector=response.detector, optical_element=str(OpticalElement.DARK)
    )
    meta["exposure"] = _exposure_meta(ExposureType.WFI_IMAGE)
    return _model(
        datamodels.DarkRefModel,
        {
            "meta": meta,
            "dq": np.zeros(response.shape, dtype=np.uint32),
            "dark_slope": response.dark_rate,
            "dark_slope_error": np.float32(0.02) * response.dark_rate,
        },
    )


def linearity(response: DetectorResponse) -> Any:
    """Make the ``linearity`` reference: raw to linear DN, exactly ``raw + a raw**2``."""
    coefficients = np.zeros((3, *response.shape), dtype=np.float32)
    coefficients[1] = 1
    coefficients[2] = response.nonlinearity
    return _model(
        datamodels.LinearityRefModel,
        {
            "meta": _meta("linearity", "linearity", detector=response.detector),
            "coeffs": coefficients,
            "dq": np.zeros(response.shape, dtype=np.uint32),
        },
    )


def inverselinearity(response: DetectorResponse) -> Any:
    """Make the ``inverselinearity`` reference: linear to raw DN, within 0.05 DN of exact."""
    a = response.nonlinearity.astype(np.float64)
    reach = float(a.max()) * 65536.0 * 1.1
    u = reach / 2 * (1 + np.cos(np.linspace(0, np.pi, 200)))
    shape = np.polynomial.Polynomial.fit(
        u, 2 / (1 + np.sqrt(1 + 4 * u)), _INVERSE_TERMS - 1
    ).convert()
    coefficients = np.zeros((_INVERSE_TERMS + 1, *response.shape), dtype=np.float32)
    for power, value in enumerate(shape.coef):
        coefficients[power + 1] = value * a**power
    return _model(
        datamodels.InverselinearityRefModel,
        {
            "meta": _meta("inverselinearity", "inverse linearity", detector=response.detector),
            "coeffs": coefficients,
            "dq": np.zeros(response.shape, dtype=np.uint32),
        },
    )


def integralnonlinearity(response: DetectorResponse) -> Any:
    """Make the ``integralnonlinearity`` reference: the converters' corrections in DN."""
    meta = _meta("integralnonlinearity", "converters", detector=response.detector)
    meta["n_channels"] = CONVERTER_CHANNELS
    meta["n_pixels_per_channel"] = CHANNEL_COLUMNS
    return _model(
        datamodels.IntegralnonlinearityRefModel,
        {
            "meta": meta,
            "value": response.inl_values,
            "inl_table": {
                f"science_channel_{channel + 1:02d}": {
                    "instrument_channel": channel,
                    "correction": response.inl_correction[channel].copy(),
                }
                for channel in range(CONVERTER_CHANNELS)
            },
        },
    )


def ipc(response: DetectorResponse) -> Any:
    """Make the ``ipc`` reference: the kernel of a detector whose pixels do not couple."""
    kernel = np.zeros((3, 3), dtype=np.float32)
    kernel[1, 1] = 1
    # rad wants a filter, and CRDS does not match by it
    element = str(OpticalElement.F158)
    meta = _meta(
        "ipc", "no coupling of pixels", detector=response.detector, optical_element=element
    )
    return _model(datamodels.IpcRefModel, {"meta": meta, "data": kernel})


def matable() -> Any:
    """Make the ``matable`` reference: the imaging and spectroscopic MA tables, by their ids."""
    return _model(
        datamodels.MATableRefModel,
        {
            "meta": _meta("matable", "MA tables", detector=DETECTORS[0]),
            "guide_window_tables": {},
            "science_tables": {
                f"SCI{number:04d}": _science_table(ma_table(number)) for number in MA_TABLES
            },
        },
    )


def _science_table(table: MultiAccumTable) -> dict[str, Any]:
    """Return an MA table in rad's terms; every pattern starts at the first read after a reset."""
    last = [reads[-1] * table.frame_time for reads in table.read_pattern]
    mean = [float(np.mean(reads)) * table.frame_time for reads in table.read_pattern]
    return {
        "accumulated_exposure_time": last,
        "effective_exposure_time": mean,
        "frame_time": table.frame_time,
        "integration_duration": last,
        "ma_table_description": f"{table.nresultants} resultants",
        "ma_table_name": table.name,
        "ma_table_number": table.number,
        "fsw_slot_number": table.number % 100,
        "min_science_resultants": table.nresultants,
        "num_pre_science_reads": 0,
        "num_pre_science_resultants": 0,
        "num_science_resultants": table.nresultants,
        "observing_mode": "WSM" if table.frame_time == SPECTRAL_FRAME_TIME else "WIM",
        "pre_science_read_is_reference": [],
        "pre_science_read_is_resultant": [],
        "pre_science_read_types": [],
        "pre_science_time_after_reset": 0.0,
        "reset_frame_time": table.frame_time,
        "science_read_pattern": [list(reads) for reads in table.read_pattern],
    }


def flat(response: DetectorResponse, element: OpticalElement) -> Any:
    """Make the ``flat`` reference of a filter, pixel area included; active pixels only."""
    return _flat(response, element, response.flat(element), "flat with the pixel-area term")


def ground_flat(response: DetectorResponse, element: OpticalElement) -> Any:
    """Make a ``flat`` as it might be known before launch: areas and gains, no pixel response."""
    dead = response.quantum_efficiency(element) == 0
    relative_gain = response.gain[response.active] / response.nominal_gain
    data = (response.relative_area / relative_gain).astype(np.float32)
    data[dead] = 0
    return _flat(response, element, data, "flat without the pixels' own response")


def _flat(
    response: DetectorResponse, element: OpticalElement, data: NDArray[np.float32], about: str
) -> Any:
    dq = np.zeros(data.shape, dtype=np.uint32)
    dq[data == 0] = pixel.NO_FLAT_FIELD
    return _model(
        datamodels.FlatRefModel,
        {
            "meta": _meta("flat", about, detector=response.detector, optical_element=str(element)),
            "data": data,
            "dq": dq,
            "err": np.full(data.shape, 5e-4, dtype=np.float32),
        },
    )


def photom(response: DetectorResponse, *, scale: float = 1.0) -> Any:
    """Make the ``photom`` reference for all optical elements.

    Parameters
    ----------
    response
        The detector.
    scale
        Factor on ``photmjsr``: 1 for the truth.
    """
    return _model(
        datamodels.WfiImgPhotomRefModel,
        {
            "meta": _meta("photom", "photometric calibration", detector=response.detector),
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
    return _model(
        datamodels.DistortionRefModel,
        {
            "meta": _meta(
                "distortion", "fit to SIAF", detector=detector, optical_element=str(element)
            )
            | {"input_units": "pixel", "output_units": "arcsec"},
            "coordinate_distortion_transform": distortion(detector, window),
        },
    )


def epsf(detector: str, element: OpticalElement, grid: EpsfGrid) -> Any:
    """Make the ``epsf`` reference of a filter."""
    meta = _meta("epsf", "ePSF by galsim", detector=detector, optical_element=str(element))
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
    return _model(datamodels.EpsfRefModel, {"meta": meta, "psf": grid.stamps})


def apcorr(detector: str, grids: Mapping[OpticalElement, EpsfGrid]) -> Any:
    """Make the ``apcorr`` reference from the ePSFs of the filters at hand; nulls elsewhere."""
    return _model(
        datamodels.ApcorrRefModel,
        {
            "meta": _meta("apcorr", "enclosed energy of the ePSF", detector=detector),
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


def refpix(response: DetectorResponse) -> Any:
    """Make the ``refpix`` reference of a whole detector.

    The slow part of the reference output (the lowest thousand frequencies of a frame) is
    taken as common to all outputs and subtracted; reference columns have no weight.
    """
    frequencies = _FULL_ROWS * _AMP33_PADDED_COLUMNS // 2 + 1
    none = np.zeros((CONVERTER_CHANNELS, frequencies), dtype=np.complex128)
    alpha = none.copy()
    alpha[:, :_LOW_FREQUENCIES] = (
        1 + np.cos(np.pi * np.arange(_LOW_FREQUENCIES) / _LOW_FREQUENCIES)
    ) / 2
    meta = _meta("refpix", "reference output", detector=response.detector)
    return _model(
        datamodels.RefpixRefModel,
        {
            "meta": meta | {"input_units": "DN", "output_units": "DN"},
            "gamma": none,
            "zeta": none.copy(),
            "alpha": alpha,
        },
    )


def darkdecaysignal(window: int | None, seed: int) -> Any:
    """Make the ``darkdecaysignal`` reference, one file for all detectors."""
    table = {}
    for detector in DETECTORS:
        amplitude, time_constant = DetectorResponse(detector, window, seed).dark_decay
        table[detector] = {"amplitude": amplitude, "time_constant": time_constant}
    meta = _meta("darkdecaysignal", "signal after reset", detector="NOT_CONFIGURED")
    return _model(datamodels.DarkdecaysignalRefModel, {"meta": meta, "decay_table": table})


def skycells(regions: NDArray[np.void], cells: NDArray[np.void]) -> Any:
    """Make the ``skycells`` reference from tables of `roman_assets.simulation.telescope.skymap`."""
    from roman_assets.simulation.telescope import skymap

    meta = _meta("skycells", "part of the sky map")
    meta |= {
        "nxy_skycell": skymap.SKYCELL_PIXELS,
        "skycell_border_pixels": skymap.BORDER_PIXELS,
        "pixel_scale": skymap.PIXEL_SCALE,
    }
    return _model(
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


def step_parameters(step: str, **parameters: Any) -> Any:
    """Make the ``pars-*`` reference of a romancal step.

    Parameters
    ----------
    step
        Qualified class name, such as ``romancal.step.TweakRegStep``.
    **parameters
        What differs from the step's defaults.

    Returns
    -------
    asdf.AsdfFile
        As stpipe exports configurations.
    """
    return StepConfig(step, step.rsplit(".", 1)[-1], parameters, []).to_asdf()
