"""Endpoints of DataLink."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from roman_assets.service.archive_service import service_of
from roman_assets.service.datalink.links import LINKS_TYPE, MOST_IDENTIFIERS, links_table
from roman_assets.service.request_error import UsageError
from roman_assets.service.vo.answer import answering, availability, capabilities, streamed, written
from roman_assets.service.vo.descriptor import LINKS
from roman_assets.service.vo.parameters import maxrec, parameters_of


@answering
async def links(request: Request) -> Response:
    """Answer with the links of products."""
    service = service_of(request)
    parameters = await parameters_of(request)
    identifiers = list(dict.fromkeys(parameters.all("ID")))
    if len(identifiers) > MOST_IDENTIFIERS:
        raise UsageError(f"ID: give at most {MOST_IDENTIFIERS}")
    most_rows = maxrec(parameters, service.settings.rows)
    url = service.url(request, "")
    stream = await service.run(lambda: written(links_table(service, identifiers, url, most_rows)))
    return streamed(stream, LINKS_TYPE)


DATALINK_ROUTES = (
    Route("/datalink/links", links, methods=["GET", "POST"]),
    Route("/datalink/capabilities", capabilities("datalink", (LINKS, "links"))),
    Route("/datalink/availability", availability),
)
