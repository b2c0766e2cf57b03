"""How deadlines are kept on the whole: percentiles, backlog, missing detectors, a forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from roman_assets.products.deadline import ProductState
from roman_assets.products.kind import VISIT_STEPS, Level
from roman_assets.products.observation import DETECTORS

FORECAST_WINDOW = timedelta(hours=24)
"""The throughput of this last part of the time is taken as the present rate."""

_AT_WORK = (ProductState.QUEUED, ProductState.RUNNING)
_AWAITED = (
    ProductState.WAITING_FOR_DOWNLINK,
    ProductState.WAITING_FOR_ANCILLARY,
    ProductState.WAITING_FOR_SSC,
)
_UNMADE = (ProductState.OVERDUE, ProductState.FAILED, *_AT_WORK, *_AWAITED)
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Forecast:
    """Which deadlines will be missed if work goes on at the present rate.

    The products of a level that can be worked on now are made in the order of their due times, at
    the rate at which products of that level were published in the last `FORECAST_WINDOW`. A product
    whose turn comes after its due time is a breach. What waits for data is not counted, nor what is
    still to arrive; queues of other levels are not modelled. Products of a visit count once a kind.

    Parameters
    ----------
    level
        Which level.
    rate
        Products an hour, published in the window.
    backlog
        Products that can be worked on now, those overdue included.
    breaches
        Those of them that are late already or will be.
    cleared
        When the last of them is made, None if nothing was made in the window.
    """

    level: Level
    rate: float
    backlog: int
    breaches: int
    cleared: datetime | None


@dataclass(frozen=True)
class DeadlineStatistics:
    """Figures of the deadline ledger at one moment.

    Parameters
    ----------
    now
        The moment, UTC.
    groups
        The ledger's rows that they are made from (`DeadlineQuery.groups`).
    """

    now: datetime
    groups: pd.DataFrame

    @classmethod
    def of(cls, groups: pd.DataFrame, now: datetime) -> DeadlineStatistics:
        """Make them from the ledger's rows at a moment."""
        return cls(now, groups[groups["first"].astype(bool)].reset_index(drop=True))

    @property
    def levels(self) -> list[Level]:
        """The levels of which anything is expected."""
        present = set(self.groups.loc[self.expected, "level"])
        return [level for level in Level if level.value in present]

    @property
    def expected(self) -> pd.Series[bool]:
        """Which rows are of products that the SOC makes."""
        return self.groups["state"] != ProductState.NOT_EXPECTED

    def counts(self) -> pd.DataFrame:
        """Return the number of products by state (rows, ordered as `ProductState`) and level."""
        table = self.groups.pivot_table(
            index="state", columns="level", values="products", aggfunc="sum", fill_value=0
        )
        states = [state.value for state in ProductState if state.value in table.index]
        return table.loc[states]

    def missed_by_blame(self) -> pd.DataFrame:
        """Count products made late, overdue, or failed and past their due time.

        Returns
        -------
        pandas.DataFrame
            Number of products by level (rows) and blame (columns).
        """
        missed = self.groups[self.groups["blame"].notna()]
        return missed.pivot_table(
            index="level", columns="blame", values="products", aggfunc="sum", fill_value=0
        )

    def percentiles(self) -> pd.DataFrame:
        """Return how long products took from the start of their clock, h, by level and survey.

        Returns
        -------
        pandas.DataFrame
            ``level``, ``survey``, ``made``, ``late`` and ``open`` (products), the percentiles
            ``p50``, ``p90`` and ``p99`` of the time from the clock's start to publication (h),
            ``least_margin`` of what was made (h) and ``in_time``, the fraction of what has a
            verdict that was made in time.
        """
        groups = self.groups[self.expected]
        return pd.DataFrame(
            [
                {"level": level, "survey": survey, **self._figures(chosen)}
                for (level, survey), chosen in groups.groupby(["level", "survey"])
            ]
        )

    def _figures(self, chosen: pd.DataFrame) -> dict[str, float | int]:
        made = chosen[chosen["made"].notna() & chosen["due"].notna()]
        hours = (made["made"] - made["started_at"]).dt.total_seconds().to_numpy() / 3600
        weights = made["products"].to_numpy()
        number = chosen.groupby("state")["products"].sum()
        late = int(number.get(ProductState.MADE_LATE.value, 0))
        in_time = int(number.get(ProductState.MADE_IN_TIME.value, 0))
        missed = late + int(number.get(ProductState.OVERDUE.value, 0))
        decided = in_time + missed
        return {
            "made": in_time + late,
            "late": missed,
            "open": int(number.reindex([s.value for s in _UNMADE]).sum()),
            **{f"p{p}": _weighted_percentile(hours, weights, p) for p in _PERCENTILES},
            "least_margin": made["margin_hours"].min(),
            "in_time": in_time / decided if decided else np.nan,
        }

    def backlog(self, level: Level, points: int = 200) -> pd.DataFrame:
        """Return how many products could have been worked on and were not made, over time.

        Returns
        -------
        pandas.DataFrame
            ``time`` (UTC) and ``products``. A product counts from when its data were in to its
            publication. Products of a visit count once a kind, whatever the number of skycells,
            which is not known before they are made.
        """
        groups = self.groups[self.expected & (self.groups["level"] == level.value)]
        ready = groups["started_at"] + pd.to_timedelta(
            groups["downlink_hours"] + groups["ancillary_hours"], unit="h"
        )
        stage = groups["stage"].where(groups["made"].isna())
        counted = ready.notna() & ~stage.isin([state.value for state in _AWAITED])
        if not counted.any():
            return pd.DataFrame({"time": [], "products": []})
        weights = _work(groups)[counted].to_numpy()
        begun = self._hours_ago(ready[counted])
        ended = self._hours_ago(groups.loc[counted, "made"])
        times = np.linspace(min(begun.min(), -1.0), 0.0, points)
        rise, fall = (_cumulative(moments, weights, times) for moments in (begun, ended))
        return pd.DataFrame(
            {
                "time": pd.Timestamp(self.now) + pd.to_timedelta(times, unit="h"),
                "products": rise - fall,
            }
        )

    def _hours_ago(self, moments: pd.Series[pd.Timestamp]) -> np.ndarray:
        """Return moments as hours from now; what has not happened lies in the future."""
        hours = (moments - pd.Timestamp(self.now)).dt.total_seconds() / 3600
        return hours.fillna(np.inf).to_numpy()

    def missing_detectors(self) -> pd.DataFrame:
        """Return how many products of each detector failed or are overdue.

        Returns
        -------
        pandas.DataFrame
            Rows `DETECTORS`, columns ``failed`` and ``overdue``.
        """
        table = pd.DataFrame(0, index=list(DETECTORS), columns=["failed", "overdue"])
        missed = self.groups[self.groups["state"].isin(list(table.columns))]
        for state, detectors in zip(missed["state"], missed["detectors"], strict=True):
            table.loc[list(detectors), state] += 1
        return table

    def forecasts(self) -> list[Forecast]:
        """Return what the present rate leads to, by level."""
        return [self._forecast(level) for level in self.levels]

    def _forecast(self, level: Level) -> Forecast:
        groups = self.groups[self.expected & (self.groups["level"] == level.value)]
        recent = groups["made"] > pd.Timestamp(self.now) - FORECAST_WINDOW
        hours = FORECAST_WINDOW / timedelta(hours=1)
        rate = float(_work(groups)[recent].sum()) / hours
        states = [state.value for state in _AT_WORK]
        overdue = (groups["state"] == ProductState.OVERDUE) & groups["stage"].isin(states)
        waiting = groups[groups["state"].isin(states) | overdue].sort_values("due")
        work = _work(waiting)
        backlog = int(work.sum())
        if not rate:
            return Forecast(level, rate, backlog, int(work[waiting["due"].notna()].sum()), None)
        turn = pd.Timestamp(self.now) + pd.to_timedelta(work.cumsum() / rate, unit="h")
        return Forecast(
            level,
            rate,
            backlog,
            int(work[turn > waiting["due"]].sum()),
            self.now + timedelta(hours=backlog / rate),
        )

    def margins(self) -> Iterator[tuple[Level, str, pd.DataFrame]]:
        """Yield ``made``, ``margin_hours``, ``products`` of what was made, by level and survey."""
        made = self.groups[self.groups["made"].notna() & self.groups["due"].notna()]
        for (level, survey), chosen in made.groupby(["level", "survey"]):
            yield Level(str(level)), str(survey), chosen[["made", "margin_hours", "products"]]


def _work(groups: pd.DataFrame) -> pd.Series[int]:
    """Return the number of products, those of a visit once a kind."""
    return groups["products"].where(~groups["step"].isin(VISIT_STEPS), 1)


def _weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    if not len(values):
        return float("nan")
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, percent / 100 * total[-1])])


def _cumulative(moments: np.ndarray, weights: np.ndarray, times: np.ndarray) -> np.ndarray:
    order = np.argsort(moments)
    total = np.concatenate([[0], np.cumsum(weights[order])])
    return total[np.searchsorted(moments[order], times, side="right")]
