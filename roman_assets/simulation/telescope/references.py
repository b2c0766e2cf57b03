"""Reference files of the simulated detectors, as romancal reads them.

Each function makes the model of one kind from the truth of `DetectorResponse`, so romancal takes
out what the ramp simulator put in. Models are valid by rad's ``reference_files`` schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.time import Time
from roman_datamodels import datamodels
from roman_datamodels.dqflags import pixel
from stpipe._config import StepConfig

from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement
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
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


USE_AFTER = Time("2020-01-01T00:00:00")
AUTHOR = "roman-assets observatory"

_INVERSE_TERMS = 5
_AMP33_PADDED_COLUMNS = CHANNEL_COLUMNS + 12
_FULL_ROWS = 4096
_LOW_FREQUENCIES = 1000


def reference_meta(kind: str, about: str, **instrument: Any) -> dict[str, Any]:
    """Return the metadata that all reference files share."""
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


def reference_model(model: Any, content: Mapping[str, Any]) -> Any:
    """Make the model of a reference file."""
    made = model.create_minimal(content)
    # create_minimal leaves out what the schema does not require
    for name, value in content.items():
        if name == "meta":
            made.meta.update(value)
        else:
            made[name] = value
    return made


def exposure_meta(exposure_type: ExposureType) -> dict[str, str]:
    """Return ``meta.exposure`` of a reference file for one type of exposure."""
    return {"type": str(exposure_type), "p_exptype": f"{exposure_type}|"}


def mask(response: DetectorResponse) -> Any:
    """Make the ``mask`` reference: bad pixels and the reference border."""
    return reference_model(
        datamodels.MaskRefModel,
        {
            "meta": reference_meta("mask", "bad pixels", detector=response.detector),
            "dq": response.dq,
        },
    )


def saturation(response: DetectorResponse) -> Any:
    """Make the ``saturation`` reference: thresholds in raw DN."""
    return reference_model(
        datamodels.SaturationRefModel,
        {
            "meta": reference_meta("saturation", "saturation", detector=response.detector),
            "data": response.saturation,
            "dq": np.zeros(response.shape, dtype=np.uint32),
        },
    )


def gain(response: DetectorResponse) -> Any:
    """Make the ``gain`` reference: e/DN."""
    return reference_model(
        datamodels.GainRefModel,
        {"meta": reference_meta("gain", "gain", detector=response.detector), "data": response.gain},
    )


def readnoise(response: DetectorResponse) -> Any:
    """Make the ``readnoise`` reference: DN, for all exposure types."""
    meta = reference_meta("readnoise", "read noise", detector=response.detector)
    meta["exposure"] = exposure_meta(ExposureType.WFI_IMAGE)
    return reference_model(
        datamodels.ReadnoiseRefModel, {"meta": meta, "data": response.read_noise}
    )


def dark(response: DetectorResponse) -> Any:
    """Make the ``dark`` reference: DN/s, for all exposure types."""
    meta = reference_meta(
        "dark", "dark rate", detector=response.detector, optical_element=str(OpticalElement.DARK)
    )
    meta["exposure"] = exposure_meta(ExposureType.WFI_IMAGE)
    return reference_model(
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
    return reference_model(
        datamodels.LinearityRefModel,
        {
            "meta": reference_meta("linearity", "linearity", detector=response.detector),
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
    return reference_model(
        datamodels.InverselinearityRefModel,
        {
            "meta": reference_meta(
                "inverselinearity", "inverse linearity", detector=response.detector
            ),
            "coeffs": coefficients,
            "dq": np.zeros(response.shape, dtype=np.uint32),
        },
    )


def integralnonlinearity(response: DetectorResponse) -> Any:
    """Make the ``integralnonlinearity`` reference: the converters' corrections in DN."""
    meta = reference_meta("integralnonlinearity", "converters", detector=response.detector)
    meta["n_channels"] = CONVERTER_CHANNELS
    meta["n_pixels_per_channel"] = CHANNEL_COLUMNS
    return reference_model(
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
    meta = reference_meta(
        "ipc", "no coupling of pixels", detector=response.detector, optical_element=element
    )
    return reference_model(datamodels.IpcRefModel, {"meta": meta, "data": kernel})


def matable() -> Any:
    """Make the ``matable`` reference: the imaging and spectroscopic MA tables, by their ids."""
    return reference_model(
        datamodels.MATableRefModel,
        {
            "meta": reference_meta("matable", "MA tables", detector=DETECTORS[0]),
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
    return reference_model(
        datamodels.FlatRefModel,
        {
            "meta": reference_meta(
                "flat", about, detector=response.detector, optical_element=str(element)
            ),
            "data": data,
            "dq": dq,
            "err": np.full(data.shape, 5e-4, dtype=np.float32),
        },
    )


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
    meta = reference_meta("refpix", "reference output", detector=response.detector)
    return reference_model(
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
    meta = reference_meta("darkdecaysignal", "signal after reset", detector="NOT_CONFIGURED")
    return reference_model(datamodels.DarkdecaysignalRefModel, {"meta": meta, "decay_table": table})


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
