"""The registry's rows: immutable tiers on disk, shown as one set of tables.

A fold must not cost what ten million products take. So the rows lie in a few DuckDB files, the
tiers, newest first, each many times as large as the one before. The latest rows are in the snapshot
itself (`roman_assets.registry.store.fresh`). A fold that writes a tier copies only the newest,
small one, writes into the copy and publishes it in place of the old one; when it has grown, it is
merged with older ones, so that a row is copied a few times in its life.

A published tier never changes. A row that changes is brought forward: copied into the newest tier,
where it takes the place of its former self in older ones. The journal is the truth; any tier may
be lost.
"""

# Names put into SQL are names of the schema and of tiers; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from roman_assets.access import Role
from roman_assets.archive.durability import private_directory
from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import (
    PRODUCTS,
    REPLACES,
    TRANSITIONS,
    Table,
    create_tables,
    create_views,
    open_database,
    tables_seen_by,
)
from roman_assets.registry.store.damage import is_damage, is_disk_full
from roman_assets.registry.store.fresh import Rows
from roman_assets.registry.store.public import append_to_public_tier, write_public_tier
from roman_assets.registry.store.snapshot import Snapshot, tier_path

_log = logging.getLogger(__name__)

EMPTY = "empty"
KNOWN_NAMES = "known_names"
"""View of a fold: the products of which any tier has a row, each as often as there are rows."""
FRESH = "fresh"
"""The database with the fresh rows of a snapshot."""
NEWEST = "newest"
"""The database that a fold writes into; its readable tables are those of all tiers."""


def spill_directory(root: DataRoot) -> Path:
    """Return where DuckDB puts what does not fit into memory."""
    return root.registry / "spill"


def _new_spill(root: DataRoot, role: Role) -> Path | None:
    if role is Role.PUBLIC:
        return Path(tempfile.gettempdir()) / f"roman-assets-{uuid.uuid4().hex}"
    if not os.access(root.registry, os.W_OK):
        return None
    return private_directory(spill_directory(root)) / uuid.uuid4().hex


class TieredDatabase:
    """A private connection that shows tiers as one set of tables.

    Parameters
    ----------
    root
        The installation.
    role
        For whom: only what this role may see.
    """

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        self._root = root
        self._role = role
        self._tables = tables_seen_by(role)
        # Attached to a private instance: DuckDB shares instances by path within a process.
        self.connection = open_database(":memory:", _new_spill(root, role))
        self._shown: tuple[str, ...] = ()
        self._replacing: dict[str, bool] = {}
        """Whether rows take the place of others in older tiers, by attached tier."""

    def close(self) -> None:
        """Detach all tiers."""
        self.connection.close()

    def show(self, snapshot: Snapshot | None) -> None:
        """Show the rows of a snapshot and no others; without one, all tables are empty.

        Raises
        ------
        duckdb.Error
            If a tier cannot be read.
        SnapshotError
            If its fresh rows cannot.
        """
        tiers, rows = (snapshot.tiers, snapshot.rows()) if snapshot else ((), {})
        for tier in self._replacing.keys() - set(tiers):
            self.detach(tier)
        self.attach(tiers)
        if rows:
            self._attach_new(FRESH, ":memory:", rows)
            self.insert(FRESH, rows)
        if not tiers:
            self._attach_new(EMPTY, ":memory:")
        self._shown = (*((FRESH,) if rows else ()), *(tiers or (EMPTY,)))
        self._create_views(self._tables, tiers or (EMPTY,), rows)
        create_views(self.connection)

    def hold(self, tiers: Sequence[str], rows: Rows, read: Sequence[Table]) -> None:
        """Have the `NEWEST` tier in memory, with fresh rows to which others are added.

        Parameters
        ----------
        tiers
            The tiers after it.
        rows
            The fresh rows.
        read
            The tables that are read: they show the rows of all these tiers.
        """
        for tier in self._replacing.keys() - set(tiers):
            self.detach(tier)
        self.attach(tiers)
        self._attach_new(NEWEST, ":memory:")
        self._replacing[NEWEST] = False
        self.insert(NEWEST, rows)
        self._create_views_of_fold(read, (NEWEST, *tiers))

    def rows_from(self, table: str, begin: int) -> pa.Table:
        """Return the rows of a table of the `NEWEST` tier from a number on."""
        new = self.connection.sql(f"from {NEWEST}.{table} where rowid >= {begin}")
        return new.to_arrow_table()

    def insert(self, database: str, rows: Rows) -> None:
        """Insert rows into the tables of an attached database."""
        for name, part in rows.items():
            self.connection.register("inserted", part)
            self.connection.execute(f"insert into {database}.{name} by name from inserted")
            self.connection.unregister("inserted")

    def attach(self, tiers: Sequence[str]) -> None:
        """Attach what is not yet attached of tiers, for reading."""
        for tier in tiers:
            if tier not in self._replacing:
                self._attach(tier)

    def write(self, path: Path, older: Sequence[str], read: Sequence[Table]) -> None:
        """Attach a file as the `NEWEST` tier, which takes what is written.

        Parameters
        ----------
        path
            The file: a copy of a tier, or not there yet.
        older
            The tiers after it.
        read
            The tables that are read meanwhile: they show the rows of all these tiers.
        """
        self.detach(NEWEST)
        self.attach(older)
        self._attach_new(NEWEST, str(path), () if path.exists() else None)
        self._create_views_of_fold(read, (NEWEST, *older))

    def written(
        self, older: Sequence[str], public: Path | None, grown: Mapping[str, int] | None
    ) -> None:
        """Put all that was written into the file of the `NEWEST` tier, and the public part of it.

        Parameters
        ----------
        older
            The tiers after it.
        public
            The file for the public, None if there is none.
        grown
            Where the rows begin, by table, that `public` has not the public part of; None if it
            is new.
        """
        self.connection.execute(f"checkpoint {NEWEST}")
        if public is None:
            return
        if grown is not None:
            try:
                append_to_public_tier(self.connection, NEWEST, grown, self.sizes(), public)
                return
            except duckdb.Error as error:
                if not is_damage(error) or is_disk_full(error):
                    raise
                # nothing is in the former file that the tier has not
                _log.warning("the public part of the registry is written anew: %s", error)
                public.unlink()
        self.attach(older)
        write_public_tier(self.connection, NEWEST, older, public)

    def sizes(self) -> dict[str, int]:
        """Return where new rows of the `NEWEST` tier begin, by public table."""
        names = [table.name for table in tables_seen_by(Role.PUBLIC)]
        ends = ", ".join(
            f"(select coalesce(max(rowid), -1) + 1 from {NEWEST}.{name})" for name in names
        )
        return dict(zip(names, row_of(self.connection, f"select {ends}"), strict=True))

    @contextmanager
    def each_tier(self) -> Iterator[Iterator[duckdb.DuckDBPyConnection]]:
        """Go through the tiers with a connection whose current database is the tier."""
        try:
            yield (self._using(tier) for tier in self._shown)
        finally:
            self._using("memory")

    def rows(self, table: Table, tiers: Sequence[str]) -> str:
        """Return the SQL of a table's rows in tiers, the last state of each, with `REPLACES`."""
        columns = ", ".join(f'"{column.name}"' for column in table.stored_columns)
        key = ", ".join(f'"{column}"' for column in table.key)
        parts = []
        for number, tier in enumerate(tiers):
            part = f'select {columns} from "{tier}".{table.name}'
            replaced = " union all ".join(
                f'select {key} from "{newer}".{table.name} where {REPLACES.name}'
                for newer in tiers[:number]
                if self._replacing[newer]
            )
            if table.key and replaced:
                part += f" anti join ({replaced}) using ({key})"
            parts.append(part)
        return " union all ".join(parts)

    def _using(self, database: str) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(f'use "{database}"')

    def _attach(self, tier: str) -> None:
        place = quoted(str(tier_path(self._root, tier, self._role)))
        self.connection.execute(f'attach {place} as "{tier}" (read_only)')
        self._replacing[tier] = any(
            self.connection.execute(
                f'select 1 from "{tier}".{table.name} where {REPLACES.name} limit 1'
            ).fetchone()
            for table in self._tables
            if table.key
        )

    def detach(self, tier: str) -> None:
        """Detach a tier, if it is attached."""
        if self._replacing.pop(tier, None) is not None:
            self.connection.execute(f'detach "{tier}"')

    def _attach_new(self, name: str, path: str, tables: Collection[str] | None = None) -> None:
        """Attach a database to write to, and create some tables in it, by default all."""
        self.connection.execute(f"attach {quoted(path)} as {name} (recovery_mode no_wal_writes)")
        create_tables(self._using(name), self._role, tables)
        self._using("memory")
        self._replacing[name] = name != FRESH

    def _create_views(
        self, tables: Sequence[Table], tiers: Sequence[str], fresh: Collection[str] = ()
    ) -> None:
        for table in tables:
            shown = (FRESH, *tiers) if table.name in fresh else tiers
            hidden = f"exclude ({REPLACES.name})" if table.key else ""
            self.connection.execute(
                f"create or replace view {table.name} as "
                f"select * {hidden} from ({self.rows(table, shown)})"
            )

    def _create_views_of_fold(self, read: Sequence[Table], tiers: Sequence[str]) -> None:
        self._create_views(read, tiers)
        names = " union all ".join(
            f'select name_key, name from "{tier}".{table.name}'
            for tier in tiers
            for table in (PRODUCTS, TRANSITIONS)
        )
        self.connection.execute(f"create or replace view {KNOWN_NAMES} as {names}")


def quoted(path: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + path.replace("'", "''") + "'"


def bring_forward(connection: duckdb.DuckDBPyConnection, table: Table, changing: str) -> None:
    """Copy rows that are about to change into the `NEWEST` tier, where they can be updated.

    Parameters
    ----------
    connection
        Of a database with a tier to write to.
    table
        A table with a key.
    changing
        Name of a table or view with the keys of the rows.
    """
    key = ", ".join(f'"{column}"' for column in table.key)
    connection.execute(
        f"insert into {NEWEST}.{table.name} by name select *, true as {REPLACES.name} "
        f"from {table.name} semi join {changing} using ({key}) "
        f"anti join {NEWEST}.{table.name} using ({key})"
    )


def row_of(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """Return the only row of an answer."""
    (row,) = connection.execute(sql).fetchall()
    return tuple(row)
