"""How products stand against their deadlines, asked of the ledger."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from roman_assets.products.deadline import ClockEvent
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.ledger import (
    GROUP_COLUMNS,
    JUDGED,
    MOST_URGENT_FIRST,
    PRODUCT_COLUMNS,
    PRODUCTS,
    define_ledger,
    detectors_in,
    hours_spent,
)
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import (
    OneOrMore,
    conditions_of,
    grouping_columns,
    visits_of,
)
from roman_assets.settings.deadline_settings import deadlines_of
from roman_assets.settings.retry_settings import retry_pauses_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DeadlineOverview:
    """What an operator sees of the deadline ledger at a glance.

    Parameters
    ----------
    now
        The present time it was made for, UTC.
    counts
        ``products`` (number), those of them ``at_risk``, and ``least_margin_hours``, by ``survey``,
        ``level``, ``step`` and ``state``.
    rows
        The most urgent groups of products, as `DeadlineQuery.groups` returns them.
    """

    now: datetime
    counts: list[dict[str, Any]]
    rows: list[dict[str, Any]]


class OfProducts(TypedDict, total=False):
    """What narrows a question about deadlines; each is one value or several, None for all.

    Parameters
    ----------
    visit, partition
        A visit has its exposures' products too; a partition is one exposure, or what is made of a
        visit itself.
    level, survey, kind
        Of the products.
    state
        One of `roman_assets.products.deadline.ProductState`.
    at_risk
        Only products that are, or are not, at risk.
    """

    visit: OneOrMore
    partition: OneOrMore
    level: OneOrMore
    survey: OneOrMore
    kind: OneOrMore
    state: OneOrMore
    at_risk: bool | None


class DeadlineQuery:
    """Asks the deadline ledger.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot

    def groups(
        self,
        *,
        now: datetime | None = None,
        limit: int | None = None,
        **of: Unpack[OfProducts],
    ) -> pd.DataFrame:
        """Return how products stand against their deadlines, those of one fate together.

        Parameters
        ----------
        now
            The present time, UTC; that of this machine by default.
        limit
            At most so many rows, the most urgent.
        **of
            Only products of these; see `OfProducts`.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.ledger.GROUP_COLUMNS`, the most urgent first: overdue,
            failed, at risk, the others not made, made late, the rest; among them by margin.
        """
        _require_known(of)
        groups = self._ledger(JUDGED, GROUP_COLUMNS, of, now, limit)
        return groups.assign(detectors=groups["detectors"].map(detectors_in))

    def ledger(
        self,
        *,
        name: OneOrMore = None,
        now: datetime | None = None,
        limit: int | None = None,
        **of: Unpack[OfProducts],
    ) -> pd.DataFrame:
        """Return the ledger's row of every product, expected or made; parameters as `groups`.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.ledger.PRODUCT_COLUMNS`, ordered as `groups`, then
            by name. A reprocessed product has a row for each generation.
        """
        _require_known(of)
        return self._ledger(PRODUCTS, PRODUCT_COLUMNS, {"name": name, **of}, now, limit)

    def overview(
        self,
        *,
        now: datetime | None = None,
        limit: int | None = None,
        **of: Unpack[OfProducts],
    ) -> DeadlineOverview:
        """Count products by state and give the most urgent rows; parameters as `groups`."""
        _require_known(of)
        conditions, parameters = conditions_of(of)
        moment = now or datetime.now(UTC)
        visits = visits_of(of)
        order = f'{MOST_URGENT_FIRST}, "partition", level, kind, made'
        most_urgent = f"from chosen order by {order} limit $limit"
        columns = ", ".join(f'"{column}"' for column in GROUP_COLUMNS)
        deadlines, pauses = deadlines_of(self._snapshot.root), retry_pauses_of(self._snapshot.root)
        # one statement, so that the ledger is worked out once and not written down
        sql = f"""
            with chosen as materialized (
                from {JUDGED}($now, visits := $visits) where {" and ".join(conditions) or "true"}
            ), counted as (
                select survey, level, step, state, sum(products)::bigint as products,
                    sum(products) filter (at_risk)::bigint as at_risk,
                    min(margin_hours) as least_margin_hours
                from chosen group by survey, level, step, state
            ), urgent as (
                select {columns} from ({hours_spent(most_urgent)})
            )
            select (select list(counted order by survey, level, step, state) from counted),
                (select list(urgent order by {order}) from urgent)
        """
        values = {**parameters, "now": moment, "visits": visits, "limit": limit}
        with self._snapshot.connection() as connection:
            define_ledger(connection, deadlines, pauses=pauses)
            ((counts, rows),) = connection.execute(sql, values).fetchall()
        return DeadlineOverview(
            moment,
            counts or [],
            [row | {"detectors": detectors_in(row["detectors"])} for row in rows or ()],
        )

    def _ledger(
        self,
        macro: str,
        columns: tuple[str, ...],
        values: Mapping[str, Any],
        now: datetime | None,
        limit: int | None,
    ) -> pd.DataFrame:
        conditions, parameters = conditions_of(values)
        visits = visits_of(values)
        by_name = "name, " if "name" in columns else ""
        listed = ", ".join(f'"{column}"' for column in columns)
        deadlines, pauses = deadlines_of(self._snapshot.root), retry_pauses_of(self._snapshot.root)
        order = f'order by {MOST_URGENT_FIRST}, "partition", level, kind, {by_name}made'
        chosen = (
            f"select * from {macro}($now, visits := $visits) "
            f"where {' and '.join(conditions) or 'true'} {order} limit $limit"
        )
        return self._snapshot.query(
            f"select {listed} from ({hours_spent(chosen) if macro == JUDGED else chosen}) {order}",
            parameters | {"now": now or datetime.now(UTC), "visits": visits, "limit": limit},
            prepare=lambda connection: define_ledger(connection, deadlines, pauses=pauses),
        )

    def latencies(self, by: Iterable[str] = ("survey", "level")) -> pd.DataFrame:
        """Return how long after all data of their partition were in available products were made.

        Parameters
        ----------
        by
            Columns that say what, where or whose a product is.

        Returns
        -------
        pandas.DataFrame
            The columns `by`, ``products`` (number) and percentiles of the latency, ``p50_hours``,
            ``p90_hours`` and ``p99_hours``, ordered by the former. Products of partitions whose
            receipt is not on record are left out, and what a data release made.

        Raises
        ------
        ValueError
            If a column cannot be grouped by.
        """
        columns = grouping_columns(by)
        listed = "".join(f'"{column}", ' for column in columns)
        grouped = f"partition by {listed.removesuffix(', ')}" if columns else ""
        return self._snapshot.query(
            f"""
            with received as (
                select "partition", max(time) as received from events
                where event = $received group by "partition"
            ), made_together as (
                select {listed} "partition", committed_at, count(*) as products
                from products where {IS_AVAILABLE} and data_release is null group by all
            ), measured as (
                select {listed} products, epoch(committed_at - received) / 3600 as hours
                from made_together join received using ("partition")
            ), ranked as (
                select {listed} hours, sum(products) over ({grouped} order by hours
                        rows between unbounded preceding and current row) as rank,
                    sum(products) over ({grouped}) as total
                from measured
            )
            select {listed} any_value(total)::bigint as products,
                {", ".join(_percentile(percent) for percent in (50, 90, 99))}
            from ranked group by all order by all
            """,
            {"received": ClockEvent.ALL_RECEIVED},
        )


def _percentile(percent: int) -> str:
    """Return the percentile of ``hours``, as `quantile_cont` does, where a row stands for several.

    ``rank`` counts what is up to and with a row, ``total`` everything.
    """
    place = f"{percent / 100} * (total - 1)"
    low, high = (f"min(hours) filter (rank > {rounded}({place}))" for rounded in ("floor", "ceil"))
    return f"{low} + ({high} - {low}) * any_value({place} - floor({place})) as p{percent}_hours"


def _require_known(of: OfProducts) -> None:
    if unknown := sorted(of.keys() - OfProducts.__annotations__.keys()):
        raise TypeError(f"deadlines cannot be narrowed by {unknown}")
