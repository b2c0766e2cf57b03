"""Files that survive a crash: durable renames, advisory locks, and full disks explained."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roman_assets.errors import PassingFaultError

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_OWNER_ONLY = 0o700
_OTHERS = 0o007
_POLLS = 0.005
_TOLD_AFTER = 10.0
_log = logging.getLogger(__name__)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> Path:
    """Create a directory and its parents, and make their names durable.

    Returns
    -------
    pathlib.Path
        The directory, for chaining.
    """
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)
    return path


def private_directory(path: Path) -> Path:
    """Create a directory that others than its owner (and a group, if so set) cannot enter (R1).

    A directory that is there already and open to others is closed.

    Returns
    -------
    pathlib.Path
        The directory, for chaining.
    """
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        fsync_directory(path.parent)
    if path.stat().st_mode & _OTHERS:
        path.chmod(_OWNER_ONLY)
    return path


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path` that nothing else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def write_new(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file that is not there yet; its content is durable, its name only with its directory.

    On any error it is not there.
    """
    try:
        with path.open("xb") as stream:
            stream.write(content)
            stream.flush()
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes, mode: int | None = None) -> None:
    """Make a file appear whole or not at all, and stay after a power loss."""
    temporary = temporary_name(path)
    write_new(temporary, content, mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file durably; a line torn by an earlier crash stays a line by itself."""
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


class _Held(threading.local):
    """The locks that each thread has: those on which it would wait for itself."""

    def __init__(self) -> None:
        self.locks: set[tuple[int, int, str]] = set()


_held = _Held()


@contextmanager
def held_by_this_thread(path: Path, name: str = "") -> Iterator[None]:
    """Note a lock as that of this thread, while it waits for it and has it.

    Parameters
    ----------
    path
        A file or directory; whatever path leads to it, it is the same lock.
    name
        Of the lock, if there are several beside each other.

    Raises
    ------
    RuntimeError
        If this thread has it already.
    """
    require_not_held(path, name)
    lock = _identity(path, name)
    _held.locks.add(lock)
    try:
        yield
    finally:
        _held.locks.discard(lock)


def require_not_held(path: Path, name: str = "") -> None:
    """Check that this thread does not have a lock, for which it would wait for ever.

    Raises
    ------
    RuntimeError
        If it has.
    """
    if path.exists() and _identity(path, name) in _held.locks:
        raise RuntimeError(
            f"this thread has the lock {name or 'of'} {path} already. Nothing that takes it may "
            "run under it; move the call out of the block that holds the lock"
        )


def _identity(path: Path, name: str) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_dev, status.st_ino, name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on a file or directory; the kernel frees it on any death.

    A process that waits long logs that, and the process that holds the lock.

    Parameters
    ----------
    path
        A directory, or a file that is created when absent.

    Raises
    ------
    RuntimeError
        If this thread has it already.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        with held_by_this_thread(path):
            _wait_for(descriptor, path)
            try:
                yield
            finally:
                # A fork shares the lock until it is released by name, not by closing.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path) -> None:
    began = told = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_POLLS)
        now = time.monotonic()
        if now - told > _TOLD_AFTER:
            told = now
            _log.warning(
                "waited %.0f s for the lock of %s: process %s has it", now - began, path,
                ", ".join(_processes_with(descriptor)) or "of another machine",
            )  # fmt: skip


def _processes_with(descriptor: int) -> list[str]:
    """Return the processes of this machine that have the lock, as Linux lists them."""
    inode = str(os.fstat(descriptor).st_ino)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    fields = (line.split() for line in lines if "->" not in line)
    return [each[4] for each in fields if each[5].rpartition(":")[2] == inode]


def mount_point(path: Path) -> Path:
    """Return the mount point of the file system that holds (or would hold) `path`."""
    place = path.absolute()
    while not place.exists() or not place.is_mount():
        if place == place.parent:
            break
        place = place.parent
    return place


@contextmanager
def disk_space(path: Path) -> Iterator[None]:
    """Turn a full disk or an exhausted quota within the block into a passing fault.

    Parameters
    ----------
    path
        A place on the file system that is written to.

    Raises
    ------
    PassingFaultError
        Naming the file system and the remedy; every other `OSError` passes unchanged.
    """
    try:
        yield
    except OSError as fault:
        if fault.errno not in _DISK_FULL:
            raise
        raise PassingFaultError(
            f"the file system {mount_point(path)} is full ({fault.strerror}) while writing below "
            f"{path}. Remedy: free space there or move the data root, then run the work again; "
            "nothing of it was published"
        ) from fault
