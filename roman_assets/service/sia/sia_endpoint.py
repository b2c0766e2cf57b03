"""Endpoints of SIA."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from roman_assets.service.archive_service import service_of
from roman_assets.service.request_error import UsageError
from roman_assets.service.sia.sia_query import search_images
from roman_assets.service.vo.answer import answering, availability, capabilities, streamed, written
from roman_assets.service.vo.parameters import maxrec, parameters_of
from roman_assets.service.vo.votable import MEDIA_TYPE

_FORMATS = ("votable", "application/x-votable+xml", "text/xml")


@answering
async def query(request: Request) -> Response:
    """Answer with the images that meet the parameters."""
    service = service_of(request)
    parameters = await parameters_of(request)
    asked = parameters.one("RESPONSEFORMAT") or _FORMATS[0]
    if asked.partition(";")[0].lower() not in _FORMATS:
        raise UsageError(f"RESPONSEFORMAT: give one of {', '.join(_FORMATS)}")
    most_rows = maxrec(parameters, service.settings.rows)
    url = service.url(request, "")
    stream = await service.run(lambda: written(search_images(service, parameters, url, most_rows)))
    return streamed(stream, MEDIA_TYPE)


SIA_ROUTES = (
    Route("/sia/query", query, methods=["GET", "POST"]),
    Route("/sia/capabilities", capabilities("sia", ("ivo://ivoa.net/std/SIA#query-2.0", "query"))),
    Route("/sia/availability", availability),
)
