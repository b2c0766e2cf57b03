from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from dagster import DagsterEventType

from roman_assets.defs.lib import in_progress
from roman_assets.defs.visit import sensors as visits
from roman_assets.defs.visit import visit_watch
from roman_assets.defs.visit.sensors import run_request
from roman_assets.defs.visit.visit_state import VisitState
from roman_assets.defs.visit.visit_watch import VisitWatch
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureType, Survey, VisitId
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.records.journal import Journal
from roman_assets.records.record import WHOLE_ARCHIVE, CommitRecord
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.upkeep.retention import remove, supersede
from roman_assets_tests.support.sky import EXECUTED, VISIT, Sky, exposure_key

FIRST, SECOND, THIRD = (exposure_key(number) for number in (1, 2, 3))
AT_RESERVE = EXECUTED[1] + timedelta(days=5) - timedelta(hours=6)
"""When a visit stops waiting, by the policy's defaults."""


def requested(sky: Sky) -> list[str | None]:
    return [request.partition_key for request in sky.look_at_visits()]


def test_a_visit_is_made_when_all_its_exposures_are_in(sky: Sky) -> None:
    sky.process(FIRST)
    assert requested(sky) == []
    assert sky.instance.get_dynamic_partitions("visit") == []
    sky.process(SECOND)
    assert requested(sky) == [VISIT]
    assert sky.instance.get_dynamic_partitions("visit") == [VISIT]
    assert requested(sky) == []


def test_a_visit_waits_while_one_of_its_exposures_is_at_work(sky: Sky) -> None:
    sky.receive(SECOND)
    sky.look_at_landing()
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == []
    sky.end_runs()
    assert requested(sky) == [VISIT]


def test_a_visit_waits_for_a_backfill_over_a_range_of_its_exposures(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.instance.add_dynamic_partitions("exposure", [FIRST, SECOND])
    sky.start_range(FIRST, SECOND)
    assert requested(sky) == []
    sky.end_runs()
    assert requested(sky) == [VISIT]


def test_overwritten_l1_makes_the_visit_again(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [VISIT]
    sky.end_runs()
    sky.mosaic(VISIT, FIRST, SECOND)
    assert requested(sky) == []
    sky.process(FIRST, "redelivered")
    assert requested(sky) == [VISIT]


def test_what_a_release_makes_again_does_not_make_prompt_l3_again(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.mosaic(VISIT, FIRST, SECOND)
    assert requested(sky) == []
    sky.receive(FIRST, "with another context")
    sky.calibrate(FIRST, data_release="r0")
    assert requested(sky) == []
    sky.process(SECOND, "redelivered")
    assert requested(sky) == [VISIT]


def test_a_visit_without_l3_is_made_from_what_a_release_has_made(sky: Sky) -> None:
    for key in (FIRST, SECOND):
        sky.receive(key)
        sky.format(key)
        sky.calibrate(key, data_release="r0")
    assert requested(sky) == [VISIT]


@pytest.mark.parametrize("gone", [False, True])
def test_prompt_l3_that_a_release_superseded_are_made_again_only_for_new_images(
    sky: Sky, gone: bool
) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.mosaic(VISIT, FIRST, SECOND)
    fold(sky.root)
    coadds = Registry(sky.root).products.find(kind="coadd")["name"]
    supersede(sky.root, coadds, reason="r0 is published", cause="r0")
    if gone:
        remove(sky.root, coadds, reason="90 days after", cause="retention")
    sky.process(FIRST, "another context")
    assert requested(sky) == []
    sky.process(THIRD, nexposures=3)
    assert requested(sky) == [VISIT]


def test_a_record_about_no_exposure_or_visit_holds_nothing_up(sky: Sky) -> None:
    Journal(sky.root).write(CommitRecord(step=Step.UPKEEP, partition=WHOLE_ARCHIVE))
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [VISIT]


def test_a_late_exposure_makes_the_visit_again(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    requested(sky)
    sky.end_runs()
    sky.mosaic(VISIT, FIRST, SECOND)
    sky.process(THIRD, nexposures=3)
    assert requested(sky) == [VISIT]


def test_what_was_made_without_dagster_is_not_made_again(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.mosaic(VISIT, FIRST, SECOND)
    assert requested(sky) == []


def test_a_restart_of_the_daemon_changes_nothing(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [VISIT]
    sky.restart()
    assert requested(sky) == []


def test_a_settings_error_of_one_look_loses_no_visit(sky: Sky, monkeypatch) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    with monkeypatch.context() as patch, pytest.raises(BadInputError):
        patch.setenv("ROMAN_ASSETS_VISIT_RESERVE_HOURS", "many")
        requested(sky)
    assert requested(sky) == [VISIT]


def test_a_visit_of_too_many_exposures_holds_up_no_other(sky: Sky) -> None:
    sky.process(exposure_key(1, f"{VISIT[:-1]}2"), nexposures=10_000)
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [VISIT]
    sky.end_runs()
    sky.mosaic(VISIT, FIRST, SECOND)
    assert requested(sky) == []


def test_a_lost_event_does_not_stay_lost(sky: Sky, monkeypatch) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    (request,) = sky.look_at_visits()
    for run in sky.instance.get_runs():
        sky.instance.delete_run(run.run_id)
    assert [again.run_key for again in sky.look_at_visits()] == [request.run_key]


def test_a_visit_that_cannot_be_made_is_not_tried_for_ever(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    assert requested(sky) == [VISIT]
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    assert requested(sky) == []


def test_a_detector_that_failed_does_not_hold_up_the_visit(sky: Sky) -> None:
    sky.process(FIRST)
    sky.receive(SECOND)
    sky.format(SECOND)
    sky.calibrate(SECOND, failed=[2])
    assert requested(sky) == [VISIT]
    sky.end_runs()
    sky.calibrate(SECOND)
    assert requested(sky) == [VISIT], "made again once the detector is repaired"


def test_l3_and_l4_of_gbtds_are_left_to_the_ssc(sky: Sky) -> None:
    for key in (FIRST, SECOND):
        sky.process(key, survey=Survey.GBTDS)
    assert requested(sky) == []
    assert sky.instance.get_dynamic_partitions("visit") == []


def test_l4_of_spectra_are_left_to_the_ssc(sky: Sky) -> None:
    for key in (FIRST, SECOND):
        sky.process(key, exposure_type=ExposureType.WFI_SPECTRAL)
    assert requested(sky) == []


def test_visits_that_are_up_to_date_are_not_looked_up_again(sky: Sky, monkeypatch) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.mosaic(VISIT, FIRST, SECOND)
    requested(sky)
    looked_up: list[VisitId] = []
    monkeypatch.setattr(
        visit_watch,
        "visit_states",
        lambda root, registry, wanted: looked_up.extend(wanted) or ([], {}),
    )
    assert requested(sky) == []
    assert looked_up == []


def wanted_at(sky: Sky, now: datetime, watch: VisitWatch | None = None) -> list[VisitState]:
    """Let a sensor look at a given time, a restarted one unless it is given."""
    fold(sky.root)
    return (watch or VisitWatch(sky.root)).wanted(sky.instance, now)


def test_a_lost_exposure_holds_up_the_visit_until_the_deadline_nears(sky: Sky) -> None:
    watch = VisitWatch(sky.root)
    sky.process(FIRST)
    assert wanted_at(sky, AT_RESERVE - timedelta(minutes=1), watch) == []
    (state,) = wanted_at(sky, AT_RESERVE, watch)
    assert state.manifest.missing == (SECOND,)
    assert run_request(state).tags["roman_assets/missing"] == "1"


def test_a_partial_visit_is_made_once_and_again_when_the_rest_is_in(sky: Sky) -> None:
    sky.process(FIRST)
    (state,) = wanted_at(sky, AT_RESERVE)
    sky.start(run_request(state))
    assert wanted_at(sky, AT_RESERVE) == []
    sky.end_runs()
    sky.mosaic(VISIT, FIRST, missing=[SECOND])
    assert wanted_at(sky, AT_RESERVE + timedelta(days=300)) == []
    sky.process(SECOND)
    (state,) = wanted_at(sky, AT_RESERVE)
    assert state.manifest.complete
    sky.mosaic(VISIT, FIRST, SECOND)
    assert wanted_at(sky, AT_RESERVE) == []


def test_the_mark_of_a_partial_visit_goes_although_its_images_stay(sky: Sky) -> None:
    sky.process(FIRST)
    sky.mosaic(VISIT, FIRST, missing=[SECOND])
    sky.process(FIRST, nexposures=1)
    (state,) = wanted_at(sky, EXECUTED[1])
    assert state.manifest.complete


def test_the_reserve_can_be_set(sky: Sky, monkeypatch) -> None:
    sky.process(FIRST)
    monkeypatch.setenv("ROMAN_ASSETS_VISIT_RESERVE_HOURS", "24")
    assert wanted_at(sky, AT_RESERVE - timedelta(hours=19)) == []
    assert len(wanted_at(sky, AT_RESERVE - timedelta(hours=18))) == 1
    monkeypatch.setenv("ROMAN_ASSETS_VISIT_RESERVE_HOURS", "a day")
    with pytest.raises(BadInputError, match=r"VISIT_RESERVE_HOURS.*a day"):
        wanted_at(sky, AT_RESERVE)


def test_the_visit_that_is_due_first_has_the_highest_priority(sky: Sky) -> None:
    later = "r0001001001001001002"
    for key in (FIRST, SECOND):
        sky.process(key)
        sky.process(key.replace(VISIT, later), executed=EXECUTED[1] + timedelta(hours=1))
    requests = sky.look_at_visits()
    assert [request.partition_key for request in requests] == [VISIT, later]
    first, second = (int(request.tags["dagster/priority"]) for request in requests)
    assert first == second + 60


def test_a_full_queue_is_not_filled_further(sky: Sky, monkeypatch) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    with monkeypatch.context() as patch:
        patch.setattr(in_progress, "RUNS_IN_QUEUE", 0)
        assert requested(sky) == []
    assert requested(sky) == [VISIT]


class ClockOfTests:
    """The time that the visit sensor sees: minutes after all is executed."""

    minute = 0.0

    def now(self, zone: tzinfo = UTC) -> datetime:
        return (EXECUTED[1] + timedelta(minutes=self.minute)).astimezone(zone)


@pytest.mark.parametrize("told", [True, False])
def test_a_visit_is_requested_again_after_a_passing_fault(
    sky: Sky, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    clock = ClockOfTests()
    if told:
        monkeypatch.setattr(visits, "datetime", clock)
    sky.process(FIRST)
    sky.process(SECOND)
    (request,) = sky.look_at_visits()
    (run,) = sky.instance.get_runs()
    if told:
        attempt = StepAttempt(
            sky.root, Step.VISIT, VISIT, Run(run.run_id, last_try=False), clock.now
        )
        with suppress(PassingFaultError), attempt:
            raise PassingFaultError("a worker was lost")
    assert requested(sky) == [], "Dagster retries the step in the run"
    clock.minute = 3
    assert requested(sky) == []
    sky.end_runs(DagsterEventType.RUN_FAILURE)
    if not told:
        assert requested(sky) == []
        monkeypatch.setattr(visits, "datetime", Later)
    (again,) = sky.look_at_visits()
    assert again.run_key == f"{request.run_key}:failed-1"
    sky.restart()
    assert requested(sky) == []


class Later:
    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(minutes=3)
