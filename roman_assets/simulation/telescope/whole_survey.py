"""A whole survey on the Galactic plane: a plan as large as the published one, from a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from astropy.coordinates import SkyCoord

from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.planned_exposure import (
    TYPE_OF_ELEMENT,
    PlannedExposure,
    Pointing,
    offset_positions,
)
from roman_assets.simulation.telescope.survey_plan import DEFAULT_START, DITHERS, VisitPlan

_DITHER = timedelta(seconds=21)
_SLEW = timedelta(seconds=60)
_STEP = 0.4
"""Degrees between neighbouring visits, the shorter side of the field of view."""

_EIGHT = tuple(
    (x + dx, y + dy) for (x, y), (dx, dy) in itertools.product(DITHERS["BOXGAP4"], DITHERS["SUB2"])
)


@dataclass(frozen=True)
class Region:
    """Visits of one kind on a grid of positions.

    Parameters
    ----------
    target
        Name of the target.
    longitude, latitude
        Galactic, of the first position, degrees.
    columns, rows
        Positions along longitude and latitude.
    elements
        The whole grid is visited with each.
    offsets
        One exposure per offset (x, y) in arcsec.
    ma_table_number
        MA table.
    passes
        How often all of it is visited.
    """

    target: str
    longitude: float
    latitude: float
    columns: int
    rows: int
    elements: tuple[OpticalElement, ...]
    offsets: tuple[tuple[float, float], ...]
    ma_table_number: int = 1001
    passes: int = 1

    def pointings(self) -> list[tuple[Pointing, ...]]:
        """Return the dithered pointings of each position, along its columns."""
        row, column = np.divmod(np.arange(self.columns * self.rows), self.columns)
        sky = SkyCoord(
            (self.longitude + _STEP * column) % 360,
            self.latitude + _STEP * row,
            frame="galactic",
            unit="deg",
        ).icrs
        moved = [offset_positions(sky, 0.0, x, y) for x, y in self.offsets]
        by_offset = [
            [Pointing(*one, 0.0) for one in zip(m.ra.deg.tolist(), m.dec.deg.tolist(), strict=True)]
            for m in moved
        ]
        return list(zip(*by_offset, strict=True))


_DISK = (OpticalElement.F213, OpticalElement.F129, OpticalElement.F158, OpticalElement.F184)

REGIONS: tuple[Region, ...] = (
    *(
        Region(f"Disk{n + 1}", -56.0 + 16.0 * n, -2.0, 40, 10, _DISK, DITHERS["LINEGAP2"])
        for n in range(7)
    ),
    Region(
        "Center", -1.6, -0.2, 8, 1, (OpticalElement.F213, OpticalElement.F087), DITHERS["NONE"],
        passes=84,
    ),
    Region("Bulge", -2.2, -4.2, 11, 11, (OpticalElement.F106, OpticalElement.F062), _EIGHT),
    Region("Spectra", 26.0, 0.0, 7, 2, (OpticalElement.GRISM,), DITHERS["LINEGAP2"], 1038),
    Region("Spectra", 12.0, 0.0, 5, 1, (OpticalElement.PRISM,), DITHERS["BOXGAP4"], 1038),
    Region("Long spectra", 40.0, 0.0, 2, 1, (OpticalElement.PRISM,), DITHERS["NONE"], 1047),
)  # fmt: skip
"""What the survey consists of.

As many exposures and visits, and as many exposures in each visit, as the published simulation plan
of the Galactic Plane Survey (``roman_gps.sim.ecsv`` of spacetelescope/roman_notebooks); other
positions and targets.
"""


def whole_survey(
    *,
    program: int = 1,
    start: datetime = DEFAULT_START,
    detectors: Sequence[str] = DETECTORS,
) -> VisitPlan:
    """Return the plan of a whole survey: 25,730 exposures in 12,807 visits within 31 days.

    Parameters
    ----------
    program
        Program number.
    start
        Start of the first exposure (UTC).
    detectors
        Detectors to read out.
    """
    exposures: list[PlannedExposure] = []
    clock = start
    for visit, region, element, pointings in _visits(program):
        seconds = round(ma_table(region.ma_table_number).exposure_time)
        for number, pointing in enumerate(pointings, start=1):
            duration = timedelta(seconds=seconds) + (_DITHER if number < len(pointings) else _SLEW)
            exposures.append(
                PlannedExposure(
                    ExposureId(visit, number), Survey.GAS, TYPE_OF_ELEMENT[element], element,
                    pointing, region.ma_table_number, clock, duration, region.target,
                    len(pointings), tuple(detectors),
                )
            )  # fmt: skip
            clock += duration
    return VisitPlan(tuple(exposures))


def _visits(
    program: int,
) -> Iterator[tuple[VisitId, Region, OpticalElement, tuple[Pointing, ...]]]:
    passes = itertools.count(1)
    for region in REGIONS:
        grid = region.pointings()
        for pass_ in itertools.islice(passes, region.passes):
            for observation, element in enumerate(region.elements, start=1):
                for visit, pointings in enumerate(grid, start=1):
                    identity = VisitId(program, 1, pass_, 1, observation, visit)
                    yield identity, region, element, pointings
