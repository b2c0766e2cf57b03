"""Files of the public tree whose content is what the registry states."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError
from roman_assets.products.name import ProductName
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.registry import Registry
from roman_assets.service.request_error import BusyError, NotFoundError

PAUSES = (0.0, 0.1, 0.4, 1.5)
"""Before each look for a file that is overwritten meanwhile, s."""

_REMEMBERED = 100_000

_Version = tuple[int, int, int, int]
"""Device, inode, time of change (ns) and size: what identifies one content of a file."""


@dataclass(frozen=True)
class Content:
    """What the registry states about the file that a public name shows."""

    name: ProductName
    sha256: str
    size: int
    committed_at: datetime


@dataclass(frozen=True)
class OpenFile:
    """A file that stays what it was when it was opened.

    Parameters
    ----------
    content
        What is in it.
    stream
        The open file; the path refers to it.
    """

    content: Content
    stream: BufferedReader

    @property
    def path(self) -> Path:
        """The path by which this process opens the same file again, whatever bears its name."""
        return Path(f"/proc/self/fd/{self.stream.fileno()}")


class PublicFiles:
    """The public tree, by official names.

    Parameters
    ----------
    root
        The installation.
    registry
        States which content each name has.
    """

    def __init__(self, root: DataRoot, registry: Registry) -> None:
        self._archive = Archive.of(root)
        self._registry = registry
        self._lock = threading.Lock()
        self._digests: OrderedDict[_Version, str] = OrderedDict()

    def content(self, name: str) -> Content:
        """Return what the registry states about a product's file.

        Raises
        ------
        NotFoundError
            If there is no such public product.
        """
        product = _parsed(name)
        rows = self._registry.snapshot.rows(
            f"select sha256, size, committed_at from products where name = $name "
            f"and name_key = name_key($name) and {IS_AVAILABLE} and access = '{Role.PUBLIC}'",
            {"name": str(product)},
        )
        if not rows:
            raise _not_found(name)
        return Content(name=product, **rows[0])

    def open(self, name: str) -> OpenFile:
        """Open the file of a product, after its content was compared with the registry's sha256.

        The content is read once and remembered. A public name shows a new generation a moment
        before the registry does, so content that differs is looked at again.

        Raises
        ------
        NotFoundError
            If there is no such public product.
        BusyError
            If the name shows something else than the registry states.
        """
        for pause in PAUSES:
            time.sleep(pause)
            content = self.content(name)
            try:
                stream = self._archive.path(content.name).open("rb")
            except FileNotFoundError:
                continue
            except AccessDeniedError as error:
                raise _not_found(name) from error
            if self._digest(stream) == content.sha256:
                return OpenFile(content, stream)
            stream.close()
        raise BusyError(f"{name} is being replaced, or is damaged; try again later")

    def _digest(self, stream: BufferedReader) -> str:
        status = os.fstat(stream.fileno())
        version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if version in self._digests:
                self._digests.move_to_end(version)
                return self._digests[version]
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        with self._lock:
            self._digests[version] = digest
            if len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)
        return digest


def _parsed(name: str) -> ProductName:
    try:
        return ProductName.parse(name)
    except ValueError as error:
        raise _not_found(name) from error


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"{name[:200]!r} is not a product of this archive")
