"""The archive service as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.service import page, product_page
from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.arrivals_page import ARRIVAL_ROUTES
from roman_assets.service.cutout.soda_endpoint import CUTOUT_ROUTES, Pictures
from roman_assets.service.datalink.datalink_endpoint import DATALINK_ROUTES
from roman_assets.service.file_endpoint import file
from roman_assets.service.mast.mast_endpoint import FILE_ROUTES, SEARCH_ROUTES
from roman_assets.service.request_error import RequestError
from roman_assets.service.sia.sia_endpoint import SIA_ROUTES
from roman_assets.service.tap.job import Jobs
from roman_assets.service.tap.tap_endpoint import TAP_ROUTES
from roman_assets.settings.service_settings import ServiceSettings, service_settings_of

_log = logging.getLogger(__name__)

_RETRY_SECONDS = "5"
_SECURITY = [
    (b"server", b"roman-assets"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
]
"""Headers of every answer. A browser runs and embeds nothing that is not the service's own."""

INTERFACES = (
    (
        "Files",
        "files/<name>",
        "Product files by official name, with ranges; the ETag is the SHA-256.",
    ),
    (
        "Atom feed",
        "feed.atom?program=<number>",
        "What is new, was reprocessed or removed; also by survey, level and event.",
    ),
)
"""What programs can use: title, path and meaning."""


class _Secured:
    """Adds security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SECURITY]
            await send(message)

        await self._app(scope, receive, secured)


def create_application(root: DataRoot, settings: ServiceSettings | None = None) -> Starlette:
    """Return the archive service of an installation.

    Parameters
    ----------
    root
        The installation. The service reads its public tree and public registry only.
    settings
        Limits; by default those of the installation.
    """
    settings = settings or service_settings_of(root)
    service = Service.of(root, settings)
    jobs = Jobs(
        settings.jobs,
        settings.jobs_mib << 20,
        settings.job_seconds,
        timedelta(hours=settings.job_hours),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        jobs.close()
        service.snapshots.close()

    application = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        middleware=[
            Middleware(_Secured),
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "HEAD", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["ETag", "Content-Range", "Content-Length", "Accept-Ranges"],
            ),
        ],
        exception_handlers={
            RequestError: _refused,
            PassingFaultError: _unavailable,
            HTTPException: _failed,
            Exception: _broken,
        },
    )
    application.state.service = service
    application.state.jobs = jobs
    application.state.pictures = Pictures()
    application.state.interfaces = INTERFACES
    return application


def _routes() -> list[BaseRoute]:
    pages = [
        Route("/", page.home),
        Route("/style.css", page.style),
        Route("/products", page.products),
        Route("/products/{name}", product_page.product),
        Route("/interfaces", page.interfaces),
        Route("/health", health),
        *ARRIVAL_ROUTES,
        *SEARCH_ROUTES,
        *TAP_ROUTES,
        *SIA_ROUTES,
        *DATALINK_ROUTES,
        *CUTOUT_ROUTES,
    ]
    # Files are sent as they are: their ETag is that of the bytes, and ranges are of these.
    return [
        Route("/files/{name}", file),
        *FILE_ROUTES,
        Mount("/", routes=pages, middleware=[Middleware(GZipMiddleware, compresslevel=5)]),
    ]


async def health(request: Request) -> Response:
    """Answer whether the registry can be read."""
    service = service_of(request)
    await service.run(service.snapshots.check)
    return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": _RETRY_SECONDS} if error.status == 503 else {}
    return _told(request, error.status, str(error), headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    _log.error("%s: %s", request.url.path, error)
    told = "the archive cannot be read at this moment; try again later"
    return _told(request, 503, told, {"retry-after": _RETRY_SECONDS})


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(request, error.status_code, error.detail, dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    # What went wrong inside is for operators to know: the server logs it.
    return PlainTextResponse("The service failed; its operators can see why.\n", 500)


_HEADINGS = {404: "Not found", 503: "Not now"}


def _told(request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    heading = _HEADINGS.get(status, "This does not work")
    values = {"status": status, "heading": heading, "message": message}
    answer = page.html(request, "fault.html", values, status)
    answer.headers.update(headers)
    return answer
