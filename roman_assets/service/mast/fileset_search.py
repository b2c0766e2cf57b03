"""The search: conditions and positions in, one row a file set out."""

# Names put into SQL are those of declared columns and tables; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from roman_assets.access import Role
from roman_assets.products.kind import KINDS
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.registry import Registry
from roman_assets.service.mast.column import (
    FILE_SET,
    KEY,
    POSITION,
    SEPARATION,
    MastColumn,
    columns,
)
from roman_assets.service.mast.search_condition import Conditions
from roman_assets.service.request_error import UsageError
from roman_assets.service.sealed_snapshot import PublicSnapshots

MOST_POSITIONS = 100
LARGEST_RADIUS = 30.0
"""Of a search around a position, arcmin."""
_DEFAULT_RADIUS = 180.0
_DEGREES = {"arcseconds": 1 / 3600, "arcminutes": 1 / 60, "degrees": 1.0}

_LEADERS = ("cal", "uncal", "coadd", "microlensing_reference_frame")
"""Kinds that lead a file set if they are in it, before all others; in order of preference."""
_ORDER = {
    name: number
    for number, name in enumerate(dict.fromkeys((*_LEADERS, *(kind.name for kind in KINDS))))
}
_RANK = f"list_position({list(_ORDER)}, product.kind)"
_SHOWN = f"product.{IS_AVAILABLE} and product.access = '{Role.PUBLIC}'"


class SearchRequest(BaseModel):
    """What a client sends; unknown fields are ignored, as MAST does."""

    model_config = ConfigDict(extra="ignore")

    conditions: Annotated[list[dict[str, Any]], Field(max_length=500)] = []
    target: Annotated[list[str], Field(max_length=MOST_POSITIONS)] | None = None
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)] = _DEFAULT_RADIUS
    radius_units: str = "arcseconds"
    select_cols: list[str | None] | None = None
    sort_by: list[str] | None = None
    sort_desc: list[bool] | None = None
    limit: Annotated[int, Field(ge=0)] = 5000
    offset: Annotated[int, Field(ge=0)] = 0
    skip_count: bool = False
    search_key: str | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Parameters
    ----------
    columns
        The columns of the answer.
    rows
        One a file set (and position), in the order that was asked for.
    total
        How many there are without limit and offset; None if nobody asked.
    """

    columns: tuple[MastColumn, ...]
    rows: list[dict[str, Any]]
    total: int | None


@dataclass(frozen=True)
class _Near:
    """File sets around positions, side by side."""

    key: list[int] = field(default_factory=list)
    file_set: list[str] = field(default_factory=list)
    ra: list[float] = field(default_factory=list)
    dec: list[float] = field(default_factory=list)
    pos: list[str] = field(default_factory=list)


def search(
    registry: Registry, snapshots: PublicSnapshots, asked: SearchRequest, most_rows: int
) -> Found:
    """Search file sets.

    Parameters
    ----------
    registry, snapshots
        The newest public registry.
    asked
        Conditions, positions, and the columns and order of the answer.
    most_rows
        Rows of the answer at most, whatever is asked for.

    Raises
    ------
    UsageError
        If a column does not exist, or a value does not suit it.
    """
    around = asked.target is not None
    selected = _selected(asked, around)
    ordering = _ordering(asked, around)
    conditions = Conditions()
    for column, value in _conditions(asked):
        conditions.add(column, value)
    used = [column for column, _ in _conditions(asked)] + [column for column, _ in ordering]
    near = _near(registry, asked) if around else None
    with snapshots.cursor() as cursor:
        _choose(cursor, conditions, used, ordering, near)
        total = None if asked.skip_count else _count(cursor)
        rows = _rows(cursor, selected, ordering, asked, min(asked.limit, most_rows))
    return Found(selected, rows, total)


def _conditions(asked: SearchRequest) -> list[tuple[MastColumn, object]]:
    pairs = [pair for condition in asked.conditions for pair in condition.items()]
    return [(_column(name, queried=True), value) for name, value in pairs]


def _column(name: str, queried: bool = False) -> MastColumn:
    column = columns().get(name)
    if column is None or (queried and not column.queryable):
        raise UsageError(f"{name[:100]!r} is not a column to search: see the column list")
    return column


def _selected(asked: SearchRequest, around: bool) -> tuple[MastColumn, ...]:
    names = [name for name in asked.select_cols or () if name and name != KEY]
    if names:
        chosen = [_column(name) for name in dict.fromkeys((FILE_SET, *names))]
    else:
        chosen = [column for column in columns().values() if column.is_default]
    extra = [columns()[name] for name in (SEPARATION, POSITION)]
    return (*(one for one in chosen if one not in extra), *(extra if around else ()))


def _ordering(asked: SearchRequest, around: bool) -> list[tuple[MastColumn, bool]]:
    names = asked.sort_by or ([SEPARATION] if around else [])
    down = asked.sort_desc or []
    pairs = [
        (_column(name), number < len(down) and down[number]) for number, name in enumerate(names)
    ]
    if not around and any(not column.queryable for column, _ in pairs):
        raise UsageError(f"{SEPARATION} and {POSITION} need a target")
    return pairs


def _near(registry: Registry, asked: SearchRequest) -> _Near:
    scale = _DEGREES.get(asked.radius_units)
    if scale is None:
        raise UsageError(f"radius_units: give one of {', '.join(_DEGREES)}")
    radius = asked.radius * scale
    if radius > LARGEST_RADIUS / 60:
        raise UsageError(f"radius: give at most {LARGEST_RADIUS:g} arcmin")
    near = _Near()
    for position in asked.target or ():
        ra, dec = _direction(position)
        met = registry.products.file_sets_met((ra, dec, radius))
        near.key.extend(key for key, _ in met)
        near.file_set.extend(name for _, name in met)
        near.ra.extend([ra] * len(met))
        near.dec.extend([dec] * len(met))
        near.pos.extend([position] * len(met))
    return near


def _direction(position: str) -> tuple[float, float]:
    try:
        ra, dec = map(float, position.replace(",", " ").split())
    except ValueError as error:
        raise UsageError(f"target: {position[:100]!r} is not 'ra dec' in degrees") from error
    if not (-360 <= ra <= 360 and -90 <= dec <= 90):
        raise UsageError(f"target: {position[:100]!r} is not on the sky")
    return ra, dec


def _choose(
    cursor: duckdb.DuckDBPyConnection,
    conditions: Conditions,
    used: Sequence[MastColumn],
    ordering: Sequence[tuple[MastColumn, bool]],
    near: _Near | None,
) -> None:
    """Make the temporary table ``chosen``: leading products that meet the conditions."""
    parameters = dict(conditions.parameters)
    around, position = "", ""
    if near is not None:
        parameters |= {f"near_{name}": value for name, value in vars(near).items()}
        around = (
            f"join ({_AROUND}) as near on product.name_key = near.key "
            "and product.file_set = near.file_set"
        )
        position = f", near.pos, {_SEPARATION} as sep"
    orders = "".join(
        f", {_of_near(column)} as order{number}" for number, (column, _) in enumerate(ordering)
    )
    cursor.execute(
        f"""
        create temp table candidates as
        select product.name_key, product.record_id, product.name, product.file_set,
            {_RANK} as rank {position} {orders}
        from products as product {around} {_joins(used)}
        where {" and ".join((_SHOWN, *conditions.sql))}
        """,
        parameters,
    )
    cursor.execute(
        f"""
        create temp table chosen as select * from candidates as one
        where not exists (
            from (
                select name_key, file_set, {_RANK} as rank from products as product
                where {_SHOWN} and name_key in (select name_key from candidates)
            ) as other
            where other.name_key = one.name_key and other.file_set = one.file_set
                and other.rank < one.rank
        )
        """
    )


def _of_near(column: MastColumn) -> str:
    return _SEPARATION if column.name == SEPARATION else column.sql


_AROUND = """
    select distinct unnest($near_key) as key, unnest($near_file_set) as file_set,
        unnest($near_ra) as ra, unnest($near_dec) as "dec", unnest($near_pos) as pos
"""
_SEPARATION = """
    60 * degrees(2 * asin(least(1, sqrt(
        sin(radians(product."dec" - near."dec") / 2) ** 2 + cos(radians(product."dec"))
        * cos(radians(near."dec")) * sin(radians(product.ra - near.ra) / 2) ** 2))))
"""


def _joins(used: Iterable[MastColumn], among: str = "") -> str:
    """Return the joins that columns need; of file sets, those of a table are enough."""
    used = list(used)
    tables = dict.fromkeys(table for column in used for table in column.tables)
    joins = [
        f'left join "{table}" on "{table}".name_key = product.name_key '
        f'and "{table}".record_id = product.record_id and "{table}".name = product.name'
        for table in tables
    ]
    if any(column.of_sets for column in used):
        only = f"and name_key in (select name_key from {among})" if among else ""
        joins.append(
            "left join (select name_key, file_set, "
            "string_agg(distinct level[2:], ', ' order by level[2:]) as levels, "
            "count(*) as products, sum(size)::bigint as size, max(committed_at) as changed "
            f"from products as product where {_SHOWN} {only} group by all) as sets "
            "on sets.name_key = product.name_key and sets.file_set = product.file_set"
        )
    return " ".join(joins)


def _count(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute("select count(*) from chosen").fetchone()
    return int(row[0]) if row else 0


def _rows(
    cursor: duckdb.DuckDBPyConnection,
    selected: Sequence[MastColumn],
    ordering: Sequence[tuple[MastColumn, bool]],
    asked: SearchRequest,
    limit: int,
) -> list[dict[str, Any]]:
    orders = [
        f"order{number} {'desc' if down else 'asc'} nulls last"
        for number, (_, down) in enumerate(ordering)
    ]
    cursor.execute(
        "create temp table page as select row_number() over () as place, * from (select * from "
        f"chosen order by {', '.join((*orders, 'file_set', 'name'))} limit $limit offset $offset)",
        {"limit": limit, "offset": asked.offset},
    )
    listed = ", ".join(f'{column.sql} as "{column.name}"' for column in selected)
    # What was computed for positions is in the page by the names that columns use.
    answer = cursor.execute(
        f"""
        select {listed} from page as near join products as product
            using (name_key, record_id, name) {_joins(selected, "page")} order by place
        """
    )
    names = [column.name for column in selected]
    return [
        {name: _json(value) for name, value in zip(names, row, strict=True)}
        for row in answer.fetchall()
    ]


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    if isinstance(value, float) and value != value:
        return None
    return value
