from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from dagster import (
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    build_sensor_context,
)

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.partition_work import RELEASE_TAG
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.upkeep.sensors import registry_fold_sensor
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.records.record import Outcome
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.facts import Facts, at
from roman_assets_tests.support.small_products import exposure


def attempts_of(root: DataRoot) -> list[tuple[str, bool]]:
    with Registry(root) as registry:
        found = registry.work.attempts()
    return list(zip(found["outcome"], found["last_try"], strict=True))


def begin(root: DataRoot, run_id: str) -> None:
    """Begin an attempt whose process dies."""
    StepAttempt(root, Step.EXPOSURE, exposure(), Run(run_id)).__enter__()


def look(root: DataRoot, instance: DagsterInstance) -> str:
    context = build_sensor_context(
        instance=instance,
        resources={"installation": Installation(data_root=str(root.path))},
        sensor_name=registry_fold_sensor.name,
    )
    return registry_fold_sensor(context).skip_message or ""


@pytest.mark.parametrize(
    ("tags", "status", "last_try"),
    [
        ({}, DagsterRunStatus.FAILURE, False),
        ({RELEASE_TAG: "r0"}, DagsterRunStatus.FAILURE, False),
        ({}, DagsterRunStatus.CANCELED, True),
    ],
)
def test_the_attempt_of_a_lost_run_is_ended(
    root: DataRoot,
    instance: DagsterInstance,
    tags: dict[str, str],
    status: DagsterRunStatus,
    last_try: bool,
) -> None:
    run = DagsterRun(job_name="any", status=status, tags=tags)
    begin(root, instance.add_run(run).run_id)
    assert "1 lost" in look(root, instance)
    assert attempts_of(root) == [(Outcome.PASSING_FAULT, last_try)]
    assert "0 lost" in look(root, instance)


def test_the_attempt_of_a_run_at_work_is_left_alone(
    root: DataRoot, instance: DagsterInstance
) -> None:
    run = DagsterRun(job_name="any", status=DagsterRunStatus.STARTED)
    begin(root, instance.add_run(run).run_id)
    fold(root)
    assert "0 lost" in look(root, instance)
    assert attempts_of(root)[0][0] == Outcome.RUNNING


def test_the_attempt_of_a_run_that_was_deleted_is_ended(
    root: DataRoot, instance: DagsterInstance
) -> None:
    begin(root, "deleted")
    assert "1 lost" in look(root, instance)


REQUESTED = {"dagster/partition": exposure(), "dagster/run_key": "key"}


@pytest.mark.parametrize("errors", [[], [PassingFaultError("the disk is full")]])
def test_work_whose_run_somebody_cancelled_is_said_to_wait_for_a_person(
    root: DataRoot, instance: DagsterInstance, errors: list[Exception]
) -> None:
    facts = Facts(root)
    facts.receipt()
    status = DagsterRunStatus.CANCELED
    run = DagsterRun(job_name="exposure_products", status=status, tags=REQUESTED)
    run_id = instance.add_run(run).run_id
    for hour, error in enumerate([*errors, DagsterExecutionInterruptedError()], 2):
        clock = partial(next, iter((at(hour), at(hour + 0.5))))
        with (
            suppress(type(error)),
            StepAttempt(root, Step.FORMATTING, exposure(), Run(run_id, last_try=False), clock),
        ):
            raise error
    assert "1 cancelled" in look(root, instance)
    assert "0 cancelled" in look(root, instance)
    with Registry(root) as registry:
        found = registry.deadlines.ledger(partition=exposure(), now=at(5))
        assert registry.work.failed_runs(Step.EXPOSURE, [exposure()]) == {}
    found = found[found["kind"].isin(["uncal", "cal"])]
    assert set(found["state"]) == {"failed"}
    (reason,) = set(found["reason"])
    assert reason.startswith(f"RunCancelled: somebody cancelled run {run_id}")


def test_a_run_that_was_cancelled_before_it_began_is_put_on_record(
    root: DataRoot, instance: DagsterInstance
) -> None:
    status = DagsterRunStatus.CANCELED
    instance.add_run(DagsterRun(job_name="exposure_products", status=status, tags=REQUESTED))
    instance.add_run(DagsterRun(job_name="sweep", status=status, tags=REQUESTED))
    assert "1 cancelled" in look(root, instance)
    assert attempts_of(root) == [(Outcome.PASSING_FAULT, True)]
