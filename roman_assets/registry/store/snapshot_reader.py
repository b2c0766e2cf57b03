"""Reading the published snapshot: never the database being folded."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, PassingFaultError
from roman_assets.registry.catalog.schema import (
    source_tables,
    tables_seen_by,
)
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

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_EMPTY = (0, 0, 0)


class SnapshotReader:
    """A connection to the newest snapshot; its parameters are those of the `Registry`."""

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        self._root = root
        self._role = role
        self._lock = threading.Lock()
        self._database: TieredDatabase | None = None
        self._opened: tuple[int, int, int] | None = None
        self._widest: dict[bool, float] = {}
        """Largest radius of a footprint, deg, with and without overwritten products, once asked."""

    def __reduce__(self) -> tuple[type[Self], tuple[DataRoot, Role]]:
        return (type(self), (self._root, self._role))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the snapshot; a later call opens it again."""
        with self._lock:
            self._close()

    def connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return the newest snapshot for a question of several statements, alone among the threads.

        Temporary tables may be made in it; they are the asker's.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        """
        return self._asked()

    def read_all(self) -> None:
        """Read every value of every table, as damage may lie in what no search touches.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        """
        for table in tables_seen_by(self._role):
            self._rows(f"select bit_xor(hash(row)) from {table.name} as row", {})

    def source_tables(self) -> list[str]:
        """Return the tables that break R11 (see `schema.source_tables`); empty if it holds."""
        with self._lock:
            self._snapshot()
            assert self._database is not None
            with self._database.each_tier() as tiers:
                found = [finding for tier in tiers for finding in source_tables(tier)]
        return list(dict.fromkeys(found))

    def _query(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> pd.DataFrame:
        frame: pd.DataFrame = self._table(sql, parameters, prepare).to_pandas()
        return frame

    def _table(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> pa.Table:
        with self._answer(sql, parameters, prepare) as answer:
            return answer.to_arrow_table()

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._asked() as connection:
            # Unlike a relation, a statement that is executed is planned once.
            answer = connection.execute(sql, dict(parameters))
            columns = [column[0] for column in answer.description or ()]
            return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

    @contextmanager
    def _answer(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        """Ask the newest snapshot, alone among the threads until the answer is read."""
        with self._asked() as connection:
            if prepare is not None:
                prepare(connection)
            yield connection.sql(sql, params=dict(parameters))

    @contextmanager
    def _asked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Return the newest snapshot's connection, alone among the threads."""
        with self._lock:
            connection = self._snapshot()
            try:
                yield connection
            except duckdb.CatalogException as error:
                if self._role.may_see(Role.OPERATIONS):
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
        return registry_directory(self._root, self._role) / SNAPSHOT

    def _snapshot(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the newest snapshot; the lock is held."""
        refresh_snapshot(self._root, self._role)
        newest = self._identity()
        if self._database is None:
            self._database, self._opened = TieredDatabase(self._root, self._role), None
        if newest != self._opened:
            try:
                self._show(self._database)
            except BaseException:  # what it has attached by then, nobody knows
                self._close()
                raise
            self._opened, self._widest = newest, {}
        return self._database.connection

    def _identity(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return _EMPTY
        except PermissionError as error:
            raise AccessDeniedError(
                f"{self._path} is not for you to read: {error.strerror}. Remedy: search with the "
                f"role {Role.PUBLIC}, or as a user who operates this installation"
            ) from error
        return status.st_ino, status.st_mtime_ns, status.st_size

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
