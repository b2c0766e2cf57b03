from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from roman_assets.deadlines.deadline_statistics import DeadlineStatistics
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Level, Step
from roman_assets_tests.support.facts import at


def group(
    state: ProductState, *, ready: float, made: float | None = None, products: int = 1,
    due: float = 100, detectors: tuple[str, ...] = (),
) -> dict[str, object]:  # fmt: skip
    return {
        "state": state.value, "stage": None if made else state.value, "first": True,
        "level": "L2", "survey": "HLWAS", "step": Step.EXPOSURE.value, "products": products,
        "detectors": detectors, "at_risk": False, "started_at": at(ready), "due": at(due),
        "made": pd.NaT if made is None else at(made),
        "margin_hours": due - (made or 0), **{f"{blame}_hours": 0.0 for blame in Blame},
    }  # fmt: skip


def statistics(*groups: dict[str, object], now: float = 48) -> DeadlineStatistics:
    frame = pd.DataFrame(list(groups))
    for name in ("started_at", "due", "made"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return DeadlineStatistics.of(frame, at(now))


MADE = [
    group(ProductState.MADE_IN_TIME, ready=hour, made=hour + 12, products=2)
    for hour in range(0, 36, 3)
]


def test_percentiles_count_products_not_rows() -> None:
    slow = group(ProductState.MADE_LATE, ready=0, made=40, products=100, due=30)
    (row,) = statistics(*MADE, slow).percentiles().to_dict("records")
    assert (row["made"], row["late"], row["p50"]) == (124, 100, 40)
    assert row["in_time"] == pytest.approx(24 / 124)


def test_the_backlog_is_what_has_its_data_and_is_not_made() -> None:
    waiting = group(ProductState.WAITING_FOR_DOWNLINK, ready=0, products=50)
    queued = group(ProductState.QUEUED, ready=47, products=7)
    backlog = statistics(*MADE, waiting, queued).backlog(Level.L2)
    assert backlog["products"].max() == 8
    assert backlog["products"].iloc[-1] == 7
    assert backlog["time"].iloc[-1] == pd.Timestamp(at(48))


def test_the_forecast_sets_the_backlog_against_the_present_rate() -> None:
    queued = [
        group(ProductState.QUEUED, ready=40, products=12, due=48 + hour) for hour in (10, 5, 70)
    ]
    (forecast,) = statistics(*MADE, *queued).forecasts()
    recent = 2 * sum(row["made"].timestamp() / 3600 - at(0).timestamp() / 3600 > 24 for row in MADE)
    assert forecast.rate == pytest.approx(recent / 24)
    assert forecast.backlog == 36
    # at this rate twelve products take longer than 10 h: the two that are due by then are late
    assert forecast.breaches == 24
    assert forecast.cleared == at(48) + timedelta(hours=36 / forecast.rate)


def test_without_any_throughput_everything_queued_is_a_breach() -> None:
    (forecast,) = statistics(group(ProductState.QUEUED, ready=0, products=3)).forecasts()
    assert (forecast.rate, forecast.breaches, forecast.cleared) == (0, 3, None)


def test_missing_detectors_are_counted_by_name() -> None:
    failed = group(ProductState.FAILED, ready=0, detectors=("WFI02", "WFI18"))
    table = statistics(*MADE, failed).missing_detectors()
    assert table["failed"].to_dict()["WFI02"] == 1
    assert table["failed"].sum() == 2
