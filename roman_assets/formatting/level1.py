"""L1 files: decoded telemetry with the metadata of the ancillary data (R2, R3).

Everything rad's schemas require is filled. What is not known at this stage is said so: calibration
software and references are ``N/A`` until L2 is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
from astropy.coordinates import position_angle
from astropy.time import Time
from numpy.typing import NDArray
from roman_datamodels.datamodels import (
    L1DetectorGuidewindowModel,
    L1FaceGuidewindowModel,
    ScienceRawModel,
)
from roman_datamodels.dqflags import group
from romancal.assign_wcs.assign_wcs import v23tosky
from stcal.alignment.util import compute_s_region_keyword
from stcal.velocity_aberration import compute_va_effects

from roman_assets.build import build
from roman_assets.errors import BadInputError
from roman_assets.formatting.ancillary import (
    DetectorAperture,
    EphemerisKind,
    ExecutedExposure,
    ExecutedVisit,
    GuideStar,
    GuideWindowTable,
    MATable,
    SpacecraftState,
)
from roman_assets.formatting.telemetry import (
    REFERENCE_OUTPUT_COLUMNS,
    DetectorReadout,
    FaceTelemetry,
    GuideWindowPhase,
    GuideWindowReadout,
    Times,
)
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import DetectorFileSet, ExposureFileSet, ProductName
from roman_assets.products.observation import DETECTORS, ExposureId, ExposureType

_NOT_YET = "N/A"
_UNKNOWN = -999999
_GUIDED, _PSEUDO_STAR, _NOT_USED = "GUIDE", "SKY_FIXED", "NOT_USED"
_DARKS = frozenset({ExposureType.WFI_IM_DARK, ExposureType.WFI_SP_DARK})
_START_TOLERANCE = 1.0
_V3_POLE = (0.0, 90.0 * 3600)


@dataclass(frozen=True)
class Observation:
    """All that is known of an exposure beside its telemetry.

    Parameters
    ----------
    exposure
        Which one.
    visit, executed
        The executed visit and the exposure in it.
    ma_table
        As executed, that is cut to the resultants sent down.
    state
        Of the observatory in the middle of the exposure.
    ephemeris_kind
        From which kind of ephemeris that is (R3).
    """

    exposure: ExposureId
    visit: ExecutedVisit
    executed: ExecutedExposure
    ma_table: MATable
    state: SpacecraftState
    ephemeris_kind: EphemerisKind

    def file_set(self, detector: str) -> DetectorFileSet:
        """Return the file set of a detector."""
        return DetectorFileSet(self.exposure, detector, self.visit.optical_element)

    def name(self, kind: str, detector: str | None = None) -> ProductName:
        """Return the official name of an L1 product of this exposure, by kind."""
        file_set = (
            ExposureFileSet(self.exposure, self.visit.optical_element)
            if detector is None
            else self.file_set(detector)
        )
        return ProductName(file_set, KIND_BY_NAME[kind])

    @property
    def guide_window_id(self) -> str:
        """The visit and the guide star acquisition, 20 digits."""
        return f"{self.exposure.visit.digits}{self.executed.guiding.acquisition_number}"

    @cached_property
    def telescope_to_sky(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        """The planned attitude: (V2, V3) in arcsec to ICRS in degrees."""
        pointing = self.executed.pointing
        attitude = SimpleNamespace(
            v2_ref=0.0,
            v3_ref=0.0,
            ra_ref=pointing.ra_v1,
            dec_ref=pointing.dec_v1,
            roll_ref=pointing.pa_v3,
        )
        transform: Callable[[Any, Any], tuple[Any, Any]] = v23tosky(
            SimpleNamespace(meta=SimpleNamespace(wcsinfo=attitude))
        )
        return transform


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
        **_basic(observation.name("uncal", detector), observation),
        "coordinates": {"reference_frame": "ICRS"},
        "ephemeris": ephemeris_metadata(observation.state, observation.ephemeris_kind),
        "exposure": _exposure(observation) | {"data_problem": _problem(readout, guide_window)},
        "guide_star": _guide_star(observation, detector, guide_window),
        "instrument": _instrument(observation, detector),
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
    _fill(model, meta)
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
        **_basic(observation.name("guide_window", detector), observation),
        **_guiding_cycle(observation, readout, modes),
        "instrument": _instrument(observation, detector),
        "avg_face_filename": str(observation.name("face")),
        "guide_window": _window_limits(phases),
        "guide_star": _star(guiding.stars[detector]),
    }
    for prefix, table in tables.items():
        meta |= _table(prefix, table)
    if guiding.wsm_edge_used is not None:
        meta["wsm_edge_used"] = guiding.wsm_edge_used
    model = L1DetectorGuidewindowModel.create_minimal({"meta": meta})
    _fill(model, meta)
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
        **_basic(observation.name("face"), observation),
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
    _fill(model, meta)
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


def _basic(name: ProductName, observation: Observation) -> dict[str, Any]:
    return {
        "filename": str(name),
        "file_date": Time.now(),
        "product_type": name.kind.suffix,
        "calibration_software_name": "RomanCAL",
        "calibration_software_version": _NOT_YET,
        "prd_version": observation.visit.prd_version,
        "sdf_software_version": build().version,
        "origin": "STSCI/SOC",
        "telescope": "ROMAN",
    }


def _instrument(observation: Observation, detector: str) -> dict[str, str]:
    return {
        "name": "WFI",
        "detector": detector,
        "optical_element": str(observation.visit.optical_element),
    }


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
        "start_time": _utc(visit.start_time),
        "nexposures": visit.nexposures,
        "internal_target": visit.internal_target,
    }


def _exposure(observation: Observation) -> dict[str, Any]:
    executed, table = observation.executed, observation.ma_table
    return {
        "type": str(observation.visit.exposure_type),
        "start_time": _utc(executed.start_time),
        "end_time": _utc(executed.end_time),
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


def ephemeris_metadata(state: SpacecraftState, kind: EphemerisKind) -> dict[str, Any]:
    """Return rad's ``meta.ephemeris`` of a state (R3, R4)."""
    axes = ("x", "y", "z")
    return {
        "type": str(kind),
        "ephemeris_reference_frame": state.frame,
        "time": float(Time(state.time).utc.mjd),
        **{f"spatial_{axis}": float(v) for axis, v in zip(axes, state.position, strict=True)},
        **{f"velocity_{axis}": float(v) for axis, v in zip(axes, state.velocity, strict=True)},
    }


def _guide_star(
    observation: Observation, detector: str, readout: GuideWindowReadout | None
) -> dict[str, Any]:
    guiding = observation.executed.guiding
    phases = () if readout is None else (readout.tracking, readout.acquisition)
    used = next((phase for phase in phases if len(phase.lower_left_corners)), None)
    (xstart, ystart), (xstop, ystop) = _window(used)
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


def _window(phase: GuideWindowPhase | None) -> tuple[list[int], list[int]]:
    """Return first and last pixel (x, y) of all windows of a phase, rad's "unknown" if none."""
    if phase is None or not len(phase.lower_left_corners):
        return [_UNKNOWN] * 2, [_UNKNOWN] * 2
    return (
        phase.lower_left_corners.min(axis=0).tolist(),
        phase.upper_right_corners.max(axis=0).tolist(),
    )


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
        "crds": {"version": _NOT_YET, "context": _NOT_YET},
        **dict.fromkeys(_reference_kinds(), _NOT_YET),
    }


def _fill(model: Any, meta: Mapping[str, Any]) -> None:
    """Set all metadata; the minimal model leaves out members the schema does not name."""
    for name, value in meta.items():
        model.meta[name] = value


def _guiding_cycle(
    observation: Observation, telemetry: GuideWindowReadout | FaceTelemetry, modes: list[str]
) -> dict[str, Any]:
    return {
        "fgs_modes_used": list(dict.fromkeys(modes)),
        "guide_star_acq_num": observation.executed.guiding.acquisition_number,
        "guide_window_id": observation.guide_window_id,
        "t_start": _utc(telemetry.start_time),
        "t_stop": _utc(telemetry.stop_time),
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
        start, stop = _window(phase)
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


def _utc(moment: datetime) -> Time:
    time = Time(moment, scale="utc")
    time.format = "isot"
    return time


def _times(moments: Times) -> list[Time]:
    times = Time(moments.astype("datetime64[ms]"), format="datetime64", scale="utc")
    times.format = "isot"
    return list(times)
