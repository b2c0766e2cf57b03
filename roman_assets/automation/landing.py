"""The sensor that makes L1, L2 and L4 of an exposure once all of it has been received (R2, R5).

It compares states: what has been received of an exposure now with what its L1 was made from. No
event is remembered, so none can be lost; a delivery that changes the content is formatted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.assets.partition_work import DATA_VERSION_TAG
from roman_assets.assets.specs import LEVEL0
from roman_assets.automation.in_progress import partitions_in_progress, requested_run_keys
from roman_assets.automation.jobs import exposure_products
from roman_assets.data_root import DataRoot
from roman_assets.partitions import exposure_partitions
from roman_assets.products.deadline import ClockEvent
from roman_assets.resources import Installation

if TYPE_CHECKING:
    from roman_assets.pipelines.formatting.receipt import Receipt

SCAN_BUDGET_S = 20.0
"""A tick reads new packets for this long; the next one goes on where it stopped."""

RUNS_PER_TICK = 100
"""So many exposures are requested at once, those received first before the others."""


@dataclass(frozen=True)
class FormattedExposure:
    """What the registry says of an exposure's L1.

    Parameters
    ----------
    received
        ``content_version`` of the receipt it was made from; empty before there is any.
    content
        Hash of the L1 products.
    """

    received: str = ""
    content: str = ""


@dataclass(frozen=True)
class ExposureState:
    """An exposure as received and as its L1 were made."""

    receipt: Receipt
    formatted: FormattedExposure

    @property
    def wanted(self) -> bool:
        """Whether all is in and L1 were not made from just that."""
        return self.receipt.complete and self.formatted.received != self.receipt.content_version

    @property
    def run_key(self) -> str:
        """Names the step from what is made to what is wanted: a run is requested once for each.

        A failed run changes neither, so it is not requested again; a delivery that brings back
        content of earlier days is another step.
        """
        made = self.formatted.content[:12] or "new"
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

    root = installation.root
    landing = LandingArea(root)
    landing.scan(SCAN_BUDGET_S)
    receipts = [landing.receipt(exposure) for exposure in landing.exposures()]
    wanted = wanted_exposures(context.instance, exposure_states(root, receipts))
    return dg.SensorResult(
        run_requests=[run_request(state) for state in wanted],
        asset_events=[level0_event(state.receipt) for state in wanted],
        dynamic_partitions_requests=new_partitions(context.instance, receipts),
        skip_reason=None if wanted else skip_reason(receipts),
    )


def exposure_states(root: DataRoot, receipts: Iterable[Receipt]) -> list[ExposureState]:
    """Put together what has been received and what the registry says was made of it."""
    formatted = formatted_exposures(root)
    return [
        ExposureState(receipt, formatted.get(str(receipt.exposure), FormattedExposure()))
        for receipt in receipts
    ]


def formatted_exposures(root: DataRoot) -> Mapping[str, FormattedExposure]:
    """Give what L1 were made from, for every exposure that has any."""
    raise NotImplementedError


def wanted_exposures(
    instance: dg.DagsterInstance, states: Iterable[ExposureState]
) -> list[ExposureState]:
    """Choose the exposures to request now: wanted, not requested, and no run at work on them."""
    busy = partitions_in_progress(instance)
    wanted = [state for state in states if state.wanted and str(state.receipt.exposure) not in busy]
    requested = requested_run_keys(instance, [state.run_key for state in wanted])
    fresh = [state for state in wanted if state.run_key not in requested]
    return sorted(fresh, key=lambda state: state.received_at)[:RUNS_PER_TICK]


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


def skip_reason(receipts: Iterable[Receipt]) -> dg.SkipReason:
    """Say what is waited for."""
    incomplete = [str(receipt.exposure) for receipt in receipts if not receipt.complete]
    if not incomplete:
        return dg.SkipReason("every exposure received has been requested")
    shown = ", ".join(incomplete[:5]) + (" ..." if len(incomplete) > 5 else "")
    return dg.SkipReason(f"{len(incomplete)} exposures are not complete: {shown}")
