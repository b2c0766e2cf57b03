"""What all interfaces of the archive service share: registry, files, limits, and turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.registry.registry import Registry
from roman_assets.service.public_files import PublicFiles
from roman_assets.service.request_error import BusyError, TooLargeError, UsageError
from roman_assets.service.sealed_snapshot import PublicSnapshots
from roman_assets.service.tap.database import prepare
from roman_assets.settings.service_settings import ServiceSettings

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Service:
    """One installation as the archive service reads it.

    Parameters
    ----------
    settings
        Limits and names.
    snapshots
        The newest public registry, for statements.
    registry
        The same, for the registry's own questions.
    reader
        The same, for those of scientists.
    files
        The public tree.
    """

    settings: ServiceSettings
    snapshots: PublicSnapshots
    registry: Registry
    reader: ArchiveReader
    files: PublicFiles
    _turns: anyio.CapacityLimiter = field(repr=False)
    _turns_of_images: anyio.CapacityLimiter = field(repr=False)

    @classmethod
    def of(cls, root: DataRoot, settings: ServiceSettings) -> Service:
        """Return the service of an installation; nothing is read before the first request."""
        snapshots = PublicSnapshots(root, settings, prepare)
        registry = Registry(root, Role.PUBLIC, snapshots)
        return cls(
            settings,
            snapshots,
            registry,
            ArchiveReader(root, Role.PUBLIC, registry),
            PublicFiles(root, registry),
            anyio.CapacityLimiter(settings.queries),
            anyio.CapacityLimiter(settings.cutouts),
        )

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Ask the registry in a thread, when it is this request's turn.

        Raises
        ------
        BusyError
            If it is not in time.
        """
        return await self._run(work, self._turns)

    async def run_on_image(self, work: Callable[[], _Result]) -> _Result:
        """Read an image in a thread, when it is this request's turn: images take memory.

        Raises
        ------
        BusyError
            If it is not in time.
        """
        return await self._run(work, self._turns_of_images)

    async def _run(self, work: Callable[[], _Result], turns: anyio.CapacityLimiter) -> _Result:
        borrower = object()
        try:
            with anyio.fail_after(self.settings.waiting_seconds):
                await turns.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise BusyError("too many requests at once; try again in a moment") from error
        try:
            # The thread's own limiter never makes it wait: its turn has come.
            return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
        finally:
            turns.release_on_behalf_of(borrower)

    async def body(self, request: Request) -> bytes:
        """Return the body of a request.

        Raises
        ------
        TooLargeError
            If it is too large.
        UsageError
            If it does not arrive in time.
        """
        limit = self.settings.body_kib << 10
        parts, size = [], 0
        try:
            with anyio.fail_after(self.settings.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise TooLargeError(f"the request is larger than {limit} bytes")
                    parts.append(part)
        except TimeoutError as error:
            raise UsageError("the request did not arrive in time") from error
        return b"".join(parts)

    def url(self, request: Request, path: str) -> str:
        """Return the absolute address of a path of this service, without a slash at its end."""
        base = self.settings.url or str(request.base_url)
        return f"{base.rstrip('/')}/{path}".rstrip("/")


def service_of(request: Request) -> Service:
    """Return the service that a request is for."""
    service: Service = request.app.state.service
    return service
