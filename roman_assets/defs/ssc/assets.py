"""The assets that the SSC makes: what it delivers of an exposure or visit is taken in (R12).

So is what it delivers of a unit of a data release (R13).
"""

from collections.abc import Iterator

import dagster as dg

from roman_assets.defs.lib.completeness_check import completeness_spec
from roman_assets.defs.lib.file_backed_check import files_only_spec
from roman_assets.defs.lib.in_time_check import in_time_specs
from roman_assets.defs.lib.partition_work import (
    BACKFILL_POLICY,
    RETRY_POLICY,
    PartitionOutcome,
    StepEvent,
    run_of,
    step_events,
)
from roman_assets.defs.lib.partitions import PARTITIONS
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import product_specs
from roman_assets.defs.lib.step_outcome import outcome_of
from roman_assets.errors import BadInputError
from roman_assets.products.kind import INTAKE_STEPS, RELEASE_DELIVERY_STEPS, Step


def _check_specs(step: Step) -> list[dg.AssetCheckSpec]:
    if step in RELEASE_DELIVERY_STEPS:
        # a release has no prompt deadline, and its files no public name until its publication
        return [completeness_spec(step)]
    return [completeness_spec(step), *in_time_specs(step), files_only_spec(step)]


def _delivered(step: Step) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=f"receive_{step}",
        specs=product_specs(step),
        check_specs=_check_specs(step),
        partitions_def=PARTITIONS[step],
        can_subset=True,
        backfill_policy=BACKFILL_POLICY,
        retry_policy=RETRY_POLICY,
    )
    def receive(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Iterator[StepEvent]:
        """Check what the SSC delivered of a partition, and publish it as a whole or not at all."""
        from roman_assets.ssc.intake import take_in

        root = installation.root

        def work(key: str) -> PartitionOutcome:
            result = take_in(root, step, key, run=run_of(context))
            if not (result.made or result.reused or result.failures):
                raise BadInputError(
                    key, "delivery", "the SSC has delivered nothing of it",
                    "wait for a delivery: it is taken in by itself (docs/ssc.md)",
                )  # fmt: skip
            return outcome_of(root, step, key, result)

        yield from step_events(context, work)

    return receive


DELIVERED: tuple[dg.AssetsDefinition, ...] = tuple(map(_delivered, INTAKE_STEPS))
"""One for each step that takes in deliveries."""
