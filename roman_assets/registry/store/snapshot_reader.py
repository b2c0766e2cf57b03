"""Reading the published snapshot: never the database being folded."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, PassingFaultError
from roman_assets.registry.catalog.schema import (
    source_tables,
    tables_seen_by,
)
from roman_assets.registry.queryable import NO_STATE, Preparation, Queryable, StateId
from roman_assets.registry.store.damage import is_damage
from roman_assets.registry.store.snapshot import (
    SNAPSHOT,
    Snapshot,
    SnapshotError,
    read_snapshot,
    refresh_snapshot,
    registry_directory,
)
from roman_assets.registry.store.tiers import TieredDatabase


class SnapshotReader(Queryable):
    """A connection to the newest snapshot; its parameters are those of the `Registry`."""

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        super().__init__(root, role)
        self._lock = threading.Lock()
        self._database: TieredDatabase | None = None
        self._opened: StateId | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[DataRoot, Role]]:
        return (type(self), (self.root, self.role))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the snapshot; a later call opens it again."""
        with self._lock:
            self._close()

    def state(self) -> StateId:
        """Return the newest state, `NO_STATE` before the first fold."""
        with self._lock:
            self._snapshot()
            assert self._opened is not None
            return self._opened

    @contextmanager
    def beside(self) -> Iterator[Self]:
        """Return the same registry for a long question that keeps no other waiting."""
        with type(self)(self.root, self.role) as own:
            yield own

    def read_all(self) -> None:
        """Read every value of every table, as damage may lie in what no search touches.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        """
        for table in tables_seen_by(self.role):
            self.rows(f"select bit_xor(hash(row)) from {table.name} as row", {})

    def source_tables(self) -> list[str]:
        """Return the tables that break R11 (see `schema.source_tables`); empty if it holds."""
        with self._lock:
            self._snapshot()
            assert self._database is not None
            with self._database.each_tier() as tiers:
                found = [finding for tier in tiers for finding in source_tables(tier)]
        return list(dict.fromkeys(found))

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Return a connection to the newest snapshot, for one thread at a time.

        Temporary tables may be made in it; they are the asker's.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        AccessDeniedError
            If the role may not see it.
        """
        with self._lock:
            connection = self._snapshot()
            try:
                yield connection
            except duckdb.CatalogException as error:
                if self.role.may_see(Role.OPERATIONS):
                    raise damaged(self._path, error) from error
                raise AccessDeniedError(
                    f"the public registry does not hold what was asked for: {error}"
                ) from error
            except duckdb.Error as error:
                if not (is_damage(error) or isinstance(error, duckdb.BinderException)):
                    raise
                self._close()
                raise damaged(self._path, error) from error

    @property
    def _path(self) -> Path:
        return registry_directory(self.root, self.role) / SNAPSHOT

    def _snapshot(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the newest snapshot; the lock is held."""
        refresh_snapshot(self.root, self.role)
        newest = newest_state(self.root, self.role)
        if self._database is None:
            self._database, self._opened = TieredDatabase(self.root, self.role), None
        if newest != self._opened:
            try:
                self._show(self._database)
            except BaseException:  # what it has attached by then, nobody knows
                self._close()
                raise
            self._opened = newest
        return self._database.connection

    def _show(self, database: TieredDatabase) -> None:
        failed: Snapshot | None = None
        while True:
            try:
                snapshot = read_snapshot(self._path.parent)
                database.show(snapshot)
            except SnapshotError as error:
                raise damaged(self._path, error) from error
            except duckdb.Error as error:
                # The tiers of a snapshot go when the second after it is published.
                if snapshot == failed:
                    raise damaged(self._path, error) from error
                failed = snapshot
            else:
                return

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database, self._opened = None, None


def damaged(path: Path, error: Exception) -> PassingFaultError:
    """Return the error of a registry that cannot be read."""
    return PassingFaultError(
        f"{path} cannot be read: {error}. Remedy: rebuild the registry from the commit records"
    )


def newest_state(root: DataRoot, role: Role) -> StateId:
    """Return the newest published state, `NO_STATE` before the first fold.

    Raises
    ------
    AccessDeniedError
        If the role may not see it.
    """
    path = registry_directory(root, role) / SNAPSHOT
    try:
        status = path.stat()
    except FileNotFoundError:
        return NO_STATE
    except PermissionError as error:
        raise AccessDeniedError(
            f"{path} is not for you to read: {error.strerror}. Remedy: search with the "
            f"role {Role.PUBLIC}, or as a user who operates this installation"
        ) from error
    return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(eq=False)
class OpenSnapshot:
    """One published state, which stays as it is however often others are published.

    Parameters
    ----------
    connection
        Shows it.
    state
        Which one it is.
    """

    connection: duckdb.DuckDBPyConnection
    state: StateId

    def close(self) -> None:
        """Detach its tiers."""
        self.connection.close()


def open_snapshot(root: DataRoot, role: Role, prepare: Preparation | None = None) -> OpenSnapshot:
    """Open the newest published state; all tables are empty before the first fold.

    Parameters
    ----------
    root
        The installation.
    role
        For whom.
    prepare
        Called with the connection once it shows the state.

    Raises
    ------
    PassingFaultError
        If it cannot be read.
    """
    directory = registry_directory(root, role)
    failed: Snapshot | None = None
    while True:
        database = TieredDatabase(root, role)
        snapshot = None
        try:
            state = newest_state(root, role)
            snapshot = read_snapshot(directory)
            database.show(snapshot)
            if prepare is not None:
                prepare(database.connection)
        except (SnapshotError, duckdb.Error) as error:
            database.close()
            # The tiers of a snapshot go when the second after it is published.
            if snapshot is None or snapshot == failed:
                raise damaged(directory / SNAPSHOT, error) from error
            failed = snapshot
        except BaseException:
            database.close()
            raise
        else:
            return OpenSnapshot(database.connection, state)
