"""The specification's clocks: when each level is due, and counted from when (R2, R5, R9, R10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from roman_assets.products.kind import Level


class ClockOrigin(StrEnum):
    """The moment from which a deadline is counted."""

    RECEIPT = "receipt"
    """All packets and ancillary data of the exposure are in at the SOC."""
    EXECUTION = "execution"
    """The last observation that the product needs has been executed."""


@dataclass(frozen=True)
class Deadline:
    """How long after which moment a product is due."""

    origin: ClockOrigin
    latency: timedelta

    def due(self, origin_time: datetime) -> datetime:
        """Give the due time (UTC) for the moment the clock started."""
        return origin_time + self.latency


DEADLINES: dict[Level, Deadline] = {
    Level.L1: Deadline(ClockOrigin.RECEIPT, timedelta(hours=24)),
    Level.L2: Deadline(ClockOrigin.RECEIPT, timedelta(hours=48)),
    Level.L3: Deadline(ClockOrigin.EXECUTION, timedelta(days=5)),
    Level.L4: Deadline(ClockOrigin.EXECUTION, timedelta(days=7)),
}
"""The specification's table; a setting may replace single rows."""


class ClockEvent(StrEnum):
    """Moments that are recorded where they happen, all in UTC."""

    EXECUTION_START = "execution_start"
    EXECUTION_END = "execution_end"
    FIRST_PACKET = "first_packet_received"
    LAST_PACKET = "last_packet_received"
    ANCILLARY = "ancillary_received"
    ALL_RECEIVED = "all_received"
    STARTED = "started"
    FINISHED = "finished"


CLOCK_START: dict[ClockOrigin, ClockEvent] = {
    ClockOrigin.RECEIPT: ClockEvent.ALL_RECEIVED,
    ClockOrigin.EXECUTION: ClockEvent.EXECUTION_END,
}
"""The recorded moment at which a clock starts; that of a visit is its last exposure's."""
