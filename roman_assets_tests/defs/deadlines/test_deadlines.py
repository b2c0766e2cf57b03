from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    SkipReason,
)

from roman_assets.data_root import DataRoot
from roman_assets.deadlines.alerts import AlertLog
from roman_assets.defs.deadlines import sensors as deadlines
from roman_assets.defs.deadlines.sensors import DeadlineWatch, alert_sensor, deadline_sensor
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.records.record import Outcome
from roman_assets.registry.store.fold import rebuild
from roman_assets.registry.store.repair import REBUILD_VARIABLE
from roman_assets_tests.deadlines.test_alerts import Posts, web_server
from roman_assets_tests.support.dagster_privates import (
    AssetCheckEvaluationPlanned,
    DefaultPartitionsSubset,
)
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names
from roman_assets_tests.support.small_products import VISIT, damage, exposure, tiers
from roman_assets_tests.support.ticks import Ticks

FIRST = exposure(1)
OTHER_VISIT = "r0001001001001001002"


class Clock:
    """The time that the sensors see."""

    def __init__(self) -> None:
        self.hour = 0.0

    def now(self, zone: Any) -> datetime:
        return at(self.hour).astimezone(zone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadlines, "datetime", clock)
    return clock


@pytest.fixture
def facts(root: DataRoot) -> Facts:
    return Facts(root)


@pytest.fixture
def ticks(root: DataRoot, instance: DagsterInstance) -> Ticks:
    return Ticks(root, instance)


def look(facts: Facts, ticks: Ticks, sensor: Any = deadline_sensor) -> Any:
    facts.fold()
    with ticks.look(sensor) as result:
        return result


def reported(facts: Facts, ticks: Ticks) -> list[AssetCheckEvaluation]:
    """Let the sensor look; give what it reported."""
    before = {run.run_id for run in ticks.instance.get_runs()}
    result = look(facts, ticks)
    if isinstance(result, SkipReason):
        return []
    for request in result.dynamic_partitions_requests or ():
        ticks.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    (run,) = {run.run_id for run in ticks.instance.get_runs()} - before
    return [
        event.dagster_event.event_specific_data
        for event in ticks.instance.all_logs(run, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
        if event.dagster_event is not None
    ]


def told(evaluations: list[AssetCheckEvaluation]) -> set[tuple[str, str, str, bool]]:
    return {
        (
            one.asset_key.to_user_string(),
            one.partition or "",
            str(one.metadata["state"].value),
            one.severity is AssetCheckSeverity.ERROR,
        )
        for one in evaluations
    }


def formatted(facts: Facts, partition: str = FIRST) -> None:
    facts.receipt(partition)
    facts.published(Step.FORMATTING, partition, exposure_names(partition, L1), start=2, end=3)


def test_nothing_is_reported_while_all_is_in_order(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt()
    clock.hour = 2
    assert reported(facts, ticks) == []


def test_what_is_never_made_is_first_a_warning_then_an_error(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt()
    clock.hour = 20
    assert told(reported(facts, ticks)) == {("uncal", FIRST, "at risk", False)}
    assert ticks.instance.get_dynamic_partitions("exposure") == [FIRST]
    assert reported(facts, ticks) == [], "a state is reported once"
    clock.hour = 26
    assert {one[:3] for one in told(reported(facts, ticks))} == {("uncal", FIRST, "overdue")}
    clock.hour = 30
    assert reported(facts, ticks) == []
    clock.hour = 38
    assert {one[:3] for one in told(reported(facts, ticks))} == {
        ("cal", FIRST, "at risk"), ("supplement", FIRST, "at risk"),
    }  # fmt: skip


def test_a_report_says_when_it_was_due_and_where_the_time_went(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt()
    clock.hour = 27
    (uncal,) = (one for one in reported(facts, ticks) if one.asset_key.path == ["uncal"])
    metadata = {name: entry.value for name, entry in uncal.metadata.items()}
    assert metadata["due"] == at(25).timestamp()
    assert metadata["margin_hours"] == pytest.approx(-2)
    assert metadata["blame"] == "queue"
    assert metadata["queue_hours"] == pytest.approx(26)
    assert "2.0 h late" in (uncal.description or "")


def test_a_restart_reports_nothing_again(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    facts.receipt()
    clock.hour = 27
    assert reported(facts, ticks)
    ticks.restart()
    assert reported(facts, ticks) == []


def test_what_a_lost_run_did_not_report_is_reported(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt()
    clock.hour = 20
    reported(facts, ticks)
    formatted(facts)
    found = {one[:3] for one in told(reported(facts, ticks))}
    assert found == {("uncal", FIRST, "made in time")}


def test_a_visit_that_was_never_requested_is_reported(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt(nexposures=1)
    clock.hour = 5 * 24 + 1
    found = told(reported(facts, ticks))
    assert ("coadd", VISIT, "overdue", True) in found
    assert ticks.instance.get_dynamic_partitions("visit") == [VISIT]


def test_many_reports_are_spread_over_ticks(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    monkeypatch.setattr(deadlines, "REPORTING_BUDGET", timedelta(0))
    facts.receipt()
    clock.hour = 38
    assert [len(reported(facts, ticks)) for _ in range(4)] == [1, 1, 1, 0]


def test_visits_that_are_done_are_not_looked_at_again(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    formatted(facts)
    facts.published(Step.EXPOSURE, FIRST, exposure_names(FIRST, L2), start=4, end=5)
    facts.receipt(f"{OTHER_VISIT}_0001", packets=None)
    facts.fold()
    watch = DeadlineWatch(facts.root)
    assert {one.visit for one in watch.look(at(6))} == {VISIT, OTHER_VISIT}
    assert watch.look(at(6.01)) == []


def test_alerts_are_told_once_whatever_is_restarted(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    posts = Posts()
    facts.receipt()
    with web_server(posts) as url:
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_WEBHOOK", url)
        for hour in (2, 20, 20.1, 26):
            clock.hour = hour
            look(facts, ticks, alert_sensor)
            ticks.restart()
    told_states = [[alert["state"] for alert in body["alerts"]] for body in posts.bodies]
    assert told_states == [["at risk"], ["overdue"]]
    assert len(AlertLog.of(facts.root).read()["webhook 127.0.0.1"]) == 1


def test_what_fails_again_after_a_repair_alerts_again(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    posts = Posts()
    facts.receipt()
    facts.attempt(Step.FORMATTING, start=2, end=3, outcome=Outcome.BAD_INPUT)
    with web_server(posts) as url:
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_WEBHOOK", url)
        for clock.hour in (4, 5):
            look(facts, ticks, alert_sensor)
        facts.attempt(Step.FORMATTING, start=5.1, end=5.2, outcome=Outcome.BAD_INPUT)
        for clock.hour in (6, 7):
            look(facts, ticks, alert_sensor)
    told = [{(one["level"], one["state"]) for one in body["alerts"]} for body in posts.bodies]
    assert ("L1", "failed") in told[0]
    assert told[1:] == [{("L1", "failed")}]


def test_each_damage_that_rebuilds_the_registry_alerts_once(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    posts = Posts()
    with web_server(posts) as url:
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_WEBHOOK", url)
        for number in (1, 2):
            facts.receipt(exposure(number))
            facts.fold()
            damage(tiers(facts.root)[0], b"garbage" * 1000)
            facts.receipt(exposure(number + 2))
            for _ in range(2):
                look(facts, ticks, alert_sensor)
                ticks.restart()
    told = [[(one["state"], one["reason"]) for one in body["alerts"]] for body in posts.bodies]
    assert [[state for state, _ in alerts] for alerts in told] == [["damaged"]] * 2
    assert "the registry was rebuilt" in told[0][0][1]
    assert "rebuilt" in posts.bodies[0]["text"]


def test_a_damaged_registry_that_waits_for_a_person_alerts_once_though_it_cannot_be_read(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    posts = Posts()
    monkeypatch.setenv(REBUILD_VARIABLE, "0.0001")
    with web_server(posts) as url:
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_WEBHOOK", url)
        for number in (1, 2):
            facts.receipt(exposure(number))
            facts.fold()
            damage(tiers(facts.root)[0], b"garbage" * 1000)
            facts.receipt(exposure(number + 2))
            ticks.restart()  # A process that has the tier open still reads it.
            for _ in range(2):
                with pytest.raises(PassingFaultError, match="roman-assets rebuild"):
                    facts.fold()
                with pytest.raises(PassingFaultError), ticks.look(alert_sensor):
                    pass
                ticks.restart()
            rebuild(facts.root)
            look(facts, ticks, alert_sensor)
    told = [[one["remedy"] for one in body["alerts"]] for body in posts.bodies]
    assert [["roman-assets rebuild" in one for one in remedies] for remedies in told] == [
        [True]
    ] * 2


def test_a_setting_that_cannot_be_used_fails_the_tick_after_the_others_were_told(
    facts: Facts, ticks: Ticks, clock: Clock, monkeypatch
) -> None:
    posts = Posts()
    facts.receipt()
    clock.hour = 26
    with web_server(posts) as url:
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_WEBHOOK", url)
        monkeypatch.setenv("ROMAN_ASSETS_ALERT_SMTP", "smtp://user:pa/ss@host")
        with pytest.raises(PassingFaultError, match="ROMAN_ASSETS_ALERT_SMTP") as error:
            look(facts, ticks, alert_sensor)
    assert "user" not in str(error.value).partition("Remedy")[0]
    assert len(posts.bodies) == 1


def test_without_a_sender_the_alert_sensor_says_so(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    result = look(facts, ticks, alert_sensor)
    assert "no sender" in (result.skip_message or "")


def test_what_has_failed_is_told_again_when_it_is_late_with_its_blame(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    facts.receipt()
    facts.attempt(Step.FORMATTING, start=2, end=3, outcome=Outcome.BAD_INPUT)
    said = {}
    for clock.hour in (4, 20, 27, 28):
        found = [one for one in reported(facts, ticks) if one.asset_key.path == ["uncal"]]
        blames = [one.metadata.get("blame") for one in found]
        said[clock.hour] = [blame and blame.value for blame in blames]
    assert said == {4: [None], 20: [], 27: ["input"], 28: []}


def test_what_a_run_at_work_has_still_to_check_is_reported(
    facts: Facts, ticks: Ticks, clock: Clock
) -> None:
    formatted(facts)
    facts.attempt(Step.EXPOSURE, FIRST, start=4)
    run = ticks.instance.add_run(DagsterRun(job_name="exposure_products"))
    planned = AssetCheckEvaluationPlanned(
        asset_key=AssetKey("cal"),
        check_name="in_time",
        partitions_subset=DefaultPartitionsSubset({FIRST}),
    )
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        job_name=run.job_name,
        event_specific_data=planned,
    )
    ticks.instance.report_dagster_event(event, run.run_id)
    clock.hour = 60
    assert ("cal", FIRST, "overdue", True) in told(reported(facts, ticks))
    assert reported(facts, ticks) == []
