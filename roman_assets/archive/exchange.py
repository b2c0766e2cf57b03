"""Where SOC and SSC leave files for each other: a directory or a place in an object store (R12).

What lies below ``to_ssc`` and ``reports`` is written here, durably, each file whole or not at all.
What lies below ``from_ssc`` somebody else writes, in any order and at any speed: nothing of it is
trusted, and only regular files count.
"""

from __future__ import annotations

import os
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    fsync_file,
    make_directory,
    temporary_name,
    write_durably,
)
from roman_assets.archive.object_store import ObjectStore
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot

_CHUNK = 8 << 20

TO_SSC = PurePosixPath("to_ssc")
"""Manifests of L2 images that are ready."""
FROM_SSC = PurePosixPath("from_ssc")
"""Deliveries, each in a directory of its own."""
REPORTS = PurePosixPath("reports")
"""What became of deliveries."""


@dataclass(frozen=True)
class ExchangedFile:
    """A file in the exchange.

    Parameters
    ----------
    key
        Its place, relative to the exchange.
    size
        Bytes.
    version
        Differs when it was written again, also with the same content.
    changed
        When it was last written, seconds since the epoch.
    is_regular
        Whether it is a file of its own; links and devices are not.
    """

    key: PurePosixPath
    size: int
    version: str
    changed: float
    is_regular: bool = True


class Exchange(ABC):
    """The place that SOC and SSC share."""

    @staticmethod
    def of(root: DataRoot) -> Exchange:
        """Give the exchange of an installation (`DataRoot.ssc_exchange`)."""
        place = root.ssc_exchange
        if place.startswith("s3://"):
            return ObjectExchange(place)
        return DirectoryExchange(Path(place))

    @abstractmethod
    def write(self, key: PurePosixPath, content: bytes) -> None:
        """Write a file, whole or not at all, in the place of another if there is one."""

    @abstractmethod
    def upload(self, path: Path, key: PurePosixPath) -> None:
        """Copy a regular file into the exchange, whole or not at all."""

    @abstractmethod
    def read(self, key: PurePosixPath, most: int) -> bytes:
        """Give at most so many bytes of a file; `FileNotFoundError` without one."""

    @abstractmethod
    def files(self, below: PurePosixPath) -> Iterator[ExchangedFile]:
        """Go through all files below a place, at any depth, in the order of their keys."""

    @abstractmethod
    def fetch(self, key: PurePosixPath, path: Path) -> None:
        """Copy a file to a new path of the caller's own; `FileNotFoundError` without one."""

    @abstractmethod
    def remove(self, keys: Iterable[PurePosixPath]) -> None:
        """Remove files, and directories that are empty then; those that are gone do not matter."""

    @abstractmethod
    def location(self, key: PurePosixPath) -> str:
        """Give a place for people: a path or a URL."""


class DirectoryExchange(Exchange):
    """An exchange on a file system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, key: PurePosixPath, content: bytes) -> None:
        """Write a file durably."""
        path = self._path / key
        with disk_space(self._path):
            make_directory(path.parent)
            write_durably(path, content)

    def upload(self, path: Path, key: PurePosixPath) -> None:
        """Copy a file durably."""
        target = self._path / key
        with disk_space(self._path):
            make_directory(target.parent)
            draft = temporary_name(target.parent.with_name(f".{target.parent.name}"))
            try:
                shutil.copyfile(path, draft)
                fsync_file(draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
            fsync_directory(target.parent)

    def read(self, key: PurePosixPath, most: int) -> bytes:
        """Read the beginning of a file."""
        with (self._path / key).open("rb") as stream:
            return stream.read(most)

    def files(self, below: PurePosixPath) -> Iterator[ExchangedFile]:
        """Go through all files; links are named and not followed."""
        for path in sorted(_walk(self._path / below)):
            with suppress(FileNotFoundError):
                state = path.lstat()
                yield ExchangedFile(
                    PurePosixPath(path.relative_to(self._path)),
                    state.st_size,
                    f"{state.st_mtime_ns}.{state.st_ctime_ns}.{state.st_ino}",
                    state.st_mtime,
                    stat.S_ISREG(state.st_mode),
                )

    def fetch(self, key: PurePosixPath, path: Path) -> None:
        """Copy a file."""
        descriptor = os.open(self._path / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with (
            disk_space(path.parent),
            os.fdopen(descriptor, "rb") as source,
            path.open("xb") as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK)

    def remove(self, keys: Iterable[PurePosixPath]) -> None:
        """Remove files and the directories that they leave empty."""
        for key in keys:
            path = self._path / key
            path.unlink(missing_ok=True)
            for directory in path.relative_to(self._path).parents[:-2]:
                with suppress(OSError):
                    (self._path / directory).rmdir()

    def location(self, key: PurePosixPath) -> str:
        """Give the path."""
        return str(self._path / key)


def _walk(top: Path) -> Iterator[Path]:
    for directory, directories, names in os.walk(top):
        links = (name for name in directories if Path(directory, name).is_symlink())
        yield from (Path(directory, name) for name in (*names, *links))


class ObjectExchange(Exchange):
    """An exchange in an object store."""

    def __init__(self, url: str) -> None:
        self._objects = ObjectStore(url)

    def write(self, key: PurePosixPath, content: bytes) -> None:
        """Write an object."""
        self._objects.put(str(key), content)

    def upload(self, path: Path, key: PurePosixPath) -> None:
        """Upload a file."""
        self._objects.upload(path, str(key), sha256_of(path))

    def read(self, key: PurePosixPath, most: int) -> bytes:
        """Read the beginning of an object."""
        return self._objects.read(str(key))[0][:most]

    def files(self, below: PurePosixPath) -> Iterator[ExchangedFile]:
        """Go through all objects."""
        for meta in sorted(self._objects.list(str(below)), key=lambda meta: str(meta["path"])):
            yield ExchangedFile(
                PurePosixPath(meta["path"]),
                int(meta["size"]),
                f"{meta['e_tag']}.{meta['last_modified'].isoformat()}",
                meta["last_modified"].timestamp(),
            )

    def fetch(self, key: PurePosixPath, path: Path) -> None:
        """Download an object."""
        with disk_space(path.parent):
            self._objects.download(str(key), path)

    def remove(self, keys: Iterable[PurePosixPath]) -> None:
        """Remove objects."""
        self._objects.delete(map(str, keys))

    def location(self, key: PurePosixPath) -> str:
        """Give the URL."""
        return f"{self._objects.url}/{key}"
