"""The jobs: all products of an exposure in one run, all of a visit in one, what the SSC delivered.

Their steps work in the process of the run: the parallel work is done by romancal's worker pool,
and a process per step would import romancal again and again.
"""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.lib.partitions import PARTITIONS, exposure_partitions, visit_partitions
from roman_assets.defs.lib.specs import VISIT_MANIFEST, asset_keys
from roman_assets.products.kind import INTAKE_STEPS, Step

exposure_products = dg.define_asset_job(
    "exposure_products",
    selection=[*asset_keys(Step.FORMATTING), *asset_keys(Step.EXPOSURE)],
    partitions_def=exposure_partitions,
    executor_def=dg.in_process_executor,
    description="L1, its supplement, L2 and L4 of one exposure from its packets.",
)

visit_products = dg.define_asset_job(
    "visit_products",
    selection=[VISIT_MANIFEST, *asset_keys(Step.VISIT)],
    partitions_def=visit_partitions,
    executor_def=dg.in_process_executor,
    description="VISIT L3 and its L4 from the L2 of one visit.",
)

DELIVERY_JOBS = {
    step: dg.define_asset_job(
        f"{step}_delivery",
        selection=[*asset_keys(step)],
        partitions_def=PARTITIONS[step],
        executor_def=dg.in_process_executor,
        description=(
            "What the SSC delivered of one exposure, visit or unit of a data release (R12)."
        ),
    )
    for step in INTAKE_STEPS
}
"""By the step that takes it in."""
