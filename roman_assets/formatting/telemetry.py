"""What the instrument sends of an exposure, before it is packetized.

Arrays are in the detector's science frame. Times are UTC; they travel in milliseconds, so finer
fractions are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from roman_assets.products.observation import ExposureId

REFERENCE_OUTPUT_COLUMNS = 128
"""Columns of the reference output (amplifier 33) of one detector."""

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Moments outside are errors of the sender."""

MOST_ROWS = MOST_COLUMNS = 4096
"""Pixels of a whole detector."""

MOST_RESULTANTS = 256
"""Of one exposure: several times those of the longest MA table."""

Times = NDArray[np.datetime64]
"""UTC times of type ``datetime64[ms]``."""


@dataclass(frozen=True, eq=False)
class DetectorReadout:
    """The ramp of one detector as read out in one exposure.

    Parameters
    ----------
    exposure, detector
        Which exposure, which detector (``WFI01`` to ``WFI18``).
    resultants
        DN, uint16, shape (nresultants, ny, nx), with the 4-pixel reference border.
    reference_output
        DN of amplifier 33, uint16, shape (nresultants, ny, 128).
    start_time
        When the first read of the exposure began; aware, UTC.
    rows_received
        Rows of each resultant that came down, from the first one on; the others, lost with their
        packets, are 0 in both arrays. None if all came down.
    """

    exposure: ExposureId
    detector: str
    resultants: NDArray[np.uint16]
    reference_output: NDArray[np.uint16]
    start_time: datetime
    rows_received: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class GuideWindowPhase:
    """Guide-window resultant pairs of one phase: acquisition, edge acquisition or tracking.

    A pair is a pedestal and a signal resultant. Shapes are for ``npairs`` pairs of windows of
    ``ny`` by ``nx`` pixels.

    Parameters
    ----------
    mode
        FGS operational phase by rad's names, such as ``WIM_ACQ_NA`` or ``WIM_TRK``.
    pedestal_resultants, signal_resultants
        DN, uint16, shape (npairs, ny, nx).
    pedestal_reference_output, signal_reference_output
        DN of amplifier 33, uint16, shape (npairs, ny, ncolumns).
    lower_left_corners, upper_right_corners
        First and last pixel (x, y) of the window in science coordinates, uint16, shape
        (npairs, 2).
    pedestal_times, signal_times
        ``datetime64[ms]``, shape (npairs,).
    science_packet_counts
        Science data packet counts at the pedestal and the signal, uint16, shape (npairs, 2).
    reset_impacted_pairs, reset_read_flag
        bool, shape (npairs,).
    exposure_mapping
        Read of the exposure during which the pair was taken, negative between exposures; int16,
        shape (npairs,).
    centroids
        (x, y) in science coordinates of each pair, float32, shape (npairs, 2); NaN where none.
    centroid_errors
        Second moments (xx, yy, xy) in pixels squared, float32, shape (npairs, 3).
    centroid_quality
        One word for each pair, at most 40 characters, empty where there is no centroid; shape
        (npairs,).
    centroid_times
        Between the two times of the pair, ``datetime64[ms]``, shape (npairs,).
    pixel_offset
        Constant added to all pixels, DN.
    """

    mode: str
    pedestal_resultants: NDArray[np.uint16]
    signal_resultants: NDArray[np.uint16]
    pedestal_reference_output: NDArray[np.uint16]
    signal_reference_output: NDArray[np.uint16]
    lower_left_corners: NDArray[np.uint16]
    upper_right_corners: NDArray[np.uint16]
    pedestal_times: Times
    signal_times: Times
    science_packet_counts: NDArray[np.uint16]
    reset_impacted_pairs: NDArray[np.bool_]
    reset_read_flag: NDArray[np.bool_]
    exposure_mapping: NDArray[np.int16]
    centroids: NDArray[np.float32]
    centroid_errors: NDArray[np.float32]
    centroid_quality: NDArray[np.str_]
    centroid_times: Times
    pixel_offset: int = 0


@dataclass(frozen=True, eq=False)
class GuideWindowReadout:
    """The guide windows of one detector around one exposure.

    Parameters
    ----------
    exposure, detector
        Which exposure, which detector.
    start_time, stop_time
        Start of the attempted acquisition and end of the guiding cycle; aware, UTC.
    acquisition, tracking
        The phases every guided exposure has.
    edge_acquisition
        Acquisition on the edge of a spectrum, in spectroscopic modes only.
    """

    exposure: ExposureId
    detector: str
    start_time: datetime
    stop_time: datetime
    acquisition: GuideWindowPhase
    tracking: GuideWindowPhase
    edge_acquisition: GuideWindowPhase | None = None


@dataclass(frozen=True, eq=False)
class FaceTelemetry:
    """Fine attitude correction estimates of one exposure; one element for each estimate.

    Parameters
    ----------
    exposure
        Which exposure.
    start_time, stop_time
        Start of the attempted acquisition and end of the guiding cycle; aware, UTC.
    centroid_times
        When the centroids behind each estimate were taken, ``datetime64[ms]``, shape (n,).
    fgs_op_phase
        FGS operational phase of each estimate by rad's names, shape (n,).
    delta, epsilon, zeta
        Rotations about the F1, F2 and F3 axes, rad, float32, shape (n,).
    delta2, epsilon2
        The same of the fit with two degrees of freedom.
    delta_var, epsilon_var, zeta_var
        Theoretical variances, rad squared, float32, shape (n,).
    horizontal_variance, vertical_variance
        Variances of the residuals, float32, shape (n,).
    num_stars_used, num_centroid_cycles
        uint8, shape (n,).
    attitude_estimate_quality
        ``AQ_DOF_3`` and so on by rad's names, at most 30 characters, shape (n,).
    """

    exposure: ExposureId
    start_time: datetime
    stop_time: datetime
    centroid_times: Times
    fgs_op_phase: NDArray[np.str_]
    delta: NDArray[np.float32]
    delta2: NDArray[np.float32]
    epsilon: NDArray[np.float32]
    epsilon2: NDArray[np.float32]
    zeta: NDArray[np.float32]
    delta_var: NDArray[np.float32]
    epsilon_var: NDArray[np.float32]
    zeta_var: NDArray[np.float32]
    horizontal_variance: NDArray[np.float32]
    vertical_variance: NDArray[np.float32]
    num_stars_used: NDArray[np.uint8]
    num_centroid_cycles: NDArray[np.uint8]
    attitude_estimate_quality: NDArray[np.str_]


Telemetry = DetectorReadout | GuideWindowReadout | FaceTelemetry
"""Anything the instrument sends of an exposure."""


def check_moment(moment: datetime) -> datetime:
    """Return a moment; raise `ValueError` if the telescope cannot have lived it."""
    if moment.tzinfo is None or not EARLIEST <= moment < LATEST:
        raise ValueError(
            f"{moment.isoformat()} is not between {EARLIEST:%Y} and {LATEST:%Y}, with a time zone"
        )
    return moment
