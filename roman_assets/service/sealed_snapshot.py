"""The newest public registry, opened once for all requests and sealed against what they ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import duckdb

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import KEYS
from roman_assets.registry.engine import Engine, OpenSnapshot
from roman_assets.registry.queryable import NO_STATE, Preparation, Queryable, StateId
from roman_assets.service.request_error import TooExpensiveError
from roman_assets.settings.service_settings import ServiceSettings

_LOOK_SECONDS = 1.0
"""So often at most the object store is asked for a newer snapshot."""


@dataclass(eq=False)
class _Opened:
    """One state of the registry, open until its last reader is done."""

    snapshot: OpenSnapshot
    readers: int = 0
    retired: bool = field(default=False)


class PublicSnapshots(Queryable):
    """Cursors on the newest public registry, for any thread.

    Statements can read the attached tiers and nothing else: no other file, no network, no setting.
    A published state never changes; a newer one is opened beside it.

    Parameters
    ----------
    root
        The installation.
    settings
        Limits of memory, disk and time.
    prepare
        Creates views and macros in each newly opened state, before it is sealed.
    """

    def __init__(
        self,
        root: DataRoot,
        settings: ServiceSettings,
        prepare: Preparation = lambda connection: None,
    ) -> None:
        super().__init__(root, Role.PUBLIC)
        self._engine = Engine(root)
        self._settings = settings
        self._prepare = prepare
        self._lock = threading.Lock()
        self._newest: _Opened | None = None
        self._looked = float("-inf")
        self._state = NO_STATE

    def __reduce__(self) -> NoReturn:
        raise TypeError("sealed snapshots belong to their process")

    def state(self) -> StateId:
        """Return the newest state, `NO_STATE` before the first fold."""
        now = time.monotonic()
        if self.root.object_store is None or now - self._looked > _LOOK_SECONDS:
            self._state, self._looked = self._engine.state(Role.PUBLIC), now
        return self._state

    def connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return a cursor on the newest state, in the time that the settings allow."""
        return self.cursor()

    @contextmanager
    def beside(self) -> Iterator[PublicSnapshots]:
        """Return these snapshots: no cursor keeps another waiting."""
        yield self

    @contextmanager
    def cursor(self, seconds: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Return a cursor on the newest state, for one thread.

        Parameters
        ----------
        seconds
            Time for everything that is done with it; that of the settings by default.

        Raises
        ------
        TooExpensiveError
            If it takes more time or memory than there is.
        PassingFaultError
            If the registry cannot be read.
        """
        allowed = self._settings.seconds if seconds is None else seconds
        opened = self._borrow()
        try:
            cursor = opened.snapshot.connection.cursor()
            timer = threading.Timer(allowed, cursor.interrupt)
            timer.daemon = True
            timer.start()
            try:
                yield cursor
            except duckdb.InterruptException as error:
                raise TooExpensiveError(
                    f"the query takes more than {allowed:g} s; ask for less, or in parts"
                ) from error
            except duckdb.OutOfMemoryException as error:
                raise TooExpensiveError(
                    "the query needs more memory than there is; ask for less, or in parts"
                ) from error
            finally:
                timer.cancel()
                cursor.close()
        finally:
            self._give_back(opened)

    def check(self) -> None:
        """Raise `PassingFaultError` if the registry cannot be read."""
        with self.cursor() as cursor:
            cursor.execute("select name from products limit 1").fetchall()

    def close(self) -> None:
        """Close the registry."""
        with self._lock:
            self._retire()

    def _borrow(self) -> _Opened:
        with self._lock:
            state = self.state()
            if self._newest is None or self._newest.snapshot.state != state:
                newest = _Opened(self._engine.open_snapshot(Role.PUBLIC, self._seal))
                self._retire()
                self._newest = newest
            self._newest.readers += 1
            return self._newest

    def _give_back(self, opened: _Opened) -> None:
        with self._lock:
            opened.readers -= 1
            if opened.retired and opened.readers == 0:
                opened.snapshot.close()

    def _retire(self) -> None:
        if self._newest is not None:
            self._newest.retired = True
            if self._newest.readers == 0:
                self._newest.snapshot.close()
        self._newest = None

    def _seal(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Set limits, and forbid what reaches beyond the attached tiers."""
        # Cursors share neither temporary macros nor settings of the session.
        for macro, sql in KEYS.items():
            connection.execute(f"create or replace macro memory.{macro} as {sql}")
        self._prepare(connection)
        for setting in (
            f"memory_limit = '{self._settings.memory_mib}MiB'",
            f"max_temp_directory_size = '{self._settings.spill_mib}MiB'",
            "global timezone = 'UTC'",
            "allow_community_extensions = false",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"set {setting}")
