from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.observation import Survey
from roman_assets.products.visit_policy import VisitReserve
from roman_assets.rehearsal.fault import FaultRates
from roman_assets.rehearsal.ground import Downlink
from roman_assets.rehearsal.rehearsal import Scenario
from roman_assets.rehearsal.replay import Ending, RehearsedAttempt, ReplayLog
from roman_assets.rehearsal.run_queue import Platform
from roman_assets_tests.support.plans import DAY_S, machines, night, scenarios, times


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Give how many of some spans of time overlap at most."""
    steps = sorted([(end, -1) for _, end in spans] + [(begin, 1) for begin, _ in spans])
    held = most = 0
    for _, step in steps:
        held += step
        most = max(most, held)
    return most


def of_step(log: ReplayLog, step: Step) -> list[RehearsedAttempt]:
    return [one for one in log.attempts if one.step is step]


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios, count=st.integers(1, 4))
def test_no_more_steps_and_runs_are_at_work_than_admitted(scenario: Scenario, count: int) -> None:
    log = scenario.rehearse(machines(count)).log
    in_pool = [(one.started, one.ended) for one in log.attempts if one.step is not Step.FORMATTING]
    assert most_at_once(in_pool) <= count
    runs = [(run.started, min(run.ended, log.end)) for run in log.runs if run.started < log.end]
    assert most_at_once(runs) <= count + 1


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios)
def test_nothing_is_done_before_it_can_be(scenario: Scenario) -> None:
    log = scenario.rehearse(machines(2)).log
    received = scenario.receipts.all_received
    made: dict[tuple[Step, int], float] = {}
    for one in log.attempts:
        assert one.queued <= one.started <= one.ended
        if one.step is not Step.VISIT:
            assert one.queued >= received[one.partition]
        if one.step is Step.EXPOSURE:
            assert one.started >= made[Step.FORMATTING, one.partition]
        if one.step is Step.VISIT:
            members = scenario.observations.visits[one.partition].members
            for place, number in enumerate(members):
                if one.members >> place & 1:
                    assert one.started >= made[Step.EXPOSURE, number]
        if one.ending is Ending.FINISHED:
            made.setdefault((one.step, one.partition), one.ended)


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios)
def test_the_same_is_published_again_only_by_a_run_that_was_at_work_meanwhile(
    scenario: Scenario,
) -> None:
    earlier: dict[tuple[Step, int, int], RehearsedAttempt] = {}
    for one in scenario.rehearse(machines(3)).log.attempts:
        if one.ending is Ending.FINISHED:
            before = earlier.setdefault((one.step, one.partition, one.members), one)
            assert one is before or (one.step is Step.VISIT and one.started < before.ended)


def test_with_a_backlog_the_run_that_is_due_first_goes_first() -> None:
    scenario = Scenario(night([1] * 20), times=times(1, 3600, 3600))
    log = scenario.rehearse(machines(1, concurrent_runs=1)).log
    received = scenario.receipts.all_received
    waiting = [one for one in of_step(log, Step.FORMATTING) if one.started > received.max() + 60]
    order = [received[one.partition] for one in waiting]
    assert len(order) > 10
    assert order == sorted(order)
    exposures_end = max(one.ended for one in of_step(log, Step.EXPOSURE))
    assert min(one.started for one in of_step(log, Step.VISIT)) > exposures_end


def test_a_passing_fault_is_tried_again_after_the_waits_of_the_policy() -> None:
    rates = FaultRates(passing_faults=1.0)
    log = Scenario(night([1]), rates, times=times()).rehearse(machines(1)).log
    tries = of_step(log, Step.FORMATTING)
    waits = [after.started - before.ended for before, after in pairwise(tries)]
    assert waits[:3] == pytest.approx([10, 30, 70])
    assert [one.last_try for one in tries[:4]] == [False, False, False, True]
    assert waits[3] == pytest.approx(12 * 3600, abs=15)  # an operator executes the run again


def test_input_that_cannot_be_used_is_tried_once() -> None:
    rates = FaultRates(bad_input=1.0)
    log = Scenario(night([2]), rates, times=times()).rehearse(machines(1)).log
    assert [one.ending for one in log.attempts] == [Ending.BAD_INPUT] * 2


def test_a_run_that_lost_its_worker_starts_again_and_keeps_what_it_made() -> None:
    observations = night([1] * 40)
    scenario = Scenario(observations, FaultRates(lost_workers=0.3), 3, times=times())
    log = scenario.rehearse(machines(2)).log
    made = Counter(
        (one.step, one.partition) for one in log.attempts if one.ending is Ending.FINISHED
    )
    assert set(made.values()) == {1}
    assert len(made) == 3 * 40
    assert sum(one.ending is Ending.LOST_WORKER for one in log.attempts) > 10
    assert {run.restarts for run in log.runs} > {0, 1}


def test_a_visit_whose_exposure_is_lost_is_made_in_part_when_its_reserve_is_reached() -> None:
    reserve = VisitReserve(least=timedelta(hours=8), most=timedelta(hours=8))
    scenario = Scenario(
        night([2] * 30), FaultRates(lost_exposures=0.2), 1, times=times(), reserve=reserve
    )
    log = scenario.rehearse(machines(10)).log
    lost = scenario.faults.lost
    observations = scenario.observations
    made = set()
    for one in of_step(log, Step.VISIT):
        members = observations.visits[one.partition].members
        due = observations.end[list(members)].max() + 5 * DAY_S
        if lost[list(members)].any():
            made.add(one.partition)
            assert due - 8 * 3600 <= one.started < due - 8 * 3600 + 60
        else:
            assert one.started < 2 * DAY_S
    pairs = lost.reshape(-1, 2)
    assert made == set(np.flatnonzero(pairs.any(axis=1) & ~pairs.all(axis=1)).tolist()) != set()


def test_a_visit_made_in_part_is_made_again_when_the_rest_arrives() -> None:
    downlink = Downlink(contact_interval=timedelta(days=5), contact_length=timedelta(minutes=30))
    scenario = Scenario(night([2], spacing_s=3000), times=times(), downlink=downlink)
    log = scenario.rehearse(machines(1)).log
    first, second = of_step(log, Step.VISIT)
    assert (first.members, second.members) == (0b01, 0b11)
    assert first.ended < scenario.receipts.all_received[1] < second.started


def test_a_visit_that_was_cut_short_does_not_wait_for_the_rest() -> None:
    scenario = Scenario(night([4] * 10), FaultRates(cut_short=1.0), times=times())
    log = scenario.rehearse(machines(10)).log
    visits = of_step(log, Step.VISIT)
    assert len(visits) == 10
    assert all(one.started < DAY_S and one.members != 0b1111 for one in visits)


def test_what_the_science_support_center_makes_is_not_made() -> None:
    scenario = Scenario(night([2, 2], survey=Survey.GBTDS), times=times())
    log = scenario.rehearse(machines(2)).log
    assert {one.step for one in log.attempts} == {Step.FORMATTING, Step.EXPOSURE}


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 3, "workers_per_machine": 2}, "multiple of 2"),
        ({"workers": 2, "workers_per_machine": 0}, "workers_per_machine"),
        ({"workers": 2, "concurrent_runs": 0}, "most_runs"),
    ],
)
def test_a_platform_that_cannot_work_is_refused(settings_: dict[str, int], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        Platform(**settings_)
