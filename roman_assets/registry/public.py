"""The public registry: what general users may know of the products, as a file of its own (R1).

Whoever can open a DuckDB file can read all of it, freed blocks included. So what general users get
is no view of the operators' snapshot and no copy with parts deleted, but a new file with only the
tables and columns that are public in `roman_assets.registry.schema`.
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
from roman_assets.registry.schema import create_tables, open_database, tables_seen_by

_READABLE_BY_ALL = 0o444


def publish_public_registry(whole: Path, public: Path) -> None:
    """Write the public part of a registry and put it into place at once.

    Parameters
    ----------
    whole
        A registry with all tables; nobody writes to it.
    public
        The file for general users; whoever has the old one open keeps it.
    """
    make_directory(public.parent)
    temporary = temporary_name(public)
    try:
        _write_public(whole, temporary)
        temporary.chmod(_READABLE_BY_ALL)
        fsync_file(temporary)
        temporary.replace(public)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    fsync_directory(public.parent)


def _write_public(whole: Path, target: Path) -> None:
    connection = open_database(target)
    try:
        create_tables(connection, Role.PUBLIC)
        attach(connection, whole, "whole")
        only_public = "" if _all_are_public(connection) else _OF_PUBLIC_PRODUCTS
        for table in tables_seen_by(Role.PUBLIC):
            if connection.execute(f"select 1 from whole.{table.name} limit 1").fetchone() is None:
                continue
            columns = ", ".join(f'"{name}"' for name in table.column_names)
            connection.execute(
                f"insert into {table.name} by name "
                f"select {columns} from whole.{table.name} {only_public}"
            )
        connection.execute("detach whole")
        connection.execute("checkpoint")
    finally:
        connection.close()


_OF_PUBLIC_PRODUCTS = (
    "semi join (select record_id, name from whole.products "
    f"where access = '{Role.PUBLIC}') using (record_id, name)"
)


def _all_are_public(connection: duckdb.DuckDBPyConnection) -> bool:
    return not connection.execute(
        f"select 1 from whole.products where access <> '{Role.PUBLIC}' limit 1"
    ).fetchone()


def attach(connection: duckdb.DuckDBPyConnection, database: Path, name: str) -> None:
    """Let a connection read a database under a name.

    Raises
    ------
    duckdb.Error
        If it cannot be read.
    """
    path = str(database).replace("'", "''")
    connection.execute(f"attach '{path}' as {name} (read_only)")
