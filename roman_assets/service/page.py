"""Pages for people: search, products, and what programs can use; they read without JavaScript."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.service.archive_service import service_of
from roman_assets.service.request_error import UsageError
from roman_assets.service.sky_view import drawing_of
from roman_assets.service.template import render

_SHOWN = 100
_NEWEST = 15
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "survey": tuple(Survey),
    "level": tuple(Level),
    "kind": tuple(KIND_BY_NAME),
    "optical_element": tuple(OpticalElement),
}
_TEXTS = ("name", "visit", "exposure", "ra", "dec", "radius", "after", "before")
_DEFAULT_RADIUS = 0.1


def html(
    request: Request, template: str, values: Mapping[str, Any], status: int = 200
) -> HTMLResponse:
    """Return a page.

    Parameters
    ----------
    request
        What it answers.
    template
        Its file in ``templates``.
    values
        What the template needs; all of it is escaped.
    status
        HTTP's.
    """
    base = request.scope.get("root_path", "").rstrip("/")
    return HTMLResponse(render(template, {"base": base, **values}), status)


async def style(request: Request) -> Response:
    """Answer with the style sheet of all pages."""
    text = render("style.css", {})
    return PlainTextResponse(text, headers={"cache-control": "max-age=3600"}, media_type="text/css")


async def home(request: Request) -> Response:
    """Answer with the search form and the newest products."""
    service = service_of(request)
    found = await service.run(functools.partial(service.reader.find, limit=_NEWEST))
    rows = found.sort_values("committed_at", ascending=False, kind="stable")
    values = {"rows": rows_of(rows), "asked": _asked({}), "choices": _CHOICES}
    return html(request, "home.html", values)


async def products(request: Request) -> Response:
    """Answer with the products that a search finds, newest first."""
    service = service_of(request)
    asked = _asked(request.query_params)
    fault, rows = None, pd.DataFrame()
    try:
        search = functools.partial(service.reader.find, **_conditions(asked), limit=_SHOWN + 1)
        rows = await service.run(search)
    except (ValueError, UsageError) as error:
        fault = str(error)
    if not rows.empty:
        rows = rows.sort_values("committed_at", ascending=False, kind="stable")
    shown = rows_of(rows[:_SHOWN])
    values = {
        "rows": shown,
        "drawing": drawing_of(shown, request.scope.get("root_path", "").rstrip("/")),
        "more": len(rows) > _SHOWN,
        "fault": fault,
        "asked": asked,
        "choices": _CHOICES,
    }
    return html(request, "products.html", values, status=200 if fault is None else 400)


async def interfaces(request: Request) -> Response:
    """Answer with the interfaces for programs."""
    service = service_of(request)
    listed = [
        (title, service.url(request, path), text)
        for title, path, text in request.app.state.interfaces
    ]
    return html(request, "interfaces.html", {"interfaces": listed})


def _asked(given: Mapping[str, str]) -> dict[str, str]:
    return {field: given.get(field, "").strip() for field in (*_TEXTS, *_CHOICES)}


def _conditions(asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the search that a form asks for.

    Raises
    ------
    ValueError
        If a value is invalid.
    """
    given = {
        field: asked[field]
        for field in ("visit", "exposure", "after", "before", *_CHOICES)
        if asked[field]
    }
    conditions: dict[str, Any] = dict(given)
    if asked["name"]:
        conditions["pattern"] = asked["name"]
    if asked["ra"] or asked["dec"]:
        numbers = (asked["ra"], asked["dec"], asked["radius"] or str(_DEFAULT_RADIUS))
        try:
            conditions["cone"] = tuple(float(number) for number in numbers)
        except ValueError as error:
            raise UsageError(
                "give right ascension, declination and radius as numbers, in degrees"
            ) from error
    return conditions


def rows_of(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a search; missing numbers are None."""
    return [
        {
            str(field): None if isinstance(value, float) and math.isnan(value) else value
            for field, value in row.items()
        }
        for row in found.to_dict("records")
    ]
