"""Which visits need a run: a comparison of states (R9, R10, R12).

What the visit's L2 are now, and what is missing, is compared with what its L3 were made from. No
event is remembered, so none can be lost; a late exposure or an overwritten L1 changes the L2 and
thereby the digest of the manifest, and the visit is reprocessed. When an incomplete visit is made
all the same, `roman_assets.products.visit_policy` decides.

With many visits a look cannot compare all of them. `VisitWatch` keeps those that are not up to
date, and compares again only where the registry has changed, a run has ended or a time has come; it
is a memory of the process, and empty after a restart, when everything is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.in_progress import (
    partitions_in_backfills,
    partitions_in_progress,
    room_in_queue,
    runs_requested,
    will_be_retried,
)
from roman_assets.defs.lib.jobs import visit_products
from roman_assets.defs.lib.memory import Remembered
from roman_assets.defs.lib.partitions import is_exposure, visit_of
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.retries import record_failed_runs
from roman_assets.defs.visit.visit_state import VisitState, visit_states
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.observation import VisitId
from roman_assets.products.visit_policy import VisitDecision, decide, waits_until
from roman_assets.settings.automation_settings import visit_reserve

VISITS_PER_TICK = 200
"""Largest number of visits compared in one tick: changed ones first, the others in turns."""

RUNS_PER_TICK = 100
"""Largest number of visits requested at once, the most urgent first."""

MEASURED_OVER = timedelta(days=7)
"""The reserve follows the computation times of visits made within this time."""
_WANTED = (VisitDecision.MAKE, VisitDecision.MAKE_PARTIAL)


@dataclass(frozen=True)
class Outlook:
    """When a visit that is not up to date is to be looked at again, besides in its turn."""

    until: datetime | None = None
    at_work: bool = False
    changed: bool = False

    def is_due(self, now: datetime, *, busy: bool) -> bool:
        """Whether something may have changed since: a run has ended, or the time has come."""
        over = self.at_work and not busy
        return self.changed or over or (self.until is not None and self.until <= now)


@dataclass
class VisitWatch(Remembered):
    """The visits of an installation that are not up to date.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    faults: Mapping[VisitId, BadInputError] = field(default_factory=dict)
    """The visits that the last look could not list, and why."""
    _outlooks: dict[VisitId, Outlook] = field(default_factory=dict)
    _told: dict[VisitId, str] = field(default_factory=dict)
    """The run of each visit that is known to be on record, or not to have failed."""

    @cached_property
    def _changes(self) -> RegistryChanges:
        return RegistryChanges(self.root)

    @property
    def waiting(self) -> int:
        """Number of visits that are not up to date."""
        return len(self._outlooks)

    def wanted(self, instance: dg.DagsterInstance, now: datetime) -> list[VisitState]:
        """Return the visits to request a run for, the most urgent first."""
        changed = map(visit_of_key, self._changes.look(now).partitions)
        new = dict.fromkeys(changed, Outlook(changed=True))
        self._outlooks = new | {
            visit: outlook for visit, outlook in self._outlooks.items() if visit not in new
        }
        self._told = {visit: run for visit, run in self._told.items() if visit in self._outlooks}
        if not self._outlooks:
            return []
        at_work = partitions_in_progress(instance) | partitions_in_backfills(instance)
        busy = {visit_of_key(key) for key in at_work}
        registry = self._changes.registry
        states, self.faults = visit_states(self.root, registry, self._to_compare(now, busy))
        self._outlooks |= dict.fromkeys(self.faults, Outlook())
        reserve = visit_reserve()(registry.work.computation_times(Step.VISIT, now - MEASURED_OVER))
        wanted = [
            state
            for state in states
            if state.by_soc and self._decided(state, now, reserve, busy) in _WANTED
        ]
        return self._requested_next(
            instance, [one for one in wanted if self._is_due(one, now, busy)]
        )

    def _to_compare(self, now: datetime, busy: set[VisitId]) -> list[VisitId]:
        """Choose what is looked at now; it leaves the memory, and comes back at its end."""
        order = sorted(
            self._outlooks,
            key=lambda visit: not self._outlooks[visit].is_due(now, busy=visit in busy),
        )
        chosen = order[:VISITS_PER_TICK]
        for visit in chosen:
            del self._outlooks[visit]
        return chosen

    def _decided(
        self, state: VisitState, now: datetime, reserve: timedelta, busy: set[VisitId]
    ) -> VisitDecision:
        visit = state.manifest.visit
        progress = state.progress(at_work=visit in busy)
        decision = decide(progress, now, reserve)
        if decision is not VisitDecision.LEAVE:
            self._outlooks[visit] = Outlook(waits_until(progress, reserve), progress.at_work)
        return decision

    def _is_due(self, state: VisitState, now: datetime, busy: set[VisitId]) -> bool:
        """Whether it is a first request, or a retry whose pause is over."""
        from roman_assets.settings.retry_settings import retry_pauses_of

        failed, visit = state.failed, state.manifest.visit
        if failed is None or not failed.in_a_row:
            return True
        until = failed.paused_until(retry_pauses_of(self.root), now)
        if visit not in busy and until is None:
            return True
        self._outlooks[visit] = Outlook(until, visit in busy)
        return False

    def _requested_next(
        self, instance: dg.DagsterInstance, wanted: list[VisitState]
    ) -> list[VisitState]:
        runs = runs_requested(instance, [state.run_key for state in wanted])
        self._record_failed(instance, wanted, runs)
        fresh = [state for state in wanted if state.run_key not in runs]
        fresh.sort(key=_urgency)
        room = min(RUNS_PER_TICK, room_in_queue(instance, visit_products.name))
        return fresh[:room]

    def _record_failed(
        self,
        instance: dg.DagsterInstance,
        wanted: Iterable[VisitState],
        runs: Mapping[str, dg.RunRecord],
    ) -> None:
        new = {
            state.manifest.visit: record
            for state in wanted
            if (record := runs.get(state.run_key)) is not None
            and record.dagster_run.is_finished
            and not will_be_retried(record.dagster_run)
            and self._told.get(state.manifest.visit) != record.dagster_run.run_id
        }
        record_failed_runs(self.root, instance, self._changes.registry, Step.VISIT, new.values())
        self._told |= {visit: record.dagster_run.run_id for visit, record in new.items()}


def _urgency(state: VisitState) -> tuple[bool, bool, float, VisitId]:
    due = state.due
    return (
        state.approval is not None,
        due is None,
        due.timestamp() if due else 0.0,
        state.manifest.visit,
    )


def visit_of_key(key: str) -> VisitId:
    """Return the visit of an exposure's or a visit's partition key."""
    return visit_of(key) if is_exposure(key) else VisitId.parse(key)
