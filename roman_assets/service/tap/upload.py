"""Tables that users send along with a query."""

from __future__ import annotations

import re

import duckdb

from roman_assets.service.request_error import UsageError
from roman_assets.service.tap.tap_schema import TapColumn, TapTable, VoType
from roman_assets.service.tap.translation import SourceTable
from roman_assets.service.vo.parameters import Parameters
from roman_assets.service.vo.remote_table import fetch_table
from roman_assets.service.vo.votable_reader import ReadTable, read_votable

SCHEMA = "tap_upload"
MOST_TABLES = 10
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_INLINE = "param:"


def uploaded_tables(
    parameters: Parameters, most_rows: int, most_bytes: int
) -> dict[str, ReadTable]:
    """Read the tables of the parameter UPLOAD.

    Parameters
    ----------
    parameters
        Of the request.
    most_rows, most_bytes
        Of one table.

    Raises
    ------
    UsageError
        If a table is missing or invalid.
    """
    pairs = [pair for value in parameters.all("UPLOAD") for pair in value.split(";") if pair]
    if len(pairs) > MOST_TABLES:
        raise UsageError(f"UPLOAD: send at most {MOST_TABLES} tables")
    tables = {}
    for pair in pairs:
        name, _, place = (part.strip() for part in pair.partition(","))
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"UPLOAD: {name[:50]!r} is not the name of a table")
        if name.lower() in tables:
            raise UsageError(f"UPLOAD: {name} is sent twice")
        tables[name.lower()] = read_votable(_content(parameters, place, most_bytes), most_rows)
    return tables


def _content(parameters: Parameters, place: str, most_bytes: int) -> bytes:
    if not place.startswith(_INLINE):
        return fetch_table(place, most_bytes)
    content = parameters.files.get(place.removeprefix(_INLINE))
    if content is None:
        raise UsageError(f"UPLOAD: there is no part {place.removeprefix(_INLINE)[:50]!r}")
    return content


def create_uploaded(cursor: duckdb.DuckDBPyConnection, name: str, table: ReadTable) -> SourceTable:
    """Create a temporary table, which only this cursor sees.

    Parameters
    ----------
    cursor
        That the query will run on.
    name
        The checked name of the table.
    table
        What is in it.
    """
    place = f"upload_{name}"
    columns = ", ".join(
        f'"{field.name.lower()}" {kind}'
        for field, kind in zip(table.fields, table.types, strict=True)
    )
    cursor.execute(f'create temp table "{place}" ({columns})')
    if table.rows:
        names = [f"column{number}" for number in range(len(table.fields))]
        lists = dict(zip(names, map(list, zip(*table.rows, strict=True)), strict=True))
        parts = ", ".join(
            f"unnest(${name}::{kind}[])" for name, kind in zip(names, table.types, strict=True)
        )
        cursor.execute(f'insert into "{place}" select {parts}', lists)
    columns_of_user = tuple(
        TapColumn(
            field.name,
            VoType(field.datatype, field.arraysize, field.xtype),
            "uploaded",
            field.unit,
            field.ucd,
        )
        for field in table.fields
    )
    described = TapTable(SCHEMA, name, "uploaded", columns_of_user)
    return SourceTable(described, f'temp.main."{place}"')
