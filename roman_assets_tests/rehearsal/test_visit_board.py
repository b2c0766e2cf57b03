from __future__ import annotations

from datetime import timedelta

from roman_assets.products.deadline import DEADLINES
from roman_assets.products.visit_policy import VisitReserve
from roman_assets.rehearsal.fault import FaultRates, Faults
from roman_assets.rehearsal.visit_board import VisitBoard
from roman_assets_tests.support.plans import DAY_S, night

HOUR_S = 3600.0


def board(reserve_h: float = 6.0) -> VisitBoard:
    """Give the board of one visit of three exposures, whose L3 are due after five days."""
    reserve = timedelta(hours=reserve_h)
    faults = Faults(night([3]), FaultRates(), 0)
    return VisitBoard(faults, DEADLINES, VisitReserve(least=reserve, most=reserve))


def test_a_visit_waits_for_its_exposures_until_its_reserve_is_reached() -> None:
    visits = board()
    assert not visits.wants(0, 0.0)
    assert visits.waits_until(0) is None  # there is nothing to make it from
    visits.settle(0)
    assert not visits.wants(0, HOUR_S)
    until = visits.waits_until(0)
    assert until is not None
    assert until == 300 + 5 * DAY_S - 6 * HOUR_S  # the last exposure ends after 300 s
    assert visits.wants(0, until)
    assert not visits.wants(0, until)  # it has been asked for


def test_a_visit_that_is_made_in_part_waits_for_runs_that_are_at_work() -> None:
    visits = board()
    visits.settle(0)
    visits.publish(0, 0b001, 5 * DAY_S - 3 * HOUR_S, 5 * DAY_S - 2 * HOUR_S)
    assert visits.is_made(0)
    visits.settle(1)
    assert visits.material(0) == (0b011, 0b010)
    visits.add_work(0, 1)
    assert not visits.wants(0, 6 * DAY_S)
    assert visits.waits_until(0) is None
    visits.add_work(0, -1)
    assert visits.wants(0, 6 * DAY_S)


def test_waiting_visits_are_looked_at_when_the_reserve_has_grown() -> None:
    faults = Faults(night([2, 2]), FaultRates(), 0)
    visits = VisitBoard(faults, DEADLINES, VisitReserve(multiple=4, least=timedelta(hours=6)))
    visits.settle(0)
    assert not visits.wants(0, 0.0)
    assert visits.review(HOUR_S) == []
    visits.publish(1, 0b11, 0.0, 10 * HOUR_S)
    assert visits.review(11 * HOUR_S) == [0]
    assert visits.waits_until(0) == 180 + 5 * DAY_S - 40 * HOUR_S
    assert visits.review(8 * DAY_S) == []  # that measurement is too old by then
    assert visits.waits_until(0) == 180 + 5 * DAY_S - 6 * HOUR_S
