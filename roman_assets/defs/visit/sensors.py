"""The sensor that makes L3 and L4 of a visit, whole or in part (R9, R10, R12).

It compares states: what the visit's L2 are now, and what is missing, with what its L3 were made
from. No event is remembered, so none can be lost; a late exposure or an overwritten L1 changes the
L2 and thereby the digest of the manifest, and the visit is reprocessed. When an incomplete
visit is made all the same, `roman_assets.products.visit_policy` decides.

With many visits a look cannot compare all of them. `VisitWatch` keeps those that are not up to
date, and compares again only where the registry has changed, a run has ended or a time has come; it
is a memory of the process, and empty after a restart, when everything is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.in_progress import (
    PARTITION_TAG,
    partitions_in_backfills,
    partitions_in_progress,
    room_in_queue,
    runs_requested,
    will_be_retried,
)
from roman_assets.defs.lib.jobs import visit_products
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partition_work import CONTEXT_TAG, PROPOSAL_TAG, REPROCESSING_TAG
from roman_assets.defs.lib.partitions import is_exposure, visit_of, visit_partitions
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.retries import record_failed_runs, retry_key
from roman_assets.defs.lib.specs import VISIT_REFERENCES
from roman_assets.defs.reprocessing.staleness import first_version
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import CLOCK_START, DEADLINES, Deadline
from roman_assets.products.kind import Level, Step
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.observation import VisitId
from roman_assets.products.priority import PRIORITY_TAG, REPROCESSING_PRIORITY, run_priority
from roman_assets.products.retry import FailedRuns
from roman_assets.products.visit_policy import (
    MISSING,
    VisitDecision,
    VisitProgress,
    decide,
    waits_until,
)
from roman_assets.records.record import Cause
from roman_assets.settings.automation_settings import visit_reserve

if TYPE_CHECKING:
    from roman_assets.mosaic.manifest import VisitManifest
    from roman_assets.registry.registry import Registry
    from roman_assets.registry.search.generations import RegisteredProduct

VISITS_PER_TICK = 200
"""Largest number of visits compared in one tick: changed ones first, the others in turns."""

RUNS_PER_TICK = 100
"""Largest number of visits requested at once, the most urgent first."""

MEASURED_OVER = timedelta(days=7)
"""The reserve follows the computation times of visits made within this time."""

_STANDING = frozenset({State.CURRENT, State.SUPERSEDED, State.REMOVED})
"""States of coadds that a visit has, or had until a release came in their place (R13)."""

_NOT_KNOWN = "its planned exposures"
_WANTED = (VisitDecision.MAKE, VisitDecision.MAKE_PARTIAL)


@dataclass(frozen=True)
class Approval:
    """Approval to reprocess a visit (R15).

    Parameters
    ----------
    proposal_id
        Which one.
    context
        The CRDS context that was approved, None for that of the moment.
    """

    proposal_id: str
    context: str | None


@dataclass(frozen=True)
class VisitState:
    """A visit as it is and as its L3 were made.

    Parameters
    ----------
    manifest
        Its L2 images now, and what is missing.
    made_from
        Names and hashes of the L2 images its L3 were made from.
    made_without
        What was missing when its current L3 were made, as each of them says.
    made
        When its L3 were last published (UTC), None if they never were.
    deadline
        Of L3.
    approval
        The approved proposal by which its L2 are reprocessed, and its L3 not yet.
    released
        Names of L2 images that a data release reprocessed.
    closed
        Whether a data release has superseded all of its L3, which may be removed by now.
    failed
        Its runs that have failed for passing faults, None if the last one has not.
    """

    manifest: VisitManifest
    made_from: frozenset[tuple[str, str]] = frozenset()
    made_without: frozenset[tuple[str, ...]] = frozenset()
    made: datetime | None = None
    deadline: Deadline = DEADLINES[Level.L3]
    approval: Approval | None = None
    released: frozenset[str] = frozenset()
    closed: bool = False
    failed: FailedRuns | None = None

    @property
    def by_soc(self) -> bool:
        """Whether the SOC makes anything of the visit (R12)."""
        return bool(self.manifest.kinds)

    @property
    def up_to_date(self) -> bool:
        """Whether the L3 are made from just these images and marked with just what is missing.

        What a data release reprocesses is for its own L3 (R7): prompt L3 do not follow it, nor any
        new L2 of an old image once the release has superseded them (R13).
        """
        if self.failed is not None and self.failed.partial and not self.closed:
            return False
        members = {(member.name, member.sha256) for member in self.manifest.members}
        if self.closed and {name for name, _ in members} < {name for name, _ in self.made_from}:
            # an image was graded bad since: what a release has superseded is not made without it
            return True
        if self.closed or self.released:
            members, made_from = (
                self._without_releases(members),
                self._without_releases(self.made_from),
            )
        else:
            made_from = set(self.made_from)
        return members == made_from and self.made_without == {self.manifest.missing}

    def _without_releases(self, images: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return images with the contents that count: of what a release concerns, the name does."""
        return {
            (name, "" if self.closed or name in self.released else sha256)
            for name, sha256 in images
        }

    @property
    def due(self) -> datetime | None:
        """When its L3 are due (UTC), None while no execution time is known."""
        deadline = self.deadline
        start = self.manifest.executed.get(CLOCK_START[deadline.origin])
        return None if start is None else deadline.due(start)

    def progress(self, *, at_work: bool) -> VisitProgress:
        """Return the progress of the visit, for the policy."""
        manifest = self.manifest
        return VisitProgress(
            inputs=len(manifest.members),
            awaited=(_NOT_KNOWN,) if manifest.nexposures is None else manifest.awaited,
            at_work=at_work,
            up_to_date=self.up_to_date,
            made=self.made,
            due=self.due,
        )

    @property
    def run_key(self) -> str:
        """Names the wanted state: a run is requested once for each, and for each retry."""
        return retry_key(f"{self.manifest.visit}:{self.manifest.digest}", self.failed)


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
        reserve = visit_reserve()(registry.computation_times(Step.VISIT, now - MEASURED_OVER))
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


def visit_states(
    root: DataRoot, registry: Registry, visits: Iterable[VisitId]
) -> tuple[list[VisitState], Mapping[VisitId, BadInputError]]:
    """Look visits up in the registry; return their states, and why others have none."""
    from roman_assets.mosaic.manifest import listed_visits
    from roman_assets.settings.deadline_settings import deadlines_of

    wanted = list(visits)
    if not wanted:
        return [], {}
    listed = listed_visits(root, registry, wanted)
    made: dict[VisitId, list[RegisteredProduct]] = {}
    keys = list(map(str, wanted))
    coadds = registry.find(visit=keys, kind="coadd", release=PROMPT_RELEASE, overwritten=True)
    for generations in registry.generations(coadds["name"]).values():
        entry = generations[-1]
        stands = entry.state in _STANDING or entry.is_withdrawn_for_good
        if stands and (visit := entry.product_name.visit) is not None:
            made.setdefault(visit, []).append(entry)
    released = registry.find(visit=keys, kind="cal")[["name", "data_release"]].dropna()["name"]
    deadline = deadlines_of(root)[Level.L3]
    approvals = registry.approvals_of_visits(wanted)
    failed = registry.failed_runs(Step.VISIT, keys)
    states = [
        visit_state(
            manifest,
            made.get(visit, ()),
            deadline,
            approvals.get(str(visit)),
            frozenset(name for name in released if name.startswith(f"{visit}_")),
            failed.get(str(visit)),
        )
        for visit, manifest in listed.manifests.items()
    ]
    return states, listed.faults


def visit_state(
    manifest: VisitManifest,
    coadds: Iterable[RegisteredProduct],
    deadline: Deadline,
    approved: Mapping[str, Any] | None = None,
    released: frozenset[str] = frozenset(),
    failed: FailedRuns | None = None,
) -> VisitState:
    """Compare a visit with its coadds, and with what is approved or released."""
    made = list(coadds)
    first = min((entry.committed_at for entry in made), default=None)
    due_again = approved is not None and first is not None and first < approved["decided_at"]
    return VisitState(
        manifest,
        frozenset((item.name, item.sha256) for entry in made for item in entry.inputs),
        frozenset(tuple(entry.metadata.get(MISSING, ())) for entry in made),
        max((entry.committed_at for entry in made), default=None),
        deadline,
        _approval(approved) if approved is not None and due_again else None,
        released,
        bool(made) and all(entry.state is not State.CURRENT for entry in made),
        failed,
    )


def _approval(row: Mapping[str, Any]) -> Approval:
    context = row["value"] if row["cause"] == Cause.CONTEXT else None
    return Approval(row["proposal_id"], context)


@dg.sensor(
    job=visit_products,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes L3 and L4 of a visit when its L2 are in or its deadline nears, and again "
    "when they change.",
)
def visit_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for every visit whose L3 are to be made from its present L2."""
    with memory.look(context, VisitWatch, installation.root) as watch:
        wanted = watch.wanted(context.instance, datetime.now(UTC))
        for fault in watch.faults.values():
            context.log.warning(str(fault))
    if not wanted:
        return dg.SkipReason(f"{watch.waiting} visits wait for exposures, runs or their deadline")
    return dg.SensorResult(
        run_requests=[run_request(state) for state in wanted],
        dynamic_partitions_requests=[
            visit_partitions.build_add_request([str(state.manifest.visit) for state in wanted])
        ],
        asset_events=[
            first_version(VISIT_REFERENCES, str(state.manifest.visit))
            for state in wanted
            if state.made is None
        ],
    )


def run_request(state: VisitState) -> dg.RunRequest:
    """Ask for the products of a visit, once for each state of its L2."""
    manifest = state.manifest
    tags: Mapping[str, str] = {
        # said here, Dagster need not look for it among all keys
        PARTITION_TAG: str(manifest.visit),
        PRIORITY_TAG: str(run_priority(state.due)),
        "roman_assets/survey": str(manifest.survey),
        "roman_assets/exposures": str(len(manifest.exposures)),
        "roman_assets/missing": str(len(manifest.missing)),
        **(approval_tags(state.approval) if state.approval else {}),
    }
    return dg.RunRequest(run_key=state.run_key, partition_key=str(manifest.visit), tags=dict(tags))


def approval_tags(approval: Approval) -> dict[str, str]:
    """Return the tags of a run for a proposal: its id, its cause, lowest priority (R15)."""
    fixed = {CONTEXT_TAG: approval.context} if approval.context else {}
    return {
        PROPOSAL_TAG: approval.proposal_id,
        REPROCESSING_TAG: "proposal",
        PRIORITY_TAG: str(REPROCESSING_PRIORITY),
        **fixed,
    }
