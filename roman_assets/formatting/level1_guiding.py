"""L1 guide-window and FACE files (R2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray
from roman_datamodels.datamodels import L1DetectorGuidewindowModel, L1FaceGuidewindowModel

from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import GuideStar, GuideWindowTable
from roman_assets.formatting.level1_metadata import (
    Observation,
    basic_metadata,
    fill_metadata,
    instrument_metadata,
    utc_time,
)
from roman_assets.formatting.telemetry import (
    FaceTelemetry,
    GuideWindowPhase,
    GuideWindowReadout,
    Times,
)
from roman_assets.products.observation import DETECTORS, ExposureType

_UNKNOWN = -999999
_GUIDED, _PSEUDO_STAR, _NOT_USED = "GUIDE", "SKY_FIXED", "NOT_USED"
_DARKS = frozenset({ExposureType.WFI_IM_DARK, ExposureType.WFI_SP_DARK})


def guide_window_model(
    observation: Observation, readout: GuideWindowReadout
) -> L1DetectorGuidewindowModel:
    """Make the L1 guide-window file of a detector; raises `BadInputError` as `science_raw`."""
    detector, guiding = readout.detector, observation.executed.guiding
    phases = {"acq": readout.acquisition, "track": readout.tracking}
    tables = {"acq": guiding.acquisition, "track": guiding.tracking}
    if readout.edge_acquisition is not None:
        if guiding.edge_acquisition is None:
            raise BadInputError(
                observation.visit.visit, "guiding.edge_acquisition",
                f"{detector} sends an edge acquisition the executed visit does not know of",
                "deliver the executed visit with its table, in a higher revision",
            )  # fmt: skip
        phases["edge_acq"] = readout.edge_acquisition
        tables["edge_acq"] = guiding.edge_acquisition
    modes = [phase.mode for phase in phases.values()]
    meta = {
        **basic_metadata(observation.name("guide_window", detector), observation),
        **_guiding_cycle(observation, readout, modes),
        "instrument": instrument_metadata(observation, detector),
        "avg_face_filename": str(observation.name("face")),
        "guide_window": _window_limits(phases),
        "guide_star": _star(guiding.stars[detector]),
    }
    for prefix, table in tables.items():
        meta |= _table(prefix, table)
    if guiding.wsm_edge_used is not None:
        meta["wsm_edge_used"] = guiding.wsm_edge_used
    model = L1DetectorGuidewindowModel.create_minimal({"meta": meta})
    fill_metadata(model, meta)
    centroids_taken = observation.visit.exposure_type not in _DARKS
    for prefix, phase in phases.items():
        model[f"{prefix}_data"] = _phase_data(phase, tracking=prefix == "track")
        model["amp33"] |= {
            f"amp33_{prefix}_pedestals": phase.pedestal_reference_output,
            f"amp33_{prefix}_signals": phase.signal_reference_output,
        }
        model["centroid"] |= _centroids(prefix, phase, taken=centroids_taken)
    return model


def face_model(
    observation: Observation, face: FaceTelemetry, guide_windows: Iterable[str]
) -> L1FaceGuidewindowModel:
    """Make the L1 FACE file of an exposure.

    Parameters
    ----------
    observation
        What is known of the exposure.
    face
        Its telemetry.
    guide_windows
        Detectors with a guide-window file.
    """
    made, guiding = frozenset(guide_windows), observation.executed.guiding
    modes = list(dict.fromkeys(face.fgs_op_phase.tolist()))
    tables = [_table_of_mode(mode, observation) for mode in modes]
    usage = {
        detector: _usage(guiding.stars.get(detector), detector in observation.executed.detectors)
        for detector in DETECTORS
    }
    meta = {
        **basic_metadata(observation.name("face"), observation),
        **_guiding_cycle(observation, face, modes),
        "optical_element": str(observation.visit.optical_element),
        "ma_table_ids_used": [table.id for table in tables],
        "gw_cycles_per_sci_read_used": [table.cycles_per_science_read for table in tables],
        "detector_gw_files": {
            detector: str(observation.name("guide_window", detector)) if detector in made else None
            for detector in DETECTORS
        },
        "expected_gw_acquisitions": usage,
        "expected_gw_tracking": usage,
    }
    if guiding.wsm_edge_used is not None:
        meta["wsm_edge_used"] = guiding.wsm_edge_used
    model = L1FaceGuidewindowModel.create_minimal({"meta": meta})
    fill_metadata(model, meta)
    model["face_data"] = {
        **{name: getattr(face, name) for name in _FACE_ARRAYS},
        "attitude_estimate_quality": face.attitude_estimate_quality.astype("U30"),
        "centroid_times": _times(face.centroid_times),
        "fgs_op_phase": face.fgs_op_phase.tolist(),
    }
    return model


_FACE_ARRAYS = (
    "delta", "delta2", "epsilon", "epsilon2", "zeta", "delta_var", "epsilon_var", "zeta_var",
    "horizontal_variance", "vertical_variance", "num_stars_used", "num_centroid_cycles",
)  # fmt: skip


def window_of(phase: GuideWindowPhase | None) -> tuple[list[int], list[int]]:
    """Return first and last pixel (x, y) of all windows of a phase, rad's "unknown" if none."""
    if phase is None or not len(phase.lower_left_corners):
        return [_UNKNOWN] * 2, [_UNKNOWN] * 2
    return (
        phase.lower_left_corners.min(axis=0).tolist(),
        phase.upper_right_corners.max(axis=0).tolist(),
    )


def _guiding_cycle(
    observation: Observation, telemetry: GuideWindowReadout | FaceTelemetry, modes: list[str]
) -> dict[str, Any]:
    return {
        "fgs_modes_used": list(dict.fromkeys(modes)),
        "guide_star_acq_num": observation.executed.guiding.acquisition_number,
        "guide_window_id": observation.guide_window_id,
        "t_start": utc_time(telemetry.start_time),
        "t_stop": utc_time(telemetry.stop_time),
    }


def _table(prefix: str, table: GuideWindowTable) -> dict[str, Any]:
    return {
        f"{prefix}_ma_table_id": table.id,
        f"{prefix}_gw_cycles_per_sci_read": table.cycles_per_science_read,
        f"{prefix}_pedestal_resultant_exp_time": table.pedestal_exposure_time,
        f"{prefix}_signal_resultant_exp_time": table.signal_exposure_time,
    }


def _table_of_mode(mode: str, observation: Observation) -> GuideWindowTable:
    guiding = observation.executed.guiding
    if "TRK" in mode:
        return guiding.tracking
    if mode.startswith("WSM") and guiding.edge_acquisition is not None:
        return guiding.edge_acquisition
    return guiding.acquisition


def _usage(star: GuideStar | None, used: bool) -> str:
    if star is None or not used:
        return _NOT_USED
    return _PSEUDO_STAR if star.pseudo_star else _GUIDED


def _star(star: GuideStar) -> dict[str, Any]:
    return {
        **star.model_dump(exclude={"pseudo_star"}),
        "pseudo_star_flag": "Y" if star.pseudo_star else "N",
    }


def _window_limits(phases: Mapping[str, GuideWindowPhase]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for prefix, phase in phases.items():
        start, stop = window_of(phase)
        ysize, xsize = phase.signal_resultants.shape[1:]
        limits |= {
            f"min_{prefix}_xstart": start[0],
            f"min_{prefix}_ystart": start[1],
            f"max_{prefix}_xstop": stop[0],
            f"max_{prefix}_ystop": stop[1],
            f"{prefix}_xsize": xsize,
            f"{prefix}_ysize": ysize,
        }
    return limits


def _phase_data(phase: GuideWindowPhase, *, tracking: bool) -> dict[str, Any]:
    data = {
        "pedestal_resultants": phase.pedestal_resultants,
        "signal_resultants": phase.signal_resultants,
        "lower_left_corners": phase.lower_left_corners,
        "upper_right_corners": phase.upper_right_corners,
        "pixel_offsets": phase.pixel_offset,
        "reset_impacted_pairs": phase.reset_impacted_pairs,
        "reset_read_flag": phase.reset_read_flag,
        "pedestal_times": _times(phase.pedestal_times),
        "signal_times": _times(phase.signal_times),
        "sci_data_packet_counts": phase.science_packet_counts,
        "sce_status_flag": 0,
        "gw_resultant_err_flag": 0,
        "min_bind_flag": 0,
        "max_bind_flag": 0,
    }
    return data | ({"exposure_mapping": phase.exposure_mapping} if tracking else {})


def _centroids(prefix: str, phase: GuideWindowPhase, *, taken: bool) -> dict[str, Any]:
    def sets(array: NDArray[Any]) -> NDArray[Any] | None:
        # rad keeps room for several centroids a pair during acquisition; we are sent one
        return None if not taken else array[:, np.newaxis] if prefix == "acq" else array

    return {
        f"{prefix}_centroids": sets(phase.centroids),
        f"{prefix}_centroid_errs": sets(phase.centroid_errors),
        f"{prefix}_centroid_quality": sets(phase.centroid_quality.astype("U40")),
        f"{prefix}_centroid_times": _times(phase.centroid_times)
        if taken
        else [None] * len(phase.centroid_times),
    }


def _times(moments: Times) -> list[Time]:
    """Return moments as rad keeps them: UTC, written in ISO format."""
    times = Time(moments.astype("datetime64[ms]"), format="datetime64", scale="utc")
    times.format = "isot"
    return list(times)
