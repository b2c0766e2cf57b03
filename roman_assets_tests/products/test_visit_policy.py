from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from roman_assets.products.visit_policy import (
    VisitDecision,
    VisitProgress,
    VisitReserve,
    decide,
    waits_until,
)

DUE = datetime(2027, 6, 6, tzinfo=UTC)
RESERVE = timedelta(hours=6)
EARLY, LATE = DUE - timedelta(hours=7), DUE - timedelta(hours=5)
LACKING = VisitProgress(inputs=4, awaited=("_0003",), due=DUE)

moments = st.datetimes(datetime(2027, 6, 1), datetime(2027, 6, 20), timezones=st.just(UTC))
progresses = st.builds(
    VisitProgress,
    inputs=st.integers(0, 3),
    awaited=st.frozensets(st.sampled_from(["_0001", "_0002"])),
    at_work=st.booleans(),
    up_to_date=st.booleans(),
    made=st.none() | moments,
    due=st.none() | moments,
)


def test_a_visit_that_is_in_is_made_at_once() -> None:
    assert decide(replace(LACKING, awaited=()), EARLY, RESERVE) is VisitDecision.MAKE


def test_a_visit_waits_while_its_deadline_allows() -> None:
    assert decide(LACKING, EARLY, RESERVE) is VisitDecision.WAIT


def test_a_visit_is_made_in_part_when_the_margin_reaches_the_reserve() -> None:
    assert decide(LACKING, DUE - RESERVE, RESERVE) is VisitDecision.MAKE_PARTIAL
    assert decide(LACKING, DUE + RESERVE, RESERVE) is VisitDecision.MAKE_PARTIAL


def test_a_visit_without_images_is_not_made() -> None:
    assert decide(replace(LACKING, inputs=0), LATE, RESERVE) is VisitDecision.WAIT


def test_what_is_made_from_just_these_images_is_left_alone() -> None:
    done = replace(LACKING, up_to_date=True, made=LATE)
    assert decide(done, LATE, RESERVE) is VisitDecision.LEAVE


def test_the_rest_completes_a_partial_visit_at_once() -> None:
    late = replace(LACKING, awaited=(), made=LATE)
    assert decide(late, LATE, RESERVE) is VisitDecision.MAKE


def test_a_trickle_of_late_exposures_makes_a_visit_once_each_reserve() -> None:
    more = replace(LACKING, made=LATE)
    assert decide(more, LATE + timedelta(hours=1), RESERVE) is VisitDecision.WAIT
    assert decide(more, LATE + RESERVE, RESERVE) is VisitDecision.MAKE_PARTIAL


def test_a_visit_waits_for_runs_on_its_exposures_but_not_beyond_its_deadline() -> None:
    busy = replace(LACKING, awaited=(), at_work=True)
    assert decide(busy, EARLY, RESERVE) is VisitDecision.WAIT
    assert decide(busy, LATE, RESERVE) is VisitDecision.MAKE_PARTIAL


def test_reprocessing_of_exposures_ends_before_their_visit_is_made_again() -> None:
    reprocessed = replace(LACKING, at_work=True, made=DUE - timedelta(days=30))
    assert decide(reprocessed, DUE, RESERVE) is VisitDecision.WAIT


@given(progresses, moments)
def test_a_decision_changes_by_time_alone_only_when_foretold(
    progress: VisitProgress, now: datetime
) -> None:
    until = waits_until(progress, RESERVE)
    later = decide(progress, now + timedelta(days=365), RESERVE)
    if decide(progress, now, RESERVE) is VisitDecision.WAIT and later is not VisitDecision.WAIT:
        assert until is not None
        assert now < until
        assert decide(progress, until, RESERVE) is VisitDecision.MAKE_PARTIAL
    else:
        assert decide(progress, now, RESERVE) is later


@given(progresses, moments)
def test_nothing_is_made_from_nothing_or_twice_from_the_same(
    progress: VisitProgress, now: datetime
) -> None:
    decision = decide(progress, now, RESERVE)
    if decision in (VisitDecision.MAKE, VisitDecision.MAKE_PARTIAL):
        assert progress.inputs
        assert not progress.up_to_date


def test_the_reserve_follows_what_visits_take_within_limits() -> None:
    reserve = VisitReserve(multiple=4, least=timedelta(hours=1), most=timedelta(hours=10))
    assert reserve() == timedelta(hours=1)
    assert reserve([timedelta(minutes=1)] * 20) == timedelta(hours=1)
    assert reserve([timedelta(hours=1)] * 20) == timedelta(hours=4)
    assert reserve([timedelta(minutes=30)] * 19 + [timedelta(days=9)]) == timedelta(hours=2)
    assert reserve([timedelta(days=1)]) == timedelta(hours=10)
