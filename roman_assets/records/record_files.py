"""Where commit records are kept: files below the data root, or objects and local copies of them.

Names are the same for both: those of the files. `RecordFiles.of` is the one place that chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    make_directory,
    private_directory,
    temporary_name,
    write_durably,
    write_new,
)
from roman_assets.archive.object_store import ConflictError, ObjectStore
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

LOOSE, MERGED = "loose", "merged"
"""Shelves of segments: one for each fold, and several that became one."""

_AT_ONCE = 16


@dataclass(frozen=True)
class PreparedRecord:
    """A record that is written but not committed yet.

    Parameters
    ----------
    path
        Its name once it is committed.
    content
        Its bytes.
    temporary
        Where they are already, if on disk.
    """

    path: Path
    content: bytes
    temporary: Path | None = None


class RecordFiles(ABC):
    """Pending records and segments of one installation.

    Parameters
    ----------
    root
        The installation.
    """

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._pending = root.registry / "records" / "pending"
        self._segments = root.registry / "records" / "segments"

    @staticmethod
    def of(root: DataRoot) -> RecordFiles:
        """Return the records of an installation, in its object store or on disk."""
        return ObjectRecords(root) if root.object_store else DiskRecords(root)

    def pending_path(self, name: str) -> Path:
        """Return the path of a pending record."""
        return self._pending / name

    def segment_path(self, shelf: str, name: str) -> Path:
        """Return the path of a segment."""
        return self._segments / shelf / name

    @abstractmethod
    def prepare(self, path: Path, content: bytes) -> PreparedRecord:
        """Write a record so that little is left to do and little can go wrong."""

    @abstractmethod
    def commit(self, prepared: Sequence[PreparedRecord]) -> None:
        """Make prepared records visible, each at once; they are durable when this returns."""

    @abstractmethod
    def pending(self) -> list[Path]:
        """Return the pending records, by name."""

    @abstractmethod
    def read(self, paths: Iterable[Path]) -> list[bytes]:
        """Read pending records or segments, as they are kept and not as they may be copied."""

    @abstractmethod
    def replace(self, path: Path, old: bytes, new: bytes, fence: Fence) -> None:
        """Replace a pending record, at once, and durably, under the fold lock."""

    @abstractmethod
    def size(self) -> int:
        """Return the size of all segments, bytes."""

    @abstractmethod
    def discard(self, paths: Iterable[Path]) -> None:
        """Remove pending records."""

    @abstractmethod
    def write_segment(self, path: Path, lines: bytes) -> None:
        """Write or replace a segment, at once, and durably."""

    @abstractmethod
    def remove_segments(self, paths: Iterable[Path]) -> None:
        """Remove segments."""

    @abstractmethod
    def segments(self) -> list[Path]:
        """Return all segments, as files that can be read here."""

    @abstractmethod
    def loose_segments(self) -> list[Path]:
        """Return the names of the segments that nothing has merged yet."""

    def leftovers(self) -> Iterator[Path]:
        """Go through temporary files of writers that died."""
        yield from self._pending.glob(".*.tmp")
        yield from self._segments.glob("*/.*.tmp")


class DiskRecords(RecordFiles):
    """Records on a file system."""

    def prepare(self, path: Path, content: bytes) -> PreparedRecord:
        """Write the record beside its name: a rename is left to do."""
        with disk_space(path.parent):
            private_directory(self._root.registry)
            make_directory(path.parent)
            temporary = temporary_name(path)
            write_new(temporary, content)
        return PreparedRecord(path, content, temporary)

    def commit(self, prepared: Sequence[PreparedRecord]) -> None:
        """Rename the records."""
        for record in prepared:
            assert record.temporary is not None
            record.temporary.replace(record.path)
        if prepared:
            fsync_directory(self._pending)

    def pending(self) -> list[Path]:
        """Return the files of pending records."""
        return sorted(self._pending.glob("[!.]*.json"))

    def read(self, paths: Iterable[Path]) -> list[bytes]:
        """Read files."""
        return [path.read_bytes() for path in paths]

    def replace(self, path: Path, old: bytes, new: bytes, fence: Fence) -> None:
        """Replace a file."""
        fence.write(path, new)

    def size(self) -> int:
        """Add up the sizes of files."""
        return sum(path.stat().st_size for path in self.segments())

    def discard(self, paths: Iterable[Path]) -> None:
        """Unlink files."""
        # Not made durable: a record that comes back after a power loss is known by its id.
        for path in paths:
            path.unlink(missing_ok=True)

    def write_segment(self, path: Path, lines: bytes) -> None:
        """Write a file."""
        with disk_space(self._segments):
            make_directory(path.parent)
            write_durably(path, lines)

    def remove_segments(self, paths: Iterable[Path]) -> None:
        """Unlink files."""
        for path in paths:
            path.unlink(missing_ok=True)

    def segments(self) -> list[Path]:
        """Return the files of segments."""
        return sorted(self._segments.glob("*/[!.]*.jsonl"))

    def loose_segments(self) -> list[Path]:
        """Return the files of segments that nothing has merged yet."""
        return sorted((self._segments / LOOSE).glob("[!.]*.jsonl"))


class ObjectRecords(RecordFiles):
    """Records in the object store; segments have local copies, from which they are folded."""

    def __init__(self, root: DataRoot) -> None:
        super().__init__(root)
        assert root.object_store is not None
        self._objects = ObjectStore(root.object_store)

    def prepare(self, path: Path, content: bytes) -> PreparedRecord:
        """Keep the record until it is committed: one request is left to do."""
        return PreparedRecord(path, content)

    def commit(self, prepared: Sequence[PreparedRecord]) -> None:
        """Write the objects."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(self._commit, prepared))

    def pending(self) -> list[Path]:
        """Return the pending records; there are no such files."""
        return sorted(self._sizes(self._pending))

    def read(self, paths: Iterable[Path]) -> list[bytes]:
        """Read objects; local copies of segments that differ are replaced."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(self._read, paths))

    def replace(self, path: Path, old: bytes, new: bytes, fence: Fence) -> None:
        """Replace an object if it still is the version that was read."""
        fence.confirm()
        content, e_tag = self._objects.read(self._key(path))
        try:
            if content != old:
                raise ConflictError(str(path))
            self._objects.replace(self._key(path), new, e_tag)
        except ConflictError as error:
            raise PassingFaultError(
                f"another process has changed {path.name} while this one folded. Remedy: none is "
                "needed; the committed records are safe, and the next fold finishes"
            ) from error

    def size(self) -> int:
        """Add up the sizes of objects."""
        return sum(self._sizes(self._segments).values())

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove objects."""
        self._objects.delete(map(self._key, paths))

    def write_segment(self, path: Path, lines: bytes) -> None:
        """Write the object, then its local copy."""
        self._objects.put(self._key(path), lines)
        self._write_copy(path, lines)

    def remove_segments(self, paths: Iterable[Path]) -> None:
        """Remove objects, then their copies."""
        gone = list(paths)
        self._objects.delete(map(self._key, gone))
        for path in gone:
            path.unlink(missing_ok=True)

    def segments(self) -> list[Path]:
        """Return local copies of all segments, and remove those of segments that are gone."""
        kept = self._sizes(self._segments)
        for path in set(self._segments.glob("*/[!.]*.jsonl")) - kept.keys():
            path.unlink(missing_ok=True)
        self.read(path for path, size in kept.items() if _size(path) != size)
        return sorted(kept)

    def loose_segments(self) -> list[Path]:
        """Return the names of the segments that nothing has merged yet, of all machines."""
        return sorted(self._sizes(self._segments / LOOSE))

    def _sizes(self, directory: Path) -> dict[Path, int]:
        found = self._objects.list(self._key(directory))
        return {
            directory / _below(meta["path"], self._key(directory)): int(meta["size"])
            for meta in found
        }

    def _commit(self, prepared: PreparedRecord) -> None:
        self._objects.put_new(self._key(prepared.path), prepared.content)

    def _read(self, path: Path) -> bytes:
        content, _ = self._objects.read(self._key(path))
        if path.is_relative_to(self._segments) and _content(path) != content:
            self._write_copy(path, content)
        return content

    def _write_copy(self, path: Path, lines: bytes) -> None:
        with disk_space(self._segments):
            private_directory(self._root.registry)
            make_directory(path.parent)
            write_durably(path, lines)

    def _key(self, path: Path) -> str:
        return self._root.key(path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _below(key: str, prefix: str) -> PurePosixPath:
    return PurePosixPath(key).relative_to(prefix)
