"""The lock under which the registry and the public names change: one folder at a time.

On one machine it is a lock on disk (`roman_assets.archive.watched_lock`). Where several machines
share an object store, a lease there comes on top: an object that only its holder can replace, since
each replacement names the version it replaces. A lease that was not renewed for a while is taken
over; its former holder learns that from `Fence.confirm` before it changes anything.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from roman_assets.archive.durability import require_not_held, write_durably
from roman_assets.archive.object_store import ConflictError, ObjectStore
from roman_assets.archive.watched_lock import STALLED, Fence, watched_lock
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

LEASE = 30.0
"""How long a lease lasts that is not renewed, s, by the clock of a process that waits for it."""
RENEWAL = 10.0
"""Pause between renewals, s."""
PATIENCE = 900.0
"""How long to wait for a lease that others hold, s."""

_LOCK = "fold"
_LEASE_OBJECT = "fold.lease.json"
_INSTALLATION = "installation.id"
LOOKS = 0.25
"""Between two looks at a lease that another machine has, s."""

_TOLD_AFTER = 10.0
_log = logging.getLogger(__name__)


@contextmanager
def fold_lock(root: DataRoot, purpose: str = "folding") -> Iterator[Fence]:
    """Hold the lock under which the registry and the public names change.

    Parameters
    ----------
    root
        The installation.
    purpose
        Shown to processes that wait for the lock.

    Yields
    ------
    Fence
        Makes the changes; it refuses them once another process has taken the lock over.

    Raises
    ------
    PassingFaultError
        If others keep it for longer than `PATIENCE`.
    RuntimeError
        If this thread has it already.
    """
    with fold_lock_unless(root, purpose, lambda: False) as fence:
        assert fence is not None
        yield fence


@contextmanager
def fold_lock_unless(
    root: DataRoot, purpose: str, needless: Callable[[], bool]
) -> Iterator[Fence | None]:
    """Hold the lock as `fold_lock` does, or nothing once `needless` says so while this waits."""
    trees = (root.registry, root.archive)
    with watched_lock(root.registry, _LOCK, purpose, trees, needless) as fence:
        if fence is None or root.object_store is None:
            yield fence
        else:
            with _leased(root, purpose, fence):
                yield fence


def require_fold_lock_not_held(root: DataRoot) -> None:
    """Check that this thread does not hold the lock: nothing that may fold runs under it.

    Raises
    ------
    RuntimeError
        If it does.
    """
    require_not_held(root.registry, _LOCK)


@dataclass(frozen=True)
class _State:
    """The content of the lease object.

    Parameters
    ----------
    holder
        The holder and its purpose, for messages; empty while the lease is free.
    installation
        The data root of the holder: its file lock tells whether the holder is alive.
    token
        Of one holding.
    renewed
        How often it was renewed.
    """

    holder: str = ""
    installation: str = ""
    token: str = ""
    renewed: int = 0

    def encoded(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class _Lease:
    """One holding of the lease."""

    def __init__(self, root: DataRoot, purpose: str) -> None:
        assert root.object_store is not None
        self._objects = ObjectStore(root.object_store)
        self._key = root.key(root.registry / _LEASE_OBJECT)
        self._state = _State(
            holder=f"process {os.getpid()} on {socket.gethostname()}, {purpose}",
            installation=_installation(root),
            token=uuid.uuid4().hex,
        )
        self._e_tag = ""
        self._one_at_a_time = threading.Lock()

    def acquire(self) -> None:
        began = seen_since = told = time.monotonic()
        seen = None
        while True:
            state, e_tag = self._look()
            if e_tag != seen:
                seen, seen_since = e_tag, time.monotonic()
            expired = time.monotonic() - seen_since > LEASE
            if self._is_free(state) or expired:
                with suppress(ConflictError):  # somebody was faster
                    self._take(e_tag)
                    return
            waited = time.monotonic() - began
            if time.monotonic() - told > _TOLD_AFTER:
                told = time.monotonic()
                _log.warning(
                    "waited %.0f s for the lease of %s: %s", waited, self._objects.url, state.holder
                )
            if waited > PATIENCE:
                raise PassingFaultError(
                    f"waited {PATIENCE:.0f} s for the lease of {self._objects.url}: "
                    f"{state.holder}. Remedy: see what it does; the committed records are safe, "
                    "and the next fold finishes"
                )
            time.sleep(LOOKS)

    def confirm(self) -> None:
        """Renew the lease, which only its holder can."""
        with self._one_at_a_time:
            renewed = replace(self._state, renewed=self._state.renewed + 1)
            try:
                self._e_tag = self._objects.replace(self._key, renewed.encoded(), self._e_tag)
            except ConflictError as error:
                raise PassingFaultError(
                    f"another machine has begun to fold {self._objects.url}, since this one did "
                    f"not answer for {LEASE:.0f} s. Remedy: none is needed; the committed records "
                    "are safe, and the next fold finishes"
                ) from error
            self._state = renewed

    def release(self) -> None:
        with self._one_at_a_time, suppress(ConflictError, PassingFaultError):
            self._objects.replace(self._key, _State().encoded(), self._e_tag)

    def _look(self) -> tuple[_State, str | None]:
        try:
            content, e_tag = self._objects.read(self._key)
        except FileNotFoundError:
            return _State(), None
        try:
            return _State(**json.loads(content)), e_tag
        except (ValueError, TypeError):
            return _State(holder="an unreadable lease"), e_tag

    def _is_free(self, state: _State) -> bool:
        # A holder of this installation has lost the lock on disk: it is dead or fenced off.
        return not state.holder or state.installation == self._state.installation

    def _take(self, e_tag: str | None) -> None:
        content = self._state.encoded()
        if e_tag is None:
            self._e_tag = self._objects.put_new(self._key, content)
        else:
            self._e_tag = self._objects.replace(self._key, content, e_tag)


@contextmanager
def _leased(root: DataRoot, purpose: str, fence: Fence) -> Iterator[None]:
    lease = _Lease(root, purpose)
    lease.acquire()
    fence.also(lease.confirm)
    done = threading.Event()
    renewal = threading.Thread(target=_renew_until, args=(lease, fence, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        lease.release()


def _renew_until(lease: _Lease, fence: Fence, done: threading.Event) -> None:
    while not done.wait(RENEWAL):
        if time.monotonic() - fence.progressed_at < STALLED:
            # A lost lease and a lasting fault are for the holder to meet, when it confirms.
            with suppress(PassingFaultError):
                lease.confirm()


def _installation(root: DataRoot) -> str:
    """Return the identity of a data root; the file lock is held."""
    path = root.registry / _INSTALLATION
    try:
        return path.read_text()
    except FileNotFoundError:
        identity = uuid.uuid4().hex
        write_durably(path, identity.encode())
        return identity
