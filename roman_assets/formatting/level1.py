"""L1 science files: decoded telemetry with the metadata of the ancillary data (R2, R3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
from astropy.coordinates import position_angle
from numpy.typing import NDArray
from roman_datamodels.datamodels import ScienceRawModel
from roman_datamodels.dqflags import group
from stcal.alignment.util import compute_s_region_keyword
from stcal.velocity_aberration import compute_va_effects

from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import DetectorAperture, ExecutedVisit
from roman_assets.formatting.level1_guiding import window_of
from roman_assets.formatting.level1_metadata import (
    NOT_YET,
    Observation,
    basic_metadata,
    fill_metadata,
    instrument_metadata,
    utc_time,
)
from roman_assets.formatting.orbit_ephemeris import SpacecraftState, ephemeris_metadata
from roman_assets.formatting.telemetry import (
    REFERENCE_OUTPUT_COLUMNS,
    DetectorReadout,
    GuideWindowReadout,
)
from roman_assets.products.observation import ExposureId

_START_TOLERANCE = 1.0
_V3_POLE = (0.0, 90.0 * 3600)


def science_raw(
    observation: Observation, readout: DetectorReadout, guide_window: GuideWindowReadout | None
) -> ScienceRawModel:
    """Make the L1 science file of a detector.

    Parameters
    ----------
    observation
        What is known of the exposure.
    readout, guide_window
        Telemetry of the detector; None if its guide window was lost.

    Returns
    -------
    ScienceRawModel
        Valid by rad; ``data`` uint16 (nresultants, ny, nx), ``amp33`` uint16
        (nresultants, ny, 128), DN. If packets were lost ``meta.exposure.data_problem`` says so, and
        ``resultantdq`` uint8 (nresultants, ny, nx) flags the pixels as DROPOUT and DO_NOT_USE.

    Raises
    ------
    BadInputError
        If the telemetry does not fit the executed visit or the MA table.
    """
    detector = readout.detector
    _check_readout(observation, readout)
    wcsinfo = _wcsinfo(observation, observation.visit.apertures[detector])
    meta = {
        **basic_metadata(observation.name("uncal", detector), observation),
        "coordinates": {"reference_frame": "ICRS"},
        "ephemeris": ephemeris_metadata(observation.state, observation.ephemeris_kind),
        "exposure": _exposure(observation) | {"data_problem": _problem(readout, guide_window)},
        "guide_star": _guide_star(observation, detector, guide_window),
        "instrument": instrument_metadata(observation, detector),
        "observation": _observation(observation.exposure),
        "pointing": {
            **observation.executed.pointing.model_dump(),
            "pointing_engineering_source": "PLANNED",
        },
        "program": observation.visit.program.model_dump(),
        "rcs": observation.visit.rcs.model_dump(),
        "ref_file": _no_references(),
        "velocity_aberration": _velocity_aberration(observation.state, wcsinfo),
        "visit": _visit(observation.visit),
        "wcsinfo": wcsinfo,
    }
    model = ScienceRawModel.create_minimal({"meta": meta})
    fill_metadata(model, meta)
    model["data"] = readout.resultants
    model["amp33"] = readout.reference_output
    if readout.rows_received is not None:
        model["resultantdq"] = _lost_pixels(readout.resultants.shape, readout.rows_received)
    return model


LOST_PACKETS, LOST_GUIDE_WINDOW = "LOST_PACKETS", "LOST_GUIDE_WINDOW"
"""What ``meta.exposure.data_problem`` says of packets that did not come down."""

_LOST = group.DROPOUT | group.DO_NOT_USE


def _problem(readout: DetectorReadout, guide_window: GuideWindowReadout | None) -> str | None:
    problems = {
        LOST_PACKETS: readout.rows_received is not None,
        LOST_GUIDE_WINDOW: guide_window is None,
    }
    return ", ".join(name for name, is_so in problems.items() if is_so) or None


def _lost_pixels(shape: tuple[int, ...], rows_received: Iterable[int]) -> NDArray[np.uint8]:
    flags = np.zeros(shape, np.uint8)
    for plane, rows in zip(flags, rows_received, strict=True):
        plane[rows:] = _LOST
    return flags


def check_shape(observation: Observation, detector: str, shape: tuple[int, ...]) -> None:
    """Raise `BadInputError` if a readout has another shape than was announced.

    Parameters
    ----------
    observation
        What is known of the exposure.
    detector
        Which detector.
    shape
        Number of resultants, rows and columns.
    """
    aperture = observation.visit.apertures[detector]
    expected = (observation.ma_table.nresultants, aperture.nrows, aperture.ncolumns)
    if shape != expected:
        raise BadInputError(
            observation.exposure, f"{detector} resultants",
            f"shape {shape}, the executed visit and MA table "
            f"{observation.ma_table.number} announce {expected}",
            "deliver the right packets, or a corrected document in a higher revision",
        )  # fmt: skip


def _check_readout(observation: Observation, readout: DetectorReadout) -> None:
    check_shape(observation, readout.detector, readout.resultants.shape)
    if readout.reference_output.shape[2] != REFERENCE_OUTPUT_COLUMNS:
        raise BadInputError(
            observation.exposure, f"{readout.detector} reference output",
            f"{readout.reference_output.shape[2]} columns", "it must have 128",
        )  # fmt: skip
    late = (readout.start_time - observation.executed.start_time).total_seconds()
    if abs(late) > _START_TOLERANCE:
        raise BadInputError(
            observation.exposure, f"{readout.detector} start_time",
            f"the packets' is {late:+.3f} s from that of the executed visit",
            "deliver the packets or the executed visit that belong to this exposure",
        )  # fmt: skip


def _observation(exposure: ExposureId) -> dict[str, Any]:
    visit = exposure.visit
    group, sequence, activity = 1, 1, "01"
    return {
        "observation_id": (f"{visit.digits}{group:02d}{sequence}{activity}{exposure.exposure:04d}"),
        "visit_id": visit.digits,
        "program": visit.program,
        "execution_plan": visit.execution_plan,
        "pass": visit.pass_,
        "segment": visit.segment,
        "observation": visit.observation,
        "visit": visit.visit,
        "visit_file_group": group,
        "visit_file_sequence": sequence,
        "visit_file_activity": activity,
        "exposure": exposure.exposure,
        "wfi_parallel": False,
    }


def _visit(visit: ExecutedVisit) -> dict[str, Any]:
    pattern = visit.dither.executed_pattern
    return {
        "dither": {
            "primary_name": visit.dither.primary_name,
            "subpixel_name": visit.dither.subpixel_name,
            "executed_pattern": None if pattern is None else list(pattern),
        },
        "type": visit.visit_type,
        "start_time": utc_time(visit.start_time),
        "nexposures": visit.nexposures,
        "internal_target": visit.internal_target,
    }


def _exposure(observation: Observation) -> dict[str, Any]:
    executed, table = observation.executed, observation.ma_table
    return {
        "type": str(observation.visit.exposure_type),
        "start_time": utc_time(executed.start_time),
        "end_time": utc_time(executed.end_time),
        "engineering_quality": executed.engineering_quality,
        "nresultants": table.nresultants,
        "frame_time": table.frame_time,
        "exposure_time": table.exposure_time,
        "effective_exposure_time": table.effective_exposure_time,
        "ma_table_id": table.id,
        "ma_table_name": table.name,
        "ma_table_number": table.number,
        "read_pattern": [list(reads) for reads in table.read_pattern],
        "truncated": executed.nresultants is not None,
        "hga_move": executed.hga_move,
    }


def _guide_star(
    observation: Observation, detector: str, readout: GuideWindowReadout | None
) -> dict[str, Any]:
    guiding = observation.executed.guiding
    phases = () if readout is None else (readout.tracking, readout.acquisition)
    used = next((phase for phase in phases if len(phase.lower_left_corners)), None)
    (xstart, ystart), (xstop, ystop) = window_of(used)
    return {
        "guide_window_id": observation.guide_window_id,
        "guide_mode": str(guiding.mode),
        "window_xstart": xstart,
        "window_ystart": ystart,
        "window_xstop": xstop,
        "window_ystop": ystop,
        "guide_star_id": guiding.stars[detector].gsc_id,
        "epoch": guiding.epoch,
    }


def _wcsinfo(observation: Observation, aperture: DetectorAperture) -> dict[str, Any]:
    """Point an aperture's reference point and outline at the sky, by the planned attitude."""
    to_sky = observation.telescope_to_sky
    ra, dec = (float(angle) for angle in to_sky(aperture.v2_ref, aperture.v3_ref))
    pole = (float(angle) for angle in to_sky(*_V3_POLE))
    roll = position_angle(*np.deg2rad([ra, dec, *pole])).wrap_at("360d").deg
    corners = to_sky(np.array(aperture.v2_corners), np.array(aperture.v3_corners))
    return {
        "aperture_name": aperture.aperture_name,
        "v2_ref": aperture.v2_ref,
        "v3_ref": aperture.v3_ref,
        "vparity": aperture.vparity,
        "v3yangle": aperture.v3yangle,
        "ra_ref": ra,
        "dec_ref": dec,
        "roll_ref": float(roll),
        "s_region": compute_s_region_keyword(np.column_stack(corners)),
    }


def _velocity_aberration(state: SpacecraftState, wcsinfo: Mapping[str, Any]) -> dict[str, float]:
    scale, ra, dec = compute_va_effects(*state.velocity, wcsinfo["ra_ref"], wcsinfo["dec_ref"])
    return {
        "scale_factor": float(scale),
        "ra_reference": float(ra),
        "dec_reference": float(dec),
    }


@cache
def _reference_kinds() -> tuple[str, ...]:
    """Return the kinds rad's schema names."""
    kinds = ScienceRawModel.create_fake_data().meta.ref_file
    return tuple(kind for kind in kinds if kind != "crds")


def _no_references() -> dict[str, Any]:
    return {
        "crds": {"version": NOT_YET, "context": NOT_YET},
        **dict.fromkeys(_reference_kinds(), NOT_YET),
    }
