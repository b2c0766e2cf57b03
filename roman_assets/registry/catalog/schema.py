"""The tables of the registry, as data, and the proof that no table holds sources (R11).

The database is an index folded from the commit records. A changed schema is brought in by a
rebuild, never by altering tables.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
from pydantic import BaseModel

from roman_assets.access import Role
from roman_assets.products.lifecycle import AVAILABLE
from roman_assets.records.record import (
    Attempt,
    Change,
    CommitRecord,
    Decision,
    ExposureReceipt,
    Handover,
    ProductEntry,
    ProductTransition,
    Proposal,
    ReleaseStatement,
    WorkFailure,
)
from roman_assets.records.record_columns import column_types
from roman_assets.registry.catalog.archive_catalog import ArchiveTable, archive_catalog
from roman_assets.registry.catalog.obscore import OBSCORE, obscore_sql
from roman_assets.registry.catalog.rad_schema import source_catalog_columns


@dataclass(frozen=True)
class Column:
    """One column: its name, DuckDB type and meaning, and its unit if it has one.

    Parameters
    ----------
    name, type, description
        What it is called, its DuckDB type and what it says.
    unit
        As astropy writes it, None for what has none.
    access
        Who may see it, in a table that they may see (R1).
    """

    name: str
    type: str
    description: str
    unit: str | None = None
    access: Role = Role.PUBLIC


@dataclass(frozen=True)
class Table:
    """One table, what a row of it is, who may see it (R1), and how its rows are stored.

    A table that general users may see is published to them whole, but for the columns that they
    may not.

    Parameters
    ----------
    name, row, columns
        What it is called, what a row of it is, and its columns.
    access
        Who may see it: nobody but operators, unless said.
    order
        The columns in whose order the rows of large tiers lie: who asks for a narrow range of the
        first reads little.
    key
        The columns that identify a row, if rows change after they were written; none otherwise.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    access: Role = Role.OPERATIONS
    order: tuple[str, ...] = ()
    key: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns of the table in a tier (see `roman_assets.registry.store.tiers`)."""
        return (*self.columns, REPLACES) if self.key else self.columns

    def seen_by(self, role: Role) -> Table:
        """Return the table with the columns that a role may see."""
        columns = tuple(column for column in self.columns if role.may_see(column.access))
        return replace(self, columns=columns)


REPLACES = Column("replaces", "BOOLEAN", "whether it takes the place of a row in an older tier")
"""Column of tables with a key, in tiers only."""


def columns_of(
    model: type[BaseModel], meanings: Mapping[str, str], elsewhere: Iterable[str] = ()
) -> tuple[Column, ...]:
    """Return the columns that hold the fields of a model of the commit record.

    Parameters
    ----------
    model
        Gives the types.
    meanings
        Descriptions of the columns, by field.
    elsewhere
        Fields that other tables and columns hold.

    Raises
    ------
    TypeError
        If a field is neither here nor elsewhere, or does not exist.
    """
    types = column_types(model)
    if forgotten := types.keys() ^ {*meanings, *elsewhere}:
        raise TypeError(
            f"{model.__name__}: say in roman_assets/registry/catalog/schema.py which table holds "
            f"{', '.join(sorted(forgotten))}"
        )
    return tuple(Column(name, types[name], meaning) for name, meaning in meanings.items())


IDENTITY: tuple[Column, ...] = (
    Column("name", "VARCHAR", "official file name"),
    Column("kind", "VARCHAR", "row of the table of product kinds"),
    Column("level", "VARCHAR", "L1 to L4"),
    Column("file_set", "VARCHAR", "the name up to the suffix"),
    Column("exposure", "VARCHAR", "exposure, for products of one"),
    Column("visit", "VARCHAR", "visit, for products of an exposure or a visit"),
    Column("program", "INTEGER", "program number"),
    Column("optical_element", "VARCHAR", "filter, grism, prism or dark"),
    Column("detector", "VARCHAR", "WFI01 to WFI18, for products of one detector"),
    Column("skycell", "VARCHAR", "sky-map cell, for products of one"),
    Column("release", "VARCHAR", "p for prompt, r0, r1, ... for data releases"),
)
"""What the official name says."""

METADATA: tuple[Column, ...] = (
    Column("survey", "VARCHAR", "HLWAS, HLTDS, GBTDS or GAS"),
    Column("exposure_type", "VARCHAR", "meta.exposure.type"),
    Column("start_time", "TIMESTAMPTZ", "start of the (first) exposure, UTC"),
    Column("end_time", "TIMESTAMPTZ", "end of the (last) exposure, UTC"),
    Column("nexposures", "INTEGER", "planned exposures of the visit"),
    Column("ra", "DOUBLE", "centre of the footprint, ICRS", "deg"),
    Column("dec", "DOUBLE", "centre of the footprint, ICRS", "deg"),
    Column("radius", "DOUBLE", "from the centre to the farthest corner", "deg"),
    Column("footprint", "VARCHAR", "corners as an IVOA s_region polygon, ICRS, deg"),
    Column("exposure_time", "DOUBLE", "of the exposure, or of a coadd's typical pixel", "s"),
    Column("naxis1", "INTEGER", "elements of the image along its first axis, x"),
    Column("naxis2", "INTEGER", "elements of the image along its second axis, y"),
    Column("naxis3", "INTEGER", "elements of a ramp along its third axis, resultants"),
    Column(
        "pixel_scale",
        "DOUBLE",
        "of a coadd, or that an L4 product was made from: side of a pixel at the tangent point",
        "arcsec",
    ),
    Column("cal_step", "JSON", "status of every calibration step"),
    Column("data_release", "VARCHAR", "release of the survey that L2 was reprocessed for (R7)"),
    Column("origin", "VARCHAR", "delivered, for L1 that was formatted elsewhere"),
)
"""What the product's own metadata say; a product that does not carry a fact has null."""

STATED_CONTENT: tuple[Column, ...] = columns_of(
    ProductEntry,
    {
        "sha256": "of the file",
        "size": "of the file",
        "fingerprint": "identifies the work that made it",
        "context": "CRDS pipeline context",
        "software": "versions by name of package or recipe",
    },
    elsewhere=("name", "inputs", "references", "metadata", "archived", "access"),
)
CONTENT: tuple[Column, ...] = (
    *(replace(one, unit="byte") if one.name == "size" else one for one in STATED_CONTENT),
    Column("reference_files", "JSON", "reference files used, by kind"),
    Column("facts", "JSON", "metadata that have no column"),
)

LIFE: tuple[Column, ...] = (
    Column("generation", "INTEGER", "how often a product of this name had been made, from 1"),
    Column(
        "state", "VARCHAR", "current, superseded, overwritten, removed, withdrawn, lost or refused"
    ),
    Column("ended_at", "TIMESTAMPTZ", "when it ceased to be available, null while it is, UTC"),
    Column("quality", "VARCHAR", "a person's grade: OK, SUSPECT or BAD; null without one"),
    Column("quality_reason", "VARCHAR", "why it is graded so"),
    Column("quality_from", "TIMESTAMPTZ", "first observation that the grade is about, UTC"),
    Column("quality_until", "TIMESTAMPTZ", "end of the observations it is about, UTC"),
    Column("access", "VARCHAR", "public or operations: who may see it (R1)"),
    Column("committed_at", "TIMESTAMPTZ", "when its record was written, UTC"),
    Column("record_id", "VARCHAR", "its commit record"),
    Column("step", "VARCHAR", "the work that made it"),
    Column("partition", "VARCHAR", "exposure or visit the work was done for"),
    Column("run_id", "VARCHAR", "the Dagster run", access=Role.OPERATIONS),
)

INDEX: tuple[Column, ...] = (
    Column("healpix", "BIGINT", "nested HEALPix pixel of the centre"),
    Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the name"),
    Column("row_key", "UBIGINT", "hash of name and commit record"),
)
"""Columns that only make queries fast."""

*_RECORD, _RUN, _STATEMENT = columns_of(
    CommitRecord,
    {
        "record_id": "the commit record",
        "step": "the work that was done",
        "partition": "exposure or visit it was done for",
        "committed_at": "when the record was written, UTC",
        "run_id": "the Dagster run",
        "statement": "kind of statement: publication, attempt, receipt ...",
    },
    elsewhere=(
        "products", "transitions", "sections", "failures", "events", "attempt", "receipt",
        "release", "handover", "proposal", "decision",
    ),
)  # fmt: skip
_OF_PARTITION = (
    *_RECORD,
    Column("partition_key", "UBIGINT", "where its partition lies, as `KEYS` tells"),
)

RECORDS = Table(
    "records",
    "one commit record",
    (
        *_OF_PARTITION,
        _RUN,
        _STATEMENT,
    ),
    order=("committed_at", "record_id"),
)
PRODUCTS = Table(
    "products",
    "one generation of one product file",
    (*IDENTITY, *LIFE, *METADATA, *CONTENT, *INDEX),
    Role.PUBLIC,
    order=("name_key", "name", "committed_at"),
    key=("name_key", "row_key"),
)
PLACES = Table(
    "places",
    "one pixel of the sky with the centre of products that one commit record made of one visit",
    (
        Column("healpix", "BIGINT", "nested HEALPix pixel"),
        Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the products' names"),
        Column("access", "VARCHAR", "public or operations: who may see the products (R1)"),
    ),
    Role.PUBLIC,
    order=("healpix", "name_key"),
)
"""Products lie in the order of their names; here a search on the sky learns where."""

INPUTS = Table(
    "inputs",
    "one file that one generation of a product was made from",
    (
        Column("record_id", "VARCHAR", "the commit record"),
        Column("name", "VARCHAR", "the product"),
        Column("ordinal", "INTEGER", "place among the product's inputs, from 1"),
        Column("input_name", "VARCHAR", "the input file"),
        Column("input_sha256", "VARCHAR", "what was in it"),
        Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the product's name"),
        Column("input_key", "UBIGINT", "hash of what was in the input"),
    ),
    Role.PUBLIC,
    order=("name_key", "name", "record_id", "ordinal"),
)
TRANSITIONS = Table(
    "transitions",
    "what one commit record states to have happened to one generation of a product",
    (
        *_RECORD,
        *columns_of(
            ProductTransition,
            {
                "transition": "superseded, removed, overwritten, withdrawn, lost, graded ...",
                "name": "the product",
                "made_by": "the commit record of the generation",
                "sha256": "of the generation's file",
                "reason": "why",
                "cause": "what brought it about",
                "quality": "the grade, if it is graded",
                "valid_from": "first observation that the grade is about, UTC",
                "valid_until": "end of the observations it is about, UTC",
            },
        ),
        Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the product's name"),
    ),
    order=("name_key", "name", "committed_at"),
)
EVENTS = Table(
    "events",
    "one clock event, as one commit record states it",
    (
        *_OF_PARTITION,
        Column("event", "VARCHAR", "which moment"),
        Column("time", "TIMESTAMPTZ", "when it was, UTC"),
    ),
    order=("partition_key", "partition", "committed_at"),
)
FAILURES = Table(
    "failures",
    "one file set that one commit record could not make",
    (
        *_OF_PARTITION,
        *columns_of(
            WorkFailure,
            {
                "file_set": "the file set",
                "error": "class of the error",
                "message": "what it said",
                "content": "of L1: content version of its packets",
            },
        ),
    ),
    order=("partition_key", "partition", "committed_at"),
)
ATTEMPTS = Table(
    "attempts",
    "how far one attempt of a step had come, as one commit record states it",
    (
        *_OF_PARTITION,
        _RUN,
        *columns_of(
            Attempt,
            {
                "attempt_id": "the attempt",
                "outcome": "running, finished, bad input or passing fault",
                "error": "class of the error",
                "message": "what it said",
                "last_try": "nothing tries again by itself",
            },
        ),
        Column("queued", "TIMESTAMPTZ", "when its run was queued, UTC"),
        Column("started", "TIMESTAMPTZ", "when it began, UTC"),
        Column("finished", "TIMESTAMPTZ", "when it ended, UTC"),
    ),
    order=("partition_key", "partition", "committed_at"),
)
RECEIPTS = Table(
    "receipts",
    "what was known and in of an exposure, as one commit record states it",
    (
        *_OF_PARTITION,
        *columns_of(
            ExposureReceipt,
            {
                "survey": "HLWAS, HLTDS, GBTDS or GAS",
                "exposure_type": "meta.exposure.type",
                "optical_element": "filter, grism, prism or dark",
                "detectors": "those planned",
                "nexposures": "planned exposures of the visit",
                "truncated": "the visit was cut short",
                "lacks_packets": "packets are awaited",
                "lacks_ancillary": "ancillary data are awaited",
                "origin": "packets, or delivered: where its L1 comes from",
                "arrivals": "senders whose packets were all in at another moment than last_packet",
                "closed_by": "who ended the wait for packets",
                "closed_because": "why",
            },
        ),
        Column("execution_end", "TIMESTAMPTZ", "end of the exposure, UTC"),
        Column("first_packet", "TIMESTAMPTZ", "when the first packet was received, UTC"),
        Column("last_packet", "TIMESTAMPTZ", "when the last packet was received, UTC"),
        Column("ancillary", "TIMESTAMPTZ", "when all ancillary data were in, UTC"),
        Column("all_received", "TIMESTAMPTZ", "when everything was in, UTC"),
        Column("cut_off", "TIMESTAMPTZ", "when the wait for packets ends, UTC"),
    ),
    order=("partition_key", "partition", "committed_at"),
)
RELEASES = Table(
    "releases",
    "what happened to one data release, as one commit record states it",
    (
        *_RECORD,
        *columns_of(
            ReleaseStatement,
            {
                "release": "r0, r1, ...",
                "survey": "survey of the release",
                "phase": "begun or published",
                "declaration": "sha256 of the file that declares it",
                "content": "that file",
                "software": "versions by name with which it was begun",
                "exposures": "what it is made from, when it was begun",
            },
        ),
    ),
    order=("committed_at", "record_id"),
)
HANDOVERS = Table(
    "handovers",
    "what the SSC was told of an exposure or visit, as one commit record states it",
    (
        *_OF_PARTITION,
        *columns_of(
            Handover,
            {
                "manifest": "where the manifest is in the exchange with the SSC",
                "digest": "identifies what it says",
                "images": "number of L2 images",
            },
        ),
        Column("handed_over", "TIMESTAMPTZ", "when, UTC"),
    ),
    order=("partition_key", "partition", "committed_at"),
)
PROPOSALS = Table(
    "proposals",
    "one proposal to reprocess early (R15)",
    (
        *_RECORD,
        *columns_of(
            Proposal,
            {
                "proposal_id": "which one",
                "author": "who proposes it",
                "reason": "why",
                "exposures": "the exposures to be reprocessed",
                "visits": "the visits whose L3 and L4 are reprocessed",
                "impact": "what it was said to change and cost",
            },
            elsewhere=("change",),
        ),
        *columns_of(
            Change,
            {
                "cause": "context, software, ephemeris, level0, data or pixel_scale",
                "value": "what they would be made with",
            },
        ),
    ),
    order=("committed_at",),
)
DECISIONS = Table(
    "decisions",
    "what one person decided about a proposal (R15)",
    (
        *_RECORD,
        *columns_of(
            Decision,
            {
                "proposal_id": "which one",
                "verdict": "approved or rejected",
                "author": "who decided",
                "reason": "why",
            },
        ),
    ),
    order=("committed_at",),
)
UNFIT_VALUES = Table(
    "unfit_values",
    "one value of a product's metadata that the column it belongs to cannot hold",
    (
        Column("record_id", "VARCHAR", "the commit record"),
        Column("name", "VARCHAR", "the product"),
        Column("table_name", "VARCHAR", "the table, whose column is null there"),
        Column("column_name", "VARCHAR", "the column"),
        Column("datatype", "VARCHAR", "rad's type of the column"),
        Column("value", "VARCHAR", "what the product says"),
        Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the product's name"),
    ),
    order=("name_key", "name", "record_id"),
)

_ARCHIVE_KEY = (
    Column("record_id", "VARCHAR", "the commit record"),
    Column("name", "VARCHAR", "the product"),
    Column("name_key", "UBIGINT", "what `NAME_KEY` makes of the product's name"),
)


def _table_of_archive(declared: ArchiveTable) -> Table:
    described = (
        Column(column.name, column.type, f"{column.description} [{column.datatype}]")
        for column in declared.columns
    )
    return Table(
        declared.name,
        "metadata of one generation of one product file, as rad's schemas declare them",
        (*_ARCHIVE_KEY, *described),
        Role.PUBLIC,
        order=("name_key", "name", "record_id"),
    )


ARCHIVE_TABLES: tuple[Table, ...] = tuple(map(_table_of_archive, archive_catalog().tables))
"""The metadata tables that the installed release of rad declares; rows join with ``products``."""

TABLES: tuple[Table, ...] = (
    RECORDS, PRODUCTS, PLACES, INPUTS, TRANSITIONS, EVENTS, FAILURES, ATTEMPTS, RECEIPTS,
    RELEASES, HANDOVERS, PROPOSALS, DECISIONS, UNFIT_VALUES, *ARCHIVE_TABLES,
)  # fmt: skip

IS_AVAILABLE = f"state in {tuple(state.value for state in sorted(AVAILABLE))}"
"""The condition that the archive shows a product."""

CURRENT_PRODUCTS = "current_products"
FILE_SETS = "file_sets"


@dataclass(frozen=True)
class View:
    """One view of the tables that everyone may see, and what a row of it is."""

    name: str
    row: str
    sql: str


VIEWS: tuple[View, ...] = (
    View(
        CURRENT_PRODUCTS,
        "one product that the archive shows",
        f"select * exclude (name_key, row_key) from {PRODUCTS.name} where {IS_AVAILABLE}",
    ),
    View(
        FILE_SETS,
        "the available products that share a name up to the suffix",
        f"""
        select file_set, any_value(exposure) as exposure, any_value(visit) as visit,
            any_value(program) as program, any_value(survey) as survey,
            any_value(optical_element) as optical_element, any_value(detector) as detector,
            any_value(skycell) as skycell, any_value("release") as "release",
            list(kind order by kind) as kinds, count(*) as products, sum(size)::bigint as size,
            min(committed_at) as first_committed_at, max(committed_at) as last_committed_at
        from {CURRENT_PRODUCTS} group by file_set
        """,
    ),
    View(
        OBSCORE,
        "one available public data product, as the IVOA describes it",
        obscore_sql(CURRENT_PRODUCTS),
    ),
)
"""A view uses those before it."""

SEARCH_COLUMNS: tuple[Column, ...] = tuple(
    column for column in (*IDENTITY, *LIFE, *METADATA, *CONTENT) if column.type != "JSON"
)
"""The columns of a search result, of those that the role may see."""


@functools.cache
def tables_seen_by(role: Role) -> tuple[Table, ...]:
    """Return the tables that a role may see, with the columns it may see (R1)."""
    return tuple(table.seen_by(role) for table in TABLES if role.may_see(table.access))


def search_columns(role: Role) -> tuple[str, ...]:
    """Return the names of the columns of a search result."""
    return tuple(column.name for column in SEARCH_COLUMNS if role.may_see(column.access))


NAME_KEY = (
    r"coalesce(try_cast(regexp_replace(name, '^r(?:(\d{5})_[^_]+_v(\d{14})|(\d{19}))_.*$', "
    r"'\1\2\3') as ubigint), md5_number_lower(name))"
)
"""Where the products of a name lie, as SQL and as the macro ``name_key(name)``.

The number of its visit, so that what is asked for together lies together; else a hash of the name.
"""


KEYS = {
    "name_key(name)": NAME_KEY,
    "name_keys(names)": "list_transform(names, lambda one: name_key(one))",
    "partition_key(partition)": "name_key(partition || '_')",
    "partition_keys(partitions)": "list_transform(partitions, lambda one: partition_key(one))",
}
"""Macros that tell where the products of names lie, and records and products of partitions."""


def open_database(path: Path | str, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Open a database read-write (``:memory:`` for a private one), giving times in UTC.

    Parameters
    ----------
    path
        The database.
    spill
        A directory for what does not fit into memory, of this connection alone; DuckDB makes it
        when it needs it, and removes it. Without one, such a statement fails.
    """
    connection = duckdb.connect(path, config={"temp_directory": str(spill or "")})
    connection.execute("load icu")
    connection.execute("set enable_progress_bar = false")
    connection.execute("set timezone = 'UTC'")
    for macro, sql in KEYS.items():
        connection.execute(f"create or replace temp macro {macro} as {sql}")
    return connection


def create_tables(
    connection: duckdb.DuckDBPyConnection,
    role: Role = Role.OPERATIONS,
    names: Collection[str] | None = None,
) -> None:
    """Create missing tables as tiers have them, in the connection's current schema.

    Parameters
    ----------
    connection
        A connection that may write.
    role
        For whom: only what this role may see.
    names
        Of the tables, all by default.
    """
    for table in tables_seen_by(role):
        if names is not None and table.name not in names:
            continue
        columns = ", ".join(f'"{column.name}" {column.type}' for column in table.stored_columns)
        connection.execute(f"create table if not exists {table.name} ({columns})")


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views of the tables in the connection's current schema."""
    for view in VIEWS:
        connection.execute(f"create or replace view {view.name} as {view.sql}")


@functools.cache
def schema_digest() -> str:
    """Identify the declared tables and views, and where their values come from.

    A longer text or another place of a value in rad's schemas leaves names and DuckDB types as
    they are, and yet asks for a rebuild.
    """
    return hashlib.sha256(f"{TABLES!r} {archive_catalog()!r} {NAME_KEY}".encode()).hexdigest()


_LARGEST_L4_METADATA = 1 << 16
_MOST_VALUES_OF_A_COLUMN = 4
_FEWEST_SOURCE_COLUMNS = 3
_MEASURED = re.compile(r"FLOAT|DOUBLE|DECIMAL|\[")


def source_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Find tables that hold rows of source catalogues; empty when R11 holds.

    L4 products are files only: the registry may hold one row about a catalogue file, none about a
    source in it. This is decided from what is in the database, not from what should be there:

    - a table with three or more columns of rad's source-catalogue definitions;
    - a table this package does not declare, or an undeclared column, with measured numbers in it;
    - in ``products`` and the metadata tables, which are wide by right, more than one row for one
      file and generation, or a row without such a file;
    - an L4 product whose JSON facts, or whose texts in a metadata table, are larger than a file's
      metadata can be, or with more unfit values than there are columns;
    - inputs of an L4 product that are not files.

    Parameters
    ----------
    connection
        A connection whose current database is a registry.

    Returns
    -------
    list of str
        ``table: reason`` for every table at fault.
    """
    return [*_tables_of_source_columns(connection), *_tables_of_source_content(connection)]


def _tables_of_source_columns(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    declared = {table.name: set(table.column_names) for table in TABLES}
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        "select table_name, column_name, data_type from duckdb_columns() join duckdb_tables() "
        "using (database_name, schema_name, table_name) "
        "where database_name = current_database() order by all"
    ).fetchall():
        columns.setdefault(table, {})[column] = kind
    for table, kinds in columns.items():
        of_sources = [name for name in kinds if _source_column().fullmatch(name.lower())]
        unknown = kinds.keys() - declared.get(table, set())
        measured = [name for name, kind in kinds.items() if _MEASURED.search(kind)]
        if len(of_sources) >= _FEWEST_SOURCE_COLUMNS:
            yield f"{table}: columns of a source catalogue: {', '.join(of_sources)}"
        elif unmeant := [name for name in measured if name in unknown]:
            yield f"{table}: undeclared columns of measured numbers: {', '.join(unmeant)}"


def _tables_of_source_content(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    present = {
        name
        for (name,) in connection.execute(
            "select table_name from duckdb_tables() where database_name = current_database()"
        ).fetchall()
    }
    for table, reason, query in (*_CONTENT_QUERIES, *_archive_queries()):
        if table not in present:
            continue
        row = connection.execute(query).fetchone()
        if row is not None:
            yield f"{table}: {reason}: {row[0]}"


_L4_NAMES = "(select name from products where level = 'L4')"

_CONTENT_QUERIES = (
    (
        "products",
        "more than one row for one L4 file",
        "select name from products where level = 'L4' "
        "group by name, record_id having count(*) > 1 limit 1",
    ),
    (
        "products",
        "facts of an L4 file too large for metadata",
        "select name from products where level = 'L4' "
        f"and octet_length(encode(facts::varchar)) > {_LARGEST_L4_METADATA} limit 1",
    ),
    (
        "inputs",
        "inputs of an L4 file that are not files",
        f"select name from inputs semi join {_L4_NAMES} "
        "using (name) where not regexp_matches(input_name, '\\.[a-z]+$') limit 1",
    ),
    (
        "unfit_values",
        "more unfit values of one file than there are columns",
        "select name from unfit_values group by name, record_id, table_name, column_name "
        f"having count(*) > {_MOST_VALUES_OF_A_COLUMN} limit 1",
    ),
    (
        "unfit_values",
        "an unfit value too large for metadata",
        f"select name from unfit_values where strlen(value) > {_LARGEST_L4_METADATA} limit 1",
    ),
)


def _archive_queries() -> Iterator[tuple[str, str, str]]:
    for table in ARCHIVE_TABLES:
        texts = ", ".join(
            f'"{column.name}"' for column in table.columns if column.type == "VARCHAR"
        )
        yield (
            table.name,
            "more than one row for one file",
            f"select name from {table.name} group by name, record_id having count(*) > 1 limit 1",
        )
        yield (
            table.name,
            "a row of no product file",
            f"select name from {table.name} anti join products using (record_id, name) limit 1",
        )
        yield (
            table.name,
            "texts too large for metadata",
            f"select name from {table.name} "
            f"where strlen(concat({texts})) > {_LARGEST_L4_METADATA} limit 1",
        )


@functools.cache
def _source_column() -> re.Pattern[str]:
    """Match the column names of rad's source catalogues: all versions, any band or none."""
    names = {name for definitions in source_catalog_columns() for name in definitions}
    patterns = (re.sub(r"_?~\w+~", r"\\w*", name) for name in names)
    return re.compile("|".join(sorted(patterns)))
