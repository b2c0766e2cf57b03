"""Answers of the Virtual Observatory's interfaces: documents, and errors in their words."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from roman_assets.errors import PassingFaultError
from roman_assets.service.archive_service import service_of
from roman_assets.service.request_error import RequestError
from roman_assets.service.template import render
from roman_assets.service.vo.votable import MEDIA_TYPE, error_votable

XML = "text/xml"
_IN_MEMORY = 1 << 20
_CHUNK = 1 << 16

Endpoint = Callable[[Request], Awaitable[Response]]


def answering(endpoint: Endpoint) -> Endpoint:
    """Wrap an endpoint to report its errors as DALI requires: in a VOTable."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            retry = {"retry-after": "5"} if error.status == 503 else None
            return Response(error_votable(str(error)), error.status, retry, MEDIA_TYPE)

    return answered


def spooled(write: Callable[[BinaryIO], None]) -> BinaryIO:
    """Return a temporary file with what is written, ready to be read; a large one is on disk."""
    stream: BinaryIO = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # type: ignore[assignment] # noqa: SIM115
    try:
        write(stream)
    except BaseException:
        stream.close()
        raise
    stream.seek(0)
    return stream


def written(parts: Iterable[str]) -> BinaryIO:
    """Return a temporary file with a text."""

    def write(stream: BinaryIO) -> None:
        for part in parts:
            stream.write(part.encode())

    return spooled(write)


def streamed(stream: BinaryIO, media_type: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer that sends a file and closes it."""
    return StreamingResponse(_parts(stream), headers=headers, media_type=media_type)


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while part := stream.read(_CHUNK):
            yield part


async def availability(request: Request) -> Response:
    """Answer whether the service works now."""
    service = service_of(request)
    try:
        await service.run(service.snapshots.check)
        values = {"available": True, "note": "all interfaces show what the archive has now"}
    except PassingFaultError:
        values = {"available": False, "note": "the registry cannot be read at this moment"}
    return Response(render("availability.xml", values), media_type=XML)


def capabilities(root: str, *standards: tuple[str, str]) -> Endpoint:
    """Return the endpoint that describes a service.

    Parameters
    ----------
    root
        Path of the service.
    standards
        Identifier of each standard and the path of its endpoint below `root`.
    """

    async def described(request: Request) -> Response:
        url = service_of(request).url(request, root)
        values = {"url": url, "standards": standards}
        return Response(render("capabilities.xml", values), media_type=XML)

    return described
