"""Product files under their official names, whole or in parts."""

from __future__ import annotations

import functools
from datetime import UTC
from email.utils import format_datetime
from io import BufferedReader

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from roman_assets.service.archive_service import service_of
from roman_assets.service.public_files import Content, OpenFile

MEDIA_TYPES = {
    "asdf": "application/x-asdf",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "png": "image/png",
}
"""By extension of official names."""


class PinnedFileResponse(FileResponse):
    """A file that stays the one that was opened, whatever is published meanwhile."""

    chunk_size = 1 << 20

    def __init__(self, opened: OpenFile) -> None:
        content = opened.content
        super().__init__(
            opened.path,
            headers=_headers(content),
            media_type=MEDIA_TYPES[content.name.kind.extension],
            filename=str(content.name),
        )
        self._stream: BufferedReader = opened.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, and close it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def file(request: Request) -> Response:
    """Answer with a product's file, or a range of it."""
    return await product_file(request, request.path_params["name"])


async def product_file(request: Request, name: str) -> Response:
    """Answer with the file of a product.

    Parameters
    ----------
    request
        GET, HEAD or a conditional one.
    name
        The official name.
    """
    service = service_of(request)
    content = await service.run(functools.partial(service.files.content, name))
    if _is_known(request, content):
        return Response(status_code=304, headers=_headers(content))
    if request.method == "HEAD":
        return Response(
            headers=_headers(content)
            | {"content-length": str(content.size), "accept-ranges": "bytes"},
            media_type=MEDIA_TYPES[content.name.kind.extension],
        )
    return PinnedFileResponse(await service.run(functools.partial(service.files.open, name)))


def _headers(content: Content) -> dict[str, str]:
    return {
        "etag": f'"{content.sha256}"',
        "last-modified": format_datetime(content.committed_at.astimezone(UTC), usegmt=True),
        # L1 and L2 are overwritten: ask again, and send nothing that is known.
        "cache-control": "no-cache",
    }


def _is_known(request: Request, content: Content) -> bool:
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return not tags.isdisjoint({f'"{content.sha256}"', "*"})
