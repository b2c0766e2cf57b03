"""The public registry: what general users may know of the products, as files of its own (R1).

Anyone who can open a DuckDB file can read all of it, freed blocks included. So general users get
neither a view of the operators' tiers nor a copy with parts deleted, but for each tier a new file
with only the tables and columns that are public in `roman_assets.registry.catalog.schema`.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from roman_assets.access import Role
from roman_assets.archive.durability import fsync_file
from roman_assets.registry.catalog.schema import PRODUCTS, Table, create_tables, tables_seen_by

_READABLE_BY_ALL = 0o444
_PUBLIC = "public_part"
_UNHIDDEN = "unhidden"
_OF_PRODUCT = "(name_key, record_id, name)"
"""The columns by which the rows of all public tables belong to a product."""


def write_public_tier(
    connection: duckdb.DuckDBPyConnection, tier: str, older: Sequence[str], public: Path
) -> None:
    """Write the public part of a tier into a new file, durably.

    A product that was published in this tier, and was hidden in older ones, is not in their public
    parts, which never change. So all that the public may know of it goes into this one.

    Parameters
    ----------
    connection
        A connection with the tiers attached.
    tier
        Its name there.
    older
        Names of the tiers after it, newest first.
    public
        The file for general users.
    """
    with _attached(connection, public):
        create_tables(connection, Role.PUBLIC)
        hides = _has_rows(connection, f"({_hidden(tier)})")
        for table in tables_seen_by(Role.PUBLIC):
            if _has_rows(connection, f'"{tier}".{table.name}'):
                _insert(connection, table, tier, _of_public_products(table, tier) if hides else "")
        if older and _find_unhidden(connection, tier, older):
            for table in tables_seen_by(Role.PUBLIC):
                if "access" not in table.column_names:
                    for each in older:
                        _insert(
                            connection, table, each, f"semi join {_UNHIDDEN} using {_OF_PRODUCT}"
                        )
        connection.execute(f"drop table if exists {_UNHIDDEN}")


def append_to_public_tier(
    connection: duckdb.DuckDBPyConnection,
    tier: str,
    grown: Mapping[str, int],
    ends: Mapping[str, int],
    public: Path,
) -> None:
    """Add the public part of a tier's new rows to a copy of its former public file, durably.

    Parameters
    ----------
    connection
        A connection with the tier attached.
    tier
        Its name there.
    grown
        Where the new rows begin, by table; those before are as they were.
    ends
        Where rows after them would begin, by table.
    public
        The file for general users, as it was before.
    """
    with _attached(connection, public):
        new = {name: f"rowid >= {number}" for name, number in grown.items()}
        hides = _has_rows(connection, f"({_hidden(tier)} and {new[PRODUCTS.name]})")
        for table in tables_seen_by(Role.PUBLIC):
            if ends[table.name] > grown[table.name]:
                only = _of_public_products(table, tier) if hides else ""
                _insert(connection, table, tier, only, new[table.name])


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, public: Path) -> Iterator[None]:
    """Write to a public file within the block, and make it durable."""
    place = str(public).replace("'", "''")
    connection.execute(f"attach '{place}' as {_PUBLIC} (recovery_mode no_wal_writes)")
    try:
        connection.execute(f"use {_PUBLIC}")
        yield
        connection.execute("checkpoint")
    finally:
        connection.execute("use memory")
        connection.execute(f"detach {_PUBLIC}")
    public.chmod(_READABLE_BY_ALL)
    fsync_file(public)


def _has_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> bool:
    return connection.execute(f"select 1 from {rows} limit 1").fetchone() is not None


def _insert(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    tier: str,
    only: str,
    new: str = "true",
) -> None:
    columns = ", ".join(f'"{column.name}"' for column in table.stored_columns)
    connection.execute(
        f"insert into {table.name} by name select {columns} "
        f'from (from "{tier}".{table.name} where {new}) {only}'
    )


def _find_unhidden(connection: duckdb.DuckDBPyConnection, tier: str, older: Sequence[str]) -> bool:
    """List the products that this tier is the first to show; return whether there are any."""
    key = ", ".join(PRODUCTS.key)
    before = " union all ".join(
        f'select {key}, access from "{each}".{PRODUCTS.name}' for each in older
    )
    shown = f"select * from \"{tier}\".{PRODUCTS.name} where replaces and access = '{Role.PUBLIC}'"
    if not _has_rows(connection, f"({shown})"):
        return False
    connection.execute(
        f"create temp table {_UNHIDDEN} as select name_key, record_id, name from ({shown}) "
        f"semi join ({before}) using ({key}) "
        f"anti join (from ({before}) where access = '{Role.PUBLIC}') using ({key})"
    )
    return _has_rows(connection, _UNHIDDEN)


def _hidden(tier: str) -> str:
    return f"select 1 from \"{tier}\".{PRODUCTS.name} where access <> '{Role.PUBLIC}'"


def _of_public_products(table: Table, tier: str) -> str:
    """Return what narrows the rows of a table to those of products that the public may see."""
    if "access" in table.column_names:
        return f"where access = '{Role.PUBLIC}'"
    return (
        f'semi join (select name_key, record_id, name from "{tier}".products '
        f"where access = '{Role.PUBLIC}') using {_OF_PRODUCT}"
    )
