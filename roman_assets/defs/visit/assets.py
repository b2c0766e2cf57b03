"""The assets of a visit: the manifest of its L2, then VISIT L3 and its L4 (R9, R10)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.exposure.assets import ROMANCAL_POOL
from roman_assets.defs.lib.completeness_check import completeness_spec
from roman_assets.defs.lib.file_backed_check import files_only_spec
from roman_assets.defs.lib.in_time_check import in_time_specs
from roman_assets.defs.lib.materialization_metadata import StepReport, missing_of
from roman_assets.defs.lib.partition_work import (
    BACKFILL_POLICY,
    RETRY_POLICY,
    Materialized,
    PartitionOutcome,
    StepEvent,
    fixed_context,
    is_routine,
    require_as_approved,
    run_of,
    step_events,
)
from roman_assets.defs.lib.partitions import visit_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import VISIT_MANIFEST, product_specs, visit_manifest_spec
from roman_assets.defs.lib.step_outcome import outcome_of
from roman_assets.defs.visit.checks import whole_visit, whole_visit_spec
from roman_assets.products.kind import Step
from roman_assets.products.observation import VisitId

if TYPE_CHECKING:
    from roman_assets.mosaic.manifest import VisitManifest


@dg.multi_asset(
    name="list_visit",
    specs=[visit_manifest_spec()],
    partitions_def=visit_partitions,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
)
def manifest(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[StepEvent]:
    """List the L2 images of a visit; the content of the list is its data version."""
    from roman_assets.mosaic.manifest import visit_manifest

    root = installation.root

    def work(key: str) -> PartitionOutcome:
        return PartitionOutcome({VISIT_MANIFEST: listed(visit_manifest(root, VisitId.parse(key)))})

    yield from step_events(context, work)


def listed(manifest: "VisitManifest") -> Materialized:
    """Return the materialization of a manifest."""
    return Materialized(
        {
            "complete": manifest.complete,
            "missing": dg.MetadataValue.json(list(manifest.missing)),
            "status": "not known" if manifest.status is None else manifest.status.value,
            "exposures": len(manifest.exposures),
            "planned_exposures": manifest.nexposures,
            "images": len(manifest.members),
            "members": dg.MetadataValue.json([member.name for member in manifest.members]),
        },
        dg.DataVersion(manifest.digest),
    )


@dg.multi_asset(
    name="mosaic_visit",
    specs=product_specs(Step.VISIT),
    check_specs=[
        completeness_spec(Step.VISIT),
        *in_time_specs(Step.VISIT),
        whole_visit_spec(),
        files_only_spec(Step.VISIT),
    ],
    partitions_def=visit_partitions,
    can_subset=True,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    pool=ROMANCAL_POOL,
)
def level3(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[StepEvent]:
    """Co-add a visit on every skycell it touches; what the SSC makes is left out (R12).

    Runs that sensors ask for leave coadds of the same L2 as they are, unless a proposal was
    approved (R15).
    """
    from roman_assets.mosaic.visit import mosaic_visit

    root = installation.root

    def work(key: str) -> PartitionOutcome:
        require_as_approved(context, root)
        result = mosaic_visit(
            root,
            VisitId.parse(key),
            context=fixed_context(context),
            routine=is_routine(context),
            workers=installation.workers,
            run=run_of(context),
        )
        return outcome_of(root, Step.VISIT, key, result, extra_checks=_wholeness)

    yield from step_events(context, work)


def _wholeness(report: StepReport) -> list[dg.AssetCheckResult]:
    coadds = report.products.get("coadd", ())
    return [whole_visit(missing_of(coadds))] if coadds else []
