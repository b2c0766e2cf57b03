"""MultiAccum tables: how reads make resultants."""

from __future__ import annotations

import itertools
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from roman_assets.formatting.document import MOST_READS, Count, Document, Read, Revision, Seconds
from roman_assets.formatting.telemetry import MOST_RESULTANTS


class MATable(Document):
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
