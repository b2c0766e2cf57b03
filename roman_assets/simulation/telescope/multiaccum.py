"""MultiAccum tables: which reads of the detectors are averaged into which resultants.

Tables 3 to 17, 109 and 110 are those romanisim ships (Rev F). Tables from 1001 on appear in survey
plans by number; their names tell exposure time and number of resultants, but how reads are
grouped into these is not public: the even grouping here is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from romanisim.models import parameters

from roman_assets.errors import BadInputError

FRAME_TIME = 3.16247
"""Seconds between two full-frame reads in imaging (romanisim's ``read_time``)."""

SPECTRAL_FRAME_TIME = 4.03
"""Seconds between two full-frame reads of the spectroscopic tables, rounded as published."""


@dataclass(frozen=True)
class MultiAccumTable:
    """One MA table.

    Parameters
    ----------
    number
        ``meta.exposure.ma_table_number``.
    name
        ``meta.exposure.ma_table_name``.
    read_pattern
        For every resultant the numbers of its reads, from 1, ascending.
    frame_time
        Seconds between two reads.
    """

    number: int
    name: str
    read_pattern: tuple[tuple[int, ...], ...]
    frame_time: float = FRAME_TIME

    @property
    def nresultants(self) -> int:
        """Number of resultants sent down."""
        return len(self.read_pattern)

    @property
    def exposure_time(self) -> float:
        """Seconds from the reset to the last read."""
        return self.read_pattern[-1][-1] * self.frame_time

    @property
    def effective_exposure_time(self) -> float:
        """Seconds from the mean time of the first resultant to that of the last."""
        return (
            float(np.mean(self.read_pattern[-1]) - np.mean(self.read_pattern[0])) * self.frame_time
        )


_NAMES = {3: "C1_IMG_MICROLENS"} | {4 + i: f"C2{c}_IMG_HLWAS" for i, c in enumerate("ABCDEFGH")}


def _evenly(number: int, name: str, nresultants: int, nreads: int, frame: float) -> MultiAccumTable:
    """Group reads evenly between a first and a last resultant of one read each."""
    middle = np.array_split(np.arange(2, nreads), nresultants - 2)
    pattern = ((1,), *(tuple(group.tolist()) for group in middle), (nreads,))
    return MultiAccumTable(number, name, pattern, frame)


_SURVEY_PLAN_TABLES = {
    table.number: table
    for table in (
        _evenly(1001, "IM_60_6_S", 6, 19, FRAME_TIME),
        _evenly(1010, "IM_135_8", 8, 43, FRAME_TIME),
        _evenly(1033, "IM_1000_16", 16, 316, FRAME_TIME),
        _evenly(1038, "SP_300_16", 16, 74, SPECTRAL_FRAME_TIME),
        _evenly(1047, "SP_1000_16", 16, 249, SPECTRAL_FRAME_TIME),
    )
}

MA_TABLES = tuple(sorted({*parameters.read_pattern, *_SURVEY_PLAN_TABLES}))
"""The numbers of all tables."""


@cache
def ma_table(number: int) -> MultiAccumTable:
    """Return an MA table by its number.

    Raises
    ------
    BadInputError
        If there is no such table.
    """
    if number in _SURVEY_PLAN_TABLES:
        return _SURVEY_PLAN_TABLES[number]
    pattern = parameters.read_pattern.get(number)
    if pattern is None:
        raise BadInputError(
            "MA tables", "ma_table_number", f"no table {number}", f"use one of {MA_TABLES}"
        )
    name = _NAMES.get(number, f"MA_TABLE_{number}")
    return MultiAccumTable(number, name, tuple(tuple(map(int, reads)) for reads in pattern))
