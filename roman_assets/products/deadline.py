"""The specification's clocks: when each level is due, and counted from when (R2, R5, R9, R10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from roman_assets.products.kind import Level

Clock = Callable[[], datetime]
"""Return the present time (UTC); a simulated clock drives the same code."""


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class ClockOrigin(StrEnum):
    """The moment from which a deadline is counted."""

    RECEIPT = "receipt"
    """All packets and ancillary data of the exposure are in at the SOC."""
    EXECUTION = "execution"
    """The last observation that the product needs has been executed."""


@dataclass(frozen=True)
class Deadline:
    """How long after which moment a product is due.

    Parameters
    ----------
    origin
        The moment that starts the clock.
    latency
        From there to the due time.
    warning
        A product that is not made is at risk when less than this is left.
    """

    origin: ClockOrigin
    latency: timedelta
    warning: timedelta

    def due(self, origin_time: datetime) -> datetime:
        """Return the due time (UTC) for the moment the clock started."""
        return origin_time + self.latency


DEADLINES: dict[Level, Deadline] = {
    Level.L1: Deadline(ClockOrigin.RECEIPT, timedelta(hours=24), timedelta(hours=6)),
    Level.L2: Deadline(ClockOrigin.RECEIPT, timedelta(hours=48), timedelta(hours=12)),
    Level.L3: Deadline(ClockOrigin.EXECUTION, timedelta(days=5), timedelta(hours=30)),
    Level.L4: Deadline(ClockOrigin.EXECUTION, timedelta(days=7), timedelta(hours=42)),
}
"""The specification's table; the file ``deadlines.toml`` of an installation may replace rows."""


class ClockEvent(StrEnum):
    """Moments that are recorded where they happen, all in UTC."""

    EXECUTION_START = "execution_start"
    EXECUTION_END = "execution_end"
    FIRST_PACKET = "first_packet_received"
    LAST_PACKET = "last_packet_received"
    EXECUTED_VISIT = "executed_visit_received"
    MA_TABLE = "ma_table_received"
    EPHEMERIS = "ephemeris_received"
    ANCILLARY = "ancillary_received"
    """The last of the three before: all ancillary data are in."""
    ALL_RECEIVED = "all_received"
    CUT_OFF = "packets_awaited_until"
    """What has not come down by then counts as lost until it does."""
    HANDED_OVER = "handed_over"
    """The SSC was told that the L2 images are ready (R12)."""
    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"


CLOCK_START: dict[ClockOrigin, ClockEvent] = {
    ClockOrigin.RECEIPT: ClockEvent.ALL_RECEIVED,
    ClockOrigin.EXECUTION: ClockEvent.EXECUTION_END,
}
"""The recorded moment at which a clock starts; that of a visit is its last exposure's."""


class ProductState(StrEnum):
    """How a product stands against its deadline; every product has exactly one of them."""

    OVERDUE = "overdue"
    FAILED = "failed"
    WAITING_FOR_DOWNLINK = "waiting for downlink"
    WAITING_FOR_ANCILLARY = "waiting for ancillary data"
    WAITING_FOR_SSC = "waiting for SSC"
    """The L2 images are handed over; the Science Support Center has not delivered (R12)."""
    QUEUED = "queued"
    RUNNING = "running"
    MADE_LATE = "made late"
    MADE_IN_TIME = "made in time"
    MADE_UNTIMED = "made, no clock"
    """No receipt is on record, so that nothing says when it was due."""
    NOT_EXPECTED = "not expected"
    """The SOC makes none of such an exposure or visit (R12)."""


class Blame(StrEnum):
    """Where the hours between a clock's start and a product's publication went."""

    DOWNLINK = "downlink"
    """Packets were awaited."""
    ANCILLARY = "ancillary"
    """Packets were in, ancillary data were awaited."""
    QUEUE = "queue"
    """All was there, and nothing worked on it."""
    SSC = "ssc"
    """The Science Support Center had been told, and had not delivered what could be used (R12)."""
    RETRIES = "retries"
    """Attempts that failed for a passing fault, and the waits for the next."""
    INPUT = "input"
    """An attempt had found its input unusable, and a person had to repair it."""
    COMPUTATION = "computation"
    """Attempts that succeeded."""
