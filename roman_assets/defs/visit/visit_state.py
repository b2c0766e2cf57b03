"""A visit as it is and as its L3 were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.retries import retry_key
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import CLOCK_START, DEADLINES, Deadline
from roman_assets.products.kind import Level, Step
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.observation import VisitId
from roman_assets.products.retry import FailedRuns
from roman_assets.products.visit_policy import MISSING, VisitProgress
from roman_assets.records.record import Cause

if TYPE_CHECKING:
    from roman_assets.mosaic.manifest import VisitManifest
    from roman_assets.registry.registry import Registry
    from roman_assets.registry.search.generations import RegisteredProduct


_STANDING = frozenset({State.CURRENT, State.SUPERSEDED, State.REMOVED})
"""States of coadds that a visit has, or had until a release came in their place (R13)."""

_NOT_KNOWN = "its planned exposures"


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
    coadds = registry.products.find(
        visit=keys, kind="coadd", release=PROMPT_RELEASE, overwritten=True
    )
    for generations in registry.generations.of(coadds["name"]).values():
        entry = generations[-1]
        stands = entry.state in _STANDING or entry.is_withdrawn_for_good
        if stands and (visit := entry.product_name.visit) is not None:
            made.setdefault(visit, []).append(entry)
    released = registry.products.find(visit=keys, kind="cal")[["name", "data_release"]].dropna()[
        "name"
    ]
    deadline = deadlines_of(root)[Level.L3]
    approvals = registry.decisions.approvals_of_visits(wanted)
    failed = registry.work.failed_runs(Step.VISIT, keys)
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
