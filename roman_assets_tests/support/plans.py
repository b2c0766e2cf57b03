"""Small plans, and platforms slow enough for deadlines to be at stake on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from roman_assets.products.deadline import DEADLINES, ClockOrigin
from roman_assets.products.kind import Step
from roman_assets.products.observation import (
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.rehearsal.fault import FaultRates
from roman_assets.rehearsal.planned_work import Observations
from roman_assets.rehearsal.processing import ProcessingTimes, StepTime
from roman_assets.rehearsal.rehearsal import Scenario
from roman_assets.rehearsal.run_queue import Platform

START = datetime(2027, 6, 1, tzinfo=UTC)
DETECTORS = ("WFI01", "WFI02", "WFI03")
DAY_S = 86400.0


@dataclass(frozen=True)
class Row:
    """A row of a plan."""

    exposure: ExposureId
    start: datetime
    nexposures: int
    survey: Survey = Survey.GAS
    exposure_type: ExposureType = ExposureType.WFI_IMAGE
    optical_element: OpticalElement = OpticalElement.F158
    detectors: tuple[str, ...] = DETECTORS
    ma_table: Any = field(default_factory=lambda: SimpleNamespace(nresultants=6))

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=60)


def night(visits: Sequence[int], spacing_s: float = 120.0, **facts: Any) -> Observations:
    """Give visits of so many exposures, one after the other; neighbours share a skycell."""
    rows, skycells = [], {}
    for number, size in enumerate(visits, start=1):
        for exposure in range(1, size + 1):
            start = START + timedelta(seconds=spacing_s * len(rows))
            key = ExposureId(VisitId(1, 1, 1, 1, number // 999, number % 999), exposure)
            rows.append(Row(key, start, size, **facts))
            skycells[key] = tuple(f"270p65x{40 + exposure + i:02d}y50" for i in range(2))
    return Observations.of(rows, skycells)


def times(
    formatting: float = 1.0, exposure: float = 100.0, visit: float = 100.0
) -> ProcessingTimes:
    """Give seconds of a worker for one detector or skycell."""
    return {
        Step.FORMATTING: StepTime((formatting,), "test", parallel=False),
        Step.EXPOSURE: StepTime((exposure, 2 * exposure), "test"),
        Step.VISIT: StepTime((visit, 2 * visit), "test"),
    }


def machines(count: int, **settings: Any) -> Platform:
    """Give a platform of machines with one worker each."""
    waits = tuple(timedelta(seconds=wait) for wait in (10, 30, 70))
    return Platform(count, 1, step_retries=waits, run_retries=3, **settings)


surveys = st.sampled_from(
    [
        {},
        {"survey": Survey.HLTDS},
        {"survey": Survey.GBTDS},
        {
            "exposure_type": ExposureType.WFI_SPECTRAL,
            "optical_element": OpticalElement.GRISM,
        },
    ]
)
deadlines = st.sampled_from(
    [
        DEADLINES,
        {level: replace(one, origin=ClockOrigin.EXECUTION) for level, one in DEADLINES.items()},
        {level: replace(one, origin=ClockOrigin.RECEIPT) for level, one in DEADLINES.items()},
    ]
)
scenarios = st.builds(
    lambda visits, facts, rate, seed, hours, due: Scenario(
        night(visits, **facts),
        FaultRates.all_at(rate),
        seed,
        times=times(60.0, hours * 3600, hours * 3600),
        deadlines=due,
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    surveys,
    st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5]),
    st.integers(0, 1000),
    st.sampled_from([0.1, 1.0, 5.0]),
    deadlines,
)
