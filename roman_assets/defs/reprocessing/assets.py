"""The asset that shows proposals to reprocess, and the job by which a person decides."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import CALIBRATION_REFERENCES, OWNERS
from roman_assets.records.record import Verdict

if TYPE_CHECKING:
    from roman_assets.reprocessing.proposal import DecidedProposal, Progress

REPROCESSING_PROPOSALS = dg.AssetKey("reprocessing_proposals")

_MOST_SHOWN = 30
"""Decided proposals, the newest; all open ones are shown."""


def proposals_spec() -> dg.AssetSpec:
    """Return the asset whose metadata show what is proposed, with its impact, and how far it is."""
    return dg.AssetSpec(
        REPROCESSING_PROPOSALS,
        description=(
            "Proposals to reprocess L1 or L2 early, each with its impact: products, volume, "
            "computation, deadlines, visits (R15). Decide with the job `decide_proposal`, or with "
            "`roman-assets approve` and `reject`. Nothing is reprocessed before."
        ),
        deps=[CALIBRATION_REFERENCES],
        group_name="operations",
        kinds={"duckdb"},
        owners=OWNERS,
    )


class ProposalDecision(dg.Config):
    """What a person decides about a proposal.

    Parameters
    ----------
    proposal
        Its id.
    verdict
        ``approved`` or ``rejected``.
    by, reason
        Who decides, and why; both stay on record.
    despite_changes
        Approve although the situation has changed since it was proposed.
    """

    proposal: str
    verdict: Verdict
    by: str
    reason: str
    despite_changes: bool = False


@dg.op(description="Puts on record what a person decides about a proposal; once for each.")
def put_decision_on_record(
    context: dg.OpExecutionContext,
    config: ProposalDecision,
    installation: dg.ResourceParam[Installation],
) -> None:
    """Decide as `roman-assets approve` and `reject` do (R15)."""
    from roman_assets.defs.lib.partition_work import as_failure
    from roman_assets.errors import BadInputError
    from roman_assets.reprocessing.proposal import decide

    try:
        decision = decide(
            installation.root,
            config.proposal,
            config.verdict,
            author=config.by,
            reason=config.reason,
            despite_changes=config.despite_changes,
        )
    except BadInputError as error:
        raise as_failure(error) from error
    context.log.info(f"{config.proposal} is {decision.verdict} by {decision.author}")
    context.add_output_metadata(
        {"verdict": decision.verdict.value, "by": decision.author, "reason": decision.reason}
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="A person approves or rejects a proposal to reprocess products (R15).",
)
def decide_proposal() -> None:
    """Put one decision on record."""
    put_decision_on_record()


def proposals_markdown(shown: "Sequence[tuple[DecidedProposal, Progress | None]]") -> str:
    """Return proposals for people: the open ones with their impact first, then the others."""
    open_ones = [one for one, _ in shown if one.decision is None]
    others = [pair for pair in shown if pair[0].decision is not None][-_MOST_SHOWN:]
    parts = [*(_open(one) for one in open_ones), *_decided_table(others)]
    return "\n\n".join(parts) or "Nothing has been proposed."


def _open(decided: "DecidedProposal") -> str:
    from roman_assets.reprocessing.impact_text import impact_lines

    proposal = decided.proposal
    rows = "\n".join(f"| {about} | {text} |" for about, text in impact_lines(proposal.impact))
    return (
        f"### {proposal.proposal_id} is open\n"
        f"Proposed by {proposal.author} on {decided.proposed_at:%Y-%m-%d %H:%M} UTC: "
        f"{_cell(proposal.reason)}\n\n| | |\n|---|---|\n{rows}\n\n"
        f"To decide, launch the job `decide_proposal` with\n\n"
        "```yaml\nops:\n  put_decision_on_record:\n    config:\n"
        f"      proposal: {proposal.proposal_id}\n      verdict: APPROVED  # or REJECTED\n"
        "      by: your name\n      reason: why\n```"
    )


def _decided_table(shown: "Sequence[tuple[DecidedProposal, Progress | None]]") -> Iterator[str]:
    if not shown:
        return
    rows = "\n".join(_row(one, left) for one, left in reversed(shown))
    yield (
        "| proposal | what | proposed by | decision | exposures | visits |\n"
        f"|---|---|---|---|---|---|\n{rows}"
    )


def _row(decided: "DecidedProposal", left: "Progress | None") -> str:
    proposal, decision = decided.proposal, decided.decision
    assert decision is not None
    exposures, visits = len(proposal.exposures), len(proposal.visits)
    done = (
        (f"0 of {exposures}", f"0 of {visits}")
        if left is None
        else (
            f"{exposures - len(left.exposures)} of {exposures}",
            f"{visits - len(left.visits)} of {visits}",
        )
    )
    return (
        f"| {proposal.proposal_id} | {_cell(str(proposal.change))} | "
        f"{_cell(f'{proposal.author}: {proposal.reason}')} | "
        f"{_cell(f'{decision.verdict} by {decision.author}: {decision.reason}')} | "
        f"{' | '.join(done)} |"
    )


def _cell(text: str) -> str:
    """Return what a person wrote so that it stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")
