from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.products.observation import Survey
from roman_assets.rehearsal.fault import FaultRates
from roman_assets.rehearsal.rehearsal import Scenario
from roman_assets.rehearsal.sizing import UNLIMITED_MACHINES, DeadlineCount, fewest_machines
from roman_assets_tests.support.plans import machines, night, times


def kept(scenario: Scenario, count: int) -> int:
    tally = DeadlineCount(scenario.faults, scenario.receipts, scenario.deadlines)
    return tally.kept(scenario.rehearse(machines(count)).log)


@given(needed=st.integers(1, 300), guess=st.integers(0, 300))
def test_the_fewest_are_found_from_any_guess_and_the_next_fewer_are_tried(
    needed: int, guess: int
) -> None:
    sizing = fewest_machines(lambda count: min(count, needed), guess)
    assert sizing.machines == needed
    assert sizing.attainable == needed
    tried = {trial.machines for trial in sizing.trials}
    assert {needed, needed - 1} - {0} <= tried
    assert len(tried) < 30


def test_a_number_just_below_that_suffices_by_chance_is_found() -> None:
    enough = {5, 7, 8, 9, 10, UNLIMITED_MACHINES}
    assert fewest_machines(lambda count: int(count in enough), 10).machines == 5


def test_the_workers_found_keep_all_that_can_be_kept_and_one_less_do_not() -> None:
    scenario = Scenario(night([2] * 60), FaultRates.all_at(0.05), 2, times=times(1, 3600, 3600))
    sizing = scenario.fewest_workers(machines(1))
    attainable = kept(scenario, UNLIMITED_MACHINES)
    assert sizing.machines > 2
    assert kept(scenario, sizing.machines) == attainable
    assert kept(scenario, sizing.machines - 1) < attainable


@settings(deadline=None, max_examples=40)
@given(
    visits=st.lists(st.integers(1, 3), min_size=1, max_size=25),
    hours=st.floats(0.2, 6.0),
    seed=st.integers(0, 100),
)
def test_without_faults_and_visits_more_workers_never_keep_fewer(
    visits: list[int], hours: float, seed: int
) -> None:
    scenario = Scenario(
        night(visits, survey=Survey.GBTDS), seed=seed, times=times(1, hours * 3600, 1)
    )
    counts = [kept(scenario, count) for count in range(1, 6)]
    assert counts == sorted(counts)


def test_more_workers_may_keep_fewer_since_no_run_is_interrupted() -> None:
    """Why the search counts on rehearsals only: a worker more takes up a long run too early."""
    visits = [3, 1, 2, 3, 3, 1, 1, 2, 1, 3, 3]
    scenario = Scenario(
        night(visits, spacing_s=20000), seed=27, times=times(1, 2 * 3600, 20 * 3600)
    )
    counts = [kept(scenario, count) for count in range(1, 7)]
    assert counts != sorted(counts)
