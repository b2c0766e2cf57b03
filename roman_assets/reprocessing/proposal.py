"""The SOC's gate: proposals to reprocess early, and what a person decides (R15).

Proposals and decisions are commit records: nothing is reprocessed before there is an approval, with
its author, among them. The first decision about a proposal counts, and no other is accepted.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    WHOLE_ARCHIVE,
    Cause,
    Change,
    CommitRecord,
    Decision,
    Proposal,
    Statement,
    Verdict,
)
from roman_assets.references.context import configure_crds, operational_context
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.reprocessing.affected import AffectedProducts
from roman_assets.reprocessing.change import choose_images
from roman_assets.reprocessing.impact import Impact, impact_of
from roman_assets.settings.coadd_settings import FILE_NAME as COADD_SETTINGS
from roman_assets.settings.coadd_settings import prompt_pixel_scale
from roman_assets.software import installed_version

_MOST_NAMED = 3


class ProposalState(StrEnum):
    """What has become of a proposal."""

    OPEN = "open"
    REJECTED = "rejected"
    APPROVED = "approved"
    """Something of it is still to be reprocessed."""
    DONE = "done"


@dataclass(frozen=True)
class DecidedProposal:
    """A proposal with what was decided.

    Parameters
    ----------
    proposal
        What was proposed.
    proposed_at
        When, UTC.
    decision
        The decision that counts, None while it is open.
    decided_at
        When, UTC; None likewise.
    """

    proposal: Proposal
    proposed_at: datetime
    decision: Decision | None = None
    decided_at: datetime | None = None

    @property
    def context(self) -> str | None:
        """The CRDS context that its products are made with, None for that of the moment."""
        change = self.proposal.change
        return change.value if change.cause is Cause.CONTEXT else None

    @property
    def is_approved(self) -> bool:
        """Whether it may be carried out."""
        return self.decision is not None and self.decision.verdict is Verdict.APPROVED


@dataclass(frozen=True)
class ExposureWork:
    """What an approved proposal wants of an exposure.

    Parameters
    ----------
    context
        The CRDS context to use, None for that of the moment.
    format_again
        Whether L1 is reprocessed.
    format_same
        Whether so even where it would be made of the same, by the same software.
    file_sets
        The file sets to calibrate, None for all that are not made as they would be made now.
    """

    context: str | None
    format_again: bool
    format_same: bool
    file_sets: frozenset[str] | None


@dataclass(frozen=True)
class Progress:
    """How far an approved proposal is.

    Parameters
    ----------
    exposures, visits
        What is still to be reprocessed.
    of_exposures, of_visits
        The numbers that were proposed.
    """

    exposures: frozenset[str]
    visits: frozenset[str]
    of_exposures: int
    of_visits: int

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.exposures and not self.visits


def propose(
    root: DataRoot, impact: Impact, *, author: str, reason: str, clock: Clock = utc_now
) -> Proposal:
    """Put a proposal on record, for what its impact names.

    Parameters
    ----------
    root
        The installation.
    impact
        What was found (`roman_assets.reprocessing.impact.impact_of`).
    author, reason
        Who proposes it, and why.
    clock
        Gives the time.

    Raises
    ------
    BadInputError
        If nothing would change, or author or reason is empty.
    PassingFaultError
        If the disk is full.
    """
    _require_said(author=author, reason=reason)
    if impact.products.empty:
        raise BadInputError(
            str(impact.change), "products", "nothing would change", "there is nothing to propose"
        )
    proposal = Proposal(
        proposal_id=uuid.uuid4().hex[:12],
        change=impact.change,
        author=author,
        reason=reason,
        exposures=impact.exposures,
        visits=impact.visits,
        impact=impact.summary(),
    )
    _record(root, clock, statement=Statement.PROPOSAL, proposal=proposal)
    Engine(root).fold()
    return proposal


def decide(
    root: DataRoot,
    proposal_id: str,
    verdict: Verdict,
    *,
    author: str,
    reason: str,
    despite_changes: bool = False,
    clock: Clock = utc_now,
) -> Decision:
    """Put on record what a person decides about a proposal, once (R15).

    Parameters
    ----------
    root
        The installation.
    proposal_id
        Which one.
    verdict
        An approval starts the reprocessing; a rejection is final.
    author, reason
        Who decides, and why.
    despite_changes
        Approve even if the impact has changed since the proposal.
    clock
        Gives the time.

    Raises
    ------
    BadInputError
        If there is no such proposal, if it is decided, if author or reason is empty, or if the
        situation has changed since; nothing is recorded then.
    PassingFaultError
        If the disk is full.
    """
    _require_said(author=author, reason=reason)
    _require_open(proposal_of(root, proposal_id))
    if verdict is Verdict.APPROVED and not despite_changes:
        _require_unchanged(root, proposal_of(root, proposal_id).proposal)
    decision = Decision(proposal_id=proposal_id, verdict=verdict, author=author, reason=reason)
    # Under the lock of the fold, so that of two at once the second sees what the first decided.
    with Engine(root).folded(), Registry(root) as registry:
        _require_open(_proposal_in(registry, proposal_id))
        _record(root, clock, statement=Statement.DECISION, decision=decision)
    Engine(root).fold()
    return decision


def proposals(root: DataRoot) -> tuple[DecidedProposal, ...]:
    """Return all proposals with what was decided, in the order in which they were made."""
    Engine(root).fold()
    with Registry(root) as registry:
        return tuple(map(_decided, registry.decisions.proposals()))


def proposal_of(root: DataRoot, proposal_id: str) -> DecidedProposal:
    """Return one proposal.

    Raises
    ------
    BadInputError
        If there is none of that name.
    """
    Engine(root).fold()
    with Registry(root) as registry:
        return _proposal_in(registry, proposal_id)


def _proposal_in(registry: Registry, proposal_id: str) -> DecidedProposal:
    for row in registry.decisions.proposals():
        if row["proposal_id"] == proposal_id:
            return _decided(row)
    raise BadInputError(
        f"proposal {proposal_id}",
        "id",
        "there is no such proposal",
        "see `roman-assets proposals` for those there are",
    )


def approved_proposal(root: DataRoot, proposal_id: str) -> DecidedProposal:
    """Return a proposal that may be carried out (R15).

    Raises
    ------
    BadInputError
        If there is none of that name, or it is not approved.
    """
    found = proposal_of(root, proposal_id)
    if not found.is_approved:
        raise BadInputError(
            f"proposal {proposal_id}",
            "decision",
            "it is not approved",
            f"let a person decide: roman-assets approve {proposal_id} --by NAME --reason TEXT",
        )
    return found


def exposure_to_reprocess(root: DataRoot, proposal_id: str, exposure: str) -> ExposureWork:
    """Return the reprocessing still to be done of an exposure, by a run of an approved proposal.

    Raises
    ------
    BadInputError
        If the proposal is not approved, or another version of a package is installed than was
        approved.
    """
    decided = approved_proposal(root, proposal_id)
    change = decided.proposal.change
    if change.cause is Cause.SOFTWARE:
        _require_installed(proposal_id, change.value)
    with Registry(root) as registry, registry.snapshot.connection() as connection:
        affected = AffectedProducts(connection, [exposure], decided.decided_at)
        choose_images(root, change, affected)
        products = affected.products()
    of_step = products.groupby("step")["file_set"].agg(frozenset)
    formatted = of_step.get(Step.FORMATTING.value, frozenset())
    return ExposureWork(
        context=decided.context,
        format_again=bool(formatted),
        format_same=bool(formatted) and change.cause in (Cause.LEVEL0, Cause.DATA),
        file_sets=of_step.get(Step.EXPOSURE.value, frozenset())
        if change.cause in (Cause.CONTEXT, Cause.SOFTWARE)
        else None,
    )


def require_as_approved(root: DataRoot, proposal_id: str) -> None:
    """Refuse to make a visit for a proposal that would come out otherwise than approved.

    Raises
    ------
    BadInputError
        If the proposal is not approved, or another pixel scale is in force than was approved.
    """
    change = approved_proposal(root, proposal_id).proposal.change
    if change.cause is not Cause.PIXEL_SCALE:
        return
    if (scale := prompt_pixel_scale(root)) != change.value:
        raise BadInputError(
            f"proposal {proposal_id}",
            "pixel scale",
            f"{change.value} was approved, {scale} is in force",
            f'write prompt_visit = "{change.value}" into {root.path / COADD_SETTINGS}, or propose '
            "anew",
        )


def changes_since(root: DataRoot, proposal: Proposal) -> list[str]:
    """Return how the situation has changed since the proposal, for people."""
    changes = []
    if proposal.change.cause is Cause.CONTEXT:
        configure_crds(root)
        operational = operational_context()
        if operational != proposal.change.value:
            changes.append(f"the operational context is {operational}")
    if proposal.change.cause is Cause.PIXEL_SCALE:
        scale = prompt_pixel_scale(root)
        if scale != proposal.change.value:
            changes.append(f"the pixel scale in force is {scale}")
    impact = impact_of(root, proposal.change)
    for what, then, now in (
        ("exposures", proposal.exposures, impact.exposures),
        ("visits", proposal.visits, impact.visits),
    ):
        changes += _differences(what, set(then), set(now))
    return changes


def progress(root: DataRoot, decided: DecidedProposal) -> Progress:
    """Return what of an approved proposal is still to be reprocessed.

    What was made after the decision is done: with what was approved, or with what came later. So a
    proposal that is done stays so.
    """
    proposal = decided.proposal
    with Registry(root) as registry, registry.snapshot.connection() as connection:
        affected = AffectedProducts(
            connection, [*proposal.exposures, *proposal.visits], decided.decided_at
        )
        choose_images(root, proposal.change, affected)
        products = affected.products()
        old = affected.visits_not_made_since(proposal.visits, decided.decided_at)
    return Progress(
        exposures=frozenset(products["exposure"].dropna()),
        visits=frozenset(products[products["step"] == Step.VISIT]["visit"]) | old,
        of_exposures=len(proposal.exposures),
        of_visits=len(proposal.visits),
    )


def state_of(root: DataRoot, decided: DecidedProposal) -> ProposalState:
    """Return what has become of a proposal."""
    if decided.decision is None:
        return ProposalState.OPEN
    if not decided.is_approved:
        return ProposalState.REJECTED
    return ProposalState.DONE if progress(root, decided).is_done else ProposalState.APPROVED


def _require_said(**fields: str) -> None:
    for field, text in fields.items():
        if not text.strip():
            raise BadInputError("proposal", field, "it is empty", f"say the {field}")


def _require_installed(proposal_id: str, software: str) -> None:
    package, _, approved = software.partition("=")
    installed = installed_version(package) or "none"
    if installed != approved:
        raise BadInputError(
            f"proposal {proposal_id}",
            package,
            f"{approved} was approved, {installed} is installed",
            f"install {package}=={approved}, or propose anew",
        )


def _require_open(found: DecidedProposal) -> None:
    if found.decision is not None:
        raise BadInputError(
            f"proposal {found.proposal.proposal_id}",
            "decision",
            f"{found.decision.author} {found.decision.verdict} it on "
            f"{found.decided_at:%Y-%m-%d %H:%M:%S} UTC: {found.decision.reason}",
            "a decision stands; propose anew if something else is wanted",
        )


def _require_unchanged(root: DataRoot, proposal: Proposal) -> None:
    if changes := changes_since(root, proposal):
        raise BadInputError(
            f"proposal {proposal.proposal_id}",
            "situation",
            f"it has changed since: {'; '.join(changes)}",
            "propose anew, or approve it with --despite-changes",
        )


def _differences(what: str, then: set[str], now: set[str]) -> list[str]:
    told = []
    for names, verb in ((now - then, "more are"), (then - now, "are no longer")):
        if names:
            dots = " ..." if len(names) > _MOST_NAMED else ""
            listed = ", ".join(sorted(names)[:_MOST_NAMED])
            told.append(f"{len(names)} {what} {verb} affected ({listed}{dots})")
    return told


def _record(root: DataRoot, clock: Clock, **content: Any) -> None:
    Journal(root).write(
        CommitRecord(step=Step.UPKEEP, partition=WHOLE_ARCHIVE, committed_at=clock(), **content)
    )


def _decided(row: Mapping[str, Any]) -> DecidedProposal:
    proposal = Proposal(
        proposal_id=row["proposal_id"],
        change=Change(cause=row["cause"], value=row["value"]),
        author=row["author"],
        reason=row["reason"],
        exposures=tuple(row["exposures"] or ()),
        visits=tuple(row["visits"] or ()),
        impact=json.loads(row["impact"] or "{}"),
    )
    if row["verdict"] is None:
        return DecidedProposal(proposal, row["proposed_at"])
    decision = Decision(
        proposal_id=row["proposal_id"],
        verdict=row["verdict"],
        author=row["decided_by"],
        reason=row["decision_reason"],
    )
    return DecidedProposal(proposal, row["proposed_at"], decision, row["decided_at"])
