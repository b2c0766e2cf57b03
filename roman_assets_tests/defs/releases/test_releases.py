"""How Dagster makes a data release: two backfills, one after the other, after all prompt work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from roman_assets.definitions import defs
from roman_assets.defs.exposure.assets import level2
from roman_assets.defs.lib import materialization_metadata as report
from roman_assets.defs.lib.dagster_internals import BulkActionStatus, PartitionBackfill
from roman_assets.defs.lib.in_progress import partitions_in_progress
from roman_assets.defs.lib.partition_work import (
    BAD_INPUT_TAG,
    CONTEXT_TAG,
    RELEASE_TAG,
    REPROCESSING_TAG,
)
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.releases.assets import release_level3
from roman_assets.defs.releases.sensors import launch, release_sensor, release_tags
from roman_assets.products.priority import PRIORITY_TAG
from roman_assets.registry.registry import Registry
from roman_assets.releases.publication import publish_release
from roman_assets.releases.run import begin_release, state_of, work_on_release
from roman_assets_tests.support.survey_night import FIRST, LATE, SECOND, Night

EXPOSURES = {f"{FIRST}_0001", f"{FIRST}_0002", f"{SECOND}_0001"}
UNITS = {"r00001_r0_p01001", "r00001_r0_v01001001001001", "r00001_r0_v01001002001001"}


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """A night with L1 alone."""
    return Night.observed(tmp_path, monkeypatch)


def look(night: Night, instance: DagsterInstance) -> list[PartitionBackfill]:
    """Let the sensor look; give the backfills there are, in the order in which they began."""
    context = dg.build_sensor_context(
        instance=instance,
        definitions=defs,
        resources={"installation": Installation(data_root=str(night.root.path))},
    )
    release_sensor(context)
    return sorted(instance.get_backfills(), key=lambda one: one.backfill_timestamp)


def targets(backfill: PartitionBackfill) -> set[str]:
    assert backfill.asset_backfill_data is not None
    subset = backfill.asset_backfill_data.target_subset
    return {
        key
        for keys in subset.partitions_subsets_by_asset_key.values()
        for key in keys.get_partition_keys()
    }


def test_the_sensor_goes_on_with_l3_when_the_l2_are_made_and_does_each_once(night, instance):
    assert look(night, instance) == []
    release = begin_release(night.root, night.declare())
    for _ in range(2):
        (first,) = look(night, instance)
    assert targets(first) == EXPOSURES
    assert first.tags[RELEASE_TAG] == "HLWAS_r0"
    assert first.tags[CONTEXT_TAG] == LATE
    assert REPROCESSING_TAG in first.tags
    assert int(first.tags[PRIORITY_TAG]) < 0
    instance.update_backfill(first.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert len(look(night, instance)) == 1, "nothing is launched twice without a person"
    work_on_release(night.root, release, workers=1, report=lambda *_: None)
    assert len(look(night, instance)) == 1, "all is made"
    publish_release(night.root, release)
    assert len(look(night, instance)) == 1


def test_what_was_cancelled_waits_for_a_person(night, instance):
    release = begin_release(night.root, night.declare())
    (first,) = look(night, instance)
    graph = defs.get_repository_def().asset_graph
    state = state_of(night.root, release)
    assert launch(instance, graph, state, by_person=True) is None, "one is under way"
    instance.update_backfill(first.with_status(BulkActionStatus.CANCELED))
    assert len(look(night, instance)) == 1
    assert launch(instance, graph, state, by_person=True) == "HLWAS_r0_2"
    assert targets(look(night, instance)[1]) == EXPOSURES


def test_what_failed_for_a_passing_fault_is_launched_again_and_bad_input_is_not(night, instance):
    release = begin_release(night.root, night.declare())
    (first,) = look(night, instance)
    faulty, bad, cancelled = sorted(EXPOSURES)
    for key, status, tags in (
        (faulty, dg.DagsterRunStatus.FAILURE, {}),
        (bad, dg.DagsterRunStatus.FAILURE, {BAD_INPUT_TAG: "no header"}),
        (cancelled, dg.DagsterRunStatus.CANCELED, {}),
    ):
        tags |= {"dagster/backfill": first.backfill_id, "dagster/partition": key}
        instance.add_run(dg.DagsterRun(job_name="any", status=status, tags=tags))
    ended = datetime.now(UTC)
    graph, state = defs.get_repository_def().asset_graph, state_of(night.root, release)

    def launched(failed: PartitionBackfill, minutes: float) -> str | None:
        instance.update_backfill(
            failed.with_status(BulkActionStatus.COMPLETED_FAILED).with_end_timestamp(
                ended.timestamp()
            )
        )
        return launch(instance, graph, state, now=ended + timedelta(minutes=minutes))

    assert launched(first, 1) is None
    assert launched(first, 2) == "HLWAS_r0_2"
    second = look(night, instance)[1]
    assert targets(second) == {faulty}
    tags = {"dagster/backfill": second.backfill_id, "dagster/partition": faulty}
    failure = dg.DagsterRunStatus.FAILURE
    instance.add_run(dg.DagsterRun(job_name="any", status=failure, tags=tags))
    assert launched(second, 3) is None
    assert launched(second, 4) == "HLWAS_r0_3"


@pytest.mark.slow
def test_the_assets_make_a_release_with_what_it_fixes(night, instance, monkeypatch):
    monkeypatch.setattr(report, "QUICKLOOK_KINDS", frozenset())  # there are no pixels
    release = begin_release(night.root, night.declare())
    (first,) = look(night, instance)
    for asset, keys in ((level2, EXPOSURES), (release_level3, UNITS)):
        for key in keys:
            result = dg.materialize(
                [asset],
                partition_key=key,
                instance=instance,
                resources={"installation": Installation(data_root=str(night.root.path), workers=1)},
                tags=release_tags(release),
                selection=[asset],
            )
            assert result.success
        if asset is level2:
            instance.update_backfill(first.with_status(BulkActionStatus.COMPLETED_SUCCESS))
            assert targets(look(night, instance)[1]) == UNITS
    assert state_of(night.root, release).complete
    made = Registry(night.root).products.find(
        visit=[str(FIRST), str(SECOND)], kind=["cal", "coadd"]
    )
    assert set(made["context"]) == {LATE}
    assert set(made["data_release"].dropna()) == {"r0"}
    event = instance.get_latest_materialization_event(dg.AssetKey("release_coadd"))
    assert event.asset_materialization.metadata["context"].value == LATE


def test_runs_on_units_are_not_taken_for_runs_on_exposures_or_visits(instance):
    instance.add_run(
        dg.DagsterRun(
            job_name="any",
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": next(iter(UNITS))},
        )
    )
    assert partitions_in_progress(instance) == frozenset()
