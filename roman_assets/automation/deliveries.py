"""The sensor that takes in what the SSC delivers (R12).

It looks at the deliveries there are, and each leaves the exchange when it has been taken in or
rejected: so none is forgotten, whatever the daemon or a run missed. A run is requested once for
each state of a delivery; written again, it is another state.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.automation.in_progress import PARTITION_TAG
from roman_assets.automation.jobs import DELIVERY_JOBS
from roman_assets.errors import BadInputError
from roman_assets.partitions import exposure_partitions, visit_partitions
from roman_assets.products.kind import VISIT_STEPS
from roman_assets.resources import Installation

if TYPE_CHECKING:
    from roman_assets.pipelines.ssc.delivery import Address, Delivery

DELIVERIES_PER_TICK = 100
"""So many runs are requested at once; those that came first first."""


@dg.sensor(
    jobs=list(DELIVERY_JOBS.values()),
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes in what the SSC delivers, once it is whole.",
)
def delivery_sensor(
    context: dg.SensorEvaluationContext, installation: Installation
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each whole delivery; reject those of which nobody can tell what for."""
    from roman_assets.archive.exchange import Exchange
    from roman_assets.pipelines.ssc.delivery import deliveries, strays, whole_deliveries
    from roman_assets.pipelines.ssc.intake import reject_unaddressed

    exchange = Exchange.of(installation.root)
    whole = list(whole_deliveries(exchange, datetime.now(UTC)))
    addressed: list[tuple[Delivery, Address]] = []
    for delivery in whole:
        try:
            addressed.append((delivery, delivery.address()))
        except BadInputError as fault:
            reject_unaddressed(installation.root, delivery, fault)
            context.log.warning(f"rejected: {fault}")
    if odd := strays(exchange):
        context.log.warning(f"no deliveries, since they are in no directory: {', '.join(odd)}")
    if not addressed:
        arriving = len(deliveries(exchange))
        return dg.SkipReason(f"{arriving} deliveries are arriving")
    return _requests(addressed[:DELIVERIES_PER_TICK])


def _requests(addressed: Sequence[tuple[Delivery, Address]]) -> dg.SensorResult:
    keys: dict[bool, list[str]] = {True: [], False: []}
    for _, address in addressed:
        keys[address.step in VISIT_STEPS].append(address.partition)
    return dg.SensorResult(
        run_requests=[run_request(delivery, address) for delivery, address in addressed],
        dynamic_partitions_requests=[
            visit_partitions.build_add_request(keys[True]),
            exposure_partitions.build_add_request(keys[False]),
        ],
    )


def run_request(delivery: Delivery, address: Address) -> dg.RunRequest:
    """Ask for a delivery to be taken in, once for each state of it."""
    return dg.RunRequest(
        run_key=f"{delivery.name}:{delivery.version}",
        job_name=DELIVERY_JOBS[address.step].name,
        partition_key=address.partition,
        tags={PARTITION_TAG: address.partition, "roman_assets/delivery": delivery.name},
    )
