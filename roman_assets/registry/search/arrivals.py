"""What arrived in the archive, was reprocessed or removed: for pages, feeds and subscribers."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import duckdb

from roman_assets.access import Role
from roman_assets.products.arrival import ArrivalEvent, Interest
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE

_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Arrival:
    """Products of one level of an exposure or visit to which the same happened at once.

    Parameters
    ----------
    event
        What happened.
    time
        When, UTC.
    subject
        The exposure or visit, or the file set of products of several visits.
    program, survey, optical_element, level, release
        As in the registry.
    products
        How many.
    size
        Of all, bytes.
    names
        The first of them.
    """

    event: ArrivalEvent
    time: datetime
    subject: str
    program: int | None
    survey: str | None
    optical_element: str | None
    level: str
    release: str
    products: int
    size: int
    names: tuple[str, ...]

    @property
    def arrival_id(self) -> str:
        """The same whenever this arrival is told."""
        told = (self.event, self.time.isoformat(), self.subject, self.level, self.release)
        return hashlib.sha256(" ".join(told).encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """The arrival in one line."""
        what = f"{self.level} of {self.subject}"
        about = ", ".join(filter(None, (self.survey, self.optical_element)))
        release = "" if self.release == PROMPT_RELEASE else f" in release {self.release}"
        return f"{what} {self.event}{release}" + (f" ({about})" if about else "")


def arrivals(
    cursor: duckdb.DuckDBPyConnection,
    interest: Interest,
    after: datetime,
    before: datetime,
    limit: int,
) -> list[Arrival]:
    """Return what happened to public products in a span of time, newest first.

    Products of a data release count from the time when they were made.

    Parameters
    ----------
    cursor
        On the registry.
    interest
        What is asked for.
    after, before
        Half-open range, UTC.
    limit
        At most so many.
    """
    where, parameters = _wanted(interest)
    rows = cursor.execute(
        f"""
        with happened as (
            select if(generation > 1, '{ArrivalEvent.REPROCESSED}', '{ArrivalEvent.NEW}') as event,
                committed_at as "time", *
            from products where committed_at >= $after and committed_at < $before
                and state <> '{State.REFUSED}' and {where}
            union all by name
            select '{ArrivalEvent.REMOVED}' as event, ended_at as "time", *
            from products where ended_at >= $after and ended_at < $before
                and state not in ('{State.OVERWRITTEN}', '{State.REFUSED}') and {where}
        )
        select event, "time", coalesce(exposure, visit, file_set) as subject,
            any_value(program) as program, any_value(survey) as survey,
            any_value(optical_element) as optical_element, level, "release", count(*) as products,
            sum(size)::bigint as size, list(name order by name)[:{_NAMES_SHOWN}] as names
        from happened where list_contains($events, event)
        group by event, "time", subject, level, "release"
        order by "time" desc, subject, level, event limit $limit
        """,
        parameters
        | {
            "after": after,
            "before": before,
            "limit": limit,
            "events": sorted(event.value for event in interest.events),
        },
    ).fetchall()
    return [_arrival(row) for row in rows]


def days_beside(
    cursor: duckdb.DuckDBPyConnection, interest: Interest, after: datetime, before: datetime
) -> tuple[date | None, date | None]:
    """Return the last day before a span and the first day after it on which products arrived.

    Parameters
    ----------
    cursor
        On the registry.
    interest
        What is asked for; what happened to products is left out of account.
    after, before
        Half-open range, UTC.
    """
    where, parameters = _wanted(interest)
    row = cursor.execute(
        f"""
        select max(committed_at) filter (committed_at < $after),
            min(committed_at) filter (committed_at >= $before)
        from products where {where}
        """,
        parameters | {"after": after, "before": before},
    ).fetchone()
    assert row is not None
    earlier, later = (one and one.astimezone(UTC).date() for one in row)
    return earlier, later


def _wanted(interest: Interest) -> tuple[str, dict[str, Any]]:
    given: Mapping[str, Any] = {
        "program": interest.program,
        "survey": interest.survey and interest.survey.value,
        "level": interest.level and interest.level.value,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    conditions = [f"access = '{Role.PUBLIC}'", *(f"{name} = ${name}" for name in asked)]
    return " and ".join(conditions), asked


def _arrival(row: tuple[Any, ...]) -> Arrival:
    event, time, subject, program, survey, optical_element, level, release, *rest = row
    products, size, names = rest
    return Arrival(
        ArrivalEvent(event), time.astimezone(UTC), subject, program, survey, optical_element,
        level, release, products, size, tuple(names),
    )  # fmt: skip
