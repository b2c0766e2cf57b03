"""The lock under which the registry and the public names change: one folder at a time.

On one machine it is a file lock, which the kernel frees when its holder dies. Where several
machines share an object store, a lease there comes on top: an object that only its holder can
replace, since each replacement names the version it replaces. Who finds a lease that was not
renewed for a while takes it over; its former holder learns that from `confirm_fold_lock` before it
changes anything.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace

from roman_assets.archive.durability import locked, private_directory, write_durably
from roman_assets.archive.object_store import ConflictError, ObjectStore
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

LEASE = 30.0
"""How long a lease lasts that is not renewed, s, by the clock of who waits for it."""
PATIENCE = 900.0
"""How long to wait for a lease that others hold, s."""

_LOCK = "fold.lock"
_LEASE_OBJECT = "fold.lease.json"
_INSTALLATION = "installation.id"
_LOOKS = 0.25


@contextmanager
def fold_lock(root: DataRoot) -> Iterator[None]:
    """Hold the lock under which the registry and the public names change.

    Raises
    ------
    PassingFaultError
        If other machines keep it for longer than `PATIENCE`.
    """
    lease = _leased if root.object_store else nullcontext
    with locked(private_directory(root.registry) / _LOCK), lease(root):
        yield


def confirm_fold_lock(root: DataRoot) -> None:
    """Make sure that this process, which has the lock, has it still.

    Whoever takes it over later changes things later than this. So what is looked at before, and
    changed afterwards on condition that it is still the same, is changed by the holder of the lock.

    Raises
    ------
    PassingFaultError
        If another machine has taken it over.
    """
    if root.object_store is not None:
        _held[root].confirm()


@dataclass(frozen=True)
class _State:
    """What the lease object says.

    Parameters
    ----------
    holder
        Who has the lease, for people; empty if nobody has.
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

    def __init__(self, root: DataRoot) -> None:
        assert root.object_store is not None
        self._objects = ObjectStore(root.object_store)
        self._key = root.key(root.registry / _LEASE_OBJECT)
        self._state = _State(
            holder=f"{socket.gethostname()}:{os.getpid()}",
            installation=_installation(root),
            token=uuid.uuid4().hex,
        )
        self._e_tag = ""
        self._one_at_a_time = threading.Lock()

    def acquire(self) -> None:
        began = seen_since = time.monotonic()
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
            if time.monotonic() - began > PATIENCE:
                raise PassingFaultError(
                    f"{state.holder} folds {self._objects.url} for {PATIENCE:.0f} s already. "
                    "Remedy: see what it does; the committed records are safe, and the next fold "
                    "finishes"
                )
            time.sleep(_LOOKS)

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
        # A holder of this installation is dead: it would have the file lock.
        return not state.holder or state.installation == self._state.installation

    def _take(self, e_tag: str | None) -> None:
        content = self._state.encoded()
        if e_tag is None:
            self._e_tag = self._objects.put_new(self._key, content)
        else:
            self._e_tag = self._objects.replace(self._key, content, e_tag)


_held: dict[DataRoot, _Lease] = {}
"""The leases of this process."""


@contextmanager
def _leased(root: DataRoot) -> Iterator[None]:
    assert root.object_store is not None
    lease = _Lease(root)
    lease.acquire()
    _held[root] = lease
    done = threading.Event()
    renewal = threading.Thread(target=_renew_until, args=(lease, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        del _held[root]
        lease.release()


def _renew_until(lease: _Lease, done: threading.Event) -> None:
    while not done.wait(LEASE / 3):
        # A lost lease and a lasting fault are for the holder to meet, when it confirms.
        with suppress(PassingFaultError):
            lease.confirm()


def _installation(root: DataRoot) -> str:
    """Give the identity of a data root; the file lock is held."""
    path = root.registry / _INSTALLATION
    try:
        return path.read_text()
    except FileNotFoundError:
        identity = uuid.uuid4().hex
        write_durably(path, identity.encode())
        return identity
