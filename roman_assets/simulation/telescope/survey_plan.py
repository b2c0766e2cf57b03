"""The visit plan: what the simulated telescope will look at, when and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.simulation.telescope.multiaccum import MultiAccumTable, ma_table

PLAN_COLUMNS: tuple[str, ...] = (
    "RA", "DEC", "PA", "BANDPASS", "MA_TABLE_NUMBER", "DURATION", "PLAN", "PASS", "SEGMENT",
    "OBSERVATION", "VISIT", "EXPOSURE", "EXPOSURE_TIME", "TARGET_NAME",
)  # fmt: skip
"""Columns of the survey plans that APT exports (``.sim.ecsv``)."""

_INTEGERS = frozenset(
    {"MA_TABLE_NUMBER", "PLAN", "PASS", "SEGMENT", "OBSERVATION", "VISIT", "EXPOSURE"}
)
_NUMBERS = _INTEGERS | {"RA", "DEC", "PA", "DURATION"}

DEFAULT_START = datetime(2027, 6, 1, tzinfo=UTC)
"""Epoch of the Gaia positions of the simulated sky."""

DITHERS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "NONE": ((0.0, 0.0),),
    "SUB2": ((0.0, 0.0), (2.435, 1.595)),
    "SUB4": ((0.0, 0.0), (2.435, 1.595), (-1.705, 2.805), (1.265, -2.255)),
    "LINEGAP2": ((0.0, 0.0), (-15.0, 112.0)),
    "BOXGAP4": ((0.0, 0.0), (-205.2, 0.0), (-205.2, 205.2), (0.0, 205.2)),
}
"""Dither patterns by name: offsets in arcsec along the ideal x and y axes of WFI_CEN.

``SUB2`` and ``SUB4`` move by a few pixels and a fraction, so that windows of a detector keep
overlapping; the others step over the gaps between detectors.
"""

INTERNAL_TARGET = "INTERNAL"
"""Target name of exposures that look at no sky."""

TYPE_OF_ELEMENT: Mapping[OpticalElement, ExposureType] = {
    **dict.fromkeys(OpticalElement, ExposureType.WFI_IMAGE),
    OpticalElement.GRISM: ExposureType.WFI_SPECTRAL,
    OpticalElement.PRISM: ExposureType.WFI_SPECTRAL,
    OpticalElement.DARK: ExposureType.WFI_IM_DARK,
}
"""The exposure type an element is used for, unless the plan says another."""

_DEFAULT_OVERHEAD = timedelta(seconds=21)


@dataclass(frozen=True)
class Pointing:
    """Where WFI_CEN points.

    Parameters
    ----------
    ra, dec
        ICRS, degrees.
    pa
        Position angle of the aperture's ideal y axis, degrees east of north.
    """

    ra: float
    dec: float
    pa: float

    def offset(self, x: float, y: float, roll: float = 0.0) -> Pointing:
        """Move by arcsec along the ideal x and y axes, then roll by degrees."""
        # Of parity -1: seen on the sky the aperture's x axis lies 90 degrees west of its y axis.
        angle = self.pa - np.degrees(np.arctan2(x, y))
        moved = SkyCoord(self.ra, self.dec, unit="deg").directional_offset_by(
            angle * u.deg, np.hypot(x, y) * u.arcsec
        )
        return Pointing(float(moved.ra.deg), float(moved.dec.deg), (self.pa + roll) % 360)


@dataclass(frozen=True)
class PlannedExposure:
    """One row of the plan.

    Parameters
    ----------
    exposure
        Its identity.
    survey
        The survey of its program.
    exposure_type, optical_element
        As in ``meta.exposure.type`` and ``meta.instrument.optical_element``.
    pointing
        Planned pointing of WFI_CEN; the true one differs by the pointing error.
    ma_table_number
        The MA table.
    start
        Start of the exposure (UTC).
    duration
        Time until the next exposure can start.
    target
        Name of the target.
    nexposures
        Planned number of exposures of the visit.
    detectors
        Detectors that are read out.
    dither
        Name of the dither pattern, None if the plan does not say.
    """

    exposure: ExposureId
    survey: Survey
    exposure_type: ExposureType
    optical_element: OpticalElement
    pointing: Pointing
    ma_table_number: int
    start: datetime
    duration: timedelta
    target: str
    nexposures: int
    detectors: tuple[str, ...] = DETECTORS
    dither: str | None = None

    @property
    def ma_table(self) -> MultiAccumTable:
        """The MA table; raises `BadInputError` if there is none of that number."""
        return ma_table(self.ma_table_number)

    @property
    def end(self) -> datetime:
        """End of the last read (UTC)."""
        return self.start + timedelta(seconds=self.ma_table.exposure_time)


@dataclass(frozen=True)
class VisitRequest:
    """Visits wanted of one kind: what an observer fills in.

    Parameters
    ----------
    survey
        The survey.
    program
        Program number.
    optical_element
        Filter, GRISM, PRISM or DARK.
    pointing
        WFI_CEN of the first exposure.
    dither
        Name in `DITHERS`; one exposure per offset.
    ma_table_number
        MA table.
    visits
        How many visits; they repeat the same pointings.
    exposure_type
        Default: what the element is used for.
    target
        Name of the target.
    cadence
        From the start of one visit to that of the next; None for one right after the other.
    """

    survey: Survey
    program: int
    optical_element: OpticalElement
    pointing: Pointing
    dither: str = "NONE"
    ma_table_number: int = 4
    visits: int = 1
    exposure_type: ExposureType | None = None
    target: str = "GAIA_270_66"
    cadence: timedelta | None = None

    @property
    def pointings(self) -> tuple[Pointing, ...]:
        """The dithered pointings of one visit."""
        offsets = DITHERS.get(self.dither)
        if offsets is None:
            raise BadInputError(
                "visit request", "dither", f"unknown pattern {self.dither!r}",
                f"use one of {sorted(DITHERS)}",
            )  # fmt: skip
        return tuple(self.pointing.offset(x, y) for x, y in offsets)


@dataclass(frozen=True)
class VisitPlan:
    """Exposures in order of execution.

    Parameters
    ----------
    exposures
        The plan's rows.
    """

    exposures: tuple[PlannedExposure, ...]

    @cached_property
    def visits(self) -> Mapping[VisitId, tuple[PlannedExposure, ...]]:
        """Exposures by visit, both in order of execution."""
        visits: dict[VisitId, list[PlannedExposure]] = {}
        for planned in self.exposures:
            visits.setdefault(planned.exposure.visit, []).append(planned)
        return {visit: tuple(planned) for visit, planned in visits.items()}

    @property
    def detectors(self) -> tuple[str, ...]:
        """Every detector that is read out."""
        return tuple(sorted({name for planned in self.exposures for name in planned.detectors}))

    @property
    def optical_elements(self) -> tuple[OpticalElement, ...]:
        """Every optical element used."""
        return tuple(sorted({planned.optical_element for planned in self.exposures}))

    def select(self, visits: Iterable[VisitId]) -> VisitPlan:
        """Keep some visits, with their times."""
        wanted = frozenset(visits)
        return VisitPlan(tuple(p for p in self.exposures if p.exposure.visit in wanted))

    def head(self, nvisits: int) -> VisitPlan:
        """Keep the first visits, whole."""
        return self.select(itertools.islice(self.visits, nvisits))

    @classmethod
    def from_requests(
        cls,
        requests: Sequence[VisitRequest],
        *,
        start: datetime = DEFAULT_START,
        detectors: Sequence[str] = DETECTORS,
        pass_: int = 1,
    ) -> VisitPlan:
        """Schedule requests one after the other.

        Parameters
        ----------
        requests
            What is wanted; each becomes an observation of its program.
        start
            Start of the first exposure (UTC).
        detectors
            Detectors to read out.
        pass_
            Pass of the execution plan: the same requests in another pass are other visits.

        Raises
        ------
        BadInputError
            For an unknown detector, dither pattern or MA table.
        """
        _check_detectors(detectors)
        exposures: list[PlannedExposure] = []
        observations: dict[int, int] = {}
        clock = start
        for request in requests:
            observation = observations[request.program] = observations.get(request.program, 0) + 1
            pointings = request.pointings
            duration = _DEFAULT_OVERHEAD + timedelta(
                seconds=round(ma_table(request.ma_table_number).exposure_time)
            )
            began = clock
            for visit, (number, pointing) in itertools.product(
                range(1, request.visits + 1), enumerate(pointings, start=1)
            ):
                if number == 1 and visit > 1 and request.cadence is not None:
                    clock = max(clock, began + request.cadence)
                if number == 1:
                    began = clock
                exposures.append(
                    PlannedExposure(
                        ExposureId(
                            VisitId(request.program, 1, pass_, 1, observation, visit), number
                        ),
                        request.survey,
                        request.exposure_type or TYPE_OF_ELEMENT[request.optical_element],
                        request.optical_element,
                        pointing,
                        request.ma_table_number,
                        clock,
                        duration,
                        request.target,
                        len(pointings),
                        tuple(detectors),
                        request.dither,
                    )
                )
                clock += duration
        return cls(tuple(exposures))

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        program: int = 1,
        survey: Survey = Survey.GAS,
        start: datetime = DEFAULT_START,
        detectors: Sequence[str] = DETECTORS,
    ) -> VisitPlan:
        """Read a survey plan with the columns `PLAN_COLUMNS`.

        Parameters
        ----------
        path
            An ECSV table, one row an exposure in order of execution.
        program, survey
            Which the table does not say.
        start
            Start of the first exposure (UTC); ``DURATION`` gives the others.
        detectors
            Detectors to read out.

        Raises
        ------
        BadInputError
            If columns are missing, a value is out of range, or an optical element, detector or MA
            table is unknown.
        """
        _check_detectors(detectors)
        try:
            table = Table.read(path, format="ascii.ecsv")
        except (ValueError, TypeError) as error:
            raise BadInputError(path, "table", str(error), "give an ECSV table") from error
        _check_columns(path, table)
        return cls(tuple(_rows(path, table, program, survey, start, tuple(detectors))))

    def write(self, path: Path) -> None:
        """Write the plan as a table with the columns `PLAN_COLUMNS`.

        Raises
        ------
        BadInputError
            If it has exposures of several programs, which the columns cannot tell apart.
        """
        programs = sorted({visit.program for visit in self.visits})
        if len(programs) != 1:
            raise BadInputError(
                path, "program", f"the plan is of programs {programs}", "write one at a time"
            )
        rows = [
            (
                planned.pointing.ra, planned.pointing.dec, planned.pointing.pa,
                str(planned.optical_element), planned.ma_table_number,
                round(planned.duration.total_seconds()), visit.execution_plan, visit.pass_,
                visit.segment, visit.observation, visit.visit, planned.exposure.exposure,
                planned.ma_table.exposure_time, planned.target,
            )
            for planned in self.exposures
            for visit in (planned.exposure.visit,)
        ]  # fmt: skip
        Table(rows=rows, names=PLAN_COLUMNS).write(path, format="ascii.ecsv", overwrite=True)


def demo_plan(
    *,
    start: datetime = DEFAULT_START,
    detectors: Sequence[str] = ("WFI01", "WFI02"),
    pass_: int = 1,
) -> VisitPlan:
    """Plan a small night: two dithered imaging visits, one GBTDS and one grism visit.

    All four look at the field of romanisim's Gaia extract. The pointings of the imaging visits put
    the central 512x512 windows of WFI01 and WFI02 where four or five Gaia stars are in each, few
    places have more, and where each window lies in a single skycell.
    """
    return VisitPlan.from_requests(DEMO_REQUESTS, start=start, detectors=detectors, pass_=pass_)


DEMO_REQUESTS: tuple[VisitRequest, ...] = (
    VisitRequest(Survey.HLWAS, 1, OpticalElement.F158, Pointing(269.8288, 65.8622, 0.0), "SUB2", 4),
    VisitRequest(Survey.HLTDS, 2, OpticalElement.F106, Pointing(270.1709, 65.8200, 0.0), "SUB2", 4),
    VisitRequest(Survey.GBTDS, 3, OpticalElement.F146, Pointing(269.7718, 66.1600, 0.0), "NONE", 3),
    VisitRequest(
        Survey.HLWAS, 1, OpticalElement.GRISM, Pointing(269.8288, 65.8622, 0.0), "NONE", 4
    ),
)
"""The visits of `demo_plan`."""


def _check_detectors(detectors: Sequence[str]) -> None:
    unknown = sorted(set(detectors) - set(DETECTORS))
    if unknown or not detectors:
        raise BadInputError(
            "visit plan", "detectors", f"unknown or none: {unknown}", "use WFI01 to WFI18"
        )


def _check_columns(path: Path, table: Table) -> None:
    missing = [name for name in PLAN_COLUMNS if name not in table.colnames]
    if missing:
        raise BadInputError(path, ", ".join(missing), "column is missing", "export the plan again")
    for name in PLAN_COLUMNS:
        if getattr(table[name], "mask", None) is not None and np.any(table[name].mask):
            raise BadInputError(path, name, "a value is missing", "fill every row")
        _check_type(path, name, np.asarray(table[name]))
    elements = set(table["BANDPASS"].tolist())
    unknown = sorted(elements - set(OpticalElement))
    if unknown:
        raise BadInputError(
            path, "BANDPASS", f"unknown optical elements {unknown}",
            f"use {', '.join(OpticalElement)}",
        )  # fmt: skip
    for number in set(table["MA_TABLE_NUMBER"].tolist()):
        ma_table(number)
    if np.any(np.abs(table["DEC"]) > 90) or np.any(table["DURATION"] <= 0):
        raise BadInputError(path, "DEC, DURATION", "a value is out of range", "correct the plan")


def _check_type(path: Path, name: str, values: NDArray[Any]) -> None:
    if name in _INTEGERS and values.dtype.kind not in "iu":
        raise BadInputError(path, name, f"{values.dtype} values", "give integers")
    if name in _NUMBERS and (values.dtype.kind not in "iuf" or not np.all(np.isfinite(values))):
        raise BadInputError(path, name, "a value is not a number", "give finite numbers")


def _rows(
    path: Path,
    table: Table,
    program: int,
    survey: Survey,
    start: datetime,
    detectors: tuple[str, ...],
) -> list[PlannedExposure]:
    columns = {name: table[name].tolist() for name in PLAN_COLUMNS}
    starts = np.concatenate([[0.0], np.cumsum(table["DURATION"])]).tolist()
    keys = list(
        zip(*(columns[n] for n in ("PLAN", "PASS", "SEGMENT", "OBSERVATION", "VISIT")), strict=True)
    )
    counts: dict[tuple[int, ...], int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    try:
        visits = {key: VisitId(program, *key) for key in counts}
        ids = [ExposureId(visits[k], n) for k, n in zip(keys, columns["EXPOSURE"], strict=True)]
    except ValueError as error:
        raise BadInputError(path, "PLAN to EXPOSURE", str(error), "correct the plan") from error
    if len(set(ids)) != len(ids):
        raise BadInputError(path, "EXPOSURE", "an exposure appears twice", "number them anew")
    elements = {name: OpticalElement(name) for name in set(columns["BANDPASS"])}
    return [
        PlannedExposure(
            ids[row],
            survey,
            TYPE_OF_ELEMENT[elements[columns["BANDPASS"][row]]],
            elements[columns["BANDPASS"][row]],
            Pointing(columns["RA"][row], columns["DEC"][row], columns["PA"][row]),
            columns["MA_TABLE_NUMBER"][row],
            start + timedelta(seconds=starts[row]),
            timedelta(seconds=columns["DURATION"][row]),
            columns["TARGET_NAME"][row],
            counts[keys[row]],
            detectors,
        )
        for row in range(len(table))
    ]
