"""What is in of exposures, told to the registry whenever it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime

from roman_assets.archive.durability import locked, make_directory
from roman_assets.data_root import DataRoot
from roman_assets.pipelines.formatting.receipt import RECEIPT_EVENTS, Receipt
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.origin import Origin
from roman_assets.registry.fold import fold
from roman_assets.registry.journal import Journal
from roman_assets.registry.record import CommitRecord, ExposureReceipt, Statement
from roman_assets.registry.registry import Registry

_LOCK = "receipts.lock"


def record_receipts(
    root: DataRoot,
    receipts: Sequence[Receipt],
    *,
    clock: Clock = utc_now,
    folded: bool = True,
    registry: Registry | None = None,
) -> list[Receipt]:
    """Record the receipts that differ from what the registry knows, each once.

    An exposure leaves a handful of records: when the first of it is in, when its executed visit
    is, when all is. Moments of an exposure that was once complete stay as they were recorded, so
    the verdict on its deadlines does not depend on what the landing area still remembers. Several
    processes may do this at once.

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

    Returns
    -------
    list of Receipt
        Those that were recorded.
    """
    if not receipts:
        return []
    with locked(make_directory(root.registry) / _LOCK):
        if folded:
            fold(root)
        with nullcontext(registry) if registry else Registry(root) as opened:
            known = opened.receipts(str(receipt.exposure) for receipt in receipts)
            moments = {
                receipt.exposure: receipt.events
                | _settled(receipt, known.get(str(receipt.exposure)))
                for receipt in receipts
            }
            new = [
                receipt
                for receipt in receipts
                if known.get(str(receipt.exposure))
                != (_statement(receipt, known), moments[receipt.exposure])
            ]
            withdrawn = opened.contradicted_by(_corrected(known, new))
        Journal(root).write_all(
            CommitRecord(
                step=Step.FORMATTING,
                partition=str(receipt.exposure),
                committed_at=clock(),
                transitions=withdrawn if receipt is new[0] else (),
                statement=Statement.RECEIPT,
                receipt=_statement(receipt, known),
                events=moments[receipt.exposure],
            )
            for receipt in new
        )
        if new and folded:
            fold(root)
        return new


_Known = tuple[ExposureReceipt, Mapping[ClockEvent, datetime]]


def _settled(receipt: Receipt, known: _Known | None) -> dict[ClockEvent, datetime]:
    """Return the moments on record that no later receipt changes.

    With L1 of one more detector the clock of a delivered exposure starts anew.
    """
    if known is None or ClockEvent.ALL_RECEIVED not in known[1]:
        return {}
    if receipt.origin is Origin.DELIVERED and not set(receipt.detectors) <= set(known[0].detectors):
        return {}
    return {event: moment for event, moment in known[1].items() if event in RECEIPT_EVENTS}


def _statement(receipt: Receipt, known: Mapping[str, _Known]) -> ExposureReceipt:
    """Return what is to be recorded of a receipt.

    Delivered L1 that was taken out of the landing area was received all the same.
    """
    stated = statement_of(receipt)
    before, _ = known.get(str(receipt.exposure), (ExposureReceipt(), {}))
    delivered = before.origin is receipt.origin is Origin.DELIVERED
    if not delivered or ClockEvent.EXECUTED_VISIT in receipt.events:
        return stated
    detectors = tuple(sorted({*before.detectors, *stated.detectors}))
    return stated.model_copy(update={"detectors": detectors})


def _corrected(known: Mapping[str, _Known], new: Iterable[Receipt]) -> dict[str, ExposureReceipt]:
    """Return the new statements on exposures that a corrected executed visit changes."""
    corrected = {}
    for receipt in new:
        before, _ = known.get(str(receipt.exposure), (ExposureReceipt(), {}))
        now = _statement(receipt, known)
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
