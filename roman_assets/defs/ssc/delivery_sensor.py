"""The sensor that takes in what the SSC delivers, or has a command compute it (R12).

It looks at the deliveries there are, and each leaves the exchange when it has been taken in or
rejected: so none is forgotten, whatever the daemon or a run missed. A run is requested once for
each state of a delivery; written again, it is another state. Where a command is configured, a run
is requested for each manifest that was handed over and has not been answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.lib.in_progress import PARTITION_TAG, UNFINISHED, requested_run_keys
from roman_assets.defs.lib.jobs import DELIVERY_JOBS
from roman_assets.defs.lib.partitions import PARTITIONS, is_exposure
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.retries import due_requests
from roman_assets.defs.lib.run_history import WORK_TAG, due_run_keys
from roman_assets.defs.ssc.jobs import COMMAND_JOBS
from roman_assets.errors import BadInputError
from roman_assets.products.kind import (
    DELIVERY_STEPS,
    KINDS,
    RELEASE_DELIVERY_STEPS,
    VISIT_STEPS,
    Maker,
    Step,
    expected_kinds,
)
from roman_assets.products.priority import PRIORITY_TAG, REPROCESSING_PRIORITY, run_priority
from roman_assets.settings.automation_settings import longest_ssc_run

if TYPE_CHECKING:
    from roman_assets.data_root import DataRoot
    from roman_assets.registry.registry import Registry
    from roman_assets.ssc.delivery import Address, Delivery

OF_SSC = tuple(kind.name for kind in KINDS if kind.maker is Maker.SSC)

_RELEASE_JOBS = frozenset(
    jobs[step].name for jobs in (DELIVERY_JOBS, COMMAND_JOBS) for step in RELEASE_DELIVERY_STEPS
)

DELIVERIES_PER_TICK = 100
"""Largest number of runs requested at once, oldest first."""


LONGEST_READING = timedelta(seconds=20)
"""Time of one look for reading notifications; each version of one is read once."""

SSC_TAG = "roman_assets/ssc"
"""Tag of the runs that take in deliveries or run a command.

They read what others wrote and run what others programmed. ``dagster.yaml`` admits one at a time,
so that one that hangs leaves a slot to everything else.
"""
MAX_RUNTIME_SECONDS_TAG = "dagster/max_runtime"


@dg.sensor(
    jobs=[*DELIVERY_JOBS.values(), *COMMAND_JOBS.values()],
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes in what the SSC delivers, once it is whole.",
)
def delivery_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each exposure or visit with a whole delivery; reject other deliveries."""
    from roman_assets.ssc.delivery import Exchanged
    from roman_assets.ssc.exchange import Exchange
    from roman_assets.ssc.intake import remove_remains

    exchange = Exchange.of(installation.root)
    remove_remains(exchange)
    seen = Exchanged.look(exchange, datetime.now(UTC), reading=LONGEST_READING)
    for remaining in seen.stuck:
        context.log.warning(str(remaining))
    addressed: list[tuple[Delivery, Address]] = []
    for delivery in seen.whole:
        try:
            addressed.append((delivery, delivery.address()))
        except BadInputError as fault:
            context.log.warning(_rejected(installation.root, delivery, fault))
    of_steps: dict[Step, list[dg.RunRequest]] = {}
    for delivery, address in addressed:
        of_steps.setdefault(address.step, []).append(run_request(delivery, address))
    due = [
        request
        for step, of_step in of_steps.items()
        for request in due_requests(
            installation.root, context.instance, step, of_step, datetime.now(UTC)
        )
    ]
    requests = _one_of_each(context.instance, due)
    requests += commissioned(context.instance, installation.root, datetime.now(UTC))
    if not requests:
        return dg.SkipReason(f"{len(seen.arriving)} deliveries are arriving")
    return _result(by_urgency(installation.root, requests[:DELIVERIES_PER_TICK]))


def _rejected(root: DataRoot, delivery: Delivery, fault: BadInputError) -> str:
    """Reject a delivery, and return what there is to say; what fails is tried at the next look."""
    from roman_assets.ssc.intake import reject_unaddressed

    try:
        reject_unaddressed(root, delivery, fault)
    except Exception as error:  # the deliveries after it go on
        return f"{delivery.name} could not be rejected: {error!r}"
    return f"rejected: {fault}"


def _one_of_each(
    instance: dg.DagsterInstance, requests: Sequence[dg.RunRequest]
) -> list[dg.RunRequest]:
    """Choose the oldest request of each partition; its run takes the others in as well.

    While a run is at work on a partition, no other is requested for it.
    """
    requested = requested_run_keys(instance, [str(request.run_key) for request in requests])
    at_work = {
        (run.job_name, run.tags.get(PARTITION_TAG))
        for job in {str(request.job_name) for request in requests}
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(UNFINISHED)))
    }
    chosen: dict[tuple[str, str], dg.RunRequest] = {}
    for request in requests:
        place = (str(request.job_name), str(request.partition_key))
        if place not in at_work and request.run_key not in requested:
            chosen.setdefault(place, request)
    return list(chosen.values())


def by_urgency(root: DataRoot, requests: Sequence[dg.RunRequest]) -> list[dg.RunRequest]:
    """Return runs with the priority of the earliest product of the SSC that waits for them.

    Deliveries for a data release come after all prompt products.
    """
    from roman_assets.registry.registry import Registry

    with Registry(root) as registry:
        rows = registry.deadlines.groups(
            partition=[str(request.partition_key) for request in requests], kind=OF_SSC
        )
    earliest = rows.groupby("partition")["due"].min()
    due = {str(key): when.to_pydatetime() for key, when in earliest.dropna().items()}
    return [
        request.with_replaced_attrs(
            tags={
                **request.tags,
                PRIORITY_TAG: str(
                    REPROCESSING_PRIORITY
                    if request.job_name in _RELEASE_JOBS
                    else run_priority(due.get(str(request.partition_key)))
                ),
            }
        )
        for request in requests
    ]


def _result(requests: Sequence[dg.RunRequest]) -> dg.SensorResult:
    # several deliveries may be of one partition; Dagster refuses a key that is asked for twice
    keys: dict[str, dict[str, None]] = {}
    for request in requests:
        definition = _PARTITIONS_OF_JOB[str(request.job_name)]
        keys.setdefault(str(definition.name), {})[str(request.partition_key)] = None
    definitions = {str(one.name): one for one in _PARTITIONS_OF_JOB.values()}
    return dg.SensorResult(
        run_requests=list(requests),
        dynamic_partitions_requests=[
            definitions[name].build_add_request(list(of_definition))
            for name, of_definition in keys.items()
        ],
    )


_PARTITIONS_OF_JOB = {
    job.name: PARTITIONS[step]
    for jobs in (DELIVERY_JOBS, COMMAND_JOBS)
    for step, job in jobs.items()
}


def run_request(delivery: Delivery, address: Address) -> dg.RunRequest:
    """Ask for a delivery to be taken in, once for each state of it."""
    return dg.RunRequest(
        run_key=f"{delivery.name}:{delivery.version}",
        job_name=DELIVERY_JOBS[address.step].name,
        partition_key=address.partition,
        tags={
            PARTITION_TAG: address.partition,
            "roman_assets/delivery": delivery.name,
            **_limits(),
        },
    )


def _limits() -> dict[str, str]:
    """Return the tags that limit the number and the time of runs for the SSC."""
    longest = int(longest_ssc_run() / timedelta(seconds=1))
    return {SSC_TAG: "true", MAX_RUNTIME_SECONDS_TAG: str(max(longest, 1))}


def commissioned(
    instance: dg.DagsterInstance, root: DataRoot, now: datetime
) -> list[dg.RunRequest]:
    """Ask for what waits and is to be computed by a command, and again after passing faults."""
    from roman_assets.registry.registry import Registry
    from roman_assets.settings.retry_settings import retry_pauses_of
    from roman_assets.ssc.command import has_commands

    if not has_commands(root):
        return []
    with Registry(root) as registry:
        waiting = registry.receipts.unanswered_handovers()
        works = {partition: f"{partition}:{told.digest}" for partition, told in waiting.items()}
        due = due_run_keys(instance, works.values(), retry_pauses_of(root), now)
        commanded = (
            (partition, work, step)
            for partition, work in works.items()
            if work in due and (step := _step_of_command(root, partition, registry)) is not None
        )
        return [
            dg.RunRequest(
                run_key=due[work],
                job_name=COMMAND_JOBS[step].name,
                partition_key=partition,
                tags={PARTITION_TAG: partition, WORK_TAG: work, **_limits()},
            )
            for partition, work, step in islice(commanded, DELIVERIES_PER_TICK)
        ]


def _step_of_command(root: DataRoot, partition: str, registry: Registry) -> Step | None:
    """Return the step that takes in what a command delivers, None if there is no command.

    A unit of a data release with images of two kinds is answered for those of its first image.
    """
    from roman_assets.ssc.command import Mode, command_for
    from roman_assets.ssc.handover import handed_over_manifest

    manifest = handed_over_manifest(root, partition, registry)
    if manifest is None or not command_for(
        root, manifest.survey, Mode.of(manifest.optical_element)
    ):
        return None
    if manifest.release is not None:
        return next(
            step
            for step in RELEASE_DELIVERY_STEPS
            if expected_kinds(manifest.survey, manifest.exposure_type, (step,))
        )
    return next(
        kind.step
        for kind in expected_kinds(manifest.survey, manifest.exposure_type, DELIVERY_STEPS)
        if (kind.step in VISIT_STEPS) is not is_exposure(partition)
    )
