"""Where SOC and SSC leave files for each other: a directory or a place in an object store (R12).

What lies below ``to_ssc`` and ``reports`` is written here, durably, each file whole or not at all.
What lies below ``from_ssc`` somebody else writes, in any order and at any speed: nothing of it is
trusted, and only regular files count.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from roman_assets.archive.durability import disk_space, make_directory
from roman_assets.archive.object_store import ObjectStore, StoredObject, is_odd
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import printable

_CHUNK = 8 << 20
_ODD_PARTS = {"": "%", ".": "%2E", "..": "%2E%2E"}
"""How the parts of a key that a path cannot have are shown."""

TO_SSC = PurePosixPath("to_ssc")
"""Manifests of L2 images that are ready."""
FROM_SSC = PurePosixPath("from_ssc")
"""Deliveries, each in a directory of its own."""
REPORTS = PurePosixPath("reports")
"""What became of deliveries."""


DEEPEST = 8
"""Levels of directories that are looked into."""

MOST_FILES = 10_000
"""Files of one directory, with those below it, that are looked at."""


@dataclass(frozen=True)
class ExchangedFile:
    """A file in the exchange.

    Parameters
    ----------
    key
        Its place, relative to the exchange, in printable characters.
    size
        Bytes.
    version
        Differs when it was written again, also with the same content.
    changed
        When it was last written, seconds since the epoch.
    obstacle
        Why it cannot be read, empty if it can: it is a link, a device, a closed directory ...
    raw
        Its place as the exchange has it.
    is_directory
        Whether it is a directory that is not looked into.
    """

    key: PurePosixPath
    size: int
    version: str
    changed: float
    obstacle: str = ""
    raw: str = ""
    is_directory: bool = False


class Exchange(ABC):
    """The place that SOC and SSC share."""

    @staticmethod
    def of(root: DataRoot) -> Exchange:
        """Return the exchange of an installation (`DataRoot.ssc_exchange`)."""
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
        """Return at most so many bytes of a file; `FileNotFoundError` without one."""

    @abstractmethod
    def files(self, below: PurePosixPath) -> Iterator[ExchangedFile]:
        """Go through all files below a place, at any depth, in the order of their keys."""

    @abstractmethod
    def fetch(self, file: ExchangedFile, path: Path) -> None:
        """Copy a file, or its beginning if it grows meanwhile, to a new path of the caller's own.

        Raises
        ------
        OSError
            If it is gone, may not be read, or is not a regular file any more.
        """

    @abstractmethod
    def remove(self, files: Iterable[ExchangedFile]) -> None:
        """Remove files in this order, and directories that are empty then.

        Files that are gone, or have been written again since they were listed, do not matter.

        Raises
        ------
        OSError or AccessDeniedError
            If one may not be removed; those after it stay.
        """

    @abstractmethod
    def location(self, key: PurePosixPath) -> str:
        """Return a place for people: a path or a URL."""

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same place."""
        top = PurePosixPath()
        return type(other) is type(self) and other.location(top) == self.location(top)

    def __hash__(self) -> int:
        """Return a hash of the place."""
        return hash(self.location(PurePosixPath()))


class DirectoryExchange(Exchange):
    """An exchange on a file system.

    Any user with write access can replace a directory by a link at any moment. So each directory
    is opened by the descriptor of the one above it, and links are never followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, key: PurePosixPath, content: bytes) -> None:
        """Write a file durably."""
        self._put(key, BytesIO(content))

    def upload(self, path: Path, key: PurePosixPath) -> None:
        """Copy a file durably."""
        with path.open("rb") as stream:
            self._put(key, stream)

    def read(self, key: PurePosixPath, most: int) -> bytes:
        """Read the beginning of a file."""
        with self._opened(str(key)) as stream:
            return stream.read(most)

    def files(self, below: PurePosixPath) -> Iterator[ExchangedFile]:
        """Go through all files; links are named and not followed."""
        try:
            with self._directory(below.parts) as directory:
                yield from _walk(directory, str(below), DEEPEST)
        except FileNotFoundError:
            return

    def fetch(self, file: ExchangedFile, path: Path) -> None:
        """Copy a file."""
        with disk_space(path.parent), self._opened(file.raw) as source, path.open("xb") as target:
            left = file.size + 1  # one more tells that it has grown
            while chunk := source.read(min(_CHUNK, left)):
                target.write(chunk)
                left -= len(chunk)

    def remove(self, files: Iterable[ExchangedFile]) -> None:
        """Remove files and the directories that they leave empty."""
        for file in files:
            parents, name = PurePosixPath(file.raw).parent.parts, PurePosixPath(file.raw).name
            with suppress(FileNotFoundError, NotADirectoryError), ExitStack() as stack:
                chain = self._chain(stack, parents)
                state = os.lstat(name, dir_fd=chain[-1])
                if _version(state) != file.version:
                    continue
                if stat.S_ISDIR(state.st_mode):
                    os.rmdir(name, dir_fd=chain[-1])
                else:
                    os.unlink(name, dir_fd=chain[-1])
                with suppress(OSError):  # not empty
                    for above, part in reversed(list(zip(chain[1:], parents[1:], strict=False))):
                        os.rmdir(part, dir_fd=above)

    def location(self, key: PurePosixPath) -> str:
        """Return the path."""
        return str(self._path / key)

    def _put(self, key: PurePosixPath, content: BinaryIO) -> None:
        draft = f".{uuid.uuid4().hex}.tmp"
        with disk_space(self._path):
            make_directory(self._path)
            with self._directory(()) as top, self._directory(key.parts[:-1], create=True) as place:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    with os.fdopen(os.open(draft, flags, 0o644, dir_fd=top), "wb") as stream:
                        shutil.copyfileobj(content, stream, _CHUNK)
                        stream.flush()
                        os.fsync(stream.fileno())
                    os.rename(draft, key.name, src_dir_fd=top, dst_dir_fd=place)
                except BaseException:
                    with suppress(FileNotFoundError):
                        os.unlink(draft, dir_fd=top)
                    raise
                os.fsync(place)

    @contextmanager
    def _opened(self, raw: str) -> Iterator[BinaryIO]:
        """Open a regular file; a pipe in its place does not keep anybody waiting."""
        place = PurePosixPath(raw)
        with self._directory(place.parent.parts) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(place.name, flags, dir_fd=directory), "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file", raw)
                yield stream

    @contextmanager
    def _directory(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        with ExitStack() as stack:
            yield self._chain(stack, parts, create=create)[-1]

    def _chain(self, stack: ExitStack, parts: Sequence[str], *, create: bool = False) -> list[int]:
        """Open the exchange and the directories below it, one within the other."""
        chain = [_open_directory(self._path)]
        stack.callback(os.close, chain[0])
        for part in parts:
            if part == "..":
                raise ValueError(f"{parts} leads out of a directory")
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=chain[-1])
                    os.fsync(chain[-1])
            chain.append(_open_directory(part, chain[-1]))
            stack.callback(os.close, chain[-1])
        return chain


def _open_directory(name: Path | str, above: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(name, flags if above is None else flags | os.O_NOFOLLOW, dir_fd=above)


def _walk(directory: int, place: str, levels: int) -> Iterator[ExchangedFile]:
    """Yield the files below an open directory, at most `MOST_FILES` of each directory."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in islice(entries, MOST_FILES))
    for name in names:
        raw = f"{place}/{name}"
        try:
            state = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(state.st_mode):
            obstacle = "" if stat.S_ISREG(state.st_mode) else "is a link or a device, no file"
            yield _found(raw, state, obstacle)
        elif levels == 0:
            yield _found(raw, state, f"is a directory more than {DEEPEST} levels deep")
        else:
            yield from islice(_walk_below(directory, name, raw, state, levels), MOST_FILES)


def _walk_below(
    directory: int, name: str, raw: str, state: os.stat_result, levels: int
) -> Iterator[ExchangedFile]:
    try:
        below = _open_directory(name, directory)
    except FileNotFoundError:
        return
    except OSError as error:
        yield _found(raw, state, f"is a directory that cannot be opened: {error.strerror}")
        return
    try:
        yield from _walk(below, raw, levels - 1)
    finally:
        os.close(below)


def _found(raw: str, state: os.stat_result, obstacle: str) -> ExchangedFile:
    return ExchangedFile(
        key=PurePosixPath(printable(raw)),
        size=state.st_size,
        version=_version(state),
        changed=state.st_mtime,
        obstacle=obstacle,
        raw=raw,
        is_directory=stat.S_ISDIR(state.st_mode),
    )


def _version(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns}.{state.st_ctime_ns}.{state.st_ino}"


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
        """Yield all objects, whatever their keys."""
        listed = self._objects.list_any(str(below))
        depth = len(below.parts)
        for _, group in groupby(listed, key=lambda found: found.key.split("/")[depth]):
            files = (_object(found) for found in group if not _marks_directory(found))
            yield from islice(files, MOST_FILES)

    def fetch(self, file: ExchangedFile, path: Path) -> None:
        """Download an object."""
        with disk_space(path.parent):
            self._objects.download(file.raw, path)

    def remove(self, files: Iterable[ExchangedFile]) -> None:
        """Remove objects."""
        gone = list(files)
        places = {PurePosixPath(*file.key.parts[:2]) for file in gone}
        present = {(one.raw, one.version) for place in places for one in self.files(place)}
        keys = [file.raw for file in gone if (file.raw, file.version) in present]
        self._objects.delete(key for key in keys if not is_odd(key))
        for key in filter(is_odd, keys):
            self._objects.delete_odd(key)

    def location(self, key: PurePosixPath) -> str:
        """Return the URL."""
        return f"{self._objects.url}/{key}"


def _marks_directory(found: StoredObject) -> bool:
    """Return whether an object only stands for a directory, as some clients create them."""
    return found.key.endswith("/") and found.size == 0


def _object(found: StoredObject) -> ExchangedFile:
    return ExchangedFile(
        key=PurePosixPath(*(_ODD_PARTS.get(part, part) for part in found.key.split("/"))),
        size=found.size,
        version=f"{found.e_tag}.{found.changed.isoformat()}",
        changed=found.changed.timestamp(),
        obstacle=f"is an object with the odd key {found.key!r}" if is_odd(found.key) else "",
        raw=found.key,
    )
