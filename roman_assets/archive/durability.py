"""Files that survive a crash: durable renames, advisory locks, and full disks explained."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roman_assets.errors import PassingFaultError

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_OWNER_ONLY = 0o700
_OTHERS = 0o007


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
    """Give a hidden name beside `path` that nothing else uses."""
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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on a file or directory; the kernel frees it on any death.

    Parameters
    ----------
    path
        A directory, or a file that is created when absent.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # A fork shares the lock until it is released by name, not by closing.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def mount_point(path: Path) -> Path:
    """Give the mount point of the file system that holds (or would hold) `path`."""
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
