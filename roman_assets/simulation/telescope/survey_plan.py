"""The visit plan: what the simulated telescope will look at, when and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from astropy.table import Table

from roman_assets.errors import BadInputError
from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.plan_table import PLAN_COLUMNS, check_columns, planned_rows
from roman_assets.simulation.telescope.planned_exposure import (
    TYPE_OF_ELEMENT,
    PlannedExposure,
    Pointing,
)

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
_DEFAULT_OVERHEAD = timedelta(seconds=21)


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
        check_columns(path, table)
        return cls(tuple(planned_rows(path, table, program, survey, start, tuple(detectors))))

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
