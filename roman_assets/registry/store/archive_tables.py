"""Filling the metadata tables of the archive from commit records, in bulk.

A value that does not fit its column is not stored there; it stays, with the column it was meant
for, in the table of unfit values.
"""

# Names put into SQL are names of rad's schemas; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from roman_assets.registry.catalog.archive_catalog import (
    ArchiveColumn,
    ArchiveTable,
    archive_catalog,
)
from roman_assets.registry.catalog.schema import UNFIT_VALUES
from roman_assets.registry.store.tiers import NEWEST


def insert_archive_rows(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Add the metadata of the products of the temporary table ``incoming`` to their tables.

    Parameters
    ----------
    connection
        A registry within a transaction; ``incoming`` has one row for each commit record.

    Returns
    -------
    set of str
        The tables that may have new rows.
    """
    connection.execute(_ARCHIVED)
    schemas = {
        schema
        for (schema,) in connection.execute("select distinct rad_schema from archived").fetchall()
    }
    if schemas:
        _set_unfit_values_aside(connection)
    # Statements of a hundred columns take their time, also where there is nothing to do.
    stated = [one for one in archive_catalog().tables if not schemas.isdisjoint(one.schemas)]
    for table in stated:
        connection.execute(_insertion(table), {"schemas": list(table.schemas)})
    connection.execute("drop table archived")
    return {UNFIT_VALUES.name, *(table.name for table in stated)}


# A section is written as a JSON object, so the objects are joined without their braces.
_ARCHIVED = """
create temp table archived as
select record_id, entry.name as name, entry.archived.rad_schema as rad_schema,
    entry.archived.sections as places,
    ('{' || list_aggregate(
        list_transform(entry.archived.sections, lambda place: sections[place + 1][2:-2]),
        'string_agg', ','
    ) || '}')::json as metadata
from (select record_id, sections, unnest(products) as entry from incoming)
where entry.archived is not null
"""

# What is said is looked at once for all products of a record that say it.
_UNFIT = """
create temp table unfit as
with said as (
    select record_id, place, entry.key as path, entry.value as value from (
        select record_id, place - 1 as place,
            unnest(map_entries(from_json(section, '"MAP(VARCHAR, VARCHAR)"'))) as entry
        from (
            select record_id, unnest(sections) as section,
                generate_subscripts(sections, 1) as place
            from incoming
        )
    )
), unfit_statements as (
    select record_id, place, path, datatype, value
    from said join (select distinct path, datatype, fit, low, high, length from annotations)
        using (path)
    where not coalesce(case fit
        when 'time' then isfinite(try_cast(value as timestamptz))
        when 'number' then isfinite(try_cast(value as double))
        when 'whole' then regexp_full_match(value, '[-+]?\\d+(\\.0*)?')
            and try_cast(value as hugeint) between low and high
        when 'logical' then lower(value) in ('true', 'false') or length(value) = 1
        when 'text' then length is null or length(value) <= length
    end, false)
)
select record_id, name, table_name, column_name, datatype, value, path
from (select record_id, name, rad_schema, unnest(places) as place from archived)
    join unfit_statements using (record_id, place)
    join annotations using (rad_schema, path, datatype)
"""


def _set_unfit_values_aside(connection: duckdb.DuckDBPyConnection) -> None:
    connection.register("annotations", _annotations())
    connection.execute(_UNFIT)
    connection.unregister("annotations")
    connection.execute(
        f"insert into {NEWEST}.unfit_values by name "
        "select * exclude (path), name_key(name) as name_key from unfit"
    )
    connection.execute(
        "update archived set metadata = json_merge_patch(metadata, without) from ("
        "  select record_id, name, json_group_object(path, null) as without "
        "  from (select distinct record_id, name, path from unfit) group by record_id, name"
        ") as patch where archived.record_id = patch.record_id and archived.name = patch.name"
    )
    connection.execute("drop table unfit")


@dataclass(frozen=True)
class _Fit:
    """Which values a type holds: the rule, and the limits of whole numbers."""

    fit: str
    low: int | None = None
    high: int | None = None


_FITS: Mapping[str, _Fit] = {
    "datetime2": _Fit("time"),
    "float": _Fit("number"),
    "bigint": _Fit("whole", -(2**63), 2**63 - 1),
    "int": _Fit("whole", -(2**31), 2**31 - 1),
    "smallint": _Fit("whole", -(2**15), 2**15 - 1),
    "tinyint": _Fit("whole", 0, 2**8 - 1),
    "nchar(1)": _Fit("logical"),
}
"""By rad's datatype; all others are text."""


@dataclass(frozen=True)
class _Annotation:
    """One value of the products of a schema and the column it goes into."""

    rad_schema: str
    path: str
    table_name: str
    column_name: str
    datatype: str
    length: int | None
    fit: str
    low: int | None
    high: int | None


@functools.cache
def _annotations() -> pa.Table:
    rows = [
        vars(annotation)
        for table in archive_catalog().tables
        for schema in table.schemas
        for column in table.columns
        for annotation in _annotations_of(schema, table, column)
    ]
    return pa.Table.from_pylist(rows)


def _annotations_of(
    schema: str, table: ArchiveTable, column: ArchiveColumn
) -> Iterator[_Annotation]:
    fit = _FITS.get(column.datatype, _Fit("text"))
    for path in column.paths:
        yield _Annotation(
            schema, path, table.name, column.name, column.datatype, column.length,
            fit.fit, fit.low, fit.high,
        )  # fmt: skip


def _insertion(table: ArchiveTable) -> str:
    types = {path: column.type for column in table.columns for path in column.paths}
    structure = json.dumps(types).replace("'", "''")
    columns = ", ".join(f"{_value(column)} as {_quoted(column.name)}" for column in table.columns)
    return f"""
        insert into {NEWEST}.{_quoted(table.name)} by name
        select record_id, name, name_key(name) as name_key, {columns} from (
            select record_id, name, from_json(metadata, '{structure}') as said
            from archived where rad_schema in (select unnest($schemas))
        )
    """


def _value(column: ArchiveColumn) -> str:
    said = [f"said.{_quoted(path)}" for path in column.paths]
    value = said[0] if len(said) == 1 else f"coalesce({', '.join(said)})"
    if column.datatype == "nchar(1)":
        # How FITS writes booleans; texts of one character stay.
        return f"if(lower({value}) in ('true', 'false'), upper({value}[1]), {value})"
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
