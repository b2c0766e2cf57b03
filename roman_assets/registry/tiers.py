"""The registry on disk: immutable tiers, and the snapshot that says which of them count.

A fold must not cost what ten million products take. So the rows lie in a few DuckDB files, the
tiers, newest first, each many times as large as the one before. A fold copies only the newest,
small one, writes into the copy and publishes it in place of the old one; when it has grown, it is
merged with older ones, so that a row is copied a few times in its life.

A published tier never changes. A row that changes is brought forward: copied into the newest tier,
where it takes the place of its former self in older ones. The journal is the truth; any tier may
be lost.
"""

# Names put into SQL are names of the schema and of tiers; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from roman_assets.access import Role
from roman_assets.archive.durability import (
    fsync_directory,
    fsync_file,
    make_directory,
    private_directory,
    temporary_name,
)
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.registry.public import append_to_public_tier, write_public_tier
from roman_assets.registry.schema import (
    REPLACES,
    TABLES,
    Table,
    create_tables,
    create_views,
    open_database,
    schema_digest,
    tables_seen_by,
)
from roman_assets.registry.shared_snapshot import SharedSnapshot

_log = logging.getLogger(__name__)

SNAPSHOT = "snapshot.json"
TIERS = "tiers"
EMPTY = "empty"
NEWEST = "newest"
"""The database that a fold writes into; its readable tables are those of all tiers."""

_READ_ONLY = 0o444
_FULL = 4 << 20
_GROWTH = 16
_MEMORY = "4GB"
_SORTED_AT_ONCE = 1_000_000
"""Rows of a merge: some 0.7 kB each, several times over while they are sorted."""


@dataclass(frozen=True)
class Snapshot:
    """One whole state of the registry.

    Parameters
    ----------
    schema
        Digest of the schema its tiers have.
    tiers
        Names of their files, newest first.
    """

    schema: str
    tiers: tuple[str, ...]

    @classmethod
    def of(cls, tiers: Sequence[str]) -> Snapshot:
        """Give the state of tiers that have the schema of this version."""
        return cls(schema_digest(), tuple(tiers))

    @property
    def is_of_this_version(self) -> bool:
        """Whether its tables are those this version declares; if not, a rebuild is due."""
        return self.schema == schema_digest()


class SnapshotError(Exception):
    """The snapshot is lost, damaged or of another version; a rebuild makes it again."""


def registry_directory(root: DataRoot, role: Role) -> Path:
    """Give where the registry that a role sees is."""
    return root.public_registry if role is Role.PUBLIC else root.registry


def spill_directory(root: DataRoot) -> Path:
    """Return where DuckDB puts what does not fit into memory."""
    return root.registry / "spill"


def _new_spill(root: DataRoot, role: Role) -> Path | None:
    if role is Role.PUBLIC:
        return Path(tempfile.gettempdir()) / f"roman-assets-{uuid.uuid4().hex}"
    if not os.access(root.registry, os.W_OK):
        return None
    return private_directory(spill_directory(root)) / uuid.uuid4().hex


def read_snapshot(directory: Path) -> Snapshot | None:
    """Read which tiers count now; None before the first fold.

    Raises
    ------
    SnapshotError
        If the file is not what was written.
    """
    path = directory / SNAPSHOT
    try:
        return _decoded(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"{path} is no snapshot: {error!r}") from error


def refresh_snapshot(root: DataRoot, role: Role = Role.OPERATIONS) -> None:
    """Bring the copy of a registry up to that in the object store, if the installation has one."""
    if root.object_store is not None:
        _shared(root, role).fetch(_named)


def _shared(root: DataRoot, role: Role) -> SharedSnapshot:
    directory = registry_directory(root, role)
    return SharedSnapshot(root, directory / SNAPSHOT, directory / TIERS)


def _decoded(content: bytes) -> Snapshot:
    fields = json.loads(content)
    return Snapshot(str(fields["schema"]), tuple(map(str, fields["tiers"])))


def _named(content: bytes) -> tuple[str, ...]:
    """Give the files that a snapshot names; one that cannot be read names none."""
    try:
        return _decoded(content).tiers
    except (ValueError, KeyError, TypeError):
        return ()


def publish_snapshot(
    root: DataRoot, snapshot: Snapshot, previous: Snapshot | None, fence: Fence
) -> None:
    """Let readers see a state at once; the fold lock is held.

    Files that neither this nor the previous snapshot names are removed. A process that has one open
    keeps it, and one that finds it gone reads the snapshot again.

    Raises
    ------
    PassingFaultError
        If another process has taken the fold lock over; nothing is published.
    """
    kept = {*snapshot.tiers, *(previous.tiers if previous else ())}
    content = json.dumps(asdict(snapshot)).encode()
    for role in Role:
        if root.object_store is not None:
            _shared(root, role).publish(content, snapshot.tiers, fence)
            refresh_snapshot(root, role)
        else:
            fence.write(registry_directory(root, role) / SNAPSHOT, content, mode=_READ_ONLY)
    for role in Role:
        for path in (registry_directory(root, role) / TIERS).glob("[!.]*"):
            if path.name not in kept:
                fence.remove(path)


def tier_path(root: DataRoot, tier: str, role: Role = Role.OPERATIONS) -> Path:
    """Give where what a role sees of a tier is."""
    return registry_directory(root, role) / TIERS / tier


def require_tiers(root: DataRoot, tiers: Sequence[str]) -> None:
    """Refuse to go on without a file of a tier, whoever it is for.

    Raises
    ------
    SnapshotError
        Naming it.
    """
    for path in (tier_path(root, tier, role) for tier in tiers for role in Role):
        if not path.exists():
            raise SnapshotError(f"{path} is lost")


def is_published(root: DataRoot, snapshot: Snapshot) -> bool:
    """Tell whether all files of a snapshot are there, for everyone."""
    return all(
        read_snapshot(registry_directory(root, role)) == snapshot
        and all(tier_path(root, tier, role).exists() for tier in snapshot.tiers)
        for role in Role
    )


class TieredDatabase:
    """A private connection that shows tiers as one set of tables.

    Parameters
    ----------
    root
        The installation.
    role
        For whom: only what this role may see.
    """

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        self._root = root
        self._role = role
        self._tables = tables_seen_by(role)
        # Attached to a private instance: DuckDB shares instances by path within a process.
        self.connection = open_database(":memory:", _new_spill(root, role))
        self._tiers: tuple[str, ...] = ()
        self._replacing: dict[str, bool] = {}
        """Whether rows take the place of others in older tiers, by attached tier."""

    def close(self) -> None:
        """Let go of all tiers."""
        self.connection.close()

    def show(self, tiers: Sequence[str]) -> None:
        """Show these tiers, newest first, and no others; without any, all tables are empty.

        Raises
        ------
        duckdb.Error
            If one of them cannot be read.
        """
        for tier in self._replacing.keys() - set(tiers):
            self._detach(tier)
        self.attach(tiers)
        if not tiers:
            self._attach_new(EMPTY, ":memory:")
        self._tiers = tuple(tiers) or (EMPTY,)
        self._create_views(self._tables, self._tiers)
        create_views(self.connection)

    def attach(self, tiers: Sequence[str]) -> None:
        """Attach what is not yet attached of tiers, for reading."""
        for tier in tiers:
            if tier not in self._replacing:
                self._attach(tier)

    def write(self, path: Path, older: Sequence[str], read: Sequence[Table]) -> None:
        """Attach a file as the `NEWEST` tier, which takes what is written.

        Parameters
        ----------
        path
            The file: a copy of a tier, or not there yet.
        older
            The tiers after it.
        read
            The tables that are read meanwhile: they show the rows of all these tiers.
        """
        self.attach(older)
        self._attach_new(NEWEST, str(path), is_copy=path.exists())
        self._create_views(read, (NEWEST, *older))

    def written(
        self, older: Sequence[str], public: Path | None, grown: Mapping[str, int] | None
    ) -> None:
        """Put all that was written into the file of the `NEWEST` tier, and the public part of it.

        Parameters
        ----------
        older
            The tiers after it.
        public
            The file for the public, None if there is none.
        grown
            Where the rows begin, by table, that `public` has not the public part of; None if it
            is new.
        """
        self.connection.execute(f"checkpoint {NEWEST}")
        if public is None:
            return
        if grown is not None:
            try:
                append_to_public_tier(self.connection, NEWEST, grown, public)
                return
            except duckdb.Error as error:
                # the former file is damaged, and nothing is in it that the tier has not
                _log.warning("the public part of the registry is written anew: %s", error)
                public.unlink()
        self.attach(older)
        write_public_tier(self.connection, NEWEST, older, public)

    def sizes(self) -> dict[str, int]:
        """Return where new rows of the `NEWEST` tier begin, by public table."""
        names = [table.name for table in tables_seen_by(Role.PUBLIC)]
        ends = ", ".join(
            f"(select coalesce(max(rowid), -1) + 1 from {NEWEST}.{name})" for name in names
        )
        return dict(zip(names, _row(self.connection, f"select {ends}"), strict=True))

    @contextmanager
    def each_tier(self) -> Iterator[Iterator[duckdb.DuckDBPyConnection]]:
        """Go through the tiers with a connection whose current database is the tier."""
        try:
            yield (self._using(tier) for tier in self._tiers)
        finally:
            self._using("memory")

    def rows(self, table: Table, tiers: Sequence[str]) -> str:
        """Give the SQL of a table's rows in tiers, the last state of each, with `REPLACES`."""
        columns = ", ".join(f'"{column.name}"' for column in table.stored_columns)
        key = ", ".join(f'"{column}"' for column in table.key)
        parts = []
        for number, tier in enumerate(tiers):
            part = f'select {columns} from "{tier}".{table.name}'
            replaced = " union all ".join(
                f'select {key} from "{newer}".{table.name} where {REPLACES.name}'
                for newer in tiers[:number]
                if self._replacing[newer]
            )
            if table.key and replaced:
                part += f" anti join ({replaced}) using ({key})"
            parts.append(part)
        return " union all ".join(parts)

    def _using(self, database: str) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(f'use "{database}"')

    def _attach(self, tier: str) -> None:
        place = _quoted(str(tier_path(self._root, tier, self._role)))
        self.connection.execute(f'attach {place} as "{tier}" (read_only)')
        self._replacing[tier] = any(
            self.connection.execute(
                f'select 1 from "{tier}".{table.name} where {REPLACES.name} limit 1'
            ).fetchone()
            for table in self._tables
            if table.key
        )

    def _detach(self, tier: str) -> None:
        self.connection.execute(f'detach "{tier}"')
        del self._replacing[tier]

    def _attach_new(self, name: str, path: str, is_copy: bool = False) -> None:
        self.connection.execute(f"attach {_quoted(path)} as {name} (recovery_mode no_wal_writes)")
        if not is_copy:
            create_tables(self._using(name), self._role)
            self._using("memory")
        self._replacing[name] = True

    def _create_views(self, tables: Sequence[Table], tiers: Sequence[str]) -> None:
        for table in tables:
            hidden = f"exclude ({REPLACES.name})" if table.key else ""
            self.connection.execute(
                f"create or replace view {table.name} as "
                f"select * {hidden} from ({self.rows(table, tiers)})"
            )


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def bring_forward(connection: duckdb.DuckDBPyConnection, table: Table, changing: str) -> None:
    """Copy rows that are about to change into the `NEWEST` tier, where they can be updated.

    Parameters
    ----------
    connection
        Of a database with a tier to write to.
    table
        A table with a key.
    changing
        Name of a table or view with the keys of the rows.
    """
    key = ", ".join(f'"{column}"' for column in table.key)
    connection.execute(
        f"insert into {NEWEST}.{table.name} by name select *, true as {REPLACES.name} "
        f"from {table.name} semi join {changing} using ({key}) "
        f"anti join {NEWEST}.{table.name} using ({key})"
    )


class NewTier:
    """A tier while it is written.

    Parameters
    ----------
    root
        The installation.
    published
        Whether there is a public part.
    """

    def __init__(self, root: DataRoot, published: bool) -> None:
        self.name = f"{uuid.uuid4().hex}.duckdb"
        self.database = TieredDatabase(root)
        self._root = root
        roles = Role if published else (Role.OPERATIONS,)
        self._files = {
            role: make_directory(registry_directory(root, role) / TIERS) / self.name
            for role in roles
        }
        self._drafts = {role: temporary_name(path) for role, path in self._files.items()}
        self.only_grows = False
        """Whether rows that were in the tier it starts as a copy of are as they were."""
        self._copied: dict[str, int] | None = None

    def copy(self, tier: str) -> None:
        """Start as a copy of a tier."""
        for role, draft in self._drafts.items():
            shutil.copyfile(tier_path(self._root, tier, role), draft)

    def open(self, older: Sequence[str], read: Sequence[Table]) -> None:
        """Open the database to write, with the tables that are read meanwhile."""
        is_copy = self.draft.exists()
        self.database.write(self.draft, older, read)
        self._copied = self.database.sizes() if is_copy else None

    @property
    def draft(self) -> Path:
        """The file that is written."""
        return self._drafts[Role.OPERATIONS]

    def finish(self, older: Sequence[str] = ()) -> None:
        """Make the files whole and durable; nobody sees them before `place`.

        Parameters
        ----------
        older
            The tiers it comes before, newest first.
        """
        public = self._drafts.get(Role.PUBLIC)
        grown = self._copied if self.only_grows else None
        if public is not None and grown is None:
            public.unlink(missing_ok=True)
        self.database.written(older, public, grown)
        self.database.close()
        self.draft.chmod(_READ_ONLY)
        fsync_file(self.draft)

    def upload(self) -> None:
        """Bring the files to the object store, if the installation has one."""
        if self._root.object_store is not None:
            for role, draft in self._drafts.items():
                _shared(self._root, role).upload(draft, self.name)

    def place(self) -> None:
        """Rename the drafts to their final names, for a snapshot to list."""
        for role, draft in self._drafts.items():
            draft.replace(self._files[role])
        for path in self._files.values():
            fsync_directory(path.parent)

    def discard(self) -> None:
        """Remove the drafts that were not placed."""
        self.database.close()
        for draft in self._drafts.values():
            draft.unlink(missing_ok=True)


@contextmanager
def draft_tier(
    root: DataRoot,
    older: Sequence[str] = (),
    copied: str | None = None,
    read: Sequence[Table] = (),
    *,
    published: bool = True,
) -> Iterator[NewTier]:
    """Write a tier before older ones; the block finishes and places it, or it goes.

    What the public may see of it is written into a file of its own.

    Parameters
    ----------
    root
        The installation.
    older
        The tiers it comes before, newest first.
    copied
        The tier that it starts as a copy of; without one it is empty.
    read
        The tables that are read while it is written.
    published
        False for a tier that is only merged into another, so that the public part is not needed.
    """
    tier = NewTier(root, published)
    try:
        if copied is not None:
            tier.copy(copied)
        tier.open(older, read)
        yield tier
    finally:
        tier.discard()


@contextmanager
def new_tier(
    root: DataRoot,
    older: Sequence[str] = (),
    copied: str | None = None,
    read: Sequence[Table] = (),
    *,
    published: bool = True,
) -> Iterator[NewTier]:
    """Write a tier as `draft_tier` does; it is finished and placed at the end.

    Hold the fold lock: until a snapshot names the tier, the holder of that lock may remove it.
    """
    with draft_tier(root, older, copied, read, published=published) as tier:
        yield tier
        tier.finish(older)
        tier.place()


def newest_to_copy(root: DataRoot, tiers: Sequence[str]) -> str | None:
    """Give the tier that the next fold goes on with, None if it starts a new one."""
    if tiers and tier_path(root, tiers[0]).stat().st_size < _FULL:
        return tiers[0]
    return None


def fill_merged(
    tier: NewTier,
    tiers: Sequence[str],
    is_whole: bool,
    progress: Callable[[], None],
) -> None:
    """Write the rows of some tiers into a new one, in the order in which they are searched.

    Parameters
    ----------
    tier
        The new tier.
    tiers
        What is merged, newest first.
    is_whole
        Whether there is no older tier, so that no row takes the place of another.
    progress
        Called again and again, as it goes on.
    """
    database, connection = tier.database, tier.database.connection
    connection.execute("set preserve_insertion_order = false")
    connection.execute(f"set memory_limit = '{_MEMORY}'")
    database.attach(tiers)
    for table in TABLES:
        kept = f"replace (false as {REPLACES.name})" if table.key and is_whole else ""
        order = ", ".join(f'"{column}"' for column in table.order)
        for part in _slices(connection, table, tiers):
            progress()
            connection.execute(
                f"insert into {NEWEST}.{table.name} by name "
                f"select * {kept} from ({database.rows(table, tiers)}) where {part} "
                f"order by {order}"
            )


def merge_tiers(
    root: DataRoot,
    tiers: Sequence[str],
    is_whole: bool,
    progress: Callable[[], None] = lambda: None,
) -> str:
    """Merge tiers into one under the fold lock, which is held; returns the new tier.

    A registry that is made anew is merged so; one that is in use, by
    `roman_assets.registry.merging`.
    """
    with new_tier(root) as tier:
        fill_merged(tier, tiers, is_whole, progress)
    return tier.name


def _slices(
    connection: duckdb.DuckDBPyConnection, table: Table, tiers: Sequence[str]
) -> Iterator[str]:
    """Give conditions that part the rows of a table in its order, each few enough to be sorted."""
    first = f'"{table.order[0]}"'
    rows = " union all ".join(f'select {first} from "{tier}".{table.name}' for tier in tiers)
    (count,) = _row(connection, f"select count(*) from ({rows})")
    parts = -(-count // _SORTED_AT_ONCE)
    if parts <= 1:
        yield "true"
        return
    fractions = [part / parts for part in range(1, parts)]
    (found,) = _row(connection, f"select quantile_disc({first}, {fractions}) from ({rows})")
    bounds = [_quoted(str(bound)) for bound in dict.fromkeys(found)]
    yield f"{first} < {bounds[0]}"
    for low, high in itertools.pairwise(bounds):
        yield f"{first} >= {low} and {first} < {high}"
    yield f"({first} >= {bounds[-1]} or {first} is null)"


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def due_to_merge(
    root: DataRoot, tiers: Sequence[str], largest: int | None = None
) -> tuple[str, ...]:
    """Return the tiers that are to become one, newest first; none while there is nothing to merge.

    Each tier has a level by its size, and no two are to have the same; so there are few of them,
    and a row is copied a few times at each level. The newest tier is left out until it is full.

    Parameters
    ----------
    root
        The installation.
    tiers
        All tiers, newest first.
    largest
        Bytes that are merged at most.
    """
    sizes = [tier_path(root, tier).stat().st_size for tier in tiers]
    first = 0 if sizes and sizes[0] >= _FULL else 1
    if first >= len(tiers):
        return ()
    end, level = first + 1, _level(sizes[first])
    while end < len(sizes) and _level(sizes[end]) <= level:
        end += 1
        if largest is not None and sum(sizes[first:end]) > largest:
            end -= 1
            break
        level = _level(sum(sizes[first:end]))
    return tuple(tiers[first:end]) if end > first + 1 else ()


def _level(size: int) -> int:
    level, capacity = 1, _FULL * _GROWTH
    while size > capacity:
        level, capacity = level + 1, capacity * _GROWTH
    return level
