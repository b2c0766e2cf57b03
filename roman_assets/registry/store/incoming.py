"""Taking new commit records into the tables of the newest tier.

Records come as lines of the journal; what DuckDB reads of a line is derived from their model. So
are the columns of the tables that hold statements, hence a field of a record cannot be lost here.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from roman_assets.products.deadline import ClockEvent
from roman_assets.records.journal import LONGEST_LINE, PendingRecord
from roman_assets.records.record import CommitRecord
from roman_assets.records.record_columns import Structure, structure_of
from roman_assets.registry.catalog.schema import (
    ATTEMPTS,
    DECISIONS,
    HANDOVERS,
    PROPOSALS,
    RECEIPTS,
    RECORDS,
    RELEASES,
    Table,
)
from roman_assets.registry.store.archive_tables import insert_archive_rows
from roman_assets.registry.store.fresh import Rows
from roman_assets.registry.store.product_rows import insert_products
from roman_assets.registry.store.tiers import NEWEST

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


@dataclass(frozen=True)
class Applied:
    """What became of records.

    Parameters
    ----------
    changes
        Whether rows may have changed that were there before, or have to.
    rows
        New rows of some tables, by table, if no others changed.
    tables
        Others that may have new rows.
    """

    changes: bool
    rows: Rows = field(default_factory=dict)
    tables: frozenset[str] = frozenset()


def apply_segments(connection: duckdb.DuckDBPyConnection, segments: Sequence[Path]) -> None:
    """Add the records of segments in one transaction; known records are skipped."""
    with _transaction(connection) as transaction:
        transaction.execute(_INCOMING, {"segments": [str(path) for path in segments]})
        apply_incoming(transaction)


def apply_records(
    connection: duckdb.DuckDBPyConnection,
    records: Sequence[PendingRecord],
    *,
    only_adds: bool = False,
) -> Applied:
    """Add records in one transaction, none of which is known, each of them once.

    Parameters
    ----------
    connection
        A connection that writes a tier and reads `READ_BY_FOLD`.
    records
        The records.
    only_adds
        Add nothing if rows may have to change that were there before.
    """
    has = {part for pending in records for part in _parts_of(pending.record)}
    if only_adds and "transitions" in has:
        return Applied(changes=True)
    try:
        with _transaction(connection) as transaction:
            lines = [pending.line.decode() for pending in records]
            transaction.execute(_INCOMING_LINES, {"lines": lines})
            return _apply(transaction, has, only_adds)
    except _ChangesRowsError:
        return Applied(changes=True)


class _ChangesRowsError(Exception):
    """Records change rows that were there before."""


@contextmanager
def _transaction(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[duckdb.DuckDBPyConnection]:
    connection.execute("begin transaction")
    try:
        yield connection
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def apply_incoming(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the records of the temporary table ``incoming`` to the newest tier, and drop the table.

    Parameters
    ----------
    connection
        A connection that writes a tier and reads `READ_BY_FOLD`, within a transaction.
    """
    _apply(connection, parts(connection), only_adds=False)


def _apply(connection: duckdb.DuckDBPyConnection, has: Collection[str], only_adds: bool) -> Applied:
    insert_statements(connection, has)
    tables = {RECORDS.name, *(table for part, table in _TABLES.items() if part in has)}
    rows: Rows | None = {}
    if "products" in has or "transitions" in has:
        rows = insert_products(
            connection, has_transitions="transitions" in has, only_adds=only_adds
        )
    if rows is None and only_adds:
        raise _ChangesRowsError
    if "archived" in has:
        tables |= insert_archive_rows(connection)
    connection.execute("drop table incoming")
    connection.execute("drop table if exists stated")
    return Applied(rows is None, rows or {}, frozenset(tables))


def insert_statements(
    connection: duckdb.DuckDBPyConnection, has: Collection[str], schema: str = NEWEST
) -> None:
    """Add the statements beside products of the records in the temporary table ``incoming``.

    Parameters
    ----------
    connection
        A connection that writes the schema.
    has
        What any of the records has, as `parts` returns it.
    schema
        Where the tables are.
    """
    record = 'record_id, step, "partition", committed_at'
    of_partition = f'{record}, partition_key("partition") as partition_key'
    connection.execute(
        f"insert into {schema}.records by name "
        f"select {of_partition}, run_id, statement from incoming"
    )
    if "events" in has:
        connection.execute(
            f"insert into {schema}.events by name "
            f"select {of_partition}, entry.key as event, entry.value as time "
            "from (select *, unnest(map_entries(events)) as entry from incoming)"
        )
    if "failures" in has:
        connection.execute(
            f"insert into {schema}.failures by name "
            f"select {of_partition}, entry.file_set, entry.error, entry.message, entry.content "
            "from (select *, unnest(failures) as entry from incoming)"
        )
    if "transitions" in has:
        connection.execute(
            "create temp table stated as "
            f"select {record}, entry.*, name_key(entry.name) as name_key "
            "from (select *, unnest(transitions) as entry from incoming)"
        )
        connection.execute(f"insert into {schema}.transitions by name select * from stated")
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
    for part in _STATEMENTS.keys() & set(has):
        table = _STATEMENTS[part]
        connection.execute(
            f"insert into {schema}.{table.name} by name "
            f'select {", ".join(_stated(part, table))} from incoming where "{part}" is not null'
        )


def insert_records(connection: duckdb.DuckDBPyConnection, records: str) -> None:
    """Insert the rows for records, save products, as a fold does, into an empty registry.

    Parameters
    ----------
    connection
        Has the tables of the registry, in its main schema.
    records
        SQL for records: some of the columns of a commit record, by name.
    """
    connection.execute(f"create temp table incoming as {NO_RECORD} union all by name ({records})")
    insert_statements(connection, parts(connection), "main")
    connection.execute("drop table incoming")


def parts(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return what any record of ``incoming`` has: ``products``, ``events``, ``archived`` ...

    A statement takes milliseconds, also where there is nothing to do.
    """
    questions = ", ".join(f"bool_or({asked})" for asked in _HAS.values())
    (found,) = connection.execute(f"select {questions} from incoming").fetchall()
    return {part for part, stated in zip(_HAS, found, strict=True) if stated}


def _parts_of(record: CommitRecord) -> Iterator[str]:
    """Yield what a record has, as `parts` tells of many."""
    yield from (part for part in _HAS if getattr(record, part, None))
    if any(entry.inputs for entry in record.products):
        yield "inputs"
    if any(entry.archived for entry in record.products):
        yield "archived"


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

_TABLES = {
    **{part: part for part in ("events", "failures", "transitions", "inputs")},
    **{part: table.name for part, table in _STATEMENTS.items()},
}
"""The tables that hold the parts of records."""


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
        "cut_off": ClockEvent.CUT_OFF,
    },
    HANDOVERS.name: {"handed_over": ClockEvent.HANDED_OVER},
}
"""The clock events with a column in the table of a record's subject."""
