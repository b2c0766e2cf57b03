"""The ledger's verdicts on a rehearsal against a recount by brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings

from roman_assets.products.deadline import ProductState
from roman_assets.rehearsal.fault import FaultRates
from roman_assets.rehearsal.ground import Downlink
from roman_assets.rehearsal.rehearsal import Rehearsal, Scenario
from roman_assets.rehearsal.sizing import DeadlineCount
from roman_assets.rehearsal.verdict import verdicts
from roman_assets_tests.support.plans import machines, night, scenarios, times
from roman_assets_tests.support.recount import (
    KEPT,
    MISSED,
    NO_DEADLINE,
    VERDICT_OF_STATE,
    Key,
    recount,
)

RATES = (0.01, 0.05, 0.2)


def ledger(rehearsal: Rehearsal) -> Counter[Key]:
    """Count the ledger's rows of first makings: one a product, so that two verdicts count twice."""
    with rehearsal.registry() as connection:
        rows = connection.execute(
            """
            select "partition", kind, coalesce(detector,
                nullif(regexp_extract(file_set, '_(\\d{3}[pm]\\d{2}x\\d{2}y\\d{2})_', 1), '')),
                state
            from ledger($moment) where coalesce(generation, 1) = 1
            """,
            {"moment": rehearsal.end},
        ).fetchall()
    return Counter((*row, VERDICT_OF_STATE[ProductState(state)]) for *row, state in rows)


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios)
def test_every_product_has_the_one_verdict_that_a_recount_gives(scenario: Scenario) -> None:
    rehearsal = scenario.rehearse(machines(2))
    counted = Counter(recount(rehearsal))
    assert set(counted.values()) == {1}
    assert ledger(rehearsal) == counted


@pytest.mark.parametrize("rate", RATES)
def test_the_summary_agrees_with_a_recount_at_any_rate_of_faults(rate: float) -> None:
    scenario = Scenario(
        night([2] * 150, spacing_s=400), FaultRates.all_at(rate), 7, times=times(60, 3600, 3600)
    )
    rehearsal = scenario.rehearse(machines(40))
    with rehearsal.ledger() as connection:
        levels = verdicts(connection)
    totals = Counter(verdict for *_, verdict in recount(rehearsal))
    assert sum(level.kept for level in levels) == totals[KEPT] > 0
    assert sum(level.missed for level in levels) == totals[MISSED] > 0
    assert sum(level.without_deadline for level in levels) == totals[NO_DEADLINE]
    assert sum(level.products for level in levels) == totals.total() - totals["not expected"]
    for level in levels:
        assert sum(level.missed_by_blame.values()) == level.missed


@pytest.mark.parametrize("most_visits", [40, 150])
def test_the_verdicts_do_not_depend_on_how_many_visits_are_read_at_a_time(most_visits: int) -> None:
    scenario = Scenario(
        night([2] * 150, spacing_s=400), FaultRates.all_at(0.1), 7, times=times(60, 3600, 3600)
    )
    rehearsal = scenario.rehearse(machines(40))
    with rehearsal.ledger() as whole, rehearsal.ledger(most_visits) as parts:
        for one, other in zip(verdicts(parts), verdicts(whole), strict=True):
            assert one.blame_hours == pytest.approx(other.blame_hours)
            assert replace(one, blame_hours={}) == replace(other, blame_hours={})


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios)
def test_the_search_counts_as_kept_what_the_ledger_counts(scenario: Scenario) -> None:
    rehearsal = scenario.rehearse(machines(1))
    count = DeadlineCount(scenario.faults, scenario.receipts, scenario.deadlines)
    kept = sum(verdict == KEPT for *_, verdict in recount(rehearsal))
    assert count.kept(rehearsal.log) == kept


@settings(deadline=None, max_examples=25)
@given(scenario=scenarios)
def test_the_same_seed_gives_the_same_rehearsal(scenario: Scenario) -> None:
    again = replace(scenario)
    assert scenario.rehearse(machines(2)).log == again.rehearse(machines(2)).log


def test_the_last_generation_of_a_product_is_the_current_one() -> None:
    rare = Downlink(contact_interval=timedelta(days=5), contact_length=timedelta(minutes=30))
    scenario = Scenario(night([2], spacing_s=3000), times=times(), downlink=rare)
    with scenario.rehearse(machines(1)).registry() as connection:
        rows = connection.execute(
            "select kind, skycell[-6:], list(state order by generation) from products "
            "where step = 'visit' group by all order by all"
        ).fetchall()
    # the second exposure came late and shares one of its two skycells with the first
    assert {(cell, *states) for _, cell, states in rows} == {
        ("x41y50", "current"),
        ("x42y50", "overwritten", "current"),
        ("x43y50", "current"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_every_product_of_a_whole_survey_has_the_one_verdict_of_a_recount(
    rate: float, survey_plan: Path
) -> None:
    from roman_assets.rehearsal.planned_work import Observations
    from roman_assets.simulation.telescope.coverage import skycells_of_exposures
    from roman_assets.simulation.telescope.survey_plan import VisitPlan

    plan = VisitPlan.read(survey_plan)
    observations = Observations.of(plan.exposures, skycells_of_exposures(plan.exposures))
    scenario = Scenario(observations, FaultRates.all_at(rate), 1)
    rehearsal = scenario.rehearse(machines(80))
    expected = Counter(
        (partition, kind, verdict) for partition, kind, _, verdict in recount(rehearsal)
    )
    with rehearsal.registry() as connection:
        doubled = connection.execute(
            "select name from products group by name, generation having count(*) > 1 limit 1"
        ).fetchall()
        rows = connection.execute(
            'select "partition", kind, state, sum(products)::bigint '
            "from ledger_groups($moment) where first group by all",
            {"moment": rehearsal.end},
        ).fetchall()
    assert not doubled
    found: Counter[tuple[str, str, str]] = Counter()
    for partition, kind, state, n in rows:
        found[partition, kind, VERDICT_OF_STATE[ProductState(state)]] += n
    assert found == expected
