"""The assets of an exposure: L1 from its packets, then L2, the L1 supplement and L4."""

from collections.abc import Iterator

import dagster as dg

from roman_assets.defs.lib.astrometry_check import wcs_fit, wcs_fit_spec
from roman_assets.defs.lib.completeness_check import completeness_spec
from roman_assets.defs.lib.file_backed_check import files_only_spec
from roman_assets.defs.lib.in_time_check import in_time_specs
from roman_assets.defs.lib.materialization_metadata import StepReport, pointings
from roman_assets.defs.lib.partition_work import (
    BACKFILL_POLICY,
    RELEASE_TAG,
    RETRY_POLICY,
    PartitionOutcome,
    StepEvent,
    fixed_context,
    is_routine,
    reprocessing_of,
    run_of,
    step_events,
)
from roman_assets.defs.lib.partitions import exposure_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import product_specs
from roman_assets.defs.lib.step_outcome import outcome_of
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId

ROMANCAL_POOL = "romancal"
"""Steps of this pool use all cores, so `dagster.yaml` admits one at a time on a machine."""


@dg.multi_asset(
    name="format_exposure",
    specs=product_specs(Step.FORMATTING),
    check_specs=[completeness_spec(Step.FORMATTING), *in_time_specs(Step.FORMATTING)],
    partitions_def=exposure_partitions,
    can_subset=True,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
)
def level1(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[StepEvent]:
    """Format L1 from the packets and ancillary data of an exposure (R2, R3).

    A person or a backfill reprocesses L1, with the definitive ephemeris once that is in;
    runs that sensors ask for leave L1 of the same packets as it is (R8).
    """
    from roman_assets.formatting.formatting_step import format_exposure

    root = installation.root

    def work(key: str) -> PartitionOutcome:
        approved = reprocessing_of(context, root, key)
        result = format_exposure(
            root,
            ExposureId.parse(key),
            run=run_of(context),
            force=approved is not None and approved.format_same,
            routine=is_routine(context) if approved is None else not approved.format_again,
        )
        return outcome_of(root, Step.FORMATTING, key, result)

    yield from step_events(context, work)


@dg.multi_asset(
    name="calibrate_exposure",
    specs=product_specs(Step.EXPOSURE),
    check_specs=[
        completeness_spec(Step.EXPOSURE),
        *in_time_specs(Step.EXPOSURE),
        wcs_fit_spec(),
        files_only_spec(Step.EXPOSURE),
    ],
    partitions_def=exposure_partitions,
    can_subset=True,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    pool=ROMANCAL_POOL,
)
def level2(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[StepEvent]:
    """Calibrate every detector of an exposure with romancal (R4, R5, R10).

    People, backfills and approved proposals reprocess L2 with the best context and software. Runs
    that sensors request keep existing L2 of the same L1 (R7, R15).
    """
    from roman_assets.calibration.exposure import calibrate_exposure
    from roman_assets.releases.run import calibrate_for_release

    root = installation.root
    release = context.run.tags.get(RELEASE_TAG)

    def work(key: str) -> PartitionOutcome:
        exposure, run, workers = ExposureId.parse(key), run_of(context), installation.workers
        if release is not None:
            result = calibrate_for_release(root, release, exposure, workers=workers, run=run)
        else:
            approved = reprocessing_of(context, root, key)
            result = calibrate_exposure(
                root,
                exposure,
                context=approved.context if approved else fixed_context(context),
                only=approved.file_sets if approved else None,
                routine=is_routine(context),
                workers=workers,
                run=run,
            )
        return outcome_of(root, Step.EXPOSURE, key, result, extra_checks=_alignment)

    yield from step_events(context, work)


def _alignment(report: StepReport) -> list[dg.AssetCheckResult]:
    return [wcs_fit(pointings(report.products.get("cal", ())))]
