"""Guiding: the stars it follows, their windows, and the attitude estimates made from them.

One guide star per detector, acquired in the seconds before the exposure and tracked during it. A
pair of guide-window resultants is made with every read of the exposure, far fewer than the
instrument makes. All windows of an exposure see the same wander of the telescope, and the FACE
telemetry reports it with its own small errors. On spectra the edge acquisition and the tracking
are drawn with the imaging PSF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from roman_assets.formatting.executed_visit import GuideMode, GuideStar, GuideWindowTable, Guiding
from roman_assets.formatting.telemetry import (
    FaceTelemetry,
    GuideWindowPhase,
    GuideWindowReadout,
    Times,
)
from roman_assets.products.observation import ExposureType
from roman_assets.simulation.telescope.detector_geometry import BORDER_PIXELS, active_pixels
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure
from roman_assets.simulation.telescope.point_spread import PIXEL_SCALE, PointSpread
from roman_assets.simulation.telescope.response import DetectorResponse, detector_number

ACQUISITION_PAIRS = 8
ACQUISITION_STEP = 1.2
"""Seconds between two pairs of an acquisition."""
REFERENCE_OUTPUT_COLUMNS = 8
WANDER = 0.008
"""Rms wander of each axis, arcsec: the jitter that the ePSFs hold."""
ROLL_WANDER = 0.05
"""Rms wander of the roll angle, arcsec."""
_PEDESTAL_LEVEL = 5000.0
_READ_NOISE = 6.0
_ARCSEC = float(np.radians(1 / 3600))


@dataclass(frozen=True)
class _PhaseTable:
    """How one phase is read: its MA table and the pixels along a side of its window."""

    table: GuideWindowTable
    size: int


def _phase_table(identifier: str, pedestal: float, signal: float, size: int) -> _PhaseTable:
    return _PhaseTable(
        GuideWindowTable(
            id=identifier,
            cycles_per_science_read=1,
            pedestal_exposure_time=pedestal,
            signal_exposure_time=signal,
        ),
        size,
    )


ACQUISITION = _phase_table("GW0101", 0.05, 0.5, 32)
EDGE_ACQUISITION = _phase_table("GW0102", 0.05, 0.5, 32)
TRACKING = _phase_table("GW0201", 0.1, 1.0, 16)

_IMAGING_PHASES = ("WIM_ACQ_NA", "WIM_TRK")
_SPECTRAL_PHASES = ("WSM_ACQ_HC", "WSM_TRK")
_EDGE_PHASE = "WSM_ACQ_VC"


def is_spectral(planned: PlannedExposure) -> bool:
    """Return whether an exposure is guided on spectra."""
    return planned.exposure_type is ExposureType.WFI_SPECTRAL


def guiding(planned: PlannedExposure, stars: Mapping[str, GuideStar]) -> Guiding:
    """Describe how an exposure is guided, for the executed plan."""
    spectral = is_spectral(planned)
    return Guiding(
        mode=GuideMode.WSM_TRACK if spectral else GuideMode.WIM_TRACK,
        epoch="2027.4",
        acquisition=ACQUISITION.table,
        tracking=TRACKING.table,
        edge_acquisition=EDGE_ACQUISITION.table if spectral else None,
        wsm_edge_used="blue" if spectral else None,
        stars=dict(stars),
    )


@dataclass(frozen=True, eq=False)
class Wander:
    """How the telescope moved during an exposure.

    Parameters
    ----------
    phase
        FGS operational phase of every pair, shape (n,).
    pedestal_times, signal_times
        ``datetime64[ms]``, shape (n,).
    reads
        Read of the exposure a pair belongs to, negative before it, shape (n,).
    x, y
        Displacement along the ideal axes, arcsec, shape (n,).
    roll
        Rotation, arcsec, shape (n,).
    """

    phase: NDArray[np.str_]
    pedestal_times: Times
    signal_times: Times
    reads: NDArray[np.int16]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    roll: NDArray[np.float64]

    @classmethod
    def of(cls, planned: PlannedExposure, seed: int) -> Wander:
        """Draw the wander of an exposure; the same for all its detectors."""
        rng = np.random.default_rng([seed, crc32(str(planned.exposure).encode()), 99])
        phases = _phases(planned)
        before = np.arange(-ACQUISITION_PAIRS * (len(phases) - 1), 0)
        reads = np.arange(1, planned.ma_table.read_pattern[-1][-1] + 1)
        seconds = np.concatenate(
            [before * ACQUISITION_STEP, (reads - 1) * planned.ma_table.frame_time]
        )
        times: Times = _milliseconds(planned.start) + np.round(seconds * 1e3).astype(
            "timedelta64[ms]"
        )
        count = len(times)
        return cls(
            np.repeat(phases, [ACQUISITION_PAIRS] * (len(phases) - 1) + [len(reads)]),
            times,
            times + np.timedelta64(1100, "ms"),
            np.concatenate([before, reads]).astype(np.int16),
            rng.normal(0, WANDER, count),
            rng.normal(0, WANDER, count),
            rng.normal(0, ROLL_WANDER, count),
        )

    @property
    def start_time(self) -> datetime:
        """Start of the acquisition."""
        return _datetime(self.pedestal_times[0])

    @property
    def stop_time(self) -> datetime:
        """End of the last pair."""
        return _datetime(self.signal_times[-1])


def guide_window_readout(
    planned: PlannedExposure,
    response: DetectorResponse,
    star: GuideStar,
    wander: Wander,
    spread: PointSpread,
    *,
    seed: int,
) -> GuideWindowReadout:
    """Read out the guide windows of one detector around an exposure.

    Parameters
    ----------
    planned
        The exposure.
    response
        The detector.
    star
        Its guide star.
    wander
        How the telescope moved.
    spread
        PSF of the detector.
    seed
        With exposure and detector decides all noise.
    """
    rng = np.random.default_rng(
        [seed, crc32(str(planned.exposure).encode()), detector_number(response.detector), 1]
    )
    phases = _phases(planned)
    tables = [ACQUISITION, *([EDGE_ACQUISITION] if len(phases) == 3 else []), TRACKING]
    parts = [
        _phase(name, table, response, star, wander, spread, rng)
        for name, table in zip(phases, tables, strict=True)
    ]
    return GuideWindowReadout(
        exposure=planned.exposure,
        detector=response.detector,
        start_time=wander.start_time,
        stop_time=wander.stop_time,
        acquisition=parts[0],
        tracking=parts[-1],
        edge_acquisition=parts[1] if len(parts) == 3 else None,
    )


def face_telemetry(
    planned: PlannedExposure, stars: Mapping[str, GuideStar], wander: Wander, *, seed: int
) -> FaceTelemetry:
    """Estimate the attitude from the guide windows of all detectors.

    Parameters
    ----------
    planned
        The exposure.
    stars
        Guide star by detector; pseudo stars do not count.
    wander
        How the telescope moved.
    seed
        With the exposure decides the errors of the estimates.
    """
    rng = np.random.default_rng([seed, crc32(str(planned.exposure).encode()), 98])
    count = len(wander.x)
    nstars = sum(not star.pseudo_star for star in stars.values())
    sigma = 0.001 * _ARCSEC / np.sqrt(max(nstars, 1))

    def estimate(truth: NDArray[np.float64], error: float) -> NDArray[np.float32]:
        return (truth * _ARCSEC + rng.normal(0, error, count)).astype(np.float32)

    def constant(value: float) -> NDArray[np.float32]:
        return np.full(count, value, dtype=np.float32)

    return FaceTelemetry(
        exposure=planned.exposure,
        start_time=wander.start_time,
        stop_time=wander.stop_time,
        centroid_times=_middle(wander.pedestal_times, wander.signal_times),
        fgs_op_phase=wander.phase,
        delta=estimate(wander.roll, 20 * sigma),
        delta2=constant(0.0),
        epsilon=estimate(-wander.y, sigma),
        epsilon2=estimate(-wander.y, 2 * sigma),
        zeta=estimate(wander.x, sigma),
        delta_var=constant((20 * sigma) ** 2),
        epsilon_var=constant(sigma**2),
        zeta_var=constant(sigma**2),
        horizontal_variance=constant(sigma**2),
        vertical_variance=constant(sigma**2),
        num_stars_used=np.full(count, nstars, dtype=np.uint8),
        num_centroid_cycles=np.ones(count, dtype=np.uint8),
        attitude_estimate_quality=np.full(count, _quality(nstars)),
    )


def _quality(nstars: int) -> str:
    return {0: "AQ_TOO_FEW_STARS", 1: "AQ_DOF_2"}.get(nstars, "AQ_DOF_3")


def _phases(planned: PlannedExposure) -> tuple[str, ...]:
    if is_spectral(planned):
        acquisition, tracking = _SPECTRAL_PHASES
        return acquisition, _EDGE_PHASE, tracking
    return _IMAGING_PHASES


def _phase(
    name: str,
    phase: _PhaseTable,
    response: DetectorResponse,
    star: GuideStar,
    wander: Wander,
    spread: PointSpread,
    rng: np.random.Generator,
) -> GuideWindowPhase:
    pairs = np.flatnonzero(wander.phase == name)
    count, size = len(pairs), phase.size
    corner = _corner(star, size, active_pixels(response.window) + 2 * BORDER_PIXELS)
    x = star.predicted_x + wander.x[pairs] / PIXEL_SCALE
    y = star.predicted_y + wander.y[pairs] / PIXEL_SCALE
    noise = np.rint(_READ_NOISE * rng.standard_normal((2, count, size, size)))
    pedestals = _PEDESTAL_LEVEL + noise[0]
    electrons = np.stack(
        [_window(spread, star, x[i], y[i], corner, size) for i in range(count)]
    ) * (phase.table.signal_exposure_time * star.predicted_count_rate)
    signals = pedestals + noise[1] + rng.poisson(electrons) / response.nominal_gain
    reference = np.rint(
        _PEDESTAL_LEVEL
        + _READ_NOISE * rng.standard_normal((2, count, size, REFERENCE_OUTPUT_COLUMNS))
    ).astype(np.uint16)
    centroids = np.stack([x, y], axis=1) + rng.normal(0, 0.01, (count, 2))
    quality = "NO_CENTROID" if star.pseudo_star else "GOOD"
    packets = np.stack([2 * np.arange(count), 2 * np.arange(count) + 1], axis=1)
    return GuideWindowPhase(
        mode=name,
        pedestal_resultants=_counts(pedestals),
        signal_resultants=_counts(signals),
        pedestal_reference_output=reference[0],
        signal_reference_output=reference[1],
        lower_left_corners=np.tile(corner, (count, 1)).astype(np.uint16),
        upper_right_corners=np.tile(corner + size - 1, (count, 1)).astype(np.uint16),
        pedestal_times=wander.pedestal_times[pairs],
        signal_times=wander.signal_times[pairs],
        science_packet_counts=packets.astype(np.uint16),
        reset_impacted_pairs=np.zeros(count, dtype=bool),
        reset_read_flag=np.zeros(count, dtype=bool),
        exposure_mapping=wander.reads[pairs],
        centroids=(np.full_like(centroids, np.nan) if star.pseudo_star else centroids).astype(
            np.float32
        ),
        centroid_errors=np.tile([1e-4, 1e-4, 0.0], (count, 1)).astype(np.float32),
        centroid_quality=np.full(count, quality),
        centroid_times=_middle(wander.pedestal_times[pairs], wander.signal_times[pairs]),
    )


def _corner(star: GuideStar, size: int, pixels: int) -> NDArray[np.int64]:
    """Return the first pixel (x, y) of a window around a star, all of it on the detector."""
    centre = np.rint([star.predicted_x, star.predicted_y]).astype(int)
    corner: NDArray[np.int64] = np.clip(centre - size // 2, 0, pixels - size)
    return corner


def _window(
    spread: PointSpread, star: GuideStar, x: float, y: float, corner: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """Draw a star of unit flux into the window; empty for a pseudo star."""
    window = np.zeros((size, size))
    if star.pseudo_star:
        return window
    stamp, column, row = spread.stamp(x - BORDER_PIXELS, y - BORDER_PIXELS, radius=size)
    left, bottom = corner[0] - BORDER_PIXELS - column, corner[1] - BORDER_PIXELS - row
    window += stamp[bottom : bottom + size, left : left + size]
    return np.clip(window, 0, None)


def _counts(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


def _milliseconds(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ms")


def _datetime(time: np.datetime64) -> datetime:
    moment: datetime = time.astype("datetime64[ms]").astype(datetime)
    return moment.replace(tzinfo=UTC)


def _middle(first: Times, second: Times) -> Times:
    return first + (second - first) // 2
