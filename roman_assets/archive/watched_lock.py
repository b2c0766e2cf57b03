"""A lock on disk that a stopped process cannot keep, and cannot act on once it has lost it.

The kernel frees the lock of a process that dies. A process that hangs, is stopped or sleeps with
its machine keeps it. So a holder shows a heartbeat; a process that waits and sees none for `LEASE`
takes the lock over. The lock is the newest of numbered files: taking over creates the next number,
which only one process can.

The former holder may wake at any moment, between any look and any change. So it makes every change
under the lock by a rename out of or into a directory of drafts of its own (`Fence`). The successor
first moves that directory away: from then on, every such rename fails.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from roman_assets.archive.durability import (
    fsync_directory,
    fsync_file,
    held_by_this_thread,
    private_directory,
    write_new,
)
from roman_assets.errors import PassingFaultError

LEASE = 30.0
"""How long a holder may show no heartbeat, s, by the clock of a process that waits for it."""
BEAT = 5.0
"""Pause between heartbeats, s."""
STALLED = 600.0
"""How long a holder may make no progress before its heartbeat stops, s."""
PATIENCE = 900.0
"""How long to wait for holders that work, s."""
TOLD_AFTER = 10.0
"""Wait before the log names the holder of the lock, s."""

_POLLS = 0.002
_LOOKS = 0.1
_DRAFTS = "drafts"
_log = logging.getLogger(__name__)


class LostLockError(PassingFaultError):
    """Another process has taken the lock over, since its holder seemed to hang."""


class Fence:
    """Changes files only as long as a lock is held.

    Parameters
    ----------
    name
        The lock, for messages.
    trees
        Directories in which files are changed. Each gets a directory of drafts, on its file system.
    token
        Identifies one holding of the lock.
    """

    def __init__(self, name: str, trees: Sequence[Path], token: str) -> None:
        self._name = name
        self._drafts = {tree: tree / _DRAFTS / f"{name}.{token}" for tree in trees}
        self._confirmations: list[Callable[[], None]] = []
        self.progressed_at = time.monotonic()

    def confirm(self) -> None:
        """Check that the lock is still held, and show that its holder makes progress.

        Raises
        ------
        LostLockError
            If another process has taken it over.
        """
        self.progressed_at = time.monotonic()
        for drafts in self._drafts.values():
            if not drafts.is_dir():
                raise LostLockError(
                    f"another process has taken over the lock {self._name}, since this one did "
                    f"not answer for {LEASE:.0f} s. Remedy: none is needed; the committed records "
                    "are safe, and the next fold finishes"
                )
        for confirm in self._confirmations:
            confirm()

    def also(self, confirm: Callable[[], None]) -> None:
        """Add another check to `confirm`."""
        self._confirmations.append(confirm)

    def write(self, path: Path, content: bytes, mode: int | None = None) -> None:
        """Replace a file, durably."""
        with self._draft(path) as draft:
            write_new(draft, content, mode)
            draft.replace(path)
        fsync_directory(path.parent)

    def link(self, source: Path, path: Path) -> None:
        """Replace a name by a link to another file, at once; durable with its directory."""
        with self._draft(path) as draft:
            draft.hardlink_to(source)
            draft.replace(path)

    def copy(self, source: Path, path: Path, mode: int) -> None:
        """Replace a file by a copy of another one; durable with its directory."""
        with self._draft(path) as draft:
            shutil.copyfile(source, draft)
            draft.chmod(mode)
            fsync_file(draft)
            draft.replace(path)

    def remove(self, path: Path) -> bool:
        """Remove a name; return False if it does not exist."""
        try:
            with self._draft(path) as draft:
                path.replace(draft)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _draft(self, path: Path) -> Iterator[Path]:
        drafts = next(each for tree, each in self._drafts.items() if path.is_relative_to(tree))
        draft = drafts / uuid.uuid4().hex
        try:
            yield draft
        except FileNotFoundError:
            self.confirm()
            raise
        finally:
            draft.unlink(missing_ok=True)

    def raise_up(self) -> None:
        """Create the directories of drafts; remove those of earlier holders to end their work."""
        for drafts in self._drafts.values():
            private_directory(drafts.parent)
            for former in drafts.parent.glob(f"{self._name}.*"):
                with suppress(FileNotFoundError):
                    former.replace(drafts.parent / f".{uuid.uuid4().hex}")
            for fenced in drafts.parent.glob(".*"):
                shutil.rmtree(fenced, ignore_errors=True)
            drafts.mkdir()

    def take_down(self) -> None:
        """Remove the directories of drafts."""
        for drafts in self._drafts.values():
            shutil.rmtree(drafts, ignore_errors=True)


@contextmanager
def watched_lock(
    directory: Path,
    name: str,
    purpose: str,
    trees: Sequence[Path],
    needless: Callable[[], bool] = lambda: False,
) -> Iterator[Fence | None]:
    """Hold a lock, once its holder is done, dies or shows no heartbeat.

    Parameters
    ----------
    directory
        Where the files of the lock are.
    name
        Of the lock, and of its files.
    purpose
        Shown to processes that wait for the lock.
    trees
        Directories in which files are changed under it; each is on one file system.
    needless
        Asked while another process has it; once it is true, the block runs without the lock, and
        with None.

    Raises
    ------
    PassingFaultError
        If others hold it for longer than `PATIENCE`.
    RuntimeError
        If this thread has it already.
    """
    private_directory(directory)
    with held_by_this_thread(directory, name):
        holding = _acquired(directory, name, purpose, needless)
        if holding is None:
            yield None
            return
        fence = Fence(name, trees, holding.token)
        done = threading.Event()
        try:
            fence.raise_up()
            threading.Thread(target=_beat, args=(holding, fence, done), daemon=True).start()
            yield fence
        finally:
            done.set()
            fence.take_down()
            holding.release()


class _Holding:
    """A lock that this process holds: the open file, and the state of the holder written in it."""

    def __init__(self, descriptor: int, purpose: str) -> None:
        self.token = uuid.uuid4().hex
        self._descriptor = descriptor
        self._one_at_a_time = threading.Lock()
        self._released = False
        self._beats = 0
        self._state = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "purpose": purpose,
            "token": self.token,
        }
        self.beat()

    def beat(self) -> None:
        with self._one_at_a_time:
            if self._released:
                return
            self._beats += 1
            self._write(json.dumps(self._state | {"beats": self._beats}).encode())

    def release(self) -> None:
        with self._one_at_a_time:
            self._released = True
            self._write(b"")
            # A fork shares the lock until it is released by name, not by closing.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


def _beat(holding: _Holding, fence: Fence, done: threading.Event) -> None:
    while not done.wait(BEAT):
        if time.monotonic() - fence.progressed_at < STALLED:
            holding.beat()


def _acquired(
    directory: Path, name: str, purpose: str, needless: Callable[[], bool]
) -> _Holding | None:
    began = seen_since = looked = told = time.monotonic()
    seen: object = None
    while True:
        number = _newest(directory, name)
        path = _lock_path(directory, name, number)
        descriptor = _opened(path)
        if _is_taken(descriptor) and _newest(directory, name) == number:
            return _Holding(descriptor, purpose)
        if needless():
            os.close(descriptor)
            return None
        now = time.monotonic()
        if now - looked > _LOOKS:
            looked, state = now, _content(descriptor)
            if (number, state) != seen:
                seen, seen_since = (number, state), now
            if now - seen_since > LEASE:
                os.close(descriptor)
                if (taken := _taken_over(directory, name, number + 1)) is not None:
                    _log.warning("took %s over: %s shows no heartbeat", path, _holder(state))
                    path.unlink(missing_ok=True)
                    return _Holding(taken, purpose)
                continue
            if now - told > TOLD_AFTER:
                told = now
                _log.warning("waited %.0f s for %s: %s", now - began, path, _holder(state))
            if now - began > PATIENCE:
                os.close(descriptor)
                raise PassingFaultError(
                    f"waited {PATIENCE:.0f} s for {path}: {_holder(state)}. Remedy: see what it "
                    "does; the committed records are safe, and the next fold finishes"
                )
        os.close(descriptor)
        time.sleep(_POLLS)


def _newest(directory: Path, name: str) -> int:
    ends = (path.suffix[1:] for path in directory.glob(f"{name}.lock.*"))
    return max((int(end) for end in ends if end.isdecimal()), default=1)


def _lock_path(directory: Path, name: str, number: int) -> Path:
    return directory / f"{name}.lock.{number}"


def _opened(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken_over(directory: Path, name: str, number: int) -> int | None:
    """Create the next file of the lock, held from the first moment; None if somebody has it."""
    draft = directory / f".{name}.lock.{uuid.uuid4().hex}.tmp"
    descriptor = _opened(draft, os.O_EXCL)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _lock_path(directory, name, number).hardlink_to(draft)
        if _newest(directory, name) == number:
            return descriptor
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    os.close(descriptor)
    return None


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 12, 0)


def _holder(state: bytes) -> str:
    try:
        said = json.loads(state)
        return (
            f"process {said['pid']} on {said['host']} holds it since {said['since']} "
            f"for {said['purpose']}"
        )
    except (ValueError, KeyError, TypeError):
        return "an unknown process holds it"
