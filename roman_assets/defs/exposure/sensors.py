"""The sensor that makes L1, L2 and L4 of an exposure as its packets come in (R2, R5)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.exposure.exposure_state import ExposureState
from roman_assets.defs.exposure.landing_watch import LandingWatch
from roman_assets.defs.lib.in_progress import PARTITION_TAG
from roman_assets.defs.lib.jobs import exposure_products
from roman_assets.defs.lib.memory import SensorMemory
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import LEVEL0
from roman_assets.defs.reprocessing.staleness import EXPOSURE_INPUTS, first_version
from roman_assets.products.priority import PRIORITY_TAG, run_priority

if TYPE_CHECKING:
    from roman_assets.formatting.receipt import Receipt
SCAN_BUDGET = timedelta(seconds=20)
"""A tick reads new packets for this long; the next one goes on where it stopped."""


@dg.sensor(
    job=exposure_products,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes L1, L2 and L4 of an exposure, each detector as its own packets are in.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult:
    """Take in what has landed and request a run for every exposure whose L1 are not made of it."""
    now = datetime.now(UTC)
    with memory.look(context, LandingWatch, installation.root) as watch:
        scan = watch.landing.scan(SCAN_BUDGET)
        for case in scan.set_aside:
            context.log.warning(f"set aside: {case}")
        for fault in scan.left:
            context.log.warning(f"left where it is: {fault}")
        changed = watch.look(now)
        watch.record()
        wanted = watch.wanted(context.instance, now)
        for fault in watch.unusable_settings:
            context.log.warning(f"the standard is used in place of {fault}")
        keys = watch.new_partitions(context.instance, changed, wanted, now)
        return dg.SensorResult(
            run_requests=[run_request(state, now) for state in wanted],
            asset_events=[event for state in wanted for event in received_events(state)],
            dynamic_partitions_requests=keys,
            skip_reason=None if wanted else skip_reason(watch, scan.remaining),
        )


def run_request(state: ExposureState, now: datetime) -> dg.RunRequest:
    """Ask for the products of an exposure, once for each content received."""
    receipt = state.receipt
    return dg.RunRequest(
        run_key=state.run_key,
        partition_key=str(receipt.exposure),
        tags={
            # said here, Dagster need not look for it among all keys
            PARTITION_TAG: str(receipt.exposure),
            PRIORITY_TAG: str(run_priority(state.due(now))),
            "roman_assets/survey": str(receipt.survey),
            "roman_assets/optical_element": str(receipt.optical_element),
            "roman_assets/visit": str(receipt.exposure.visit),
        },
    )


def received_events(
    state: ExposureState,
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """Report what of an exposure is in, and at first what it is made with besides."""
    yield level0_event(state.receipt)
    if not state.made.content:
        yield from (first_version(asset, str(state.receipt.exposure)) for asset in EXPOSURE_INPUTS)


def level0_event(receipt: Receipt) -> dg.AssetMaterialization:
    """Report what of an exposure has been received."""
    return dg.AssetMaterialization(
        LEVEL0,
        partition=str(receipt.exposure),
        metadata={
            "origin": receipt.origin.value,
            "survey": str(receipt.survey),
            "optical_element": str(receipt.optical_element),
            "detectors": len(receipt.detectors),
            "missing": dg.MetadataValue.json(list(receipt.missing)),
            **{
                event.value: dg.MetadataValue.timestamp(moment)
                for event, moment in receipt.events.items()
            },
        },
        tags={DATA_VERSION_TAG: receipt.content_version},
    )


def skip_reason(watch: LandingWatch, remaining: int) -> dg.SkipReason:
    """Return what is waited for."""
    if remaining:
        return dg.SkipReason(f"{remaining} files are still to be read")
    if watch.more:
        return dg.SkipReason("more exposures are to be compared with what was made of them")
    if not watch.incomplete:
        return dg.SkipReason("every exposure received has been requested")
    shown = ", ".join(map(str, sorted(watch.incomplete)[:5]))
    dots = " ..." if len(watch.incomplete) > 5 else ""
    return dg.SkipReason(f"{len(watch.incomplete)} exposures wait for packets: {shown}{dots}")
