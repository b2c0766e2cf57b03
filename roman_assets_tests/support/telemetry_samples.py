"""Small telemetry and ancillary data with random content, for tests of the formatting pipeline."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roman_assets.formatting.executed_visit import (
    DetectorAperture,
    ExecutedExposure,
    ExecutedVisit,
    GuideMode,
    GuideStar,
    GuideWindowTable,
    Guiding,
    Pointing,
    Program,
)
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.telemetry import (
    DetectorReadout,
    FaceTelemetry,
    GuideWindowPhase,
    GuideWindowReadout,
    Telemetry,
)
from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement

EXPOSURE = ExposureId.parse("r0000101001001001001_0001")
START = datetime(2027, 6, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NRESULTANTS = 3
MA_TABLE = MATable(
    number=4,
    name="C2A_IMG_HLWAS",
    id="MA0004",
    frame_time=3.16,
    read_pattern=((1,), (2, 3), (4, 5, 6)),
)


def readout(
    detector: str = "WFI01",
    exposure: ExposureId = EXPOSURE,
    *,
    size: int = 24,
    nresultants: int = NRESULTANTS,
    seed: int = 1,
    start: datetime = START,
) -> DetectorReadout:
    rng = np.random.default_rng(seed)
    return DetectorReadout(
        exposure,
        detector,
        rng.integers(0, 65536, (nresultants, size, size), np.uint16),
        rng.integers(0, 65536, (nresultants, size, 128), np.uint16),
        start,
    )


def _phase(mode: str, rng: np.random.Generator, npairs: int, start: datetime) -> GuideWindowPhase:
    def pixels(nx: int = 16) -> NDArray[np.uint16]:
        return rng.integers(0, 65536, (npairs, 16, nx), np.uint16)

    began = np.datetime64(start.replace(tzinfo=None), "ms")
    times = began + np.arange(npairs) * np.timedelta64(170, "ms")
    return GuideWindowPhase(
        mode=mode,
        pedestal_resultants=pixels(),
        signal_resultants=pixels(),
        pedestal_reference_output=pixels(4),
        signal_reference_output=pixels(4),
        lower_left_corners=np.full((npairs, 2), 100, np.uint16),
        upper_right_corners=np.full((npairs, 2), 115, np.uint16),
        pedestal_times=times,
        signal_times=times + np.timedelta64(100, "ms"),
        science_packet_counts=rng.integers(0, 65536, (npairs, 2), np.uint16),
        reset_impacted_pairs=rng.random(npairs) < 0.5,
        reset_read_flag=rng.random(npairs) < 0.5,
        exposure_mapping=np.arange(npairs, dtype=np.int16),
        centroids=rng.normal(108, 0.1, (npairs, 2)).astype(np.float32),
        centroid_errors=rng.normal(0.01, 0.001, (npairs, 3)).astype(np.float32),
        centroid_quality=np.full(npairs, "GOOD", "U40"),
        centroid_times=times + np.timedelta64(50, "ms"),
        pixel_offset=1000,
    )


def guide_window(
    detector: str = "WFI01", exposure: ExposureId = EXPOSURE, *, seed: int = 2, edge: bool = False
) -> GuideWindowReadout:
    rng = np.random.default_rng(seed)
    begin = START - timedelta(seconds=10)
    return GuideWindowReadout(
        exposure,
        detector,
        begin,
        START + timedelta(seconds=19),
        _phase("WIM_ACQ_NA", rng, 3, begin),
        _phase("WIM_TRK", rng, 4, START),
        _phase("WSM_ACQ_HC", rng, 2, begin) if edge else None,
    )


def face(exposure: ExposureId = EXPOSURE, *, seed: int = 3) -> FaceTelemetry:
    rng = np.random.default_rng(seed)
    n = 5

    def numbers() -> NDArray[np.float32]:
        return rng.normal(0, 1e-8, n).astype(np.float32)

    began = np.datetime64(START.replace(tzinfo=None), "ms")
    return FaceTelemetry(
        exposure=exposure,
        start_time=START - timedelta(seconds=10),
        stop_time=START + timedelta(seconds=19),
        centroid_times=began + np.arange(n) * np.timedelta64(170, "ms"),
        fgs_op_phase=np.array(["WIM_ACQ_NA"] + ["WIM_TRK"] * (n - 1), "U16"),
        delta=numbers(),
        delta2=numbers(),
        epsilon=numbers(),
        epsilon2=numbers(),
        zeta=numbers(),
        delta_var=numbers(),
        epsilon_var=numbers(),
        zeta_var=numbers(),
        horizontal_variance=numbers(),
        vertical_variance=numbers(),
        num_stars_used=np.full(n, 2, np.uint8),
        num_centroid_cycles=np.ones(n, np.uint8),
        attitude_estimate_quality=np.full(n, "AQ_DOF_3", "U30"),
    )


def telemetry_of(
    exposure: ExposureId = EXPOSURE,
    detectors: tuple[str, ...] = ("WFI01", "WFI02"),
    *,
    size: int = 24,
    seed: int = 1,
) -> list[Telemetry]:
    sent: list[Telemetry] = []
    for number, detector in enumerate(detectors):
        sent.append(readout(detector, exposure, size=size, seed=seed + number))
        sent.append(guide_window(detector, exposure, seed=seed + number))
    return [*sent, face(exposure, seed=seed)]


def guide_star(**changes: float) -> GuideStar:
    values = {
        "predicted_ra": 270.0, "predicted_dec": 66.0, "predicted_fgs_mag": 14.0,
        "predicted_fgs_bright_mag": 13.5, "predicted_fgs_faint_mag": 14.5,
        "predicted_count_rate": 1e5, "predicted_x": 108.0, "predicted_y": 108.0,
    }  # fmt: skip
    return GuideStar(gsc_id="N5R2005564", **{**values, **changes})


def aperture(detector: str, size: int = 24) -> DetectorAperture:
    half = 0.11 * (size - 8) / 2
    v2, v3 = 1312.949, -1040.785
    return DetectorAperture(
        aperture_name=f"{detector}_FULL",
        nrows=size,
        ncolumns=size,
        v2_ref=v2,
        v3_ref=v3,
        v3yangle=-60.0,
        vparity=-1,
        v2_corners=(v2 - half, v2 + half, v2 + half, v2 - half),
        v3_corners=(v3 - half, v3 - half, v3 + half, v3 + half),
    )


def executed_visit(
    exposures: tuple[ExposureId, ...] = (EXPOSURE,),
    detectors: tuple[str, ...] = ("WFI01", "WFI02"),
    *,
    size: int = 24,
    **changes: object,
) -> ExecutedVisit:
    table = {"cycles_per_science_read": 18, "pedestal_exposure_time": 0.08}
    guiding = Guiding(
        mode=GuideMode.WIM_TRACK,
        acquisition=GuideWindowTable(id="GW0001", signal_exposure_time=0.16, **table),
        tracking=GuideWindowTable(id="GW0002", signal_exposure_time=0.16, **table),
        stars={detector: guide_star() for detector in detectors},
    )
    document = ExecutedVisit(
        visit=exposures[0].visit,
        program=Program(
            title="Wide area", investigator_name="N. Roman", category="CCS", subcategory="HLWA"
        ),
        exposure_type=ExposureType.WFI_IMAGE,
        optical_element=OpticalElement.F158,
        nexposures=max(2, len(exposures)),
        start_time=START - timedelta(seconds=60),
        apertures={detector: aperture(detector, size) for detector in detectors},
        exposures=tuple(
            ExecutedExposure(
                exposure=exposure.exposure,
                start_time=START,
                end_time=START + timedelta(seconds=MA_TABLE.exposure_time),
                ma_table_number=MA_TABLE.number,
                detectors=detectors,
                pointing=Pointing(
                    target_aperture="WFI_CEN",
                    target_ra=270.0,
                    target_dec=66.0,
                    ra_v1=269.1,
                    dec_v1=66.3,
                    pa_v3=59.0,
                    pa_aperture=-1.0,
                ),
                guiding=guiding,
            )
            for exposure in exposures
        ),
    )
    return document.model_copy(update=changes)


def write_document(document: ExecutedVisit | MATable, path: Path) -> Path:
    path.write_text(json.dumps(document.model_dump(mode="json")))
    return path


TOWARDS_L2 = np.array([-0.33528794, -0.86439769, -0.37469806])
"""Direction of the Sun-Earth L2 point from the Earth at `START`."""


def write_oem(
    path: Path, kind: str = "PREDICTED", *, offset: float = 0.0, days: int = 20, **metadata: str
) -> Path:
    """An orbit file that moves evenly, a state a day from ten days before `START`."""
    begin = START.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=10)
    said = {
        "OBJECT_NAME": "ROMAN", "OBJECT_ID": "211", "CENTER_NAME": "EARTH",
        "REF_FRAME": "EME2000", "TIME_SYSTEM": "UTC", "START_TIME": f"{begin:%Y-%m-%dT%H:%M:%S}",
        "STOP_TIME": f"{begin + timedelta(days=days - 1):%Y-%m-%dT%H:%M:%S}",
        "INTERPOLATION": "HERMITE", "INTERPOLATION_DEGREE": "3",
    }  # fmt: skip
    lines = [
        "CCSDS_OEM_VERS = 2.0", f"COMMENT EPHEMERIS_TYPE = {kind}",
        "CREATION_DATE = 2027-05-20T00:00:00", "ORIGINATOR = TEST", "META_START",
        *(f"{name} = {value}" for name, value in (said | metadata).items()), "META_STOP",
    ]  # fmt: skip
    for day in range(days):
        x, y, z = TOWARDS_L2 * (1.5e6 + offset + 0.1 * 86400 * day)
        u, v, w = TOWARDS_L2 * 0.1
        lines.append(f"{begin + timedelta(days=day):%Y-%m-%dT%H:%M:%S} {x} {y} {z} {u} {v} {w}")
    path.write_text("\n".join(lines) + "\n")
    return path
