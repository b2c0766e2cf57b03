"""Ancillary data that L1 needs beside the packets: executed visits, MA tables, ephemerides.

The first two are JSON documents that `docs/l0.md` describes field by field; an ephemeris is a
CCSDS Orbit Ephemeris Message (502.0-B). Field names are rad's wherever rad has the quantity.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from astropy import units as u
from astropy.coordinates import get_body_barycentric, get_body_barycentric_posvel
from astropy.time import Time
from numpy.typing import NDArray
from oem import OrbitEphemerisMessage
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from roman_assets.errors import BadInputError
from roman_assets.formatting.telemetry import (
    MOST_COLUMNS,
    MOST_RESULTANTS,
    MOST_ROWS,
    check_moment,
)
from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)

MOST_EXPOSURES = 9999
"""Of a visit: the names of products have four digits for them."""

MOST_READS = 65535
"""Of an exposure; `docs/l0.md` has two bytes for what counts them."""

MOST_DOCUMENT_BYTES = 1 << 23
MOST_EPHEMERIS_BYTES = 1 << 23
"""The parsers take up to a second for each MiB."""

REFERENCE_BORDER = 4
"""Width of the border of reference pixels around the active ones."""


def _known_detector(name: object) -> object:
    if name not in DETECTORS:
        raise ValueError(f"{name!r} is not a detector: expected WFI01 to WFI18")
    return name


def _visit(value: object) -> object:
    return VisitId.parse(value) if isinstance(value, str) else value


Detector = Annotated[str, BeforeValidator(_known_detector)]
UtcTime = Annotated[
    AwareDatetime,
    AfterValidator(check_moment),
    PlainSerializer(lambda time: time.astimezone(UTC).isoformat(), return_type=str),
]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Angle = Annotated[float, Field(ge=-360, le=360)]
"""Degrees."""
Offset = Annotated[float, Field(ge=-360 * 3600, le=360 * 3600)]
"""Arcsec."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Read = Annotated[int, Field(ge=1, le=MOST_READS)]
Revision = Annotated[int, Field(ge=1, le=2**31 - 1)]
VisitText = Annotated[VisitId, BeforeValidator(_visit), PlainSerializer(str, return_type=str)]


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )


class VisitStatus(StrEnum):
    """How the visit's execution ended."""

    COMPLETED = "COMPLETED"
    TRUNCATED = "TRUNCATED"
    """Fewer exposures were taken than planned; no more will come."""


class Program(_Document):
    """The approved program (``meta.program``)."""

    title: str = Field(max_length=200)
    investigator_name: str = Field(max_length=100)
    category: str = Field(max_length=6)
    subcategory: str = Field(max_length=50)
    science_category: str = Field(default="None", max_length=50)


class Dither(_Document):
    """Dither pattern of the visit (``meta.visit.dither``); offsets x, y, x, y, ... in arcsec."""

    primary_name: str | None = Field(default=None, max_length=100)
    subpixel_name: str | None = Field(default=None, max_length=100)
    executed_pattern: tuple[Offset, ...] | None = Field(default=None, max_length=1000)


class RelativeCalibrationSystem(_Document):
    """The calibration lamps (``meta.rcs``); off unless said otherwise."""

    active: bool = False
    electronics: Literal["A", "B"] | None = None
    bank: Literal["1", "2"] | None = None
    led: str | None = Field(default=None, max_length=30)
    counts: Count = 0


class DetectorAperture(_Document):
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


class Pointing(_Document):
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


class GuideStar(_Document):
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


class GuideWindowTable(_Document):
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


class Guiding(_Document):
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


class ExecutedExposure(_Document):
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


class ExecutedVisit(_Document):
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


class MATable(_Document):
    """A MultiAccum table: how reads make resultants.

    Parameters
    ----------
    revision
        As in `ExecutedVisit`.
    number, name, id
        ``meta.exposure.ma_table_number``, ``ma_table_name``, ``ma_table_id``.
    frame_time
        Duration of one read, s.
    reset_reads
        Reset frames before the first read.
    read_pattern
        Reads averaged in each resultant, counted from 1.
    """

    kind: Literal["ma_table"] = "ma_table"
    revision: Revision = 1
    number: Count
    name: str = Field(max_length=50)
    id: str = Field(max_length=10)
    frame_time: Seconds
    reset_reads: int = Field(default=0, ge=0, le=MOST_READS)
    read_pattern: tuple[tuple[Read, ...], ...] = Field(min_length=1, max_length=MOST_RESULTANTS)

    @model_validator(mode="after")
    def _reads_ascend(self) -> Self:
        reads = [read for resultant in self.read_pattern for read in resultant]
        ascending = all(a < b for a, b in itertools.pairwise(reads))
        if not all(self.read_pattern) or reads[0] < 1 or not ascending:
            raise ValueError("read_pattern: reads must ascend from 1, at least one a resultant")
        return self

    @property
    def nresultants(self) -> int:
        """Resultants of the whole table."""
        return len(self.read_pattern)

    def truncated(self, nresultants: int | None) -> Self:
        """Return the table as if it had ended after some resultants."""
        if nresultants is None:
            return self
        return self.model_copy(update={"read_pattern": self.read_pattern[:nresultants]})

    @property
    def exposure_time(self) -> float:
        """Seconds from the start of the first reset or read to the end of the last read."""
        return (self.reset_reads + self.read_pattern[-1][-1]) * self.frame_time

    @property
    def effective_exposure_time(self) -> float:
        """Seconds between the mean read times of the first and the last resultant."""
        first, last = (float(np.mean(self.read_pattern[index])) for index in (0, -1))
        return (last - first) * self.frame_time

    @property
    def key(self) -> str:
        """What the document is about."""
        return str(self.number)


AncillaryDocument = Annotated[ExecutedVisit | MATable, Field(discriminator="kind")]
_DOCUMENT: TypeAdapter[ExecutedVisit | MATable] = TypeAdapter(AncillaryDocument)


def read_document(path: Path) -> ExecutedVisit | MATable:
    """Read an executed visit or an MA table.

    Raises
    ------
    BadInputError
        Naming the first field that cannot be used.
    """
    _check_size(path, MOST_DOCUMENT_BYTES)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInputError(path, "document", f"not JSON: {error}", "send it again") from error
    return parse_document(content, path)


def _check_size(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise BadInputError(
            path, "file", f"it has {size} B, more than {most}", "deliver it in smaller pieces"
        )


def parse_document(content: object, source: object) -> ExecutedVisit | MATable:
    """Validate a JSON document; raises `BadInputError` as `read_document` does."""
    try:
        return _DOCUMENT.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "document"
        raise BadInputError(
            source,
            field,
            f"{first['msg']} ({error.error_count()} errors in all)",
            "correct the field as docs/l0.md describes and deliver the file again",
        ) from error


def content_hash(document: ExecutedVisit | MATable) -> str:
    """Return the sha256 of a document's content, whatever its layout in the file."""
    text = json.dumps(document.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class EphemerisKind(StrEnum):
    """``meta.ephemeris.type`` (R3)."""

    PREDICTED = "PREDICTED"
    DEFINITIVE = "DEFINITIVE"


@dataclass(frozen=True, eq=False)
class SpacecraftState:
    """Barycentric state of the observatory, on the axes of the ephemeris.

    Parameters
    ----------
    time
        UTC.
    frame
        ``EME2000`` or ``ICRF``.
    position, velocity
        Relative to the solar system's barycentre, km and km/s, shape (3,).
    """

    time: datetime
    frame: str
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]


_KIND_COMMENT = re.compile(r"^COMMENT\s+EPHEMERIS_TYPE\s*=\s*(\S+)\s*$", re.MULTILINE)
_KIND_IN_NAME = re.compile(r"predicted|definitive", re.IGNORECASE)
_FRAMES = frozenset({"EME2000", "ICRF"})
_CENTERS = {
    "EARTH": "earth",
    "SUN": "sun",
    "SOLAR SYSTEM BARYCENTER": None,
}


class Ephemeris:
    """An orbit file: where the observatory is, when, and how well that is known.

    The kind is told by a line ``COMMENT EPHEMERIS_TYPE = PREDICTED`` (or ``DEFINITIVE``), else by
    one of these two words in the file name.

    Raises
    ------
    BadInputError
        If it is not an OEM, has no kind, or uses a centre, frame or time system not handled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_size(path, MOST_EPHEMERIS_BYTES)
        self.kind = _ephemeris_kind(path)
        with _oem_explained(path):
            self._message = OrbitEphemerisMessage.open(str(path))
        for segment in self._message:
            _check_segment(path, segment.metadata)
        with _oem_explained(path):
            self.creation_date = _datetime(self._message.header["CREATION_DATE"])
            self.start = _datetime(min(segment.useable_start_time for segment in self._message))
            self.stop = _datetime(max(segment.useable_stop_time for segment in self._message))

    def covers(self, start: datetime, stop: datetime) -> bool:
        """Return whether both moments can be interpolated."""
        return all(_time(moment) in self._message for moment in (start, stop))

    def state(self, time: datetime) -> SpacecraftState:
        """Interpolate as the file says and refer the state to the barycentre.

        The Earth and the Sun are taken from ERFA's analytic ephemeris (`astropy`), good to a few
        km and mm/s.

        Raises
        ------
        BadInputError
            If the file does not cover the moment.
        """
        moment = _time(time)
        try:
            state = self._message(moment)
        except ValueError as error:
            raise BadInputError(
                self.path, "epoch", f"{time.isoformat()} is not covered", "deliver one that does"
            ) from error
        position, velocity = np.asarray(state.position), np.asarray(state.velocity)
        body = _CENTERS[state.center.upper()]
        if body is not None:
            center = get_body_barycentric_posvel(body, moment, ephemeris="builtin")
            position = position + center[0].xyz.to_value(u.km)
            velocity = velocity + center[1].xyz.to_value(u.km / u.s)
        return SpacecraftState(time, state.frame.upper(), position, velocity)

    @property
    def metadata(self) -> list[Mapping[str, str]]:
        """The metadata of each segment."""
        return [segment.metadata for segment in self._message]

    def positions(self, most: int) -> tuple[Time, NDArray[np.float64]]:
        """Return some of the states: first, last and others evenly between.

        Returns
        -------
        epochs, positions
            Positions relative to the solar system's barycentre, km, shape (n, 3).
        """
        states = [state for segment in self._message for state in segment]
        chosen = np.unique(np.linspace(0, len(states) - 1, most).astype(int))
        some = [states[index] for index in chosen]
        epochs = Time([state.epoch for state in some])
        positions = np.array([state.position for state in some])
        for center in {state.center.upper() for state in some} - {"SOLAR SYSTEM BARYCENTER"}:
            body = get_body_barycentric(_CENTERS[center], epochs, ephemeris="builtin")
            about = np.array([state.center.upper() == center for state in some])
            positions[about] += body.xyz.to_value(u.km).T[about]
        return epochs, positions


@contextmanager
def _oem_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the parser raises many types, some of them its own
        raise BadInputError(
            path, "OEM", f"cannot be parsed: {error}", "deliver a CCSDS 502.0-B OEM"
        ) from error


@lru_cache(maxsize=8)
def _open_ephemeris(path: Path, _size: int, _mtime_ns: int) -> Ephemeris:
    return Ephemeris(path)


def open_ephemeris(path: Path) -> Ephemeris:
    """Read an orbit file, once as long as it does not change.

    Raises
    ------
    BadInputError
        As `Ephemeris` does, or if the file is gone.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise BadInputError(
            path, "ephemeris", "it is gone", "bring it back, or deliver another for the same time"
        ) from error
    return _open_ephemeris(path, status.st_size, status.st_mtime_ns)


def _ephemeris_kind(path: Path) -> EphemerisKind:
    text = path.read_text(encoding="ascii", errors="replace")
    if text.lstrip().startswith("<"):
        raise BadInputError(path, "OEM", "it is XML", "deliver it as text (KVN)")
    words = set(_KIND_COMMENT.findall(text)) or set(_KIND_IN_NAME.findall(path.name))
    kinds = {word.upper() for word in words}
    if len(kinds) != 1 or not kinds <= set(EphemerisKind):
        raise BadInputError(
            path,
            "EPHEMERIS_TYPE",
            f"the kind is not clear: found {sorted(kinds) or 'nothing'}",
            "add a line COMMENT EPHEMERIS_TYPE = PREDICTED (or DEFINITIVE), or put the word in "
            "the file name",
        )
    return EphemerisKind(kinds.pop())


def _check_segment(path: Path, metadata: Any) -> None:
    for field, known in (
        ("CENTER_NAME", _CENTERS), ("REF_FRAME", _FRAMES), ("TIME_SYSTEM", {"UTC"})
    ):  # fmt: skip
        value = metadata[field].upper()
        if value not in known:
            raise BadInputError(
                path, field, f"{value!r} is not handled", f"use one of {sorted(known)}"
            )


def _time(moment: datetime) -> Time:
    return Time(moment.astimezone(UTC).replace(tzinfo=None), scale="utc")


def _datetime(time: Time) -> datetime:
    return check_moment(time.to_datetime(timezone=UTC))
