from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from roman_assets.defs.lib.runs import Runs


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def add(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    run = dg.DagsterRun(job_name="nothing", status=status, tags=tags)
    return instance.add_run(run).run_id


STATES = [
    # Dagster adds no queued run that a code server has not sent.
    status
    for status in dg.DagsterRunStatus
    if status is not dg.DagsterRunStatus.QUEUED
]


@pytest.mark.parametrize("status", STATES)
def test_a_run_that_has_not_ended_is_left_to_wait_for(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    add(instance, status)
    over = {"SUCCESS", "FAILURE", "CANCELED"}
    # "managed" runs belong to another system and are in no queue of Dagster's.
    assert Runs(instance).any_unfinished() is (status.name not in over | {"MANAGED"})


def test_failed_runs_are_found_by_what_they_were_for(instance: dg.DagsterInstance) -> None:
    failed = add(instance, dg.DagsterRunStatus.FAILURE, **{"dagster/partition": "r1"})
    add(instance, dg.DagsterRunStatus.SUCCESS, **{"dagster/partition": "r2"})
    add(instance, dg.DagsterRunStatus.FAILURE)
    assert Runs(instance).failed() == {"r1": failed}
