"""When what is in of an exposure is formatted: each sender by its own packets (R2).

A *sender* is what L1 is made of by itself: a detector (its resultants and its guide window), or
FACE. Packets may be lost for good, so nobody waits for ever:

1. Without the ancillary data nothing is formatted.
2. Once everything is in, all is formatted at once.
3. A sender whose own packets are in is formatted when nothing else has come in for a short *wait*,
   so that one run does as many senders as possible.
4. At the *cut-off*, counted from the first packet of the exposure, what is still incomplete is
   formatted as it is, or recorded as lost. A person can bring the cut-off forward.
5. What arrives after the cut-off is formatted after another wait.

No I/O, and the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

FACE = "FACE"
"""The sender besides the detectors."""


@dataclass(frozen=True)
class PacketPolicy:
    """How long packets are awaited.

    Parameters
    ----------
    cut_off
        From the first packet of an exposure to the end of the wait for its others.
    wait
        For more senders, from the moment at which the last one was in.
    """

    cut_off: timedelta = timedelta(hours=12)
    wait: timedelta = timedelta(minutes=10)


class SenderArrivals(Protocol):
    """When packets of a sender arrived (UTC)."""

    @property
    def received(self) -> datetime | None:
        """When its own packets were all in, None while one is missing."""

    @property
    def newest(self) -> datetime | None:
        """When the last packet so far arrived, None before the first."""


def formatted_from(
    senders: Mapping[str, SenderArrivals],
    ancillary: datetime | None,
    cut_off: datetime | None,
    wait: timedelta,
) -> dict[str, datetime]:
    """Return the moment from which each sender is formatted (UTC); others wait for more to arrive.

    Parameters
    ----------
    senders
        All that the exposure has.
    ancillary
        When all ancillary data were in, None if they are not.
    cut_off
        When the wait for packets ends, None before the first packet.
    wait
        For more senders. With none, whatever is in is formatted from its arrival on.
    """
    if ancillary is None:
        return {}
    received = [one.received for one in senders.values() if one.received is not None]
    settled = max([*received, ancillary])
    if len(received) < len(senders):
        settled += wait
    moments = {}
    for name, one in senders.items():
        if one.received is not None:
            own = max(one.received, ancillary)
            moments[name] = settled if cut_off is None else min(settled, max(own, cut_off))
        elif cut_off is not None:
            late = one.newest is not None and one.newest > cut_off
            more = one.newest + wait if late and one.newest is not None else cut_off
            moments[name] = max(cut_off, ancillary, more)
    return moments
