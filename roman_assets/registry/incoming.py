"""Taking new commit records into the tables of the newest tier.

Records come as lines of the journal; what DuckDB reads of a line is derived from their model. So
are the columns of the tables that hold statements, hence a field of a record cannot be lost here.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import hpgeom
import numpy as np
import pyarrow as pa

from roman_assets.access import Role
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import KINDS
from roman_assets.products.lifecycle import AVAILABLE, CHANGES, State, Transition
from roman_assets.products.name import NAME_PATTERNS, PROMPT_RELEASE
from roman_assets.registry.archive_tables import insert_archive_rows
from roman_assets.registry.journal import LONGEST_LINE, PendingRecord
from roman_assets.registry.record import CommitRecord
from roman_assets.registry.record_columns import Structure, structure_of
from roman_assets.registry.schema import (
    ATTEMPTS,
    DECISIONS,
    HANDOVERS,
    METADATA,
    PRODUCTS,
    PROPOSALS,
    RECEIPTS,
    RELEASES,
    STATED_CONTENT,
    Table,
)
from roman_assets.registry.tiers import NEWEST, bring_forward

HEALPIX_NSIDE = 2**12
"""Pixels of 0.86 arcmin, nested: smaller than a detector, so that cones stay tight."""

LINE: dict[str, Structure] = {"record": structure_of(CommitRecord)}
"""The columns of a line of the journal, for DuckDB."""

NO_RECORD = f"select unnest(from_json('{{}}', '{json.dumps(LINE['record'])}')) where false"
"""No row, with the columns of ``incoming`` (see `apply_incoming`)."""

# Reading whole lines and taking them apart is four times as fast as read_json. JSON has no raw
# control characters, so a delimiter that is one never occurs.
_INCOMING = f"""
create temp table incoming as
with lines as (
    select from_json(line, '{json.dumps(LINE)}').record as record
    from read_csv($segments, columns = {{line: 'VARCHAR'}}, auto_detect = false, header = false,
        delim = '\x01', quote = '', escape = '', max_line_size = {LONGEST_LINE})
)
select distinct on (record.record_id) record.* from lines
anti join records
    on records.committed_at = record.committed_at and records.record_id = record.record_id
"""

_INCOMING_LINES = f"""
create temp table incoming as
select record.* from (
    select from_json(line, '{json.dumps(LINE)}').record as record
    from (select unnest($lines) as line)
)
"""

_NAMED = """
with entries as (
    select record_id, step, "partition", committed_at, run_id, unnest(products) as entry
    from incoming
), parsed as (
    select record_id, step, "partition", committed_at, run_id, entry, case
{cases}
    end as part from (select *, {matches} from entries)
)
select parsed.* exclude (part), kinds.kind, kinds.level,
    left(entry.name, -1 - length(part.suffix) - 1 - length(part.extension)) as file_set,
    nullif(part.exposure, '') as exposure,
    case
        when part.exposure <> '' then split_part(part.exposure, '_', 1)
        when part.grouping[1] = 'v' then 'r' || part.program || part.grouping[2:]
    end as visit,
    case when part.exposure <> '' then part.exposure[2:6] else part.program end::integer as program,
    upper(part.element) as optical_element,
    upper(nullif(part.detector, '')) as detector,
    nullif(part.skycell, '') as skycell,
    case when part.release <> '' then part.release else 'p' end as release,
from parsed join kinds on kinds.scope = part.scope and kinds.suffix = part.suffix
    and kinds.extension = part.extension
"""

_PARTS = (
    "exposure", "detector", "element", "program", "release", "grouping", "skycell", "suffix",
    "extension",
)  # fmt: skip

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
    select name_key, row_key, name, "release", committed_at, record_id, true as is_new,
        generation, state, ended_at, access
    from made
), rivals as (
    select name_key, row_key, name, "release", committed_at, record_id, false as is_new,
        generation, state, ended_at, access
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
), ordered as (
    select *, "release" <> '{PROMPT_RELEASE}' as is_versioned,
        {{'at': committed_at, 'by': record_id}} as making,
        row_number() over by_commit as number,
        lead({{'at': committed_at, 'by': record_id}}) over by_commit as successor,
        max(coalesce(ending_key, {{'at': 'infinity'::timestamptz, 'by': ''}}))
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
    now.at as ended_at, if(is_published, '{Role.PUBLIC}', access) as access
from decided
"""

_HAS_HISTORY = """
select exists (from stated)
    or exists (from products semi join made using (name_key, name))
    or exists (from transitions semi join made using (name_key, name))
    or (select count(*) > count(distinct name) from made)
"""
"""Whether anything but being made for the first time happens to the products that come in."""

_CHANGED = """
create temp table changed as
select name_key, row_key, generation, state, ended_at, access from numbered where not is_new
    and (was_generation, was_state, was_ended_at, was_access)
        is distinct from (generation, state, ended_at, access)
"""


def apply_segments(connection: duckdb.DuckDBPyConnection, segments: Sequence[Path]) -> None:
    """Add the records of segments in one transaction; known records are skipped."""
    _apply(connection, _INCOMING, {"segments": [str(path) for path in segments]})


def apply_records(
    connection: duckdb.DuckDBPyConnection,
    records: Sequence[PendingRecord],
    *,
    only_adds: bool = False,
) -> bool:
    """Add records in one transaction, none of which is known, each of them once.

    Parameters
    ----------
    connection
        A connection that writes a tier and reads `READ_BY_FOLD`.
    records
        The records.
    only_adds
        Add nothing if rows may change that were there before.

    Returns
    -------
    bool
        Whether rows may have changed that were there before, or may have to change.
    """
    lines = [pending.line.decode() for pending in records]
    return _apply(connection, _INCOMING_LINES, {"lines": lines}, only_adds=only_adds)


def _apply(
    connection: duckdb.DuckDBPyConnection,
    incoming: str,
    parameters: Mapping[str, list[str]],
    *,
    only_adds: bool = False,
) -> bool:
    connection.execute("begin transaction")
    try:
        connection.execute(incoming, parameters)
        changes = apply_incoming(connection, only_adds=only_adds)
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("rollback" if changes and only_adds else "commit")
    return changes


def apply_incoming(connection: duckdb.DuckDBPyConnection, *, only_adds: bool = False) -> bool:
    """Add the records of the temporary table ``incoming`` to the newest tier, and drop the table.

    Parameters
    ----------
    connection
        A connection that writes a tier and reads `READ_BY_FOLD`, within a transaction.
    only_adds
        Leave off, to be rolled back, if rows may change that were there before.

    Returns
    -------
    bool
        Whether rows may have changed that were there before.
    """
    has = insert_statements(connection)
    changes = False
    if not has.isdisjoint(("products", "transitions")):
        changes = _insert_products(connection, only_adds)
        if changes and only_adds:
            return True
        connection.execute("drop table made")
    if "archived" in has:
        insert_archive_rows(connection)
    for table in ("incoming", "stated"):
        connection.execute(f"drop table {table}")
    return changes


def insert_statements(connection: duckdb.DuckDBPyConnection, schema: str = NEWEST) -> set[str]:
    """Add the statements beside products of the records in the temporary table ``incoming``.

    Parameters
    ----------
    connection
        A connection that writes the schema.
    schema
        Where the tables are.

    Returns
    -------
    set of str
        What any of the records has: ``products``, ``transitions``, ``archived`` ...
    """
    record = 'record_id, step, "partition", committed_at'
    of_partition = f'{record}, partition_key("partition") as partition_key'
    connection.execute(
        f"insert into {schema}.records by name "
        f"select {of_partition}, run_id, statement from incoming"
    )
    # A statement takes milliseconds, also where there is nothing to do.
    questions = ", ".join(f"bool_or({asked})" for asked in _HAS.values())
    (found,) = connection.execute(f"select {questions} from incoming").fetchall()
    has = {part for part, stated in zip(_HAS, found, strict=True) if stated}
    if "events" in has:
        connection.execute(
            f"insert into {schema}.events by name "
            f"select {of_partition}, entry.key as event, entry.value as time "
            "from (select *, unnest(map_entries(events)) as entry from incoming)"
        )
    if "failures" in has:
        connection.execute(
            f"insert into {schema}.failures by name "
            f"select {of_partition}, entry.file_set, entry.error, entry.message "
            "from (select *, unnest(failures) as entry from incoming)"
        )
    if "transitions" in has:
        connection.execute(
            "create temp table stated as "
            f"select {record}, entry.*, name_key(entry.name) as name_key "
            "from (select *, unnest(transitions) as entry from incoming)"
        )
        connection.execute(f"insert into {schema}.transitions by name select * from stated")
    else:
        connection.execute(f"create temp table stated as from {schema}.transitions limit 0")
    if "inputs" in has:
        connection.execute(
            f"insert into {schema}.inputs by name "
            "select record_id, name, ordinal::integer as ordinal, item.name as input_name, "
            "item.sha256 as input_sha256, name_key(name) as name_key, "
            "md5_number_lower(item.sha256) as input_key from ("
            "  select record_id, entry.name, unnest(entry.inputs) as item, "
            "  generate_subscripts(entry.inputs, 1) as ordinal "
            "  from (select record_id, unnest(products) as entry from incoming))"
        )
    for part in _STATEMENTS.keys() & has:
        table = _STATEMENTS[part]
        connection.execute(
            f"insert into {schema}.{table.name} by name "
            f'select {", ".join(_stated(part, table))} from incoming where "{part}" is not null'
        )
    return has


_STATEMENTS = {
    "attempt": ATTEMPTS,
    "receipt": RECEIPTS,
    "release": RELEASES,
    "handover": HANDOVERS,
    "proposal": PROPOSALS,
    "decision": DECISIONS,
}
"""The table that holds the subjects of records."""

_HAS = {
    "products": "len(products) > 0",
    "transitions": "len(transitions) > 0",
    "failures": "len(failures) > 0",
    "events": "cardinality(events) > 0",
    "inputs": "len(list_filter(products, lambda one: len(one.inputs) > 0)) > 0",
    "archived": "len(list_filter(products, lambda one: one.archived is not null)) > 0",
    **{part: f'"{part}" is not null' for part in _STATEMENTS},
}
"""Whether a record has a part."""


def _stated(part: str, table: Table) -> Iterator[str]:
    """Return the SQL for the columns that name the subject of a record."""
    record = ("record_id", "step", "partition", "committed_at", "run_id")
    yield from (f'"{name}"' for name in record if name in table.column_names)
    if "partition_key" in table.column_names:
        yield 'partition_key("partition") as partition_key'
    for name, event in EVENT_COLUMNS.get(table.name, {}).items():
        yield f"events['{event}'] as {name}"
    fields = structure_of(CommitRecord)[part]
    assert isinstance(fields, dict)
    models = [name for name, structure in fields.items() if isinstance(structure, dict)]
    yield f'"{part}".*' + (f" exclude ({', '.join(models)})" if models else "")
    yield from (f'unnest("{part}".{name})' for name in models)


EVENT_COLUMNS: Mapping[str, Mapping[str, ClockEvent]] = {
    ATTEMPTS.name: {
        "queued": ClockEvent.QUEUED,
        "started": ClockEvent.STARTED,
        "finished": ClockEvent.FINISHED,
    },
    RECEIPTS.name: {
        "execution_end": ClockEvent.EXECUTION_END,
        "first_packet": ClockEvent.FIRST_PACKET,
        "last_packet": ClockEvent.LAST_PACKET,
        "ancillary": ClockEvent.ANCILLARY,
        "all_received": ClockEvent.ALL_RECEIVED,
    },
    HANDOVERS.name: {"handed_over": ClockEvent.HANDED_OVER},
}
"""The clock events with a column in the table of a record's subject."""


def _insert_products(connection: duckdb.DuckDBPyConnection, only_adds: bool) -> bool:
    """Insert new products; return whether rows that existed before may have changed."""
    kinds = pa.table(
        {
            "kind": [kind.name for kind in KINDS],
            "scope": [kind.scope.value for kind in KINDS],
            "suffix": [kind.suffix for kind in KINDS],
            "extension": [kind.extension for kind in KINDS],
            "level": [kind.level.value for kind in KINDS],
        }
    )
    connection.register("kinds", kinds)
    connection.execute(_made())
    connection.unregister("kinds")
    if _set_healpix(connection):
        connection.execute(
            f"insert into {NEWEST}.places by name select healpix, name_key, access from made "
            "where healpix is not null group by record_id, healpix, name_key, access"
        )
    changes = connection.execute(_HAS_HISTORY).fetchone() == (True,)
    if changes and only_adds:
        return True
    if changes:
        _insert_among_generations(connection)
    else:
        connection.execute(
            f"insert into {NEWEST}.products by name "
            f"select * replace (1 as generation, '{State.CURRENT}' as state), false as replaces "
            "from made"
        )
    return changes


def _insert_among_generations(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(_GENERATIONS)
    connection.execute(_CHANGED)
    bring_forward(connection, PRODUCTS, "changed")
    connection.execute(
        f"update {NEWEST}.products set generation = changed.generation, state = changed.state, "
        "ended_at = changed.ended_at, access = changed.access from changed "
        "where products.name_key = changed.name_key and products.row_key = changed.row_key"
    )
    connection.execute(
        f"insert into {NEWEST}.products by name select made.* replace "
        "(numbered.generation as generation, numbered.state as state, "
        "numbered.ended_at as ended_at, numbered.access as access), false as replaces "
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


def _name_matches() -> Iterator[str]:
    """Return the SQL that parses a name with the grammar's own patterns, each once."""
    for scope, pattern in NAME_PATTERNS.items():
        groups = sorted(pattern.groupindex, key=pattern.groupindex.__getitem__)
        yield f"regexp_extract(entry.name, '^{pattern.pattern}$', {groups}) as of_{scope.value}"


def _name_cases() -> Iterator[str]:
    """Yield the SQL that chooses the pattern of a name."""
    for scope, pattern in NAME_PATTERNS.items():
        parts = ", ".join(
            f"{part} := of_{scope.value}.{part}" if part in pattern.groupindex else f"{part} := ''"
            for part in _PARTS
        )
        yield (
            f"when of_{scope.value}.extension <> '' "
            f"then struct_pack(scope := '{scope.value}', {parts})"
        )


def _made() -> str:
    structure = json.dumps({column.name: column.type for column in METADATA})
    without = json.dumps({column.name: None for column in METADATA})
    stated = ", ".join(f"entry.{column.name} as {column.name}" for column in STATED_CONTENT)
    named = _NAMED.format(matches=", ".join(_name_matches()), cases="\n".join(_name_cases()))
    return f"""
        create temp table made as
        with named as ({named}), read as (
            select *, from_json(entry.metadata, '{structure}') as known from named
        )
        select entry.name as name, read.* exclude (entry, known), known.*,
            {stated}, entry."references" as reference_files,
            json_merge_patch(entry.metadata, '{without}') as facts,
            null::integer as generation, null::varchar as state, entry.access as access,
            null::timestamptz as ended_at,
            null::bigint as healpix, name_key(entry.name) as name_key,
            md5_number_lower(entry.name || ' ' || record_id) as row_key
        from read
    """


def _set_healpix(connection: duckdb.DuckDBPyConnection) -> bool:
    """Set the pixels of what was made; returns whether anything has one."""
    places = connection.execute(
        'select distinct ra, "dec" from made where isfinite(ra) and "dec" between -90 and 90'
    ).fetchnumpy()
    ra, dec = (np.asarray(places[column], dtype=float) for column in ("ra", "dec"))
    if not len(ra):
        return False
    pixel = hpgeom.angle_to_pixel(HEALPIX_NSIDE, np.mod(ra, 360), dec, nest=True)
    connection.register("pixels", pa.table({"ra": ra, "dec": dec, "pixel": pixel}))
    connection.execute(
        "update made set healpix = pixels.pixel from pixels "
        'where made.ra = pixels.ra and made."dec" = pixels."dec"'
    )
    connection.unregister("pixels")
    return True
