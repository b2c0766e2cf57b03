"""Folding commit records into the registry, one folder at a time.

The order of the steps makes a crash anywhere harmless: records are sealed into a segment, applied
in one transaction that skips known record ids, their public names linked, the snapshot published,
and only then are they no longer pending. Running it again ends in the same state.

The generations of a name are numbered in the order of commit, whatever the order of folding; so the
folded registry and one rebuilt from the journal have the same content.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import hpgeom
import numpy as np
import pyarrow as pa

from roman_assets.access import Role
from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import KINDS
from roman_assets.products.lifecycle import AVAILABLE, CHANGES, State, Transition
from roman_assets.products.name import NAME_PATTERNS, PROMPT_RELEASE, ProductName
from roman_assets.registry.archive_tables import insert_archive_rows
from roman_assets.registry.fold_lock import confirm_fold_lock, fold_lock
from roman_assets.registry.journal import LONGEST_LINE, Journal, PendingRecord
from roman_assets.registry.schema import (
    ATTEMPTS,
    HANDOVERS,
    IS_AVAILABLE,
    METADATA,
    PRODUCTS,
    RECEIPTS,
    RECORDS,
    RELEASES,
    TRANSITIONS,
)
from roman_assets.registry.tiers import (
    NEWEST,
    Snapshot,
    SnapshotError,
    bring_forward,
    due_to_merge,
    is_published,
    merge_tiers,
    new_tier,
    newest_to_copy,
    publish_snapshot,
    read_snapshot,
    refresh_snapshot,
    require_tiers,
)

HEALPIX_NSIDE = 2**12
"""Pixels of 0.86 arcmin, nested: smaller than a detector, so that cones stay tight."""

_RECORDS_AT_ONCE = 2_000
_SEGMENTS_AT_ONCE = 64
READ_BY_FOLD = (RECORDS, PRODUCTS, TRANSITIONS)
"""The tables that a fold reads of all tiers."""


@dataclass(frozen=True)
class FoldReport:
    """What a fold did.

    Parameters
    ----------
    records
        How many pending records are folded now.
    damaged
        The cases of damaged records that have been set aside.
    missing_blobs
        Names whose file is not in the archive, though a record says so.
    """

    records: int = 0
    damaged: tuple[Path, ...] = ()
    missing_blobs: tuple[str, ...] = ()


def fold(root: DataRoot) -> FoldReport:
    """Bring the registry and the public names up to the committed records.

    Waits while another process folds; what that one has folded costs nothing here. When this
    returns, every record committed before the call is in the snapshot and under its public names.

    Parameters
    ----------
    root
        The installation.

    Raises
    ------
    PassingFaultError
        If the disk is full; the records stay pending, and a later fold finishes.
    """
    journal = Journal(root)
    if _is_folded(root, journal):
        return FoldReport()
    with fold_lock(root):
        if _is_folded(root, journal):
            return FoldReport()
        with _passing_disk_faults(root):
            return _fold_pending(root, journal)


@contextmanager
def all_folded(root: DataRoot) -> Iterator[None]:
    """Hold the lock of the fold, with every record committed so far folded.

    What the snapshot says stays true within the block, save for records committed meanwhile.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    journal = Journal(root)
    with fold_lock(root):
        if not _is_folded(root, journal):
            with _passing_disk_faults(root):
                _fold_pending(root, journal)
        yield


def rebuild(root: DataRoot) -> FoldReport:
    """Make the registry anew from the journal alone, and publish it.

    Its content is that of the folded one. Readers see the old snapshot until the new one is whole.

    Parameters
    ----------
    root
        The installation.

    Raises
    ------
    PassingFaultError
        If the disk is full; the old registry stays.
    """
    journal = Journal(root)
    with fold_lock(root), _passing_disk_faults(root):
        damaged = _rebuild_registry(root, journal)
        report = _fold_pending(root, journal)
        return replace(report, damaged=(*damaged, *report.damaged))


def _is_folded(root: DataRoot, journal: Journal) -> bool:
    if journal.pending_paths():
        return False
    try:
        snapshot = _newest_snapshot(root)
        return is_published(root, snapshot) if snapshot else not journal.segments()
    except SnapshotError:
        return False


def _fold_pending(root: DataRoot, journal: Journal) -> FoldReport:
    try:
        return _fold_into_registry(root, journal)
    except (duckdb.Error, FileNotFoundError, SnapshotError) as error:
        if _is_disk_full(error):
            raise
        _require_unlocked(error)
        # Lost, damaged or of another version; an error of another cause comes back.
        damaged = _rebuild_registry(root, journal)
        report = _fold_into_registry(root, journal)
        return replace(report, damaged=(*damaged, *report.damaged))


def _fold_into_registry(root: DataRoot, journal: Journal) -> FoldReport:
    snapshot = _usable_snapshot(root, journal)
    copied = newest_to_copy(root, snapshot.tiers)
    older = [tier for tier in snapshot.tiers if tier != copied]
    require_tiers(root, older)
    damaged: list[Path] = []
    folded: list[PendingRecord] = []
    with new_tier(root, older, copied, READ_BY_FOLD) as tier:
        for paths in _batches(journal.pending_paths(), _RECORDS_AT_ONCE):
            records, damage = journal.read_pending(paths)
            damaged += [journal.set_aside(error) for error in damage]
            folded += records
            if records:
                _apply(tier.database.connection, [journal.seal(records)])
        names = {name for item in folded for name in item.record.names}
        shown = _available_hashes(tier.database.connection, names)
    missing = _link(root, shown)
    published = Snapshot.of((tier.name, *older))
    if _shows_what_was_hidden(folded):
        published = Snapshot.of((merge_tiers(root, published.tiers, is_whole=True),))
    publish_snapshot(root, published, snapshot)
    _unlink(root, map(ProductName.parse, names - shown.keys()))
    journal.discard(folded)
    journal.merge_segments()
    _merge_tiers(root, published)
    return FoldReport(len(folded), tuple(damaged), tuple(missing))


def _shows_what_was_hidden(folded: Iterable[PendingRecord]) -> bool:
    """Tell whether something is public now that older tiers have no public rows of.

    Their public parts were written without it and never change, so all tiers become one. That
    happens when a data release is published, a few times a year.
    """
    return any(
        change.transition is Transition.PUBLISHED
        for item in folded
        for change in item.record.transitions
    )


def _newest_snapshot(root: DataRoot) -> Snapshot | None:
    for role in Role:
        refresh_snapshot(root, role)
    return read_snapshot(root.registry)


def _usable_snapshot(root: DataRoot, journal: Journal) -> Snapshot:
    snapshot = _newest_snapshot(root)
    if snapshot is None and not journal.segments():
        return Snapshot.of(())
    if snapshot is None or not snapshot.is_of_this_version:
        raise SnapshotError("lost or of another version")
    return snapshot


def _rebuild_registry(root: DataRoot, journal: Journal) -> list[Path]:
    damaged = [path for segment in journal.segments() for path in journal.repair_segment(segment)]
    with new_tier(root, read=READ_BY_FOLD, published=False) as tier:
        for segments in _batches(journal.segments(), _SEGMENTS_AT_ONCE):
            _apply(tier.database.connection, segments)
    whole = merge_tiers(root, [tier.name], is_whole=True)
    publish_snapshot(root, Snapshot.of((whole,)), None)
    return damaged


def _merge_tiers(root: DataRoot, snapshot: Snapshot) -> None:
    """Keep the tiers few: what is full becomes one with older ones."""
    number = due_to_merge(root, snapshot.tiers)
    if number:
        merged, older = snapshot.tiers[:number], snapshot.tiers[number:]
        tier = merge_tiers(root, merged, is_whole=not older)
        publish_snapshot(root, Snapshot.of((tier, *older)), snapshot)


def _require_unlocked(error: Exception) -> None:
    if isinstance(error, duckdb.IOException) and "lock" in str(error):
        raise PassingFaultError(
            f"another program writes to the registry: {error}. Remedy: close it there and read "
            "with roman_assets.registry.registry.Registry; the committed records are safe and the "
            "next fold finishes"
        ) from error


def _link(root: DataRoot, contents: Mapping[str, str]) -> list[str]:
    """Let public names show their blobs; give the names whose blob is missing."""
    confirm = functools.partial(confirm_fold_lock, root)
    shown = {ProductName.parse(name): sha256 for name, sha256 in contents.items()}
    return [str(name) for name in Archive.of(root).show(shown, confirm)]


def _unlink(root: DataRoot, names: Iterable[ProductName]) -> None:
    """Take public names away whose product is available no more.

    Only after the snapshot says so: who finds a product in the newest one also finds its name.
    """
    gone = list(names)
    if gone:
        confirm_fold_lock(root)
    archive = Archive.of(root)
    for name in gone:
        archive.unlink(name)


def _available_hashes(connection: duckdb.DuckDBPyConnection, names: set[str]) -> dict[str, str]:
    rows = connection.execute(
        "select name, sha256 from products "
        f"where {IS_AVAILABLE} and access = '{Role.PUBLIC}' and name in $names "
        "and name_key in name_keys($names)",
        {"names": sorted(names)},
    ).fetchall()
    return dict(rows)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))


@contextmanager
def _passing_disk_faults(root: DataRoot) -> Iterator[None]:
    try:
        with disk_space(root.registry):
            yield
    except duckdb.Error as error:
        if not _is_disk_full(error):
            raise
        raise PassingFaultError(
            f"the file system of {root.registry} is full: {error}. Remedy: free space there; the "
            "committed records are safe and the next fold finishes"
        ) from error


def _is_disk_full(error: Exception) -> bool:
    text = str(error)
    return "No space left" in text or "out of disk" in text.lower() or "quota" in text.lower()


_LINE = {
    "record": {
        "record_id": "VARCHAR",
        "step": "VARCHAR",
        "partition": "VARCHAR",
        "committed_at": "TIMESTAMPTZ",
        "products": [
            {
                "name": "VARCHAR",
                "sha256": "VARCHAR",
                "size": "BIGINT",
                "fingerprint": "VARCHAR",
                "inputs": [{"name": "VARCHAR", "sha256": "VARCHAR"}],
                "context": "VARCHAR",
                "software": "JSON",
                "references": "JSON",
                "metadata": "JSON",
                "archived": {"rad_schema": "VARCHAR", "sections": ["INTEGER"]},
                "access": "VARCHAR",
            }
        ],
        "transitions": [
            {
                "transition": "VARCHAR",
                "name": "VARCHAR",
                "made_by": "VARCHAR",
                "sha256": "VARCHAR",
                "reason": "VARCHAR",
                "cause": "VARCHAR",
            }
        ],
        "sections": ["JSON"],
        "failures": [{"file_set": "VARCHAR", "error": "VARCHAR", "message": "VARCHAR"}],
        "events": "MAP(VARCHAR, TIMESTAMPTZ)",
        "run_id": "VARCHAR",
        "statement": "VARCHAR",
        "attempt": {
            "attempt_id": "VARCHAR",
            "outcome": "VARCHAR",
            "error": "VARCHAR",
            "message": "VARCHAR",
            "last_try": "BOOLEAN",
        },
        "receipt": {
            "survey": "VARCHAR",
            "exposure_type": "VARCHAR",
            "optical_element": "VARCHAR",
            "detectors": ["VARCHAR"],
            "nexposures": "INTEGER",
            "truncated": "BOOLEAN",
            "lacks_packets": "BOOLEAN",
            "lacks_ancillary": "BOOLEAN",
        },
        "release": {
            "release": "VARCHAR",
            "survey": "VARCHAR",
            "phase": "VARCHAR",
            "declaration": "VARCHAR",
            "content": "VARCHAR",
            "software": "JSON",
            "exposures": ["VARCHAR"],
        },
        "handover": {"manifest": "VARCHAR", "digest": "VARCHAR", "images": "INTEGER"},
        "proposal": {
            "proposal_id": "VARCHAR",
            "change": {"cause": "VARCHAR", "value": "VARCHAR"},
            "author": "VARCHAR",
            "reason": "VARCHAR",
            "exposures": ["VARCHAR"],
            "visits": ["VARCHAR"],
            "impact": "JSON",
        },
        "decision": {
            "proposal_id": "VARCHAR",
            "verdict": "VARCHAR",
            "author": "VARCHAR",
            "reason": "VARCHAR",
        },
    }
}
"""What a line of the journal holds, for DuckDB."""

NO_RECORD = f"select unnest(from_json('{{}}', '{json.dumps(_LINE['record'])}')) where false"
"""No row, with the columns of ``incoming`` (see `apply_incoming`)."""

# Reading whole lines and taking them apart is four times as fast as read_json. JSON has no raw
# control characters, so a delimiter that is one never occurs.
_INCOMING = f"""
create temp table incoming as
with lines as (
    select from_json(line, '{json.dumps(_LINE)}').record as record
    from read_csv($segments, columns = {{line: 'VARCHAR'}}, auto_detect = false, header = false,
        delim = '\x01', quote = '', escape = '', max_line_size = {LONGEST_LINE})
)
select distinct on (record.record_id) record.* from lines
anti join records
    on records.committed_at = record.committed_at and records.record_id = record.record_id
"""

_NAMED = """
create temp table named as
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


def _apply(connection: duckdb.DuckDBPyConnection, segments: Sequence[Path]) -> None:
    """Add the records of segments in one transaction; known records are skipped."""
    connection.execute("begin transaction")
    try:
        connection.execute(_INCOMING, {"segments": [str(path) for path in segments]})
        apply_incoming(connection)
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
    _insert_statements(connection)
    _insert_products(connection)
    insert_archive_rows(connection)
    for table in ("incoming", "kinds", "named", "made", "stated"):
        connection.execute(f"drop table {table}")


def _insert_statements(connection: duckdb.DuckDBPyConnection) -> None:
    record = 'record_id, step, "partition", committed_at'
    of_partition = f'{record}, partition_key("partition") as partition_key'
    connection.execute(
        f"insert into {NEWEST}.records by name "
        f"select {of_partition}, run_id, statement from incoming"
    )
    connection.execute(
        f"insert into {NEWEST}.events by name "
        f"select {of_partition}, entry.key as event, entry.value as time "
        "from (select *, unnest(map_entries(events)) as entry from incoming)"
    )
    connection.execute(
        f"insert into {NEWEST}.failures by name "
        f"select {of_partition}, entry.file_set, entry.error, entry.message "
        "from (select *, unnest(failures) as entry from incoming)"
    )
    connection.execute(
        "create temp table stated as "
        f"select {record}, entry.*, name_key(entry.name) as name_key "
        "from (select *, unnest(transitions) as entry from incoming)"
    )
    connection.execute(f"insert into {NEWEST}.transitions by name select * from stated")
    connection.execute(
        f"insert into {NEWEST}.inputs by name "
        "select record_id, name, ordinal::integer as ordinal, item.name as input_name, "
        "item.sha256 as input_sha256, name_key(name) as name_key, "
        "md5_number_lower(item.sha256) as input_key from ("
        "  select record_id, entry.name, unnest(entry.inputs) as item, "
        "  generate_subscripts(entry.inputs, 1) as ordinal "
        "  from (select record_id, unnest(products) as entry from incoming))"
    )
    for table, events in _EVENT_COLUMNS.items():
        moments = ", ".join(f"events['{event}'] as {name}" for name, event in events.items())
        part = table.removesuffix("s")
        run = ", run_id" if table == ATTEMPTS.name else ""
        connection.execute(
            f"insert into {NEWEST}.{table} by name "
            f"select {of_partition}{run}, unnest({part}), {moments} "
            f"from incoming where {part} is not null"
        )
    connection.execute(
        f"insert into {NEWEST}.{RELEASES.name} by name "
        f'select {record}, unnest("release") from incoming where "release" is not null'
    )
    connection.execute(
        f"insert into {NEWEST}.proposals by name "
        f"select {record}, proposal.* exclude (change), unnest(proposal.change) "
        "from incoming where proposal is not null"
    )
    connection.execute(
        f"insert into {NEWEST}.decisions by name select {record}, unnest(decision) "
        "from incoming where decision is not null"
    )


_EVENT_COLUMNS = {
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
"""The clock events that have a column in the table of what a record is about."""


def _insert_products(connection: duckdb.DuckDBPyConnection) -> None:
    kinds = pa.table(
        {
            "kind": [kind.name for kind in KINDS],
            "scope": [kind.scope.value for kind in KINDS],
            "suffix": [kind.suffix for kind in KINDS],
            "extension": [kind.extension for kind in KINDS],
            "level": [kind.level.value for kind in KINDS],
        }
    )
    connection.register("kinds_of_this_version", kinds)
    connection.execute("create temp table kinds as from kinds_of_this_version")
    connection.unregister("kinds_of_this_version")
    connection.execute(
        _NAMED.format(matches=", ".join(_name_matches()), cases="\n".join(_name_cases()))
    )
    connection.execute(_made())
    _set_healpix(connection)
    connection.execute(
        f"insert into {NEWEST}.places by name select healpix, name_key, access from made "
        "where healpix is not null group by record_id, healpix, name_key, access"
    )
    if connection.execute(_HAS_HISTORY).fetchone() == (True,):
        _insert_among_generations(connection)
    else:
        connection.execute(
            f"insert into {NEWEST}.products by name "
            f"select * replace (1 as generation, '{State.CURRENT}' as state), false as replaces "
            "from made"
        )


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
    """Give the SQL that takes a name apart with the grammar's own patterns, each once."""
    for scope, pattern in NAME_PATTERNS.items():
        groups = sorted(pattern.groupindex, key=pattern.groupindex.__getitem__)
        yield f"regexp_extract(entry.name, '^{pattern.pattern}$', {groups}) as of_{scope.value}"


def _name_cases() -> Iterator[str]:
    """Give the SQL that chooses the pattern which a name matches."""
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
    return f"""
        create temp table made as
        with read as (
            select *, from_json(entry.metadata, '{structure}') as known from named
        )
        select entry.name as name, read.* exclude (entry, known), known.*,
            entry.sha256 as sha256, entry.size as size, entry.fingerprint as fingerprint,
            entry.context as context, entry.software as software,
            entry."references" as reference_files,
            json_merge_patch(entry.metadata, '{without}') as facts,
            null::integer as generation, null::varchar as state, entry.access as access,
            null::timestamptz as ended_at,
            null::bigint as healpix, name_key(entry.name) as name_key,
            md5_number_lower(entry.name || ' ' || record_id) as row_key
        from read
    """


def _set_healpix(connection: duckdb.DuckDBPyConnection) -> None:
    places = connection.execute(
        'select distinct ra, "dec" from made where isfinite(ra) and "dec" between -90 and 90'
    ).fetchnumpy()
    ra, dec = (np.asarray(places[column], dtype=float) for column in ("ra", "dec"))
    pixel = hpgeom.angle_to_pixel(HEALPIX_NSIDE, np.mod(ra, 360), dec, nest=True)
    connection.register("pixels", pa.table({"ra": ra, "dec": dec, "pixel": pixel}))
    connection.execute(
        "update made set healpix = pixels.pixel from pixels "
        'where made.ra = pixels.ra and made."dec" = pixels."dec"'
    )
    connection.unregister("pixels")
