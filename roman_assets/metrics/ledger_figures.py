"""Figures of the deadline ledger and of what steps did, asked of one snapshot of the registry."""

# Names put into SQL are names of the ledger; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import ProductState
from roman_assets.records.record import Outcome, Statement
from roman_assets.registry.ledger import JUDGED, attempts_as_far, define_ledger
from roman_assets.registry.registry import Registry
from roman_assets.settings.deadline_settings import deadlines_of
from roman_assets.settings.retry_settings import retry_pauses_of

LATENCY_BOUNDS_HOURS = (0.5, 1, 2, 4, 8, 12, 18, 24, 36, 48, 72, 96, 120, 144, 168)
"""Upper bounds of the buckets of the publication latency; the deadlines are among them."""

_WORKABLE = f"""
    made is null and state in (
        '{ProductState.QUEUED}', '{ProductState.RUNNING}', '{ProductState.OVERDUE}')
    and stage in ('{ProductState.QUEUED}', '{ProductState.RUNNING}')"""
"""What can be worked on now and is not made, whether it is still in time or not."""


@dataclass(frozen=True)
class LedgerFigures:
    """Figures at one moment; each row is a dictionary by column.

    Parameters
    ----------
    products
        ``products`` and those of them ``at_risk``, by ``survey``, ``level`` and ``state``.
    queues
        By ``step``: ``partitions`` and ``products`` that can be worked on now and are not made,
        ``queued`` and ``running`` partitions among them, and ``least_margin_hours``.
    latencies
        By ``level`` and ``survey``: ``buckets`` (products made within each of
        `LATENCY_BOUNDS_HOURS`), ``products`` and ``hours`` (sum) from the start of their clock to
        the first publication.
    attempts
        Number of attempts that have ended, by ``step``, ``outcome`` and ``error`` (class).
    failures
        Number of file sets that could not be made at an attempt, by ``step`` and ``error``.
    publications
        Number of commit records that published products, by ``step``.
    """

    products: list[dict[str, Any]]
    queues: list[dict[str, Any]]
    latencies: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    publications: list[dict[str, Any]]


def ledger_figures(root: DataRoot, registry: Registry, now: datetime) -> LedgerFigures:
    """Compute the figures of the newest snapshot of the registry.

    Parameters
    ----------
    root
        The installation, for its deadlines.
    registry
        Its registry.
    now
        The present, UTC.

    Raises
    ------
    PassingFaultError
        If the registry cannot be read.
    """
    deadlines, pauses = deadlines_of(root), retry_pauses_of(root)
    with registry.snapshot.connection() as connection:
        define_ledger(connection, deadlines, pauses=pauses)
        # the ledger is worked out once
        connection.execute(
            'create or replace temp table judged as select survey, level, step, "partition", '
            "state, stage, at_risk, made, started_at, products, margin_hours "
            f"from {JUDGED}($now) where first",
            {"now": now},
        )
        try:
            return LedgerFigures(
                _rows(connection, _PRODUCTS),
                _rows(connection, _QUEUES),
                _rows(connection, _LATENCIES),
                _rows(connection, _ATTEMPTS),
                _rows(connection, _FAILURES),
                _rows(connection, _PUBLICATIONS),
            )
        finally:
            connection.execute("drop table judged")


_PRODUCTS = """
    select coalesce(survey, '') as survey, level, state, sum(products)::bigint as products,
        coalesce(sum(products) filter (at_risk), 0)::bigint as at_risk
    from judged group by all order by all
"""

_QUEUES = f"""
    select step, count(distinct "partition") as partitions, sum(products)::bigint as products,
        count(distinct "partition") filter (stage = '{ProductState.QUEUED}') as queued,
        count(distinct "partition") filter (stage = '{ProductState.RUNNING}') as running,
        min(margin_hours) as least_margin_hours
    from judged where {_WORKABLE} group by step order by step
"""

_LATENCIES = f"""
    select level, coalesce(survey, '') as survey, sum(products)::bigint as products,
        sum(products * hours) as hours,
        [{
    ", ".join(
        f"coalesce(sum(products) filter (hours <= {bound}), 0)::bigint"
        for bound in LATENCY_BOUNDS_HOURS
    )
}] as buckets
    from (select *, epoch(made - started_at) / 3600 as hours from judged
        where made is not null and started_at is not null)
    group by level, coalesce(survey, '') order by all
"""

_ATTEMPTS = f"""
    select step, outcome, coalesce(error, '') as error, count(*) as attempts
    from ({attempts_as_far()}) where outcome <> '{Outcome.RUNNING}' group by all order by all
"""

_FAILURES = "select step, error, count(*) as file_sets from failures group by all order by all"

_PUBLICATIONS = f"""
    select step, count(*) as records from records
    where statement = '{Statement.PUBLICATION}' group by all order by all
"""


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    answer = connection.execute(sql)
    columns = [column[0] for column in answer.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
