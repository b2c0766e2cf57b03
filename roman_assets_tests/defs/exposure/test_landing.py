from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from dagster import AssetKey, AssetRecordsFilter, DagsterEventType, DagsterExecutionInterruptedError

from roman_assets.defs.exposure import landing_watch
from roman_assets.defs.exposure import sensors as landing
from roman_assets.defs.lib import in_progress
from roman_assets.defs.lib.in_progress import WILL_RETRY_TAG
from roman_assets.defs.upkeep.sensors import end_missed_retries
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.formatting.landing import LandingArea, ScanResult
from roman_assets.formatting.receipt_record import WaitEnded, record_receipts
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.sky import EPOCH, VISIT, Sky, exposure_key, version

FIRST, SECOND = exposure_key(1), exposure_key(2)


def requested(sky: Sky) -> list[str | None]:
    return [request.partition_key for request in sky.look_at_landing()]


def test_an_exposure_that_is_in_gets_one_run(sky: Sky) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    assert requested(sky) == []


def test_the_run_key_names_exposure_and_content(sky: Sky) -> None:
    sky.receive(FIRST)
    (request,) = sky.look_at_landing()
    assert (request.run_key or "").startswith(f"{FIRST}:{version('first')}")
    assert request.tags["roman_assets/visit"] == VISIT


def test_an_incomplete_exposure_waits_and_is_known(sky: Sky) -> None:
    sky.receive(FIRST, complete=False)
    assert requested(sky) == []
    assert sky.instance.get_dynamic_partitions("exposure") == [FIRST]
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]


def test_what_was_made_without_dagster_is_not_made_again(sky: Sky) -> None:
    sky.process(FIRST)
    assert requested(sky) == []
    assert sky.instance.get_dynamic_partitions("exposure") == [FIRST]


def test_new_content_is_made_again(sky: Sky) -> None:
    sky.process(FIRST)
    assert requested(sky) == []
    sky.receive(FIRST, "redelivered")
    assert requested(sky) == [FIRST]


def test_content_that_comes_back_is_made_again(sky: Sky) -> None:
    for content in ("first", "second", "first"):
        sky.receive(FIRST, content)
        assert requested(sky) == [FIRST], content
        sky.process(FIRST, content)
        sky.end_runs()
        assert requested(sky) == [], content


def test_a_restart_of_the_daemon_changes_nothing(sky: Sky) -> None:
    sky.receive(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [FIRST]
    sky.restart()
    assert requested(sky) == []


def test_a_request_that_was_lost_is_made_again(sky: Sky) -> None:
    sky.receive(FIRST)
    (request,) = sky.look_at_landing()
    for run in sky.instance.get_runs():
        sky.instance.delete_run(run.run_id)
    assert [again.run_key for again in sky.look_at_landing()] == [request.run_key]


def test_an_exposure_that_cannot_be_made_is_not_tried_for_ever(sky: Sky) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    assert requested(sky) == []


def test_l1_that_a_lost_run_left_without_l2_is_carried_on_once(sky: Sky) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.format(FIRST)
    assert requested(sky) == [], "the run is still at work"
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    assert requested(sky) == [FIRST]
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    assert requested(sky) == []


def test_a_run_the_daemon_will_start_again_is_waited_for(sky: Sky) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.format(FIRST)
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    (run,) = sky.instance.get_runs()
    sky.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert requested(sky) == []
    sky.instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "another"})
    assert requested(sky) == [FIRST]


def test_a_detector_that_failed_is_not_tried_for_ever(sky: Sky) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.format(FIRST)
    sky.calibrate(FIRST, failed=[2])
    sky.end_runs()
    assert requested(sky) == []


def test_receipt_is_reported_once_with_its_content_as_version(sky: Sky) -> None:
    sky.receive(FIRST)
    requested(sky)
    requested(sky)
    events = sky.instance.fetch_materializations(
        AssetRecordsFilter(AssetKey("level0"), asset_partitions=[FIRST]), limit=10
    ).records
    assert len(events) == 1
    materialization = events[0].asset_materialization
    assert materialization is not None
    assert (materialization.tags or {})["dagster/data_version"] == version("first")
    assert "all_received" in materialization.metadata


def test_many_exposures_are_requested_in_the_order_of_their_receipt(sky: Sky, monkeypatch) -> None:
    monkeypatch.setattr(landing_watch, "RUNS_PER_TICK", 2)
    keys = [exposure_key(number) for number in (3, 1, 2)]
    for key in keys:
        sky.receive(key)
    assert requested(sky) == keys[:2]
    assert requested(sky) == keys[2:]


def test_what_cannot_be_used_is_told(sky: Sky, monkeypatch, capfd) -> None:
    case = sky.root.set_aside / "case"
    fault = BadInputError("day/contact.l0", "packets", "none in it", "remove it")
    result = ScanResult(set_aside=(case,), left=(fault,))
    monkeypatch.setattr(LandingArea, "scan", lambda area, budget: result)
    requested(sky)
    told = capfd.readouterr().err
    assert str(case) in told
    assert str(fault) in told


def test_what_was_put_away_stays_so_until_it_changes(sky: Sky, monkeypatch) -> None:
    monkeypatch.setenv("ROMAN_ASSETS_PARTITION_WINDOW_DAYS", "3")
    monkeypatch.setattr(landing, "datetime", ALongTimeAfter)
    sky.process(FIRST)
    sky.receive(SECOND, complete=False)
    requested(sky)
    assert sky.instance.get_dynamic_partitions("exposure") == [SECOND]
    sky.receive(FIRST, "redelivered")
    assert requested(sky) == [FIRST]
    assert set(sky.instance.get_dynamic_partitions("exposure")) == {FIRST, SECOND}


class ALongTimeAfter:
    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return EPOCH.astimezone(zone) + timedelta(days=4)


def test_the_exposure_that_is_due_first_has_the_highest_priority(sky: Sky) -> None:
    for key in (FIRST, SECOND):
        sky.receive(key)
    first, second = sky.look_at_landing()
    assert (first.partition_key, second.partition_key) == (FIRST, SECOND)
    one, other = (int(request.tags["dagster/priority"]) for request in (first, second))
    assert one == other + 1, "received a minute earlier"


def test_a_full_queue_leaves_the_others_in_the_order_of_urgency(sky: Sky, monkeypatch) -> None:
    sky.receive(SECOND)
    sky.receive(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(in_progress, "RUNS_IN_QUEUE", 1)
        assert requested(sky) == [SECOND]
    assert requested(sky) == [FIRST]


def test_a_settings_error_of_one_look_loses_no_exposure(sky: Sky, monkeypatch) -> None:
    sky.receive(FIRST)
    with monkeypatch.context() as patch:
        patch.setenv("ROMAN_ASSETS_PARTITION_WINDOW_DAYS", "what")
        with pytest.raises(BadInputError):
            requested(sky)
    assert requested(sky) == [FIRST]


@pytest.mark.parametrize("name", ["deadlines.toml", "retries.toml"])
def test_settings_of_order_and_pauses_that_cannot_be_used_hold_up_no_exposure(
    sky: Sky, name, capfd
) -> None:
    sky.receive(FIRST)
    sky.root.path.mkdir(parents=True, exist_ok=True)
    (sky.root.path / name).write_text("version = what")
    assert requested(sky) == [FIRST]
    assert f"{name}: file: no TOML" in capfd.readouterr().err


class ClockOfTests:
    """The time that the landing sensor sees: minutes from a moment of ours."""

    def __init__(self) -> None:
        self.minute = 0.0

    def now(self, zone: tzinfo = UTC) -> datetime:
        return (EPOCH + timedelta(days=1, minutes=self.minute)).astimezone(zone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ClockOfTests:
    clock = ClockOfTests()
    monkeypatch.setattr(landing, "datetime", clock)
    return clock


def fail(sky: Sky, clock: ClockOfTests, fault: Exception | None) -> None:
    """Fail all runs now, with an attempt at L1 on record or without a word."""
    for run in sky.instance.get_runs():
        if run.is_finished:
            continue
        if fault is not None:
            key = run.tags["dagster/partition"]
            attempt = StepAttempt(
                sky.root, Step.FORMATTING, key, Run(run.run_id, last_try=False), clock.now
            )
            with suppress(type(fault)), attempt:
                raise fault
    sky.end_runs(DagsterEventType.RUN_FAILURE)


def test_after_a_passing_fault_work_is_requested_again_with_growing_pauses(
    sky: Sky, clock: ClockOfTests
) -> None:
    sky.receive(FIRST)
    asked = []
    for clock.minute in (0, 1, 2, 5, 6, 13, 14, 29, 30, 61, 62, 121, 122):
        if requested(sky) == [FIRST]:
            asked.append(clock.minute)
            fail(sky, clock, PassingFaultError("the disk is full"))
        if clock.minute % 7 == 0:
            sky.restart()
    assert asked == [0, 2, 6, 14, 30, 62, 122]
    keys = {run.tags["dagster/run_key"] for run in sky.instance.get_runs()}
    assert len(keys) == len(asked)


def test_bad_input_is_not_requested_again_before_it_changes(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    fail(sky, clock, PassingFaultError("the disk is full"))
    clock.minute = 3
    assert requested(sky) == [FIRST]
    fail(sky, clock, BadInputError("file", "field", "it is damaged", "deliver it again"))
    clock.minute = 1000
    assert requested(sky) == []
    sky.receive(FIRST, "delivered again")
    assert requested(sky) == [FIRST]


def test_a_run_that_fails_without_a_word_is_requested_again(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    assert requested(sky) == []
    monkeypatch.setattr(landing, "datetime", Later)
    assert requested(sky) == [FIRST]
    with Registry(sky.root) as registry:
        assert set(registry.work.attempts(FIRST)["error"]) == {"RunFailed"}


def test_a_lost_run_that_the_daemon_fails_to_start_again_strands_nothing(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon tries once, and logs "Failed to retry run" if no code server answers."""
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    (run,) = sky.instance.get_runs()
    sky.instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "true"})
    monkeypatch.setattr(landing, "datetime", Later)
    assert end_missed_retries(sky.instance, datetime.now(UTC) + timedelta(minutes=3)) == 0
    assert requested(sky) == []
    assert end_missed_retries(sky.instance, datetime.now(UTC) + timedelta(minutes=6)) == 1
    assert requested(sky) == []
    assert requested(sky) == [FIRST]


class Later:
    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(minutes=3)


def test_a_clock_that_was_fast_for_a_while_strands_nothing(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    fail(sky, clock, PassingFaultError("the disk is full"))
    clock.minute = 600
    assert requested(sky) == [FIRST]
    sky.format(FIRST)
    (run,) = (run for run in sky.instance.get_runs() if not run.is_finished)
    with StepAttempt(sky.root, Step.EXPOSURE, FIRST, Run(run.run_id), clock.now) as attempt:
        sky.calibrate(FIRST, attempt=attempt)
    sky.end_runs()
    clock.minute = 10
    sky.receive(FIRST, "delivered again")
    for clock.minute in (10, 13):
        assert requested(sky) == [FIRST]
        fail(sky, clock, PassingFaultError("the disk is full"))


def test_a_run_that_somebody_cancelled_is_left_to_people(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    (run,) = sky.instance.get_runs()
    attempt = StepAttempt(sky.root, Step.FORMATTING, FIRST, Run(run.run_id), clock.now)
    with suppress(DagsterExecutionInterruptedError), attempt:
        raise DagsterExecutionInterruptedError
    sky.end_runs(DagsterEventType.RUN_CANCELED)
    clock.minute = 1000
    assert requested(sky) == []
    sky.receive(FIRST, "delivered again")
    assert requested(sky) == [FIRST]


def test_after_an_outage_the_earliest_deadlines_come_first_and_not_all_at_once(
    sky: Sky, clock: ClockOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_watch, "RUNS_PER_TICK", 2)
    keys = [exposure_key(number) for number in (3, 1, 5, 2, 4)]
    for key in keys:
        sky.receive(key)
    assert [requested(sky) for _ in range(3)] == [keys[:2], keys[2:4], keys[4:]]
    fail(sky, clock, PassingFaultError("the object store cannot be reached"))
    clock.minute = 1
    assert requested(sky) == []
    clock.minute = 2
    assert [requested(sky) for _ in range(4)] == [keys[:2], keys[2:4], keys[4:], []]


def test_a_detector_that_failed_for_a_passing_fault_is_tried_again(
    sky: Sky, clock: ClockOfTests
) -> None:
    sky.receive(FIRST)
    assert requested(sky) == [FIRST]
    sky.format(FIRST)
    (run,) = sky.instance.get_runs()
    attempt = StepAttempt(
        sky.root, Step.EXPOSURE, FIRST, Run(run.run_id, last_try=False), clock.now
    )
    with attempt:
        sky.calibrate(FIRST, failed=[2], error="PassingFaultError", attempt=attempt)
    sky.end_runs()
    assert requested(sky) == []
    clock.minute = 2
    assert requested(sky) == [FIRST]
    sky.calibrate(FIRST)


def at_work(sky: Sky, clock: ClockOfTests, **made: Any) -> None:
    """Let the run that was requested format, and calibrate WFI01."""
    (run,) = (run for run in sky.instance.get_runs() if not run.is_finished)
    attempt = StepAttempt(sky.root, Step.FORMATTING, FIRST, Run(run.run_id), clock.now)
    with attempt:
        sky.format(FIRST, attempt=attempt, **made)
    sky.calibrate(FIRST, without=[2])
    sky.end_runs()


CUT_OFF = 12 * 60
"""Minutes, as `PacketPolicy` has it."""


def test_a_detector_that_is_in_waits_for_the_others_a_little_and_no_longer(
    sky: Sky, clock: ClockOfTests
) -> None:
    sky.receive(FIRST, complete=False, first=clock.now())
    asked = []
    for clock.minute in (0, 9, 10, 11, 100):
        if requested(sky) == [FIRST]:
            asked.append(clock.minute)
            at_work(sky, clock, without=[2])
    assert asked == [10]


def test_what_is_incomplete_at_the_cut_off_is_formatted_once(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST, complete=False, first=clock.now())
    asked = []
    for clock.minute in (10, CUT_OFF - 1, CUT_OFF, CUT_OFF + 1, 2 * CUT_OFF):
        if requested(sky) == [FIRST]:
            asked.append(clock.minute)
            lost = {"failed": [2], "error": "LostPacketsError"}
            at_work(sky, clock, **(lost if clock.minute >= CUT_OFF else {"without": [2]}))
        sky.restart()
    assert asked == [10, CUT_OFF]


def test_what_arrives_after_the_cut_off_is_formatted(sky: Sky, clock: ClockOfTests) -> None:
    first = clock.now()
    clock.minute = CUT_OFF
    sky.receive(FIRST, complete=False, first=first)
    assert requested(sky) == [FIRST]
    at_work(sky, clock, failed=[2], error="LostPacketsError")
    clock.minute = CUT_OFF + 60
    sky.receive(FIRST, complete=False, first=first, second="more of it", newest=clock.now())
    assert requested(sky) == [], "it waits for the others of these packets"
    clock.minute += 10
    assert requested(sky) == [FIRST]
    at_work(sky, clock)
    clock.minute += 60
    sky.receive(FIRST, second="all of it", first=first, newest=clock.now())
    assert requested(sky) == [FIRST]


def test_packets_that_are_removed_do_not_make_anything_again(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST, complete=False, first=clock.now())
    clock.minute = CUT_OFF
    assert requested(sky) == [FIRST]
    at_work(sky, clock)
    clock.minute += 60
    sky.receive(FIRST, complete=False, first=EPOCH, second="less of it")
    assert requested(sky) == []


def test_a_person_ends_the_wait_for_packets(sky: Sky, clock: ClockOfTests) -> None:
    sky.receive(FIRST, complete=False, first=clock.now())
    assert requested(sky) == []
    clock.minute = 1
    record_receipts(
        sky.root, [sky.receipts[FIRST]], clock=clock.now,
        decision=WaitEnded("operator", "the recorder was overwritten"),
    )  # fmt: skip
    clock.minute = 2
    assert requested(sky) == [FIRST]
    with Registry(sky.root) as registry:
        ((said, moments),) = registry.receipts.newest([FIRST]).values()
    assert (said.closed_by, said.closed_because) == ("operator", "the recorder was overwritten")
    assert moments[ClockEvent.CUT_OFF] == clock.now() - timedelta(minutes=1)


def test_waits_that_cannot_be_read_hold_up_no_exposure(sky: Sky, capfd) -> None:
    sky.receive(FIRST)
    sky.root.path.mkdir(parents=True, exist_ok=True)
    (sky.root.path / "packets.toml").write_text("version = 1\ncut_off_hours = -1\n")
    assert requested(sky) == [FIRST]
    assert "packets.toml: cut_off_hours" in capfd.readouterr().err
