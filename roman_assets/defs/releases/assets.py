"""The assets of a data release: L3 and L4 of its units, under versioned names (R7, R13)."""

from collections.abc import Iterator

import dagster as dg

from roman_assets.defs.exposure.assets import ROMANCAL_POOL
from roman_assets.defs.lib.completeness_check import completeness_spec
from roman_assets.defs.lib.partition_work import (
    BACKFILL_POLICY,
    RETRY_POLICY,
    PartitionOutcome,
    StepEvent,
    run_of,
    step_events,
)
from roman_assets.defs.lib.partitions import release_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import product_specs
from roman_assets.defs.lib.step_outcome import outcome_of
from roman_assets.products.kind import Step
from roman_assets.products.release_id import parse_unit


@dg.multi_asset(
    name="mosaic_release",
    specs=product_specs(Step.RELEASE),
    check_specs=[completeness_spec(Step.RELEASE)],
    partitions_def=release_partitions,
    can_subset=True,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    pool=ROMANCAL_POOL,
)
def release_level3(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[StepEvent]:
    """Co-add a unit of a data release, for operators until the release is published."""
    from roman_assets.releases.unit import mosaic_release_unit

    root = installation.root

    def work(key: str) -> PartitionOutcome:
        result = mosaic_release_unit(
            root, parse_unit(key), workers=installation.workers, run=run_of(context)
        )
        return outcome_of(root, Step.RELEASE, key, result)

    yield from step_events(context, work)
