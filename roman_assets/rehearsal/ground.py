"""When the ground receives what was observed: contacts, gaps and late ancillary data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.rehearsal.fault import Faults

NEVER = math.inf
"""The time of what does not happen."""

_GROUND_DAYS = 60
"""Contacts go on for so long after the last exposure; what has not come by then never does."""

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Downlink:
    """How data come to the ground.

    Parameters
    ----------
    contact_interval
        Time between the beginnings of two contacts.
    contact_length
        How long a contact lasts.
    rate
        Bytes a second during a contact; exposures come down in order of execution.
    bytes_per_resultant
        Packets of one resultant of one detector: 158 MB were measured for eight resultants of a
        whole one.
    ancillary_delay
        From the execution of a visit's last exposure to its ancillary data.
    late_ancillary_delay
        How much longer late ancillary data take on average; the delays are exponential.

    Raises
    ------
    BadInputError
        If a contact is longer than the interval, or something is not positive.
    """

    contact_interval: timedelta = timedelta(hours=12)
    contact_length: timedelta = timedelta(hours=6)
    rate: float = 500e6 / 8
    bytes_per_resultant: float = 158e6 / 8
    ancillary_delay: timedelta = timedelta(hours=2)
    late_ancillary_delay: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if not timedelta() < self.contact_length <= self.contact_interval:
            raise BadInputError(
                "downlink", "contact_length",
                f"{self.contact_length} every {self.contact_interval}",
                "let contacts last, and end before the next begins",
            )  # fmt: skip
        if not self.rate > 0:
            raise BadInputError("downlink", "rate", f"{self.rate} B/s", "give a positive rate")
        for name in ("ancillary_delay", "late_ancillary_delay"):
            if (delay := getattr(self, name)) < timedelta():
                raise BadInputError("downlink", name, f"{delay} is negative", "give a delay")


@dataclass(frozen=True)
class Receipts:
    """When what of each exposure is received: seconds after the epoch, `NEVER` for what is not.

    Parameters
    ----------
    first_packet, last_packet
        By exposure.
    ancillary
        Executed visit, MA table and ephemeris, by exposure.
    """

    first_packet: Times
    last_packet: Times
    ancillary: Times

    @property
    def all_received(self) -> Times:
        """When everything of an exposure is in."""
        return np.maximum(self.last_packet, self.ancillary)


def receipts(downlink: Downlink, faults: Faults) -> Receipts:
    """Bring the executed exposures of a plan to the ground.

    Parameters
    ----------
    downlink
        How.
    faults
        Which contacts and exposures are lost, what is late.
    """
    begins, ends = _contacts(downlink, faults)
    first, last = _packets(downlink, faults, begins, ends)
    late = faults.late_packets & np.isfinite(last)
    following = np.searchsorted(begins, last[late], side="right")
    last[late] = np.append(begins, NEVER)[following]
    return Receipts(first, last, _ancillary(downlink, faults))


def _contacts(downlink: Downlink, faults: Faults) -> tuple[Times, Times]:
    interval = downlink.contact_interval.total_seconds()
    last = float(faults.observations.end.max()) + _GROUND_DAYS * 86400
    begins = np.arange(0.0, last, interval)
    begins = begins[~faults.lost_contacts(len(begins))]
    return begins, begins + downlink.contact_length.total_seconds()


def _packets(downlink: Downlink, faults: Faults, begins: Times, ends: Times) -> tuple[Times, Times]:
    """Send exposures one after the other, in order of execution, while there is contact."""
    observations = faults.observations
    first = np.full(len(observations.exposures), NEVER)
    last = first.copy()
    seconds = (
        downlink.bytes_per_resultant
        * observations.ndetectors
        * observations.nresultants
        / downlink.rate
    ).tolist()
    ready = observations.end.tolist()
    contacts = iter(zip(begins.tolist(), ends.tolist(), strict=True))
    clock, until = 0.0, 0.0
    for number in np.flatnonzero(faults.executed & ~faults.lost).tolist():
        left = seconds[number]
        clock = max(clock, ready[number])
        begun = NEVER
        while True:
            while clock >= until:
                begin, until = next(contacts, (NEVER, NEVER))
                if begin == NEVER:
                    return first, last
                clock = max(clock, begin)
            begun = min(begun, clock)
            sent = min(left, until - clock)
            clock += sent
            left -= sent
            if left <= 0:
                break
        first[number], last[number] = begun, clock
    return first, last


def _ancillary(downlink: Downlink, faults: Faults) -> Times:
    observations = faults.observations
    executed = np.where(faults.executed, observations.end, -NEVER)
    visit_end = np.full(len(observations.visits), -NEVER)
    np.maximum.at(visit_end, observations.visit_of, executed)
    arrival = (
        visit_end
        + downlink.ancillary_delay.total_seconds()
        + faults.ancillary_delay * downlink.late_ancillary_delay.total_seconds()
    )
    return np.where(faults.executed, arrival[observations.visit_of], NEVER)
