"""Endpoints of SODA, and pictures of images."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import BinaryIO

import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from roman_assets.calibration.quicklook import draw
from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.cutout.file_format import CutoutFormat, format_named
from roman_assets.service.cutout.image import NoOverlapError, cut, opened_image
from roman_assets.service.cutout.stencil import (
    MultiValuedParameterError,
    Stencil,
    stencil_of,
)
from roman_assets.service.datalink.links import IMAGES, product_of
from roman_assets.service.request_error import BusyError, NotFoundError, RequestError, UsageError
from roman_assets.service.vo.answer import availability, capabilities, spooled, streamed
from roman_assets.service.vo.descriptor import SODA_SYNC
from roman_assets.service.vo.parameters import parameters_of

PICTURE_SIDE = 640
_PICTURES_KEPT = 200


def _answering(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint to report its errors in SODA's words."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NoOverlapError:
            return Response(status_code=204)
        except RequestError as error:
            retry = {"retry-after": "5"} if error.status == 503 else None
            return PlainTextResponse(f"{_fault(error)}: {error}\n", error.status, retry)

    return answered


def _fault(error: RequestError) -> str:
    if isinstance(error, MultiValuedParameterError):
        return "MultiValuedParamNotSupported"
    if isinstance(error, BusyError):
        return "TransientFault"
    return "UsageFault"


@_answering
async def sync(request: Request) -> Response:
    """Answer with a part of an image."""
    service = service_of(request)
    parameters = await parameters_of(request)
    identifiers = parameters.all("ID")
    if len(identifiers) > 1:
        raise MultiValuedParameterError("give one ID")
    if not identifiers:
        raise UsageError("ID is missing")
    stencil = stencil_of(parameters)
    form = format_named(parameters.one("RESPONSEFORMAT") or "fits")
    name = image_name(identifiers[0])
    stream = await service.run_on_image(
        functools.partial(cutout_file, service, name, stencil, form)
    )
    file_name = f"{name.rpartition('.')[0]}_cutout.{form.extension}"
    disposition = {"content-disposition": f'attachment; filename="{file_name}"'}
    return streamed(stream, form.media_type, disposition)


def image_name(identifier: str) -> str:
    """Return the official name of the image that an identifier means.

    Raises
    ------
    NotFoundError
        If there can be no such product.
    UsageError
        If its kind has no cutouts.
    """
    name = product_of(identifier)
    if name is None:
        raise NotFoundError(f"{identifier[:200]!r} is not a product of this archive")
    if name.kind.name not in IMAGES:
        raise UsageError(f"only L2 images and L3 coadds have cutouts, not {name.kind.name}")
    return str(name)


def cutout_file(service: Service, name: str, stencil: Stencil, form: CutoutFormat) -> BinaryIO:
    """Return a temporary file with a part of an image."""
    opened = service.files.open(name)
    with opened.stream, opened_image(opened.path) as image:
        part = cut(image, stencil, service.settings.cutout_pixels)
        return spooled(functools.partial(form.write, part, opened.content))


class Pictures:
    """Pictures of images, those asked for last kept in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def of(self, service: Service, name: str) -> tuple[bytes, str]:
        """Return the picture of an image, in PNG, and the checksum of the image."""
        content = service.files.content(name)
        with self._lock:
            kept = self._kept.get(content.sha256)
        if kept is not None:
            return kept, content.sha256
        opened = service.files.open(name)
        with opened.stream, opened_image(opened.path) as image:
            picture = draw(np.array(image["data"]), PICTURE_SIDE)
        with self._lock:
            self._kept[opened.content.sha256] = picture
            while len(self._kept) > _PICTURES_KEPT:
                self._kept.popitem(last=False)
        return picture, opened.content.sha256


async def preview(request: Request) -> Response:
    """Answer with a picture of an image."""
    service, pictures = service_of(request), request.app.state.pictures
    name = image_name(request.path_params["name"])
    picture, sha256 = await service.run_on_image(functools.partial(pictures.of, service, name))
    headers = {"etag": f'"{sha256}-picture"', "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(picture, headers=headers, media_type="image/png")


CUTOUT_ROUTES = (
    Route("/soda/sync", sync, methods=["GET", "POST"]),
    Route("/soda/capabilities", capabilities("soda", (SODA_SYNC, "sync"))),
    Route("/soda/availability", availability),
    Route("/previews/{name}", preview),
)
