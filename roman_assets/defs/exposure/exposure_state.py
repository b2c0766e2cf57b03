"""An exposure as received and as its products were made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from roman_assets.defs.lib.retries import retry_key
from roman_assets.products.deadline import DEADLINES, ClockEvent, ClockOrigin, Deadline
from roman_assets.products.kind import Level, expected_kinds
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.products.priority import earliest_due
from roman_assets.products.retry import FailedRuns

if TYPE_CHECKING:
    from roman_assets.formatting.receipt import Receipt, SenderReceipt
    from roman_assets.registry.registry import Registry


@dataclass(frozen=True)
class MadeExposure:
    """What the registry says was made of an exposure.

    Parameters
    ----------
    received
        By sender, the content versions of packets that its L1 were made from or could not be made
        from, each with the time at which that work began.
    content
        Changes with every L1 product.
    calibrated
        Whether every L1 ramp has L2 made from it, except those recorded as failures.
    """

    received: Mapping[str, Mapping[str, datetime]] = field(default_factory=dict)
    content: str = ""
    calibrated: bool = False

    def has(self, sender: str, receipt: SenderReceipt) -> bool:
        """Return whether there is L1 of what is in, or of more: files may be removed."""
        made = self.received.get(sender, {})
        if receipt.content_version in made:
            return True
        if not receipt.missing or not made:
            return False
        return receipt.newest is None or receipt.newest <= max(made.values())


@dataclass(frozen=True)
class ExposureState:
    """An exposure as received and as its products were made; and when what it gives is due.

    Parameters
    ----------
    receipt
        What is in.
    made
        What was made of it.
    ready
        The senders that are formatted now, each with the moment at which its clock started.
    deadlines
        The table of deadlines.
    failed
        Its runs that have failed for passing faults.
    """

    receipt: Receipt
    made: MadeExposure
    ready: Mapping[str, datetime]
    deadlines: Mapping[Level, Deadline] = field(default_factory=lambda: DEADLINES)
    failed: FailedRuns | None = None

    @property
    def wanted(self) -> bool:
        """Whether something can be made, and the products are not all made from just that."""
        return bool(self.ready) and (not self._is_made or self._is_partial)

    @property
    def _is_made(self) -> bool:
        return self.made.calibrated and not self.unformatted

    @property
    def unformatted(self) -> frozenset[str]:
        """The senders that are ready and have no L1 made from exactly what has been received."""
        senders = self.receipt.senders
        return frozenset(name for name in self.ready if not self.made.has(name, senders[name]))

    @property
    def _content(self) -> str:
        """Identifies what L1 is to be made from."""
        if self.receipt.complete:
            return self.receipt.content_version
        senders = self.receipt.senders
        lines = (f"{name} {senders[name].content_version}" for name in sorted(self.ready))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def _is_partial(self) -> bool:
        return self.failed is not None and self.failed.partial

    @property
    def run_key(self) -> str:
        """Names the step from the L1 there are to what is wanted: one run is requested for each.

        A run that failed for bad input is not requested again; after a passing fault, the step has
        another number. A delivery that brings back the content of an earlier one is another step,
        and so is L1 that a lost run left without L2.
        """
        made = self.made.content or "new"
        key = f"{self.receipt.exposure}:{self._content}:{made}"
        return retry_key(key, self.failed)

    def due(self, now: datetime) -> datetime | None:
        """Return when the most urgent product that waits for a run is due (UTC).

        L3 of the visit waits as well. The clock of a reprocessed exposure starts anew: its
        first publication has had its verdict.
        """
        receipt = self.receipt
        if receipt.survey is None or receipt.exposure_type is None:
            return None
        levels = {kind.due_level for kind in expected_kinds(receipt.survey, receipt.exposure_type)}
        unformatted = self.unformatted
        waiting = (self.ready[sender] for sender in unformatted or self.ready)
        starts = {ClockOrigin.RECEIPT: min(waiting)} if self.ready else {}
        if ClockEvent.EXECUTION_END in receipt.events:
            starts[ClockOrigin.EXECUTION] = receipt.events[ClockEvent.EXECUTION_END]
        if self.made.content and self.made.calibrated and not self._is_partial:
            starts = dict.fromkeys(starts, now)
        elif not unformatted:
            levels.discard(Level.L1)
        return earliest_due(levels, starts, self.deadlines)


def made_exposures(
    registry: Registry, exposures: Sequence[ExposureId]
) -> dict[ExposureId, MadeExposure]:
    """Look up what was made of exposures; those without L1 are absent."""
    if not exposures:
        return {}
    progress = registry.work.exposure_progress(map(str, exposures))
    columns = (progress[name] for name in ("exposure", "received", "content", "calibrated"))
    return {
        ExposureId.parse(exposure): MadeExposure(_by_sender(received), content, bool(calibrated))
        for exposure, received, content, calibrated in zip(*columns, strict=True)
    }


def delivered_exposures(
    registry: Registry, receipts: Iterable[Receipt], made: Mapping[ExposureId, MadeExposure]
) -> dict[ExposureId, MadeExposure]:
    """Look up which delivered L1 files are published.

    Parameters
    ----------
    registry
        What there is.
    receipts
        Of exposures of any origin; those whose L1 is delivered count.
    made
        What is known of them from `made_exposures`.
    """
    from roman_assets.formatting.delivered import delivered_version

    delivered = [one for one in receipts if one.origin is Origin.DELIVERED and one.complete]
    current = registry.generations.current(file.name for one in delivered for file in one.files)
    found = {}
    for one in delivered:
        files = {file.name: current[file.name].sha256 for file in one.files if file.name in current}
        published = {delivered_version(one.exposure, files): one.events[ClockEvent.ALL_RECEIVED]}
        found[one.exposure] = replace(
            made.get(one.exposure, MadeExposure()),
            received={Origin.DELIVERED.value: published},
        )
    return found


def _by_sender(rows: Iterable[Mapping[str, Any]] | None) -> dict[str, dict[str, datetime]]:
    found: dict[str, dict[str, datetime]] = {}
    for row in () if rows is None else rows:
        found.setdefault(row["sender"], {})[row["content"]] = row["begun"].astimezone(UTC)
    return found


def ancillary_arrival(receipt: Receipt) -> datetime | None:
    """Return when the ancillary data were in; delivered L1 needs none."""
    needed = ClockEvent.ANCILLARY
    if receipt.origin is Origin.DELIVERED:
        needed = ClockEvent.ALL_RECEIVED
    return receipt.events.get(needed)


def clock_start(receipt: Receipt, sender: SenderReceipt, cut_off: datetime | None) -> datetime:
    """Return when the clock of a sender's L1 started: when its packets were in, or at the cut-off.

    Moments of an exposure that was once complete stay.
    """
    recorded = receipt.events.get(ClockEvent.ALL_RECEIVED)
    if recorded is not None:
        return recorded
    packets = sender.received or cut_off
    assert packets is not None, "a sender without all of its packets is formatted at the cut-off"
    return max(packets, receipt.events[ClockEvent.ANCILLARY])
