from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import prepare_dagster_home
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.run_history import WORK_TAG
from roman_assets.defs.upkeep import old_runs
from roman_assets.defs.upkeep.old_runs import OldRuns, delete_runs
from roman_assets.defs.upkeep.schedules import run_history_schedule, run_history_sweep
from roman_assets.errors import BadInputError
from roman_assets.products.observation import Survey
from roman_assets.settings.automation_settings import RUN_HISTORY_VARIABLE, run_history
from roman_assets_tests.support.facts import Facts
from roman_assets_tests.support.small_products import VISIT, exposure

LATER = timedelta(days=1)
BUDGET = timedelta(minutes=1)


@pytest.fixture
def home(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """An instance on disk, as `roman-assets dev` has one."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        yield instance


def run(
    instance: DagsterInstance,
    key: str | None = exposure(),
    status: DagsterRunStatus = DagsterRunStatus.SUCCESS,
    job: str = "exposure_products",
    **tags: str,
) -> str:
    partition = {} if key is None else {"dagster/partition": key}
    return instance.add_run(
        dg.DagsterRun(job_name=job, status=status, tags={**partition, **tags})
    ).run_id


def old(instance: DagsterInstance, root: DataRoot, *jobs: str) -> set[str]:
    return set(OldRuns(instance, root, jobs).ended_before(datetime.now(UTC) + LATER))


def test_runs_of_keys_that_are_put_away_are_old_once_their_time_is_over(
    root: DataRoot, instance: DagsterInstance
) -> None:
    runs = {run(instance), run(instance, VISIT), run(instance, status=DagsterRunStatus.FAILURE)}
    assert old(instance, root) == runs
    before = datetime.now(UTC) - LATER
    assert not list(OldRuns(instance, root).ended_before(before))


def test_runs_of_keys_there_are_stay_however_old(root: DataRoot, instance: DagsterInstance) -> None:
    for name, key in (("exposure", exposure()), ("visit", VISIT)):
        instance.add_dynamic_partitions(name, [key])
        run(instance, key)
    gone = run(instance, exposure(2))
    assert old(instance, root) == {gone}


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
)
def test_what_has_not_ended_stays_with_all_runs_of_its_key(
    root: DataRoot, instance: DagsterInstance, status: DagsterRunStatus
) -> None:
    run(instance)
    run(instance, status=status)
    assert old(instance, root) == set()


def test_runs_of_other_assets_and_of_releases_stay(
    root: DataRoot, instance: DagsterInstance
) -> None:
    run(instance, "2027-06-01")
    run(instance, "r00001_r0_v01001001001001")
    run(instance, None, job="of_the_user")
    upkeep = run(instance, None, job="retention_sweep")
    assert old(instance, root, "retention_sweep") == {upkeep}


def test_a_run_of_a_range_stays_as_long_as_one_of_its_keys(
    root: DataRoot, instance: DagsterInstance
) -> None:
    ends = {
        "dagster/asset_partition_range_start": exposure(1),
        "dagster/asset_partition_range_end": exposure(3),
    }
    of_range = run(instance, None, **ends)
    for number in (1, 2, 3):
        made = dg.AssetMaterialization("level1", partition=exposure(number))
        event = dg.DagsterEvent(
            event_type_value="ASSET_MATERIALIZATION",
            job_name="exposure_products",
            event_specific_data=dg._core.events.StepMaterializationData(made),
        )
        instance.report_dagster_event(event, of_range)
    instance.add_dynamic_partitions("exposure", [exposure(2)])
    assert old(instance, root) == set()
    instance.delete_dynamic_partition("exposure", exposure(2))
    assert old(instance, root) == {of_range}


def test_what_the_ssc_was_told_and_has_not_answered_stays(
    root: DataRoot, instance: DagsterInstance
) -> None:
    facts = Facts(root)
    facts.receipt(survey=Survey.GBTDS)
    facts.handed_over(VISIT, 5)
    facts.fold()
    run(instance, VISIT)
    assert old(instance, root) == set()


def test_the_last_run_of_failed_work_stays_so_that_bad_input_is_not_tried_again(
    root: DataRoot, instance: DagsterInstance
) -> None:
    failed = DagsterRunStatus.FAILURE
    first = run(instance, VISIT, failed, **{WORK_TAG: "work"})
    run(instance, VISIT, failed, **{WORK_TAG: "work"})
    assert old(instance, root) == {first}


def test_many_runs_are_found_page_by_page_oldest_first(
    root: DataRoot, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_runs, "RUNS_OF_A_PAGE", 2)
    runs = [run(instance, exposure(number)) for number in range(1, 6)]
    found = list(OldRuns(instance, root).ended_before(datetime.now(UTC) + LATER))
    assert found == runs


def test_a_deleted_run_leaves_neither_events_nor_logs(home: DagsterInstance) -> None:
    @dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="exposure"))
    def level1() -> None:
        sys.stdout.write("some output")

    home.add_dynamic_partitions("exposure", [exposure(), exposure(2)])
    ids = [
        dg.materialize([level1], instance=home, partition_key=key).run_id
        for key in (exposure(), exposure(2))
    ]
    storage = Path(home.root_directory)
    assert list(storage.rglob(f"*{ids[0]}*"))
    assert delete_runs(home, ids[:1], BUDGET) == 1
    assert not list(storage.rglob(f"*{ids[0]}*"))
    assert home.get_run_by_id(ids[0]) is None
    materialized = home.get_materialized_partitions(level1.key)
    assert materialized == {exposure(2)}
    assert home.all_logs(ids[1])


def test_a_sweep_that_was_killed_is_finished_by_the_next(instance: DagsterInstance) -> None:
    lost = run(instance)
    instance.event_log_storage.delete_events(lost)
    assert delete_runs(instance, [lost], BUDGET) == 1
    assert instance.get_run_by_id(lost) is None


def test_a_sweep_ends_in_time_and_the_next_goes_on(instance: DagsterInstance) -> None:
    runs = [run(instance), run(instance)]
    assert delete_runs(instance, runs, timedelta(seconds=-1)) == 0
    assert delete_runs(instance, runs, BUDGET) == 2


def test_the_daily_sweep_deletes_what_is_old(
    root: DataRoot, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run(instance), run(instance, None, job="deadline_reports")]
    for days, left in (("10", 2), ("0.000001", 0)):
        monkeypatch.setenv(RUN_HISTORY_VARIABLE, days)
        swept = run_history_sweep.execute_in_process(
            instance=instance, resources={"installation": Installation(data_root=str(root.path))}
        )
        assert swept.success
        assert sum(instance.get_run_by_id(one) is not None for one in runs) == left
    assert run_history_schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_a_time_that_is_not_positive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_history() == timedelta(days=180)
    monkeypatch.setenv(RUN_HISTORY_VARIABLE, "0")
    with pytest.raises(BadInputError, match=RUN_HISTORY_VARIABLE):
        run_history()
