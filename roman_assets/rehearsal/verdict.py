"""What the ledger says of a rehearsal, by survey and level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Level
from roman_assets.products.observation import Survey
from roman_assets.registry.ledger import GROUPS

PERCENTILES: tuple[int, ...] = (0, 1, 5, 50, 95)

MISSED: tuple[ProductState, ...] = (
    ProductState.MADE_LATE, ProductState.OVERDUE, ProductState.FAILED,
)  # fmt: skip
"""States of products whose deadline is missed."""

_COUNTED = (
    "survey", "level", "products", "state", "first", "due", "made", "margin_hours", "blame",
    *(f"{blame}_hours" for blame in Blame),
)  # fmt: skip
"""What of the ledger's columns is counted and drawn."""

_DECIDED = (ProductState.MADE_IN_TIME, *MISSED)


@dataclass(frozen=True)
class LevelVerdict:
    """The deadlines of one level of one survey.

    Parameters
    ----------
    survey, level
        Which.
    states
        Number of products by state; of reprocessed products only the first generation counts.
    margins
        Percentile to margin in hours, of those that were made; empty without any.
    missed_by_blame
        Number of products whose deadline is missed, by what took most of their time.
    blame_hours
        Hours of those products, added up, by what they went to.
    made_again
        Reprocessed products: when a partial visit was completed.
    """

    survey: Survey
    level: Level
    states: Mapping[ProductState, int]
    margins: Mapping[int, float]
    missed_by_blame: Mapping[Blame, int]
    blame_hours: Mapping[Blame, float]
    made_again: int

    @property
    def kept(self) -> int:
        """Deadlines kept."""
        return self.states.get(ProductState.MADE_IN_TIME, 0)

    @property
    def missed(self) -> int:
        """Deadlines missed."""
        return sum(self.states.get(state, 0) for state in MISSED)

    @property
    def without_deadline(self) -> int:
        """Products whose clock never started: not all of their exposure was received."""
        return sum(
            count
            for state, count in self.states.items()
            if state not in (*_DECIDED, ProductState.NOT_EXPECTED)
        )

    @property
    def not_expected(self) -> int:
        """Kinds of products that the SOC does not make, by exposure and visit."""
        return self.states.get(ProductState.NOT_EXPECTED, 0)

    @property
    def products(self) -> int:
        """All that are expected."""
        return self.kept + self.missed + self.without_deadline


def groups(connection: duckdb.DuckDBPyConnection, moment: datetime) -> pa.Table:
    """Read the ledger of a registry: one row for products that share a fate.

    Parameters
    ----------
    connection
        On a registry on which the ledger is defined.
    moment
        The present (UTC).
    """
    columns = ", ".join(_COUNTED)
    found: pa.Table = connection.sql(
        f"select {columns} from {GROUPS}($moment)",  # noqa: S608
        params={"moment": moment},
    ).to_arrow_table()
    return found


def add_groups(connection: duckdb.DuckDBPyConnection, found: pa.Table) -> None:
    """Add rows of a ledger to those that `verdicts` counts.

    Parameters
    ----------
    connection
        On a database of its own.
    found
        What `groups` has read.
    """
    connection.register("incoming", found)
    connection.execute("create table if not exists rehearsed as from incoming limit 0")
    connection.execute("insert into rehearsed by name from incoming")
    connection.unregister("incoming")


def verdicts(connection: duckdb.DuckDBPyConnection) -> tuple[LevelVerdict, ...]:
    """Count what the ledger says, by survey and level.

    Parameters
    ----------
    connection
        On a database with rows of `add_groups`.

    Returns
    -------
    tuple of LevelVerdict
        By survey and level, in order.
    """
    keys = connection.execute(
        "select distinct survey, level from rehearsed order by survey, level"
    ).fetchall()
    return tuple(_verdict(connection, Survey(survey), Level(level)) for survey, level in keys)


def _verdict(connection: duckdb.DuckDBPyConnection, survey: Survey, level: Level) -> LevelVerdict:
    chosen = "from rehearsed where survey = $survey and level = $level"
    key = {"survey": str(survey), "level": str(level)}
    missed = f"state in ({', '.join(repr(str(state)) for state in MISSED)})"
    states = connection.execute(
        f"select state, sum(products)::bigint {chosen} and first group by state order by state", key
    ).fetchall()
    blamed = connection.execute(
        f"select blame, sum(products)::bigint {chosen} and first and {missed} group by blame", key
    ).fetchall()
    sums = ", ".join(f"coalesce(sum(products * {blame}_hours), 0)" for blame in Blame)
    hours = connection.execute(f"select {sums} {chosen} and first and {missed}", key).fetchall()
    again = connection.execute(
        f"select coalesce(sum(products), 0)::bigint {chosen} and not first", key
    ).fetchall()
    margins = connection.execute(
        f"select margin_hours, products {chosen} and first and made is not null "
        "and margin_hours is not null order by margin_hours",
        key,
    ).fetchall()
    return LevelVerdict(
        survey,
        level,
        {ProductState(state): count for state, count in states},
        _percentiles(margins),
        {Blame(blame): count for blame, count in blamed if blame is not None},
        dict(zip(Blame, hours[0], strict=True)),
        again[0][0],
    )


def _percentiles(weighted: Sequence[tuple[float, int]]) -> dict[int, float]:
    """Return percentiles of ordered values that stand for so many products each."""
    if not weighted:
        return {}
    margins, counts = zip(*weighted, strict=True)
    reached = np.cumsum(counts)
    places = [max(1, int(np.ceil(q / 100 * reached[-1]))) for q in PERCENTILES]
    return {
        q: float(margins[place])
        for q, place in zip(PERCENTILES, np.searchsorted(reached, places), strict=True)
    }
