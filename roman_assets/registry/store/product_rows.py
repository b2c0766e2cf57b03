"""Rows of the products that commit records say were made, and their generations."""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json

import duckdb
import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roman_assets.access import Role
from roman_assets.products.lifecycle import AVAILABLE, CHANGES, State, Transition
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.registry.catalog.schema import METADATA, PLACES, PRODUCTS, STATED_CONTENT
from roman_assets.registry.store.fresh import Rows
from roman_assets.registry.store.product_names import identities
from roman_assets.registry.store.tiers import KNOWN_NAMES, NEWEST, bring_forward

HEALPIX_NSIDE = 2**12
"""Pixels of 0.86 arcmin, nested: smaller than a detector, so that cones stay tight."""

GRADE = {
    column.name: column.type for column in PRODUCTS.columns if column.name.startswith("quality")
}
"""The columns with a product's grade, and their types."""

_GRADE = ", ".join(GRADE)
_GRADE_AS_IT_WAS = ", ".join(f"{column} := {column}" for column in GRADE)
_NO_GRADE = (
    f"struct_pack({', '.join(f'{column} := null::{kind}' for column, kind in GRADE.items())})"
)

_MADE = f"""
with entries as (
    select record_id, step, "partition", committed_at, run_id, unnest(products) as entry
    from incoming
), read as (
    select *, from_json(
        entry.metadata, '{json.dumps({column.name: column.type for column in METADATA})}'
    ) as known from entries
)
select entry.name as name, read.* exclude (entry, known), known.*,
    {", ".join(f"entry.{column.name} as {column.name}" for column in STATED_CONTENT)},
    entry."references" as reference_files,
    json_merge_patch(
        entry.metadata, '{json.dumps({column.name: None for column in METADATA})}'
    ) as facts,
    1::integer as generation, '{State.CURRENT}' as state, entry.access as access,
    null::timestamptz as ended_at,
    {", ".join(f"null::{kind} as {column}" for column, kind in GRADE.items())},
    name_key(entry.name) as name_key,
    md5_number_lower(entry.name || ' ' || record_id) as row_key, false as replaces
from read
"""
"""What was made, as if for the first time, but for what names and places say."""

_ENDS = {
    transition.value: change.state.value
    for transition, change in CHANGES.items()
    if change.state not in AVAILABLE
}
_STATE_AFTER = " ".join(
    ["case transition", *(f"when '{end}' then '{state}'" for end, state in _ENDS.items()), "end"]
)

# Nothing happens to a generation after what ended it first: its successor, or a transition that a
# record states. A versioned name is free only when the generation before is gone.
_GENERATIONS = f"""
create temp table numbered as
with affected as (
    select name_key, name from made union select name_key, name from stated
), mine as (
    select name_key, row_key, name, "release", exposure, committed_at, record_id, true as is_new,
        generation, state, ended_at, access, {_GRADE}
    from made
), rivals as (
    select name_key, row_key, name, "release", exposure, committed_at, record_id, false as is_new,
        generation, state, ended_at, access, {_GRADE}
    from products semi join affected using (name_key, name)
), stated_of as (
    select name, made_by as record_id,
        min({{'at': committed_at, 'by': record_id}}) filter (transition in {tuple(_ENDS)})
            as ending_key,
        arg_min({_STATE_AFTER}, (committed_at, record_id)) filter (transition in {tuple(_ENDS)})
            as ending_state,
        bool_or(transition = '{Transition.SUPERSEDED}') as is_superseded,
        bool_or(transition = '{Transition.PUBLISHED}') as is_published
    from transitions semi join affected using (name_key, name)
    group by all
), grades as (
    select name, made_by, committed_at as graded_at, record_id as graded_by,
        struct_pack(quality := quality, quality_reason := reason, quality_from := valid_from,
            quality_until := valid_until) as grade
    from transitions semi join affected using (name_key, name)
    where transition = '{Transition.GRADED}'
), graded as (
    -- of products of one exposure any grade of the name, of others those of the generation
    select row_key, arg_max(grade, (graded_at, graded_by)) as grade
    from (select * from mine union all select * from rivals) join grades using (name)
    where exposure is not null or made_by = record_id
    group by row_key
), ordered as (
    select *, "release" <> '{PROMPT_RELEASE}' as is_versioned,
        {{'at': committed_at, 'by': record_id}} as making,
        row_number() over by_commit as number,
        lead({{'at': committed_at, 'by': record_id}}) over by_commit as successor,
        -- a name of a release that a person withdrew stays taken once everyone has seen it
        max(if(ending_key is null or ending_state = '{State.WITHDRAWN}'
                and (is_published or access = '{Role.PUBLIC}'),
            {{'at': 'infinity'::timestamptz, 'by': ''}}, ending_key))
            over (by_commit rows between unbounded preceding and 1 preceding) as taken_until
    from (select * from mine union all select * from rivals) left join stated_of
        using (name, record_id)
    window by_commit as (partition by name order by committed_at, record_id)
), decided as (
    select *, case
        when is_versioned and taken_until > making
            then {{'state': '{State.REFUSED}', 'at': committed_at}}
        when ending_key is not null
                and (is_versioned or successor is null or ending_key < successor)
            then {{'state': ending_state, 'at': ending_key.at}}
        when successor is not null and not is_versioned
            then {{'state': '{State.OVERWRITTEN}', 'at': successor.at}}
        when is_superseded then {{'state': '{State.SUPERSEDED}', 'at': null::timestamptz}}
        else {{'state': '{State.CURRENT}', 'at': null::timestamptz}}
    end as now from ordered
)
select name_key, row_key, is_new, generation as was_generation, state as was_state,
    ended_at as was_ended_at, access as was_access, number as generation, now.state as state,
    now.at as ended_at, if(is_published, '{Role.PUBLIC}', access) as access,
    struct_pack({_GRADE_AS_IT_WAS}) as was_grade, unnest(coalesce(grade, {_NO_GRADE}))
from decided left join graded using (row_key)
"""

_HISTORY = f"select 1 from {KNOWN_NAMES} semi join made using (name_key, name) limit 1"
"""Whether anything is known of the products that come in."""

_CHANGED = f"""
create temp table changed as
select name_key, row_key, generation, state, ended_at, access, {_GRADE} from numbered
where not is_new
    and (was_generation, was_state, was_ended_at, was_access, was_grade)
        is distinct from (generation, state, ended_at, access, struct_pack({_GRADE_AS_IT_WAS}))
"""


def insert_products(
    connection: duckdb.DuckDBPyConnection, *, has_transitions: bool, only_adds: bool
) -> Rows | None:
    """Insert the products of the records in the temporary table ``incoming``.

    Parameters
    ----------
    connection
        A connection that writes a tier and reads the tables of a fold, within a transaction.
    has_transitions
        Whether the temporary table ``stated`` has transitions.
    only_adds
        Insert nothing if rows may have to change that were there before.

    Returns
    -------
    mapping of pyarrow.Table or None
        The new rows by table; None if rows may have changed, or have to, that were there before.
    """
    made = _made(connection)
    places = _places(made)
    connection.register("made", made)
    changes = (
        has_transitions
        or pc.count_distinct(made["name"]).as_py() < made.num_rows
        or bool(connection.execute(_HISTORY).fetchall())
    )
    if not (changes and only_adds):
        connection.register("places_made", places)
        connection.execute(f"insert into {NEWEST}.places by name from places_made")
        connection.unregister("places_made")
        if changes:
            _insert_among_generations(connection)
        else:
            connection.execute(f"insert into {NEWEST}.products by name from made")
    connection.unregister("made")
    return None if changes else {PRODUCTS.name: made, PLACES.name: places}


def _made(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the rows of what was made, as if for the first time."""
    stated = connection.sql(_MADE).to_arrow_table()
    named = identities(stated["name"].to_pylist())
    columns = {
        **dict(zip(stated.column_names, stated.columns, strict=True)),
        **dict(zip(named.column_names, named.columns, strict=True)),
        "healpix": _pixels(stated["ra"], stated["dec"]),
    }
    return pa.table({column.name: columns[column.name] for column in PRODUCTS.stored_columns})


def _pixels(ra: pa.ChunkedArray, dec: pa.ChunkedArray) -> pa.Array:
    """Return the pixels of places, null where there is none."""
    longitude, latitude = (np.asarray(values.to_numpy(), dtype=float) for values in (ra, dec))
    is_place = np.isfinite(longitude) & (np.abs(latitude) <= 90)
    pixels = np.zeros(len(longitude), dtype=np.int64)
    pixels[is_place] = hpgeom.angle_to_pixel(
        HEALPIX_NSIDE, np.mod(longitude[is_place], 360), latitude[is_place], nest=True
    )
    return pa.array(pixels, mask=~is_place)


def _places(made: pa.Table) -> pa.Table:
    """Return where products were made, once for each record and visit."""
    rows = made.filter(pc.is_valid(made["healpix"]))
    columns = [column.name for column in PLACES.columns]
    distinct = rows.group_by(["record_id", *columns], use_threads=False).aggregate([])
    return distinct.select(columns)


def _insert_among_generations(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"create temp table if not exists stated as from {NEWEST}.transitions limit 0"
    )
    connection.execute(_GENERATIONS)
    connection.execute(_CHANGED)
    bring_forward(connection, PRODUCTS, "changed")
    connection.execute(
        f"update {NEWEST}.products set generation = changed.generation, state = changed.state, "
        "ended_at = changed.ended_at, access = changed.access, "
        f"{', '.join(f'{column} = changed.{column}' for column in GRADE)} from changed "
        "where products.name_key = changed.name_key and products.row_key = changed.row_key"
    )
    connection.execute(
        f"insert into {NEWEST}.products by name select made.* replace "
        "(numbered.generation as generation, numbered.state as state, "
        "numbered.ended_at as ended_at, numbered.access as access, "
        f"{', '.join(f'numbered.{column} as {column}' for column in GRADE)}) "
        "from made join numbered using (name_key, row_key) where is_new"
    )
    # one row a product: so they are the same whatever is folded together
    connection.execute(
        f"insert into {NEWEST}.places by name "
        "select healpix, name_key, access from products join "
        "(select name_key, row_key, was_access from numbered) using (name_key, row_key) "
        "where access <> was_access and healpix is not null"
    )
    connection.execute("drop table numbered")
    connection.execute("drop table changed")
