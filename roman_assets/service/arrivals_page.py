"""What arrived on a day, as a page; what arrived lately, as an Atom feed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from roman_assets.products.arrival import ArrivalEvent, Interest
from roman_assets.products.kind import Level
from roman_assets.products.observation import Survey
from roman_assets.registry.search.arrivals import Arrival, arrivals, days_beside
from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.page import html
from roman_assets.service.request_error import UsageError
from roman_assets.service.template import render

FEED_DAYS = 14
_MOST_ENTRIES = 500
_MOST_OF_A_DAY = 1000
_DAY = timedelta(days=1)
_MEDIA_TYPE = "application/atom+xml"
_Choice = TypeVar("_Choice", bound=StrEnum)


async def arrived(request: Request) -> Response:
    """Answer with what arrived, was reprocessed or removed on a day."""
    service, interest = service_of(request), _interest(request.query_params)
    day = _day(request.query_params.get("day"))
    found, earlier, later = await service.run(functools.partial(_of_day, service, interest, day))
    values = {
        "arrivals": found,
        "day": day.date(),
        "today": datetime.now(UTC).date(),
        "earlier": earlier,
        "later": later,
        "more": len(found) == _MOST_OF_A_DAY,
        "query": _query(interest),
    }
    return html(request, "arrivals.html", values)


async def feed(request: Request) -> Response:
    """Answer with the newest arrivals as an Atom feed."""
    service, interest = service_of(request), _interest(request.query_params)
    found = await service.run(functools.partial(_of_feed, service, interest, datetime.now(UTC)))
    values = {
        "url": service.url(request, ""),
        "query": _query(interest),
        "updated": found[0].time if found else datetime(2026, 1, 1, tzinfo=UTC),
        "entries": found,
        "about": ", ".join(str(value) for value in _given(interest).values()) or "all programs",
    }
    return Response(render("feed.xml", values), media_type=_MEDIA_TYPE)


def _of_day(
    service: Service, interest: Interest, day: datetime
) -> tuple[list[Arrival], date | None, date | None]:
    with service.snapshots.cursor() as cursor:
        found = arrivals(cursor, interest, day, day + _DAY, _MOST_OF_A_DAY)
        return (found, *days_beside(cursor, interest, day, day + _DAY))


def _of_feed(service: Service, interest: Interest, now: datetime) -> list[Arrival]:
    with service.snapshots.cursor() as cursor:
        return arrivals(cursor, interest, now - FEED_DAYS * _DAY, now + _DAY, _MOST_ENTRIES)


def _interest(given: Mapping[str, str]) -> Interest:
    program = given.get("program", "").strip()
    if program and not (program.isascii() and program.isdigit() and len(program) <= 5):
        raise UsageError(f"program: {program[:50]!r} is not a program number")
    event = _choice(ArrivalEvent, "event", given)
    return Interest(
        int(program) if program else None,
        _choice(Survey, "survey", given),
        _choice(Level, "level", given),
        frozenset(ArrivalEvent) if event is None else frozenset({event}),
    )


def _choice(choices: type[_Choice], field: str, given: Mapping[str, str]) -> _Choice | None:
    value = given.get(field, "").strip()
    if not value:
        return None
    try:
        return choices(value)
    except ValueError as error:
        known = ", ".join(choices)
        raise UsageError(f"{field}: {value[:50]!r} is not one of {known}") from error


def _given(interest: Interest) -> dict[str, Any]:
    named: dict[str, Any] = {
        "program": interest.program, "survey": interest.survey, "level": interest.level,
    }  # fmt: skip
    if len(interest.events) == 1:
        named["event"] = next(iter(interest.events))
    return {field: value for field, value in named.items() if value is not None}


def _query(interest: Interest) -> str:
    return "&".join(f"{field}={value}" for field, value in _given(interest).items())


def _day(given: str | None) -> datetime:
    if not given:
        chosen = datetime.now(UTC).date()
    else:
        try:
            chosen = date.fromisoformat(given)
        except ValueError as error:
            raise UsageError("day: give a date such as 2027-06-01") from error
    if not 2000 <= chosen.year <= 2200:
        raise UsageError("day: the archive has nothing of that time")
    return datetime(chosen.year, chosen.month, chosen.day, tzinfo=UTC)


ARRIVAL_ROUTES = (Route("/arrivals", arrived), Route("/feed.atom", feed))
