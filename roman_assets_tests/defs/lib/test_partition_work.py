from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from roman_assets.defs.lib.completeness_check import completeness, completeness_spec
from roman_assets.defs.lib.partition_work import (
    DATA_VERSION_TAG,
    Materialized,
    PartitionOutcome,
    step_events,
)
from roman_assets.defs.lib.partitions import exposure_partitions
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.records.record import WorkFailure

KEYS = ["r0001001001001001001_0001", "r0001001001001001001_0002", "r0001001001001001001_0003"]
IMAGE, CATALOG, AFTER = (dg.AssetKey(name) for name in ("cal", "catalog", "after"))

Work = Callable[[str], PartitionOutcome]


def definitions(work: Work, retries: int = 0) -> list[dg.AssetsDefinition]:
    """Two steps: one that makes images and sometimes catalogues, and one that follows it."""

    def make(context: Any) -> Iterator[Any]:
        yield from step_events(context, work)

    make.__annotations__.clear()
    step = dg.multi_asset(
        name="step",
        specs=[
            dg.AssetSpec(IMAGE, partitions_def=exposure_partitions),
            dg.AssetSpec(CATALOG, deps=[IMAGE], skippable=True, partitions_def=exposure_partitions),
        ],
        check_specs=[completeness_spec(Step.EXPOSURE)],
        can_subset=True,
        retry_policy=dg.RetryPolicy(max_retries=retries),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )(make)

    @dg.asset(
        key=AFTER,
        deps=[IMAGE],
        partitions_def=exposure_partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def after() -> None:
        pass

    return [step, after]


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("exposure", KEYS)
        yield instance


def made(key: str, catalog: bool = True) -> PartitionOutcome:
    assets = {IMAGE: Materialized({"of": key}, dg.DataVersion(f"image {key}"))}
    if catalog:
        assets[CATALOG] = Materialized({"of": key}, dg.DataVersion(f"catalog {key}"))
    return PartitionOutcome(assets, [completeness(Step.EXPOSURE, ())])


def run(
    work: Work, instance: DagsterInstance, keys: list[str], **options: Any
) -> dg.ExecuteInProcessResult:
    assets = definitions(work, options.pop("retries", 0))
    job = dg.Definitions(
        assets=assets, jobs=[dg.define_asset_job("all", selection=options.pop("select", "*"))]
    ).resolve_job_def("all")
    tags = (
        {"dagster/partition": keys[0]}
        if len(keys) == 1
        else {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
    )
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False, **options)


def materialized(instance: DagsterInstance, key: dg.AssetKey) -> dict[str, tuple[Any, str | None]]:
    """Give metadata and data version of each partition's newest materialization."""
    records = instance.fetch_materializations(key, limit=100, ascending=True).records
    events = [record.asset_materialization for record in records]
    return {
        str(event.partition): (
            event.metadata["of"].value if "of" in event.metadata else None,
            (event.tags or {}).get(DATA_VERSION_TAG),
        )
        for event in events
        if event is not None
    }


def test_one_partition_gets_its_own_metadata_and_version(instance: DagsterInstance) -> None:
    assert run(made, instance, KEYS[:1]).success
    assert materialized(instance, IMAGE) == {KEYS[0]: (KEYS[0], f"image {KEYS[0]}")}
    assert KEYS[0] in materialized(instance, AFTER)


def test_what_an_exposure_has_not_is_not_shown_as_made(instance: DagsterInstance) -> None:
    assert run(lambda key: made(key, catalog=False), instance, KEYS[:1]).success
    assert materialized(instance, CATALOG) == {}


def test_what_was_made_along_is_shown_though_not_selected(instance: DagsterInstance) -> None:
    assert run(made, instance, KEYS[:1], select=[CATALOG]).success
    assert materialized(instance, IMAGE) == {KEYS[0]: (KEYS[0], f"image {KEYS[0]}")}
    assert materialized(instance, CATALOG) == {KEYS[0]: (KEYS[0], f"catalog {KEYS[0]}")}


def test_a_range_in_one_run_shows_each_partition_and_goes_on_downstream(
    instance: DagsterInstance,
) -> None:
    assert run(made, instance, KEYS).success
    assert {key: of for key, (of, _) in materialized(instance, IMAGE).items()} == {
        key: key for key in KEYS
    }
    assert set(materialized(instance, AFTER)) == set(KEYS)


def test_in_a_range_only_exposures_with_catalogues_show_them(instance: DagsterInstance) -> None:
    assert run(lambda key: made(key, catalog=key != KEYS[1]), instance, KEYS).success
    assert materialized(instance, CATALOG) == {
        key: (key, f"catalog {key}") for key in (KEYS[0], KEYS[2])
    }


def test_in_a_range_what_succeeded_stays_and_the_failed_are_named(
    instance: DagsterInstance,
) -> None:
    def work(key: str) -> PartitionOutcome:
        if key == KEYS[1]:
            raise BadInputError("r.asdf", "data", "wrong shape", "send it again")
        return made(key)

    result = run(work, instance, KEYS)
    assert not result.success
    (failure,) = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    assert failure.user_failure_data.description == f"1 of 3 partitions failed: {KEYS[1]}"
    assert set(materialized(instance, IMAGE)) == {KEYS[0], KEYS[2]}
    assert materialized(instance, IMAGE)[KEYS[2]][1] == f"image {KEYS[2]}"


def test_bad_input_is_not_tried_again_and_says_what_to_do(instance: DagsterInstance) -> None:
    calls = []

    def work(key: str) -> PartitionOutcome:
        calls.append(key)
        raise BadInputError("r.asdf", "data", "wrong shape", "send it again")

    result = run(work, instance, KEYS[:1], retries=2)
    assert calls == KEYS[:1]
    (failure,) = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    metadata = failure.user_failure_data.metadata
    assert {name: entry.value for name, entry in metadata.items()} == {
        "file": "r.asdf",
        "field": "data",
        "reason": "wrong shape",
        "remedy": "send it again",
    }


def test_a_passing_fault_is_tried_again(instance: DagsterInstance) -> None:
    calls = []

    def work(key: str) -> PartitionOutcome:
        calls.append(key)
        if len(calls) < 3:
            raise PassingFaultError("the disk is full")
        return made(key)

    assert run(work, instance, KEYS[:1], retries=2).success
    assert len(calls) == 3


def test_checks_of_a_failed_partition_still_say_why(instance: DagsterInstance) -> None:
    def work(key: str) -> PartitionOutcome:
        return PartitionOutcome(
            checks=[completeness(Step.EXPOSURE, [work_failure("r_wfi01", "no stars")])],
            error=dg.Failure("nothing made", allow_retries=False),
        )

    result = run(work, instance, KEYS[:1])
    assert not result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.partition == KEYS[0]
    assert "no stars" in str(evaluation.metadata["r_wfi01"].value)


def test_in_a_range_each_partition_has_its_own_check(instance: DagsterInstance) -> None:
    def work(key: str) -> PartitionOutcome:
        outcome = made(key)
        failures = [work_failure("r_wfi01", "no stars")] if key == KEYS[1] else []
        return PartitionOutcome(outcome.assets, [completeness(Step.EXPOSURE, failures)])

    result = run(work, instance, KEYS)
    assert result.success
    found = {check.partition: check.passed for check in result.get_asset_check_evaluations()}
    assert found == {KEYS[0]: True, KEYS[1]: False, KEYS[2]: True}


def work_failure(file_set: str, message: str) -> WorkFailure:
    return WorkFailure(file_set=file_set, error="BadInputError", message=message)
