from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from roman_assets.products.deadline import ClockOrigin
from roman_assets.products.kind import Level
from roman_assets.products.priority import HORIZON, earliest_due, run_priority

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))


@given(moments, moments)
def test_what_is_due_earlier_goes_first_whenever_it_was_requested(
    one: datetime, other: datetime
) -> None:
    if one <= other:
        assert run_priority(one) >= run_priority(other)
    if other - one >= timedelta(minutes=2):
        assert run_priority(one) > run_priority(other)


@given(moments)
def test_runs_without_a_due_time_come_last(due: datetime) -> None:
    assert run_priority(due) > run_priority(None) == run_priority(HORIZON + timedelta(days=1)) == 0


def test_an_exposure_is_as_urgent_as_its_l1() -> None:
    starts = {ClockOrigin.RECEIPT: NOON, ClockOrigin.EXECUTION: NOON - timedelta(hours=10)}
    assert earliest_due(Level, starts) == NOON + timedelta(hours=24)


def test_an_exposure_received_late_is_as_urgent_as_its_visit() -> None:
    starts = {ClockOrigin.RECEIPT: NOON, ClockOrigin.EXECUTION: NOON - timedelta(days=4.5)}
    assert earliest_due(Level, starts) == NOON + timedelta(hours=12)
    assert earliest_due([Level.L1, Level.L2], starts) == NOON + timedelta(hours=24)


def test_without_a_started_clock_nothing_is_due() -> None:
    assert earliest_due([Level.L3], {ClockOrigin.RECEIPT: NOON}) is None
