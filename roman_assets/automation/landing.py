"""The sensor that makes L1, L2 and L4 of an exposure once all of it has been received (R2, R5).

It compares states: what has been received of an exposure now with what its L1 was made from. No
event is remembered, so none can be lost; a delivery that changes the content is formatted again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.assets.partition_work import DATA_VERSION_TAG
from roman_assets.assets.specs import LEVEL0
from roman_assets.automation.in_progress import partitions_in_progress, requested_run_keys
from roman_assets.automation.jobs import exposure_products
from roman_assets.automation.settled import Settled
from roman_assets.data_root import DataRoot
from roman_assets.partitions import exposure_partitions
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId
from roman_assets.resources import Installation

if TYPE_CHECKING:
    from roman_assets.pipelines.formatting.receipt import Receipt
    from roman_assets.registry.registry import RegisteredProduct

SCAN_BUDGET = timedelta(seconds=20)
"""A tick reads new packets for this long; the next one goes on where it stopped."""

RUNS_PER_TICK = 100
"""So many exposures are requested at once, those received first before the others."""


_settled: Settled[ExposureId] = Settled()


@dataclass(frozen=True)
class MadeExposure:
    """What the registry says was made of an exposure.

    Parameters
    ----------
    received
        ``content_version`` of the receipt that its L1 were made from; empty before there are any.
    content
        Changes with every L1 product.
    calibrated
        Whether every L1 ramp has L2 made from it, except those recorded as failures.
    """

    received: str = ""
    content: str = ""
    calibrated: bool = False


@dataclass(frozen=True)
class ExposureState:
    """An exposure as received and as its products were made."""

    receipt: Receipt
    made: MadeExposure

    @property
    def wanted(self) -> bool:
        """Whether all is in and the products are not made from just that."""
        received = self.receipt.content_version
        return self.receipt.complete and not (
            self.made.calibrated and self.made.received == received
        )

    @property
    def run_key(self) -> str:
        """Names the step from the L1 there are to what is wanted: one run is requested for each.

        A failed run that made no L1 is not requested again. A delivery that brings back the
        content of an earlier one is another step, and so is L1 that a lost run left without L2.
        """
        made = self.made.content[:12] or "new"
        return f"{self.receipt.exposure}:{self.receipt.content_version}:{made}"

    @property
    def received_at(self) -> float:
        """When everything was in, seconds since the epoch."""
        return self.receipt.events[ClockEvent.ALL_RECEIVED].timestamp()


@dg.sensor(
    job=exposure_products,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes L1, L2 and L4 of an exposure once all of it has been received.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext, installation: Installation
) -> dg.SensorResult:
    """Take in what has landed and request a run for every exposure whose L1 are not made of it."""
    from roman_assets.pipelines.formatting.landing import LandingArea

    landing = LandingArea(installation.root)
    scan = landing.scan(SCAN_BUDGET)
    for case in scan.set_aside:
        context.log.warning(f"set aside: {case}")
    receipts = landing.receipts()
    wanted = wanted_exposures(context.instance, installation.root, receipts)
    return dg.SensorResult(
        run_requests=[run_request(state) for state in wanted],
        asset_events=[level0_event(state.receipt) for state in wanted],
        dynamic_partitions_requests=new_partitions(context.instance, receipts),
        skip_reason=None if wanted else skip_reason(receipts, scan.remaining),
    )


def wanted_exposures(
    instance: dg.DagsterInstance,
    root: DataRoot,
    receipts: Iterable[Receipt],
    settled: Settled[ExposureId] = _settled,
) -> list[ExposureState]:
    """Find the exposures that are in, not made from what is in, and not requested.

    An exposure waits while a run is at work on it.
    """
    complete = {receipt.exposure: receipt for receipt in receipts if receipt.complete}
    versions = {exposure: receipt.content_version for exposure, receipt in complete.items()}
    busy = partitions_in_progress(instance)
    unsettled = [key for key in settled.unsettled(root, versions) if str(key) not in busy]
    made = made_exposures(root, unsettled)
    states = [ExposureState(complete[key], made.get(key, MadeExposure())) for key in unsettled]
    for state in states:
        if not state.wanted:
            settled.settle(root, state.receipt.exposure, state.receipt.content_version)
    wanted = [state for state in states if state.wanted]
    requested = requested_run_keys(instance, [state.run_key for state in wanted])
    fresh = [state for state in wanted if state.run_key not in requested]
    return sorted(fresh, key=lambda state: state.received_at)[:RUNS_PER_TICK]


def made_exposures(
    root: DataRoot, exposures: Sequence[ExposureId]
) -> dict[ExposureId, MadeExposure]:
    """Look up what was made of exposures; those without L1 are absent."""
    from roman_assets.registry.registry import Registry

    if not exposures:
        return {}
    with Registry(root) as registry:
        names = registry.find(
            exposure=[str(exposure) for exposure in exposures], kind=("uncal", "cal")
        )["name"]
        products: dict[ExposureId, list[RegisteredProduct]] = {}
        for entry in registry.current(names).values():
            if (exposure := entry.product_name.exposure) is not None:
                products.setdefault(exposure, []).append(entry)
        return {
            exposure: made_exposure(entries, registry.failures(str(exposure))["file_set"])
            for exposure, entries in products.items()
        }


def made_exposure(products: Sequence[RegisteredProduct], failed: Iterable[str]) -> MadeExposure:
    """Judge what was made of one exposure.

    Parameters
    ----------
    products
        Its L1 ramps and L2 images.
    failed
        File sets that could not be made at the latest attempt.
    """
    ramps = [entry for entry in products if entry.product_name.kind.name == "uncal"]
    images = [entry for entry in products if entry.product_name.kind.name == "cal"]
    used = {(item.name, item.sha256) for image in images for item in image.inputs}
    without = {
        str(ramp.product_name.file_set) for ramp in ramps if (ramp.name, ramp.sha256) not in used
    }
    versions = {
        item.sha256
        for ramp in ramps
        for item in ramp.inputs
        if item.name == f"{ramp.product_name.exposure}_l0"
    }
    content = "\n".join(f"{ramp.name} {ramp.sha256}" for ramp in ramps)
    return MadeExposure(
        received=versions.pop() if len(versions) == 1 else "",
        content=hashlib.sha256(content.encode()).hexdigest(),
        calibrated=bool(ramps) and without <= set(failed),
    )


def run_request(state: ExposureState) -> dg.RunRequest:
    """Ask for the products of an exposure, once for each content received."""
    receipt = state.receipt
    return dg.RunRequest(
        run_key=state.run_key,
        partition_key=str(receipt.exposure),
        tags={
            "roman_assets/survey": str(receipt.survey),
            "roman_assets/optical_element": str(receipt.optical_element),
            "roman_assets/visit": str(receipt.exposure.visit),
        },
    )


def level0_event(receipt: Receipt) -> dg.AssetMaterialization:
    """Report that all of an exposure has been received."""
    return dg.AssetMaterialization(
        LEVEL0,
        partition=str(receipt.exposure),
        metadata={
            "survey": str(receipt.survey),
            "optical_element": str(receipt.optical_element),
            "detectors": len(receipt.detectors),
            **{
                event.value: dg.MetadataValue.timestamp(moment)
                for event, moment in receipt.events.items()
            },
        },
        tags={DATA_VERSION_TAG: receipt.content_version},
    )


def new_partitions(
    instance: dg.DagsterInstance, receipts: Iterable[Receipt]
) -> list[dg.AddDynamicPartitionsRequest]:
    """Ask for the keys of exposures not known to Dagster yet, whether or not they are complete."""
    known = set(instance.get_dynamic_partitions(str(exposure_partitions.name)))
    new = sorted({str(receipt.exposure) for receipt in receipts} - known)
    return [exposure_partitions.build_add_request(new)] if new else []


def skip_reason(receipts: Iterable[Receipt], remaining: int) -> dg.SkipReason:
    """Say what is waited for."""
    if remaining:
        return dg.SkipReason(f"{remaining} files are still to be read")
    incomplete = [str(receipt.exposure) for receipt in receipts if not receipt.complete]
    if not incomplete:
        return dg.SkipReason("every exposure received has been requested")
    shown = ", ".join(incomplete[:5]) + (" ..." if len(incomplete) > 5 else "")
    return dg.SkipReason(f"{len(incomplete)} exposures are not complete: {shown}")
