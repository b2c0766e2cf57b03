"""What a plan asks of the platform: its exposures and visits, as the replay needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.products.kind import SOC_STEPS, Level, ProductKind, Step, expected_kinds
from roman_assets.products.observation import (
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)

_EXECUTION_PLANS = 100
"""The numbers that an execution plan may have."""


class Readout(Protocol):
    """How the detectors are read."""

    @property
    def nresultants(self) -> int:
        """Resultants sent down for each detector."""


class Planned(Protocol):
    """One row of a survey plan; the simulated observatory's planned exposures are such."""

    @property
    def exposure(self) -> ExposureId:
        """Its identity."""

    @property
    def survey(self) -> Survey:
        """The survey of its program."""

    @property
    def exposure_type(self) -> ExposureType:
        """As in ``meta.exposure.type``."""

    @property
    def optical_element(self) -> OpticalElement:
        """Filter, grism, prism or dark."""

    @property
    def start(self) -> datetime:
        """Start of the exposure (UTC)."""

    @property
    def end(self) -> datetime:
        """End of the last read (UTC)."""

    @property
    def nexposures(self) -> int:
        """Planned exposures of the visit."""

    @property
    def detectors(self) -> Sequence[str]:
        """Detectors that are read out."""

    @property
    def ma_table(self) -> Readout:
        """How they are read."""


@dataclass(frozen=True)
class Visit:
    """A visit of the plan.

    Parameters
    ----------
    visit
        Its identity.
    members
        Its exposures by their numbers in the plan, in order of execution.
    kinds
        What the SOC makes of it promptly, perhaps nothing (R12).
    """

    visit: VisitId
    members: tuple[int, ...]
    kinds: tuple[ProductKind, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """A planned exposure, once more and later.

    Parameters
    ----------
    planned
        The exposure as planned.
    exposure
        Its identity in this repetition.
    later
        How much later it is.
    """

    planned: Planned
    exposure: ExposureId
    later: timedelta

    @property
    def survey(self) -> Survey:
        """The survey of its program."""
        return self.planned.survey

    @property
    def exposure_type(self) -> ExposureType:
        """As in ``meta.exposure.type``."""
        return self.planned.exposure_type

    @property
    def optical_element(self) -> OpticalElement:
        """Filter, grism, prism or dark."""
        return self.planned.optical_element

    @property
    def start(self) -> datetime:
        """Start of the exposure (UTC)."""
        return self.planned.start + self.later

    @property
    def end(self) -> datetime:
        """End of the last read (UTC)."""
        return self.planned.end + self.later

    @property
    def nexposures(self) -> int:
        """Planned exposures of the visit."""
        return self.planned.nexposures

    @property
    def detectors(self) -> Sequence[str]:
        """Detectors that are read out."""
        return self.planned.detectors

    @property
    def ma_table(self) -> Readout:
        """How they are read."""
        return self.planned.ma_table


@dataclass(frozen=True)
class Observations:
    """The exposures of a plan in order of execution, with what is expected of them.

    Parameters
    ----------
    exposures
        Rows of the plan.
    skycells
        The skycells that each exposure touches, by name.

    Raises
    ------
    BadInputError
        Without any exposure.
    """

    exposures: tuple[Planned, ...]
    skycells: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.exposures:
            raise BadInputError("plan", "exposures", "there are none", "give a plan with some")

    @classmethod
    def of(
        cls, exposures: Iterable[Planned], skycells: Mapping[ExposureId, tuple[str, ...]]
    ) -> Observations:
        """Order the rows of a plan by execution."""
        ordered = tuple(sorted(exposures, key=lambda planned: planned.start))
        return cls(ordered, tuple(skycells[planned.exposure] for planned in ordered))

    def repeated(self, times: int) -> Observations:
        """Return the plan so many times, one after the other.

        Repetitions differ in the execution plan of their visits, and begin when the one before has
        ended.

        Raises
        ------
        BadInputError
            If a repetition would have no number of its own.
        """
        plans = {one.exposure.visit.execution_plan for one in self.exposures}
        numbers = max(plans) - min(plans) + 1
        if not 1 <= times <= _EXECUTION_PLANS // numbers:
            raise BadInputError(
                "plan", "repeat", f"{times} repetitions would share identities",
                f"repeat it at most {_EXECUTION_PLANS // numbers} times: execution plans have two "
                "digits",
            )  # fmt: skip
        period = max(one.end for one in self.exposures) - self.epoch
        repeated: list[Planned] = []
        for number in range(times):
            visits = {
                one.visit: replace(
                    one.visit,
                    execution_plan=one.visit.execution_plan - min(plans) + number * numbers,
                )
                for one in self.visits
            }
            repeated += [
                Repetition(
                    one,
                    ExposureId(visits[one.exposure.visit], one.exposure.exposure),
                    number * period,
                )
                for one in self.exposures
            ]
        return Observations(tuple(repeated), self.skycells * times)

    @cached_property
    def epoch(self) -> datetime:
        """The zero of all simulated times: the start of the first exposure (UTC)."""
        return self.exposures[0].start

    @cached_property
    def start(self) -> NDArray[np.float64]:
        """Starts of the exposures, seconds after `epoch`."""
        return self._seconds(planned.start for planned in self.exposures)

    @cached_property
    def end(self) -> NDArray[np.float64]:
        """Ends of the exposures, seconds after `epoch`."""
        return self._seconds(planned.end for planned in self.exposures)

    @cached_property
    def ndetectors(self) -> NDArray[np.int64]:
        """Detectors read out, by exposure."""
        return np.array([len(planned.detectors) for planned in self.exposures])

    @cached_property
    def nresultants(self) -> NDArray[np.int64]:
        """Resultants of each detector, by exposure."""
        return np.array([planned.ma_table.nresultants for planned in self.exposures])

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """The visits in order of their first exposures."""
        members: dict[VisitId, list[int]] = {}
        for number, planned in enumerate(self.exposures):
            members.setdefault(planned.exposure.visit, []).append(number)
        return tuple(
            Visit(visit, tuple(numbers), self.kinds(numbers[0], Step.VISIT))
            for visit, numbers in members.items()
        )

    @cached_property
    def visit_of(self) -> NDArray[np.int64]:
        """The number of its visit, by exposure."""
        found = np.empty(len(self.exposures), dtype=np.int64)
        for number, visit in enumerate(self.visits):
            found[list(visit.members)] = number
        return found

    @cached_property
    def levels(self) -> tuple[frozenset[Level], ...]:
        """The levels that wait for an exposure: its own and those of its visit, by exposure."""
        return tuple(_levels(planned.survey, planned.exposure_type) for planned in self.exposures)

    def skycells_of_visit(self, visit: int, members: int) -> frozenset[str]:
        """Return the skycells that exposures of a visit touch, given as bits of their places."""
        numbers = self.visits[visit].members
        return frozenset().union(
            *(self.skycells[n] for place, n in enumerate(numbers) if members >> place & 1)
        )

    def kinds(self, number: int, step: Step) -> tuple[ProductKind, ...]:
        """Return the kinds that a step makes of an exposure, or of the visit of one."""
        planned = self.exposures[number]
        return _kinds(planned.survey, planned.exposure_type, step)

    def _seconds(self, times: Iterable[datetime]) -> NDArray[np.float64]:
        return np.array([(time - self.epoch).total_seconds() for time in times])


@cache
def _levels(survey: Survey, exposure_type: ExposureType) -> frozenset[Level]:
    return frozenset(
        kind.due_level for step in SOC_STEPS for kind in _kinds(survey, exposure_type, step)
    )


@cache
def _kinds(survey: Survey, exposure_type: ExposureType, step: Step) -> tuple[ProductKind, ...]:
    return expected_kinds(survey, exposure_type, (step,))
