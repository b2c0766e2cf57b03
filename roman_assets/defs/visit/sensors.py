"""The sensor that makes L3 and L4 of a visit, whole or in part (R9, R10, R12)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from roman_assets.defs.lib.in_progress import PARTITION_TAG
from roman_assets.defs.lib.jobs import visit_products
from roman_assets.defs.lib.memory import SensorMemory
from roman_assets.defs.lib.partition_work import CONTEXT_TAG, PROPOSAL_TAG, REPROCESSING_TAG
from roman_assets.defs.lib.partitions import visit_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import VISIT_REFERENCES
from roman_assets.defs.reprocessing.staleness import first_version
from roman_assets.defs.visit.visit_state import Approval, VisitState
from roman_assets.defs.visit.visit_watch import VisitWatch
from roman_assets.products.priority import PRIORITY_TAG, REPROCESSING_PRIORITY, run_priority


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
