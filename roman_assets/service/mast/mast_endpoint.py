"""The four endpoints, at MAST's paths."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roman_assets.service.archive_service import service_of
from roman_assets.service.file_endpoint import product_file
from roman_assets.service.mast.column import KEY, columns
from roman_assets.service.mast.fileset_search import Found, SearchRequest, search
from roman_assets.service.mast.product_list import product_list
from roman_assets.service.request_error import NotFoundError, RequestError, UsageError

MISSION = "roman"

_Endpoint = Callable[[Request], Awaitable[Response]]


def _answering(endpoint: _Endpoint) -> _Endpoint:
    """Wrap an endpoint to report its errors as JSON; the client says 400 for whatever is wrong."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            retry = {"retry-after": "5"} if error.status == 503 else None
            return JSONResponse({"messages": [str(error)]}, error.status, retry)

    return answered


@_answering
async def column_list(request: Request) -> Response:
    """Answer with the columns of the search."""
    mission = request.query_params.get("mission", "").lower()
    if mission != MISSION:
        raise UsageError(f"mission: this archive is of {MISSION}, not {mission[:50]!r}")
    return JSONResponse([column.described for column in columns().values()])


@_answering
async def search_file_sets(request: Request) -> Response:
    """Answer with the file sets that meet conditions, around positions or anywhere."""
    service = service_of(request)
    asked = _read(SearchRequest, await _json(request))
    work = functools.partial(
        search, service.registry, service.snapshots, asked, service.settings.rows
    )
    return JSONResponse(_answer(await service.run(work), asked, service.settings.rows))


@_answering
async def list_products(request: Request) -> Response:
    """Answer with the products of file sets."""
    service = service_of(request)
    given = (await _json(request)).get("dataset_ids")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("dataset_ids: give a list of names of file sets")
    names = list(dict.fromkeys(names))
    work = functools.partial(product_list, service.snapshots, names)
    return JSONResponse({"products": await service.run(work)})


@_answering
async def retrieve_product(request: Request) -> Response:
    """Answer with a file, named as the product list does: file set and official name."""
    file_set, _, name = request.query_params.get("product_name", "").rpartition("/")
    if file_set and not name.startswith(f"{file_set}_"):
        raise NotFoundError(f"{name[:200]!r} is not in that file set")
    return await product_file(request, name)


SEARCH_ROUTES = (
    Route("/search/util/api/v0.1/column_list", column_list),
    Route(f"/search/{MISSION}/api/v0.1/search", search_file_sets, methods=["POST"]),
    Route(f"/search/{MISSION}/api/v0.1/post_list_products", list_products, methods=["POST"]),
)
FILE_ROUTES = (Route(f"/search/{MISSION}/api/v0.1/retrieve_product", retrieve_product),)


async def _json(request: Request) -> dict[str, Any]:
    body = await service_of(request).body(request)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is not JSON") from error
    if not isinstance(given, dict):
        raise UsageError("the request is not a JSON object")
    return given


def _read(model: type[SearchRequest], given: dict[str, Any]) -> SearchRequest:
    known = {name: value for name, value in given.items() if value is not None}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{place}: {first['msg']}") from error


def _answer(found: Found, asked: SearchRequest, most_rows: int) -> dict[str, Any]:
    info = [{"name": column.name, "type": column.info_type} for column in found.columns]
    rows = found.rows
    if asked.search_key is not None:
        info.append({"name": KEY, "type": "varchar"})
        rows = [row | {KEY: asked.search_key} for row in rows]
    messages = []
    if len(rows) == most_rows < asked.limit:
        messages.append(f"an answer has at most {most_rows} rows: go on with offset")
    return {
        "info": info,
        "results": rows,
        "search_params": asked.model_dump(),
        "totalResults": found.total,
        "messages": messages,
    }
