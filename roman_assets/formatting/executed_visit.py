"""Executed visits: what the telescope did, exposure by exposure."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from roman_assets.formatting.document import (
    MOST_EXPOSURES,
    Angle,
    Count,
    Detector,
    Document,
    Latitude,
    Offset,
    Revision,
    Seconds,
    UtcTime,
    VisitText,
)
from roman_assets.formatting.telemetry import MOST_COLUMNS, MOST_RESULTANTS, MOST_ROWS
from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
)

REFERENCE_BORDER = 4
"""Width of the border of reference pixels around the active ones."""


class VisitStatus(StrEnum):
    """How the visit's execution ended."""

    COMPLETED = "COMPLETED"
    TRUNCATED = "TRUNCATED"
    """Fewer exposures were taken than planned; no more will come."""


class Program(Document):
    """The approved program (``meta.program``)."""

    title: str = Field(max_length=200)
    investigator_name: str = Field(max_length=100)
    category: str = Field(max_length=6)
    subcategory: str = Field(max_length=50)
    science_category: str = Field(default="None", max_length=50)


class Dither(Document):
    """Dither pattern of the visit (``meta.visit.dither``); offsets x, y, x, y, ... in arcsec."""

    primary_name: str | None = Field(default=None, max_length=100)
    subpixel_name: str | None = Field(default=None, max_length=100)
    executed_pattern: tuple[Offset, ...] | None = Field(default=None, max_length=1000)


class RelativeCalibrationSystem(Document):
    """The calibration lamps (``meta.rcs``); off unless said otherwise."""

    active: bool = False
    electronics: Literal["A", "B"] | None = None
    bank: Literal["1", "2"] | None = None
    led: str | None = Field(default=None, max_length=30)
    counts: Count = 0


class DetectorAperture(Document):
    """Where a detector's pixels lie in the telescope frame, from the SIAF.

    Parameters
    ----------
    aperture_name
        ``WFI01_FULL`` and so on.
    nrows, ncolumns
        Shape of the data as sent, reference border included: 4096 for whole detectors.
    v2_ref, v3_ref
        Reference point, arcsec.
    v3yangle
        Angle from V3 to the ideal y axis, degrees.
    vparity
        1 or -1.
    v2_corners, v3_corners
        The four corners of the active pixels, in order around them, arcsec.
    """

    aperture_name: str = Field(max_length=100)
    nrows: int = Field(gt=2 * REFERENCE_BORDER, le=MOST_ROWS)
    ncolumns: int = Field(gt=2 * REFERENCE_BORDER, le=MOST_COLUMNS)
    v2_ref: Offset
    v3_ref: Offset
    v3yangle: Angle
    vparity: Literal[-1, 1]
    v2_corners: tuple[Offset, Offset, Offset, Offset]
    v3_corners: tuple[Offset, Offset, Offset, Offset]


class Pointing(Document):
    """Planned pointing (``meta.pointing``); ICRS, degrees.

    Parameters
    ----------
    target_aperture
        SIAF aperture that was put on the target, such as ``WFI_CEN``.
    target_ra, target_dec
        Sky position of that aperture's reference point.
    ra_v1, dec_v1
        Sky position of the V1 axis.
    pa_v3
        Position angle of the V3 axis at V1.
    pa_aperture
        Position angle of the target aperture's ideal y axis.
    """

    target_aperture: str = Field(max_length=100)
    target_ra: Angle
    target_dec: Latitude
    ra_v1: Angle
    dec_v1: Latitude
    pa_v3: Angle
    pa_aperture: Angle


class GuideStar(Document):
    """The star one detector's guide window follows (rad's ``guide_star`` of guide windows).

    Parameters
    ----------
    gsc_id
        Guide Star Catalog identifier.
    predicted_ra, predicted_dec
        ICRS at the start of the visit, degrees.
    gaia_parallax
        Milliarcseconds.
    ra_pm, dec_pm
        Proper motion, arcsec per year.
    predicted_fgs_mag, predicted_fgs_bright_mag, predicted_fgs_faint_mag
        Expected FGS magnitude and its limits.
    predicted_count_rate
        Electrons per second.
    predicted_x, predicted_y
        Science pixels of the detector.
    pseudo_star
        No real star: the window stands at a fixed place of the sky.
    """

    gsc_id: str = Field(max_length=11)
    predicted_ra: Angle
    predicted_dec: Latitude
    gaia_parallax: float = 0.0
    ra_pm: float = 0.0
    dec_pm: float = 0.0
    predicted_fgs_mag: float
    predicted_fgs_bright_mag: float
    predicted_fgs_faint_mag: float
    predicted_count_rate: float
    predicted_x: float
    predicted_y: float
    pseudo_star: bool = False


class GuideWindowTable(Document):
    """The MA table of the guide windows during one phase."""

    id: str = Field(max_length=10, description="GW and four digits")
    cycles_per_science_read: int = Field(gt=0, le=65535)
    pedestal_exposure_time: Seconds
    signal_exposure_time: Seconds


class GuideMode(StrEnum):
    """Guide window modes by rad's names (``meta.guide_star.guide_mode``)."""

    WIM_ACQ = "WIM-ACQ"
    WIM_TRACK = "WIM-TRACK"
    WSM_ACQ_1 = "WSM-ACQ-1"
    WSM_ACQ_2 = "WSM-ACQ-2"
    WSM_TRACK = "WSM-TRACK"
    DEFOCUSED_MODERATE = "DEFOCUSED-MODERATE"
    DEFOCUSED_LARGE = "DEFOCUSED-LARGE"


class Guiding(Document):
    """How the telescope was guided during an exposure.

    Parameters
    ----------
    mode
        Planned guide window mode.
    acquisition_number
        Guide star acquisition number, 1 to 9.
    epoch
        Of the catalogue positions, such as ``2016.0``.
    acquisition, tracking
        Tables of the two phases.
    edge_acquisition
        Table of the acquisition on a spectrum's edge, spectroscopic modes only.
    wsm_edge_used
        The spectral edge guided on, ``red`` or ``blue``, spectroscopic modes only.
    stars
        Guide star by detector; every detector of the exposure has one.
    """

    mode: GuideMode
    acquisition_number: int = Field(default=1, ge=1, le=9)
    epoch: str = Field(default="2016.0", max_length=10)
    acquisition: GuideWindowTable
    tracking: GuideWindowTable
    edge_acquisition: GuideWindowTable | None = None
    wsm_edge_used: Literal["red", "blue"] | None = None
    stars: dict[Detector, GuideStar]


class ExecutedExposure(Document):
    """One exposure of an executed visit.

    Parameters
    ----------
    exposure
        Number within the visit, from 1.
    start_time, end_time
        Start of the first read and end of the last.
    ma_table_number
        The MA table it was taken with.
    nresultants
        Resultants sent down when the MA table was truncated, None when it ran to its end.
    detectors
        Detectors whose data are sent down.
    pointing, guiding
        Planned pointing, guide stars.
    hga_move
        The high-gain antenna moved during the exposure.
    engineering_quality
        Of the engineering data behind these fields.
    """

    exposure: int = Field(ge=1, le=MOST_EXPOSURES)
    start_time: UtcTime
    end_time: UtcTime
    ma_table_number: Count
    nresultants: int | None = Field(default=None, ge=1, le=MOST_RESULTANTS)
    detectors: tuple[Detector, ...] = Field(min_length=1, max_length=len(DETECTORS))
    pointing: Pointing
    guiding: Guiding
    hga_move: bool = False
    engineering_quality: Literal["OK", "SUSPECT"] = "OK"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.end_time <= self.start_time:
            raise ValueError("end_time is not after start_time")
        if len(set(self.detectors)) != len(self.detectors):
            raise ValueError("detectors: one is listed twice")
        lacking = sorted(set(self.detectors) - set(self.guiding.stars))
        if lacking:
            raise ValueError(f"guiding.stars: none for {', '.join(lacking)}")
        return self


class ExecutedVisit(Document):
    """What the telescope did in one visit: the executed plan.

    Parameters
    ----------
    revision
        Of this document; a higher one replaces a lower one, two different documents of the same
        revision conflict.
    visit
        ``rPPPPPCCAAASSSOOOVVV``.
    program, dither, rcs
        See there.
    visit_type
        ``meta.visit.type``.
    status
        How it ended.
    exposure_type, optical_element
        The same for all exposures of a visit.
    nexposures
        Planned number of exposures, executed or not.
    start_time
        Start of the visit.
    internal_target
        The target is an internal calibration source.
    prd_version
        Version of the project reference database that the apertures come from.
    apertures
        Geometry by detector.
    exposures
        The exposures executed.
    """

    kind: Literal["executed_visit"] = "executed_visit"
    revision: Revision = 1
    visit: VisitText
    program: Program
    visit_type: str = Field(default="PRIME_TARGETED_FIXED", max_length=30)
    status: VisitStatus = VisitStatus.COMPLETED
    exposure_type: ExposureType
    optical_element: OpticalElement
    nexposures: int = Field(ge=1, le=MOST_EXPOSURES)
    start_time: UtcTime
    internal_target: bool = False
    prd_version: str = Field(default="None", max_length=120)
    dither: Dither = Dither()
    rcs: RelativeCalibrationSystem = RelativeCalibrationSystem()
    apertures: dict[Detector, DetectorAperture]
    exposures: tuple[ExecutedExposure, ...] = Field(max_length=MOST_EXPOSURES)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        numbers = [executed.exposure for executed in self.exposures]
        if len(set(numbers)) != len(numbers):
            raise ValueError("exposures: a number appears twice")
        if numbers and max(numbers) > self.nexposures:
            raise ValueError(f"exposures: number {max(numbers)} of {self.nexposures} planned")
        used = {detector for executed in self.exposures for detector in executed.detectors}
        lacking = sorted(used - set(self.apertures))
        if lacking:
            raise ValueError(f"apertures: none for {', '.join(lacking)}")
        return self

    @property
    def survey(self) -> Survey:
        """The survey of the program."""
        return Survey.from_subcategory(self.program.subcategory)

    @property
    def exposure_ids(self) -> tuple[ExposureId, ...]:
        """The exposures executed."""
        return tuple(ExposureId(self.visit, executed.exposure) for executed in self.exposures)

    def executed(self, exposure: ExposureId) -> ExecutedExposure | None:
        """Return an exposure of this visit, None if it was not executed."""
        if exposure.visit != self.visit:
            return None
        numbered = (one for one in self.exposures if one.exposure == exposure.exposure)
        return next(numbered, None)

    @property
    def key(self) -> str:
        """What the document is about: two documents of one key replace each other or conflict."""
        return str(self.visit)
