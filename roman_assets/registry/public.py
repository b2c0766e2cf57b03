"""The public registry: what general users may know of the products, as files of its own (R1).

Whoever can open a DuckDB file can read all of it, freed blocks included. So what general users get
is no view of the operators' tiers and no copy with parts deleted, but for each tier a new file with
only the tables and columns that are public in `roman_assets.registry.schema`.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from pathlib import Path

import duckdb

from roman_assets.access import Role
from roman_assets.archive.durability import (
    fsync_directory,
    fsync_file,
    make_directory,
    temporary_name,
)
from roman_assets.registry.schema import Table, create_tables, tables_seen_by

_READABLE_BY_ALL = 0o444
_PUBLIC = "public_part"


def write_public_tier(connection: duckdb.DuckDBPyConnection, tier: str, public: Path) -> None:
    """Write the public part of a tier; its file is whole and durable when it appears.

    Parameters
    ----------
    connection
        A connection with the tier attached.
    tier
        Its name there.
    public
        The file for general users.
    """
    make_directory(public.parent)
    temporary = temporary_name(public)
    place = str(temporary).replace("'", "''")
    try:
        connection.execute(f"attach '{place}' as {_PUBLIC} (recovery_mode no_wal_writes)")
        connection.execute(f"use {_PUBLIC}")
        create_tables(connection, Role.PUBLIC)
        hides = _hides_products(connection, tier)
        for table in tables_seen_by(Role.PUBLIC):
            rows = f'"{tier}".{table.name}'
            if connection.execute(f"select 1 from {rows} limit 1").fetchone() is None:
                continue
            columns = ", ".join(f'"{column.name}"' for column in table.stored_columns)
            connection.execute(
                f"insert into {table.name} by name select {columns} from {rows} "
                + (_of_public_products(table, tier) if hides else "")
            )
        connection.execute("checkpoint")
        connection.execute("use memory")
        connection.execute(f"detach {_PUBLIC}")
        temporary.chmod(_READABLE_BY_ALL)
        fsync_file(temporary)
        temporary.replace(public)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(public.parent)


def _hides_products(connection: duckdb.DuckDBPyConnection, tier: str) -> bool:
    row = connection.execute(
        f"select 1 from \"{tier}\".products where access <> '{Role.PUBLIC}' limit 1"
    ).fetchone()
    return row is not None


def _of_public_products(table: Table, tier: str) -> str:
    """Give what narrows the rows of a table to those of products that the public may see."""
    if "access" in table.column_names:
        return f"where access = '{Role.PUBLIC}'"
    return (
        f'semi join (select record_id, name from "{tier}".products '
        f"where access = '{Role.PUBLIC}') using (record_id, name)"
    )
