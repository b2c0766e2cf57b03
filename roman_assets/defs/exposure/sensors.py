"""The sensor that makes L1, L2 and L4 of an exposure as its packets come in (R2, R5).

It compares states: what has been received of an exposure now with what its L1 was made from. No
event is remembered, so none can be lost; a delivery that changes the content is formatted again.
Each detector is formatted by its own packets: `roman_assets.products.packet_policy` says when.

With many exposures a look cannot compare all of them. `LandingWatch` keeps those that differ, and
compares again only where the landing area or the registry has changed; it is a memory of the
process, and empty after a restart, when everything is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.in_progress import (
    PARTITION_TAG,
    partitions_in_progress,
    requested_run_keys,
    room_in_queue,
    runs_requested,
)
from roman_assets.defs.lib.jobs import exposure_products
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.partitions import exposure_partitions, is_exposure
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.retries import may_be_requested, record_failed_runs, retry_key
from roman_assets.defs.lib.specs import LEVEL0
from roman_assets.defs.reprocessing.staleness import EXPOSURE_INPUTS, first_version
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import DEADLINES, ClockEvent, ClockOrigin, Deadline
from roman_assets.products.kind import Level, Step, expected_kinds
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.products.packet_policy import PacketPolicy, formatted_from
from roman_assets.products.priority import PRIORITY_TAG, earliest_due, run_priority
from roman_assets.products.retry import FailedRuns, RetryPauses
from roman_assets.settings.automation_settings import partition_window

if TYPE_CHECKING:
    from roman_assets.formatting.landing import LandingArea
    from roman_assets.formatting.receipt import Receipt, SenderReceipt
    from roman_assets.registry.registry import Registry

_Setting = TypeVar("_Setting")

SCAN_BUDGET = timedelta(seconds=20)
"""A tick reads new packets for this long; the next one goes on where it stopped."""

RUNS_PER_TICK = 100
"""Largest number of exposures requested at once, the most urgent first."""

RECEIPTS_PER_TICK = 5_000
"""Largest number of changed receipts compared with the registry in one tick."""

REQUESTED_PER_TICK = 100
"""Largest number of exposures compared in a tick whose run has ended without products."""


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


@dataclass
class LandingWatch(Remembered):
    """The exposures of an installation that are in and not made from what is in.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    incomplete: set[ExposureId] = field(default_factory=set)
    unusable_settings: list[BadInputError] = field(default_factory=list)
    _unrecorded: dict[ExposureId, Receipt] = field(default_factory=dict)
    more: bool = False
    _waiting: dict[ExposureId, ExposureState] = field(default_factory=dict)
    _later: dict[ExposureId, datetime] = field(default_factory=dict)
    """When more of an exposure is formatted, by time alone."""
    _in_vain: dict[ExposureId, ExposureState] = field(default_factory=dict)
    _mark: tuple[int, int] | None = None
    _keys: set[str] | None = None

    @cached_property
    def landing(self) -> LandingArea:
        """The landing area, which remembers what it has seen as well."""
        from roman_assets.formatting.landing import LandingArea

        return LandingArea(self.root)

    @cached_property
    def _changes(self) -> RegistryChanges:
        return RegistryChanges(self.root)

    def look_failed(self) -> None:
        """List the landing area anew: files found before may not have been compared."""
        vars(self).pop("landing", None)

    def look(self, now: datetime) -> list[Receipt]:
        """Compare what has changed in the landing area or the registry; give changed receipts."""
        self.unusable_settings = []
        changed = self._changes.look(now)
        if changed.everything:
            self._mark = None
        remade = () if changed.everything else filter(is_exposure, changed.partitions)
        changes = self.landing.changes(self._mark, RECEIPTS_PER_TICK)
        self._mark, self.more = changes.mark, changes.more
        come = [exposure for exposure, moment in self._later.items() if moment <= now]
        known = self.landing.known_receipts([*map(ExposureId.parse, remade), *come])
        self._compare({one.exposure: one for one in (*known, *changes.receipts)}, now)
        self._unrecorded |= {one.exposure: one for one in changes.receipts}
        return list(changes.receipts)

    def record(self) -> None:
        """Record changed receipts for the deadline ledger.

        The next fold shows them: that of a run, or of `registry_fold_sensor`.
        """
        from roman_assets.formatting.receipt_record import record_receipts

        unrecorded = list(self._unrecorded.values())
        record_receipts(
            self.root,
            unrecorded,
            folded=False,
            registry=self._changes.registry,
            policy=self._packet_policy(),
        )
        self._unrecorded.clear()

    def _packet_policy(self) -> PacketPolicy:
        from roman_assets.settings.packet_settings import packet_policy_of

        return self._setting(packet_policy_of, PacketPolicy())

    def _compare(self, receipts: dict[ExposureId, Receipt], now: datetime) -> None:
        from roman_assets.settings.deadline_settings import deadlines_of

        ready = self._ready(receipts, now)
        formattable = [exposure for exposure, senders in ready.items() if senders]
        made = made_exposures(self._changes.registry, formattable)
        made |= delivered_exposures(self._changes.registry, receipts.values(), made)
        failed = self._changes.registry.failed_runs(Step.EXPOSURE, map(str, formattable))
        deadlines: Mapping[Level, Deadline] = self._setting(deadlines_of, DEADLINES)
        for exposure, receipt in receipts.items():
            self._waiting.pop(exposure, None)
            self._in_vain.pop(exposure, None)
            self.incomplete.discard(exposure)
            if not receipt.complete:
                self.incomplete.add(exposure)
            state = ExposureState(
                receipt,
                made.get(exposure, MadeExposure()),
                ready[exposure],
                deadlines,
                failed.get(str(exposure)),
            )
            if state.wanted:
                self._waiting[exposure] = state

    def _ready(
        self, receipts: dict[ExposureId, Receipt], now: datetime
    ) -> dict[ExposureId, dict[str, datetime]]:
        """Return the senders that are formatted now, and note when there will be others."""
        from roman_assets.formatting.receipt_record import cut_off_of

        policy = self._packet_policy()
        incomplete = [str(exposure) for exposure, one in receipts.items() if not one.complete]
        recorded = self._changes.registry.receipts(incomplete) if incomplete else {}
        ready = {}
        for exposure, receipt in receipts.items():
            known = recorded.get(str(exposure))
            cut_off = cut_off_of(receipt, policy, known)
            moments = formatted_from(receipt.senders, _ancillary(receipt), cut_off, policy.wait)
            ready[exposure] = {
                name: _clock_start(receipt, receipt.senders[name], cut_off)
                for name, moment in moments.items()
                if receipt.complete or moment <= now
            }
            self._later.pop(exposure, None)
            if later := [one for name, one in moments.items() if name not in ready[exposure]]:
                self._later[exposure] = min(later)
        return ready

    def _setting(self, read: Callable[[DataRoot], _Setting], standard: _Setting) -> _Setting:
        """Read a setting of order and pauses; the standard one if its file cannot be used."""
        try:
            return read(self.root)
        except BadInputError as fault:
            self.unusable_settings.append(fault)
            return standard

    def wanted(self, instance: dg.DagsterInstance, now: datetime) -> list[ExposureState]:
        """Return the exposures to request a run for, the most urgent first.

        An exposure waits while a run is at work on it, after a passing fault for a while, and after
        any other run in vain until something of it changes or that run is deleted.
        """
        from roman_assets.settings.retry_settings import retry_pauses_of

        busy, pauses = (
            partitions_in_progress(instance),
            self._setting(retry_pauses_of, RetryPauses()),
        )
        room = min(RUNS_PER_TICK, room_in_queue(instance, exposure_products.name))
        idle = [
            state
            for key, state in self._waiting.items()
            if str(key) not in busy and may_be_requested(state.failed, pauses, now)
        ]
        idle.sort(key=lambda state: _urgency(state, now))
        wanted = list(islice(self._not_requested(instance, idle), room))
        if len(wanted) < room:
            wanted += self._lost_requests(instance)[: room - len(wanted)]
        return wanted

    def new_partitions(
        self,
        instance: dg.DagsterInstance,
        changed: Iterable[Receipt],
        wanted: Iterable[ExposureState],
        now: datetime,
    ) -> list[dg.AddDynamicPartitionsRequest]:
        """Ask for the keys of exposures that Dagster does not know, complete or not.

        Those to be run are asked for in any case: their key may have been deleted. Those that are
        long done stay put away (`roman_assets.defs.upkeep.partition_window`).
        """
        if self._keys is None:
            self._keys = set(instance.get_dynamic_partitions(str(exposure_partitions.name)))
        shown = (one for one in changed if not self._is_put_away(one, now - partition_window()))
        mentioned = {str(receipt.exposure) for receipt in shown} - self._keys
        new = sorted(mentioned | {str(state.receipt.exposure) for state in wanted})
        self._keys.update(new)
        return [exposure_partitions.build_add_request(new)] if new else []

    def _is_put_away(self, receipt: Receipt, before: datetime) -> bool:
        to_make = receipt.exposure in self._waiting or receipt.exposure in self._in_vain
        return receipt.complete and not to_make and receipt.events[ClockEvent.ALL_RECEIVED] < before

    def _not_requested(
        self, instance: dg.DagsterInstance, states: Sequence[ExposureState]
    ) -> Iterator[ExposureState]:
        for start in range(0, len(states), RUNS_PER_TICK):
            batch = states[start : start + RUNS_PER_TICK]
            runs = runs_requested(instance, [state.run_key for state in batch])
            record_failed_runs(
                self.root, instance, self._changes.registry, Step.EXPOSURE, runs.values()
            )
            for state in batch:
                if state.run_key in runs:
                    del self._waiting[state.receipt.exposure]
                    self._in_vain[state.receipt.exposure] = state
                else:
                    yield state

    def _lost_requests(self, instance: dg.DagsterInstance) -> list[ExposureState]:
        """Look at some exposures whose run is over, in turns: deleted, it is requested again."""
        turn = list(islice(self._in_vain.items(), REQUESTED_PER_TICK))
        requested = requested_run_keys(instance, [state.run_key for _, state in turn])
        lost = []
        for exposure, state in turn:
            del self._in_vain[exposure]
            if state.run_key in requested:
                self._in_vain[exposure] = state
            else:
                self._waiting[exposure] = state
                lost.append(state)
        return lost


def _urgency(state: ExposureState, now: datetime) -> tuple[bool, datetime, str]:
    due = state.due(now)
    return (due is None, due or now, str(state.receipt.exposure))


@dg.sensor(
    job=exposure_products,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes L1, L2 and L4 of an exposure, each detector as its own packets are in.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult:
    """Take in what has landed and request a run for every exposure whose L1 are not made of it."""
    now = datetime.now(UTC)
    with memory.look(context, LandingWatch, installation.root) as watch:
        scan = watch.landing.scan(SCAN_BUDGET)
        for case in scan.set_aside:
            context.log.warning(f"set aside: {case}")
        for fault in scan.left:
            context.log.warning(f"left where it is: {fault}")
        changed = watch.look(now)
        watch.record()
        wanted = watch.wanted(context.instance, now)
        for fault in watch.unusable_settings:
            context.log.warning(f"the standard is used in place of {fault}")
        keys = watch.new_partitions(context.instance, changed, wanted, now)
        return dg.SensorResult(
            run_requests=[run_request(state, now) for state in wanted],
            asset_events=[event for state in wanted for event in received_events(state)],
            dynamic_partitions_requests=keys,
            skip_reason=None if wanted else skip_reason(watch, scan.remaining),
        )


def made_exposures(
    registry: Registry, exposures: Sequence[ExposureId]
) -> dict[ExposureId, MadeExposure]:
    """Look up what was made of exposures; those without L1 are absent."""
    if not exposures:
        return {}
    progress = registry.exposure_progress(map(str, exposures))
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
    current = registry.current(file.name for one in delivered for file in one.files)
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


def _ancillary(receipt: Receipt) -> datetime | None:
    """Return when the ancillary data were in; delivered L1 needs none."""
    needed = ClockEvent.ANCILLARY
    if receipt.origin is Origin.DELIVERED:
        needed = ClockEvent.ALL_RECEIVED
    return receipt.events.get(needed)


def _clock_start(receipt: Receipt, sender: SenderReceipt, cut_off: datetime | None) -> datetime:
    """Return when the clock of a sender's L1 started: when its packets were in, or at the cut-off.

    Moments of an exposure that was once complete stay.
    """
    recorded = receipt.events.get(ClockEvent.ALL_RECEIVED)
    if recorded is not None:
        return recorded
    packets = sender.received or cut_off
    assert packets is not None, "a sender without all of its packets is formatted at the cut-off"
    return max(packets, receipt.events[ClockEvent.ANCILLARY])


def run_request(state: ExposureState, now: datetime) -> dg.RunRequest:
    """Ask for the products of an exposure, once for each content received."""
    receipt = state.receipt
    return dg.RunRequest(
        run_key=state.run_key,
        partition_key=str(receipt.exposure),
        tags={
            # said here, Dagster need not look for it among all keys
            PARTITION_TAG: str(receipt.exposure),
            PRIORITY_TAG: str(run_priority(state.due(now))),
            "roman_assets/survey": str(receipt.survey),
            "roman_assets/optical_element": str(receipt.optical_element),
            "roman_assets/visit": str(receipt.exposure.visit),
        },
    )


def received_events(
    state: ExposureState,
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """Report what of an exposure is in, and at first what it is made with besides."""
    yield level0_event(state.receipt)
    if not state.made.content:
        yield from (first_version(asset, str(state.receipt.exposure)) for asset in EXPOSURE_INPUTS)


def level0_event(receipt: Receipt) -> dg.AssetMaterialization:
    """Report what of an exposure has been received."""
    return dg.AssetMaterialization(
        LEVEL0,
        partition=str(receipt.exposure),
        metadata={
            "origin": receipt.origin.value,
            "survey": str(receipt.survey),
            "optical_element": str(receipt.optical_element),
            "detectors": len(receipt.detectors),
            "missing": dg.MetadataValue.json(list(receipt.missing)),
            **{
                event.value: dg.MetadataValue.timestamp(moment)
                for event, moment in receipt.events.items()
            },
        },
        tags={DATA_VERSION_TAG: receipt.content_version},
    )


def skip_reason(watch: LandingWatch, remaining: int) -> dg.SkipReason:
    """Return what is waited for."""
    if remaining:
        return dg.SkipReason(f"{remaining} files are still to be read")
    if watch.more:
        return dg.SkipReason("more exposures are to be compared with what was made of them")
    if not watch.incomplete:
        return dg.SkipReason("every exposure received has been requested")
    shown = ", ".join(map(str, sorted(watch.incomplete)[:5]))
    dots = " ..." if len(watch.incomplete) > 5 else ""
    return dg.SkipReason(f"{len(watch.incomplete)} exposures wait for packets: {shown}{dots}")
