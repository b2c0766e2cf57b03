"""What queries find in the sealed registry: views, TAP_SCHEMA and functions."""

# Names put into SQL are those of declared tables and columns; values are literals of this package.
# ruff: noqa: S608

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import duckdb

from roman_assets.access import Role
from roman_assets.registry.catalog.obscore import obscore_sql
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.service.tap.place import HEALPIX, NAME_KEY
from roman_assets.service.tap.region_functions import create_functions
from roman_assets.service.tap.tap_schema import (
    SCHEMAS,
    TAP_SCHEMA,
    TapTable,
    foreign_keys,
    tap_tables,
)
from roman_assets.service.tap.translation import SourceTable

SERVICE_URL, PUBLISHER = "service_url", "service_publisher"
"""Variables of a connection, for the addresses and identifiers in answers."""

# A view looks for names in its own schema first.
_AVAILABLE = (
    f"(select * from memory.main.products where {IS_AVAILABLE} and access = '{Role.PUBLIC}')"
)
_INDEX = f"healpix as {HEALPIX}, name_key as {NAME_KEY}"


@functools.cache
def sources() -> Mapping[tuple[str, str], SourceTable]:
    """Return the tables that queries can name."""
    return {table.key: SourceTable(table, _place(table)) for table in tap_tables()}


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Create what queries find, in a registry that is not sealed yet."""
    create_functions(connection)
    for schema in SCHEMAS:
        connection.execute(f"create schema if not exists memory.{schema}")
    for table in tap_tables():
        if table in TAP_SCHEMA:
            columns = ", ".join(
                f'"{column.name}" {"integer" if column.type.datatype == "int" else "varchar"}'
                for column in table.columns
            )
            connection.execute(f"create or replace table {_place(table)} ({columns})")
        else:
            connection.execute(f"create or replace view {_place(table)} as {_view(table)}")
    for name, rows in _described():
        _insert(connection, f"memory.tap_schema.{name}", rows)


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[object, ...]]
) -> None:
    # Column by column: a statement for each row would take a second in all.
    columns = {
        f"column{number}": list(values) for number, values in enumerate(zip(*rows, strict=True))
    }
    parts = ", ".join(
        f"unnest(${name}::{'integer' if isinstance(values[0], int) else 'varchar'}[])"
        for name, values in columns.items()
    )
    connection.execute(f"insert into {table} select {parts}", columns)


def set_addresses(cursor: duckdb.DuckDBPyConnection, url: str, publisher: str) -> None:
    """Set the addresses and identifiers of the service in the answers of a cursor.

    Parameters
    ----------
    cursor
        Of the sealed registry.
    url
        Address of the service, without a slash at its end.
    publisher
        IVOA identifier.
    """
    for name, value in ((SERVICE_URL, url), (PUBLISHER, publisher)):
        cursor.execute(f"set variable {name} = $value", {"value": value})


def _place(table: TapTable) -> str:
    return f'memory.{table.schema.lower()}."{table.name.lower()}"'


def _view(table: TapTable) -> str:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    if table.key == ("ivoa", "obscore"):
        inner = obscore_sql(_AVAILABLE, "name as _name", _INDEX.replace(", ", ", product."))
        return (
            f"select * exclude (_name) replace (getvariable('{SERVICE_URL}') || '/files/' || _name "
            f"as access_url, getvariable('{PUBLISHER}') || '?' || _name as obs_publisher_did) "
            f"from ({inner})"
        )
    if table.name == "products":
        return f"select {columns}, {_INDEX} from {_AVAILABLE}"
    return (
        f'select {columns} from memory.main."{table.name}" semi join {_AVAILABLE} '
        "using (name_key, record_id, name)"
    )


def _described() -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Go through the tables of TAP_SCHEMA with their rows."""
    tables = tap_tables()
    yield (
        "schemas",
        [
            (name, None, description, number)
            for number, (name, description) in enumerate(SCHEMAS.items())
        ],
    )
    yield "tables", [
        (
            table.schema, table.full_name, "table" if table in TAP_SCHEMA else "view",
            table.utype, table.description, number,
        )
        for number, table in enumerate(tables)
    ]  # fmt: skip
    yield "columns", [
        (
            table.full_name, column.adql_name, column.type.datatype, column.type.arraysize,
            column.type.xtype, None, column.description, column.utype, column.unit, column.ucd,
            int(column.indexed), int(column.principal), int(column.std), number,
        )
        for table in tables
        for number, column in enumerate(table.columns)
    ]  # fmt: skip
    yield (
        "keys",
        [(key.id, key.table, key.target_table, key.description, None) for key in foreign_keys()],
    )
    yield "key_columns", [(key.id, key.column, key.target_column) for key in foreign_keys()]
