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
from roman_assets.products.name import ProductName
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.records.record import ProductInput
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.datalink.links import IMAGES
from roman_assets.service.request_error import NotFoundError, UsageError
from roman_assets.service.sky_view import drawing_of
from roman_assets.service.template import render

_SHOWN = 100
_NEWEST = 15
_MOST_USES = 200
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
    values = {"rows": _rows(rows), "asked": _asked({}), "choices": _CHOICES}
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
    shown = _rows(rows[:_SHOWN])
    values = {
        "rows": shown,
        "drawing": drawing_of(shown, request.scope.get("root_path", "").rstrip("/")),
        "more": len(rows) > _SHOWN,
        "fault": fault,
        "asked": asked,
        "choices": _CHOICES,
    }
    return html(request, "products.html", values, status=200 if fault is None else 400)


async def product(request: Request) -> Response:
    """Answer with what is known of a product, each of its generations included."""
    service, name = service_of(request), request.path_params["name"]
    facts = await service.run(functools.partial(_facts, service, name))
    url = service.url(request, f"files/{name}")
    snippets = {"url": url, "shell": _shell(url, facts), "python": _python(url, facts)}
    return html(request, "product.html", facts | snippets)


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


def _rows(found: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(field): None if isinstance(value, float) and math.isnan(value) else value
            for field, value in row.items()
        }
        for row in found.to_dict("records")
    ]


def _facts(service: Service, name: str) -> dict[str, Any]:
    generations: tuple[RegisteredProduct, ...] = ()
    try:
        kind = ProductName.parse(name).kind
        generations = service.registry.generations([name]).get(name, ())
    except ValueError:
        pass
    if not generations:
        raise NotFoundError(f"{name[:200]!r} is not a product of this archive")
    newest = generations[-1]
    used = service.registry.made_from([ProductInput(name=name, sha256=newest.sha256)])
    uses = sorted({user for found in used.values() for user, _ in found})[:_MOST_USES]
    known = service.registry.generations(item.name for item in newest.inputs)
    rows = _rows(service.reader.find(name=name))
    return {
        "name": name,
        "description": kind.description,
        "has_preview": kind.name in IMAGES,
        "row": rows[0] if rows else None,
        "generations": generations[::-1],
        "inputs": [{"name": item.name, "known": item.name in known} for item in newest.inputs],
        "uses": uses,
    }


def _shell(url: str, facts: Mapping[str, Any]) -> str:
    row = facts["row"]
    if row is None:
        return ""
    return (
        f"curl --fail --remote-name {url}\n"
        f"echo '{row['sha256']}  {facts['name']}' | sha256sum --check"
    )


def _python(url: str, facts: Mapping[str, Any]) -> str:
    fetch = (
        "from urllib.request import urlretrieve\n\n"
        f'path, _ = urlretrieve("{url}", "{facts["name"]}")\n'
    )
    return fetch + _OPENED[ProductName.parse(facts["name"]).kind.extension]


_OPENED = {
    "asdf": "import asdf\n\nwith asdf.open(path) as file:\n    print(file.info())",
    "parquet": ('from astropy.table import Table\n\nprint(Table.read(path, format="parquet"))'),
    "png": "from PIL import Image\n\nImage.open(path).show()",
    "json": "import json\nfrom pathlib import Path\n\nprint(json.loads(Path(path).read_text()))",
}
"""How each form of file is opened, by extension."""
