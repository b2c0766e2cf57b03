"""Which exposures need a run: a comparison of states (R2, R5).

What has been received of an exposure now is compared with what its L1 was made from. No event is
remembered, so none can be lost; a delivery that changes the content is formatted again. Each
detector is formatted by its own packets: `roman_assets.products.packet_policy` says when.

With many exposures a look cannot compare all of them. `LandingWatch` keeps those that differ, and
compares again only where the landing area or the registry has changed; it is a memory of the
process, and empty after a restart, when everything is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.exposure.exposure_state import (
    ExposureState,
    MadeExposure,
    ancillary_arrival,
    clock_start,
    delivered_exposures,
    made_exposures,
)
from roman_assets.defs.lib.in_progress import (
    partitions_in_progress,
    requested_run_keys,
    room_in_queue,
    runs_requested,
)
from roman_assets.defs.lib.jobs import exposure_products
from roman_assets.defs.lib.memory import Remembered
from roman_assets.defs.lib.partitions import exposure_partitions, is_exposure
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.retries import may_be_requested, record_failed_runs
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import DEADLINES, ClockEvent, Deadline
from roman_assets.products.kind import Level, Step
from roman_assets.products.observation import ExposureId
from roman_assets.products.packet_policy import PacketPolicy, formatted_from
from roman_assets.products.retry import RetryPauses
from roman_assets.settings.automation_settings import partition_window

if TYPE_CHECKING:
    from roman_assets.formatting.landing import LandingArea
    from roman_assets.formatting.receipt import Receipt


_Setting = TypeVar("_Setting")
RUNS_PER_TICK = 100
"""Largest number of exposures requested at once, the most urgent first."""

RECEIPTS_PER_TICK = 5_000
"""Largest number of changed receipts compared with the registry in one tick."""

REQUESTED_PER_TICK = 100
"""Largest number of exposures compared in a tick whose run has ended without products."""


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
        failed = self._changes.registry.work.failed_runs(Step.EXPOSURE, map(str, formattable))
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
        recorded = self._changes.registry.receipts.newest(incomplete) if incomplete else {}
        ready = {}
        for exposure, receipt in receipts.items():
            known = recorded.get(str(exposure))
            cut_off = cut_off_of(receipt, policy, known)
            moments = formatted_from(
                receipt.senders, ancillary_arrival(receipt), cut_off, policy.wait
            )
            ready[exposure] = {
                name: clock_start(receipt, receipt.senders[name], cut_off)
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
