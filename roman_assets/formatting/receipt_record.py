"""What is in of exposures, told to the registry whenever it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from roman_assets.archive.durability import locked, make_directory
from roman_assets.data_root import DataRoot
from roman_assets.formatting.receipt import Receipt
from roman_assets.formatting.receipt_evaluation import RECEIPT_EVENTS
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.products.packet_policy import PacketPolicy
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, ExposureReceipt, SenderArrival, Statement
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.settings.packet_settings import packet_policy_of

_LOCK = "receipts.lock"

Known = tuple[ExposureReceipt, Mapping[ClockEvent, datetime]]
"""What the registry knows of a receipt, and its moments."""


@dataclass(frozen=True)
class WaitEnded:
    """A person's decision not to wait any longer for the packets of exposures.

    Parameters
    ----------
    author, reason
        Who decided, and why.
    """

    author: str
    reason: str


def record_receipts(
    root: DataRoot,
    receipts: Sequence[Receipt],
    *,
    clock: Clock = utc_now,
    folded: bool = True,
    registry: Registry | None = None,
    policy: PacketPolicy | None = None,
    decision: WaitEnded | None = None,
) -> list[Receipt]:
    """Record the receipts that differ from what the registry knows, each once.

    An exposure leaves a handful of records: when the first of it is in, when its executed visit
    is, when another of its detectors is, when all is. Moments of an exposure that was once
    complete stay as they were recorded, so the verdict on its deadlines does not depend on what the
    landing area still remembers. Several processes may do this at once.

    A corrected executed visit withdraws, by the same records, what was made of exposures and
    detectors that it does not have, or under an optical element that it does not name.

    Parameters
    ----------
    root
        The installation.
    receipts
        Of exposures, complete or not.
    clock
        Gives the time.
    folded
        Whether the registry is brought up to date, before and after. If not, a receipt of which a
        record waits to be folded may be recorded again, which changes nothing.
    registry
        That of the installation, if the caller has it open.
    policy
        How long packets are awaited, the installation's by default.
    decision
        That the wait for packets of these exposures ends now.

    Returns
    -------
    list of Receipt
        Those that were recorded.
    """
    if not receipts:
        return []
    with locked(make_directory(root.registry) / _LOCK):
        if folded:
            Engine(root).fold()
        with nullcontext(registry) if registry else Registry(root) as opened:
            known = opened.receipts.newest(str(receipt.exposure) for receipt in receipts)
            waits = policy or packet_policy_of(root)
            stated = {
                receipt.exposure: _stated(
                    receipt, known.get(str(receipt.exposure)), waits, decision, clock
                )
                for receipt in receipts
            }
            new = [
                receipt
                for receipt in receipts
                if known.get(str(receipt.exposure)) != stated[receipt.exposure]
            ]
            withdrawn = opened.receipts.contradicted_by(_corrected(known, stated, new))
        Journal(root).write_all(
            CommitRecord(
                step=Step.FORMATTING,
                partition=str(receipt.exposure),
                committed_at=clock(),
                transitions=withdrawn if receipt is new[0] else (),
                statement=Statement.RECEIPT,
                receipt=stated[receipt.exposure][0],
                events=dict(stated[receipt.exposure][1]),
            )
            for receipt in new
        )
        if new and folded:
            Engine(root).fold()
        return new


def _stated(
    receipt: Receipt,
    known: Known | None,
    policy: PacketPolicy,
    decision: WaitEnded | None,
    clock: Clock,
) -> Known:
    """Return what is to be on record of a receipt: moments that are settled stay."""
    before, _ = known or (ExposureReceipt(), {})
    settled = _settled(receipt, known)
    events = receipt.events | settled
    cut_off = cut_off_of(receipt, policy, known)
    if decision is not None and (cut_off is None or clock() < cut_off):
        before = before.model_copy(
            update={"closed_by": decision.author, "closed_because": decision.reason}
        )
        cut_off = clock()
    if cut_off is not None:
        events[ClockEvent.CUT_OFF] = cut_off
    return (
        statement_of(receipt).model_copy(
            update={
                "detectors": _detectors(receipt, before),
                "arrivals": before.arrivals if settled else _arrivals(receipt, before, events),
                "closed_by": before.closed_by,
                "closed_because": before.closed_because,
            }
        ),
        events,
    )


def _settled(receipt: Receipt, known: Known | None) -> dict[ClockEvent, datetime]:
    """Return the moments on record that no later receipt changes.

    With L1 of one more detector the clock of a delivered exposure starts anew.
    """
    if known is None or ClockEvent.ALL_RECEIVED not in known[1]:
        return {}
    if receipt.origin is Origin.DELIVERED and not set(receipt.detectors) <= set(known[0].detectors):
        return {}
    return {event: moment for event, moment in known[1].items() if event in RECEIPT_EVENTS}


def _detectors(receipt: Receipt, before: ExposureReceipt) -> tuple[str, ...]:
    """Return the detectors of an exposure.

    Delivered L1 that was taken out of the landing area was received all the same.
    """
    delivered = before.origin is receipt.origin is Origin.DELIVERED
    if not delivered or ClockEvent.EXECUTED_VISIT in receipt.events:
        return receipt.detectors
    return tuple(sorted({*before.detectors, *receipt.detectors}))


def cut_off_of(receipt: Receipt, policy: PacketPolicy, known: Known | None) -> datetime | None:
    """Return when the wait for packets of an exposure ends (UTC).

    None before the first packet, and where all were in when the first was seen.

    Parameters
    ----------
    receipt
        What is in.
    policy
        How long packets are awaited.
    known
        What is on record: a person's decision stays, as does the moment at which all was in.
    """
    before, moments = known or (ExposureReceipt(), {})
    is_settled = ClockEvent.ALL_RECEIVED in moments or before.closed_by is not None
    first = receipt.events.get(ClockEvent.FIRST_PACKET)
    if is_settled or first is None or not receipt.lacks_packets:
        return moments.get(ClockEvent.CUT_OFF)
    return first + policy.cut_off


def _arrivals(
    receipt: Receipt, before: ExposureReceipt, events: Mapping[ClockEvent, datetime]
) -> tuple[SenderArrival, ...]:
    """Return the senders that were in at another moment than the last packet of all."""
    if receipt.origin is Origin.DELIVERED:
        return ()
    found = {
        name: sender.received
        for name, sender in receipt.senders.items()
        if sender.received is not None
    } | {one.sender: one.received for one in before.arrivals if one.sender in receipt.senders}
    last = events.get(ClockEvent.LAST_PACKET)
    return tuple(
        SenderArrival(sender=name, received=found[name])
        for name in sorted(found)
        if found[name] != last
    )


def _corrected(
    known: Mapping[str, Known], stated: Mapping[ExposureId, Known], new: Iterable[Receipt]
) -> dict[str, ExposureReceipt]:
    """Return the new statements on exposures that a corrected executed visit changes."""
    corrected = {}
    for receipt in new:
        before, _ = known.get(str(receipt.exposure), (ExposureReceipt(), {}))
        now = stated[receipt.exposure][0]
        if before.optical_element is not None and (
            before.optical_element,
            before.detectors,
        ) != (now.optical_element, now.detectors):
            corrected[str(receipt.exposure)] = now
    return corrected


def statement_of(receipt: Receipt) -> ExposureReceipt:
    """Return what the registry is told of a receipt besides its moments."""
    return ExposureReceipt(
        survey=receipt.survey,
        exposure_type=receipt.exposure_type,
        optical_element=receipt.optical_element,
        detectors=receipt.detectors,
        nexposures=receipt.nexposures,
        truncated=receipt.truncated,
        lacks_packets=receipt.lacks_packets,
        lacks_ancillary=receipt.lacks_ancillary,
        origin=receipt.origin,
    )
