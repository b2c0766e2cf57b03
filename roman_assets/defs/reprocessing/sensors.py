"""The sensor that lets Dagster carry out what a person has approved (R15), and nothing else.

It compares states: unfinished approved proposals, with the backfills and runs there are. A backfill
bears the id of its proposal, so that it is launched once, whatever becomes of cursors; killed,
Dagster's daemon goes on with it. What failed for a passing fault gets another, numbered, after
growing pauses. `roman_assets.defs.visit.sensors` reprocesses visits when the backfill has done all
their exposures. This sensor requests the visits in which only L3 and L4 change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, takewhile
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.backfill import launch_backfill
from roman_assets.defs.lib.in_progress import PARTITION_TAG
from roman_assets.defs.lib.jobs import visit_products
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.partitions import exposure_partitions, visit_of, visit_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.run_history import WORK_TAG, due_run_keys, keys_to_try_again
from roman_assets.defs.reprocessing.assets import REPROCESSING_PROPOSALS, proposals_markdown
from roman_assets.defs.visit.sensors import approval_tags
from roman_assets.defs.visit.visit_state import Approval
from roman_assets.products.kind import Step
from roman_assets.products.retry import RetryPauses

if TYPE_CHECKING:
    from roman_assets.reprocessing.proposal import DecidedProposal, Progress

RUNS_PER_TICK = 100
"""Largest number of visits requested at once."""

_BACKFILLED = {
    Step.FORMATTING: dg.AssetKey("uncal"),
    Step.EXPOSURE: dg.AssetKey("cal"),
}
"""What a backfill asks for; each step makes all its products with it."""


@dg.sensor(
    job=visit_products,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches a backfill for each approved proposal, and shows how far they are.",
)
def reprocessing_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult:
    """Launch what is approved and was never launched; report what there is."""
    from roman_assets.reprocessing.proposal import proposals
    from roman_assets.settings.retry_settings import retry_pauses_of

    root, instance, now = installation.root, context.instance, datetime.now(UTC)
    pauses = retry_pauses_of(root)
    with memory.look(context, ProposalWatch, root) as watch:
        shown = [(one, left_of(root, one, watch.done)) for one in proposals(root)]
    running = [(one, left) for one, left in shown if left is not None and not left.is_done]
    launched = [
        one.proposal.proposal_id
        for one, left in running
        if left.exposures and launch(context, instance, one, sorted(left.exposures), pauses, now)
    ]
    requests = list(visit_requests(instance, running, pauses, now))[:RUNS_PER_TICK]
    keys = sorted({str(request.partition_key) for request in requests})
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[visit_partitions.build_add_request(keys)] if keys else [],
        asset_events=list(changed_reports(instance, root, shown)),
        skip_reason=None
        if requests
        else dg.SkipReason(
            f"launched {', '.join(launched)}"
            if launched
            else f"{len(running)} approved proposals are under way"
        ),
    )


@dataclass
class ProposalWatch(Remembered):
    """The proposals of an installation that are done, which stay so.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    done: dict[str, Progress] = field(default_factory=dict)


def left_of(root: DataRoot, decided: DecidedProposal, done: dict[str, Progress]) -> Progress | None:
    """Return what is left of a proposal, None of one that is not approved.

    Parameters
    ----------
    root
        The installation.
    decided
        The proposal.
    done
        Those that are done, by id; grows.
    """
    from roman_assets.reprocessing.proposal import progress

    name = decided.proposal.proposal_id
    if not decided.is_approved:
        return None
    if name in done:
        return done[name]
    left = progress(root, decided)
    if left.is_done:
        done[name] = left
    return left


def launch(
    context: dg.SensorEvaluationContext,
    instance: dg.DagsterInstance,
    decided: DecidedProposal,
    exposures: Sequence[str],
    pauses: RetryPauses,
    now: datetime,
) -> bool:
    """Launch a backfill of an approved proposal if it is missing; return whether it was."""
    from roman_assets.reprocessing.change import STEPS

    proposal = decided.proposal
    known = backfills_of(instance, proposal.proposal_id)
    keys = keys_to_try_again(instance, known, exposures, pauses, now) if known else exposures
    if not keys:
        return False
    assert context.repository_def is not None
    launch_backfill(
        instance,
        context.repository_def.asset_graph,
        _backfill_id(proposal.proposal_id, len(known) + 1),
        partitions=exposure_partitions,
        keys=keys,
        assets=[_BACKFILLED[step] for step in STEPS[proposal.change.cause]],
        tags=approval_tags(Approval(proposal.proposal_id, decided.context)),
        title=f"Proposal {proposal.proposal_id}: {proposal.change}",
        description=_why(decided),
    )
    return True


def backfills_of(instance: dg.DagsterInstance, proposal_id: str) -> list[dg.PartitionBackfill]:
    """Return the backfills of a proposal, in the order in which they were launched."""
    found = (instance.get_backfill(_backfill_id(proposal_id, number)) for number in count(1))
    return [backfill for backfill in takewhile(lambda one: one is not None, found) if backfill]


def _backfill_id(proposal_id: str, number: int) -> str:
    return proposal_id if number == 1 else f"{proposal_id}_{number}"


def _why(decided: DecidedProposal) -> str:
    proposal, decision = decided.proposal, decided.decision
    assert decision is not None
    return (
        f"Proposed by {proposal.author}: {proposal.reason}. "
        f"Approved by {decision.author}: {decision.reason}."
    )


def visit_requests(
    instance: dg.DagsterInstance,
    running: Sequence[tuple[DecidedProposal, Progress]],
    pauses: RetryPauses,
    now: datetime,
) -> Iterator[dg.RunRequest]:
    """Request visits without exposures to reprocess, and visits after passing faults."""
    for decided, left in running:
        proposal = decided.proposal
        by_exposures = {str(visit_of(exposure)) for exposure in proposal.exposures}
        wanted = {visit: f"{visit}:{proposal.proposal_id}" for visit in left.visits - by_exposures}
        due = due_run_keys(instance, wanted.values(), pauses, now)
        for visit, work in sorted(wanted.items()):
            if work in due:
                yield dg.RunRequest(
                    run_key=due[work],
                    partition_key=visit,
                    tags={
                        PARTITION_TAG: visit,
                        WORK_TAG: work,
                        **approval_tags(Approval(proposal.proposal_id, decided.context)),
                    },
                )


def changed_reports(
    instance: dg.DagsterInstance,
    root: DataRoot,
    shown: Sequence[tuple[DecidedProposal, Progress | None]],
) -> Iterator[dg.AssetMaterialization]:
    """Report the proposals if they stand otherwise than they were reported last."""
    text = proposals_markdown(shown)
    digest = hashlib.sha256(text.encode()).hexdigest()
    last = instance.get_latest_materialization_event(REPROCESSING_PROPOSALS)
    reported = last and last.asset_materialization and last.asset_materialization.tags
    if (not shown and not last) or (reported and reported.get(DATA_VERSION_TAG) == digest):
        return
    counts = {
        "proposals": len(shown),
        "open": sum(one.decision is None for one, _ in shown),
        "under_way": sum(left is not None and not left.is_done for _, left in shown),
    }
    yield dg.AssetMaterialization(
        REPROCESSING_PROPOSALS,
        metadata={
            **counts,
            "proposals_and_impact": dg.MetadataValue.md(text),
            "open_ids": dg.MetadataValue.json(
                [one.proposal.proposal_id for one, _ in shown if one.decision is None]
            ),
        },
        tags={DATA_VERSION_TAG: digest},
    )
