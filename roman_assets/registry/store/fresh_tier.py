"""The fresh rows of a snapshot in memory, as the tier that a fold adds to.

Opening a database, attaching tiers and creating tables takes longer than adding a record, so a
process keeps what it had open for its next fold, and uses it if nobody has folded meanwhile.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import Table
from roman_assets.registry.store.fresh import FreshRows
from roman_assets.registry.store.incoming import Applied
from roman_assets.registry.store.snapshot import Snapshot, tier_path
from roman_assets.registry.store.tiers import TieredDatabase


class FreshTier:
    """A database whose `NEWEST` tier is in memory and holds the fresh rows.

    Rows are added to it, and none is changed.

    Parameters
    ----------
    root
        The installation.
    read
        The tables that are read: they show the rows of all tiers.
    """

    def __init__(self, root: DataRoot, read: Sequence[Table]) -> None:
        self._root = root
        self._read = read
        self._database = TieredDatabase(root)
        self._snapshot: Snapshot | None = None
        self._files: dict[str, tuple[int, int, int]] = {}
        self._rows: dict[str, pa.Table] = {}

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that reads all tiers and writes `NEWEST`."""
        return self._database.connection

    def close(self) -> None:
        """Detach all tiers."""
        self._database.close()

    def load(self, snapshot: Snapshot) -> None:
        """Show the rows of a snapshot, unless it is the one that `publish` returned last.

        Raises
        ------
        duckdb.Error
            If a tier cannot be read.
        SnapshotError
            If the fresh rows cannot.
        """
        files = self._identities(snapshot)
        known = "" if self._snapshot is None else self._snapshot.state
        if known and (known, self._files) == (snapshot.state, files):
            return
        self._detach_others(files)
        self._rows = dict(snapshot.rows())
        self._database.hold(snapshot.tiers, self._rows, self._read)
        # So few rows are read faster than another thread begins.
        self.connection.execute("set threads = 1")
        self._snapshot, self._files = snapshot, files

    def lend(self, snapshot: Snapshot) -> TieredDatabase:
        """Return the database for another use of a snapshot's tiers."""
        self._detach_others(self._identities(snapshot))
        self.connection.execute("reset threads")
        return self._database

    def _detach_others(self, files: Mapping[str, tuple[int, int, int]]) -> None:
        """Detach all tiers that are not these files; what was loaded must be loaded again."""
        self._snapshot = None
        for tier, identity in self._files.items():
            if files.get(tier) != identity:
                self._database.detach(tier)
        self._files = {tier: files[tier] for tier in self._files.keys() & files.keys()}

    def grown(self, snapshot: Snapshot, applied: Applied | None) -> Snapshot:
        """Return a snapshot with the rows that were added since; it counts as loaded."""
        for name, rows in self._added(applied) if applied else ():
            if rows.num_rows:
                known = [self._rows[name]] if name in self._rows else []
                self._rows[name] = pa.concat_tables([*known, rows]).combine_chunks()
        self._snapshot = Snapshot.of(snapshot.tiers, FreshRows.of(self._rows))
        return self._snapshot

    def _added(self, applied: Applied) -> Iterator[tuple[str, pa.Table]]:
        yield from applied.rows.items()
        for name in applied.tables:
            known = self._rows[name].num_rows if name in self._rows else 0
            yield name, self._database.rows_from(name, known)

    def _identities(self, snapshot: Snapshot) -> dict[str, tuple[int, int, int]]:
        found = {tier: tier_path(self._root, tier).stat() for tier in snapshot.tiers}
        return {
            tier: (status.st_ino, status.st_size, status.st_mtime_ns)
            for tier, status in found.items()
        }


@contextmanager
def fresh_tier(root: DataRoot, read: Sequence[Table]) -> Iterator[FreshTier]:
    """Borrow the tier that this process keeps for its folds; the fold lock is held.

    What the block adds is published when it ends. If it fails, all is dropped.

    Parameters
    ----------
    root
        The installation.
    read
        The tables that are read: they show the rows of all tiers.
    """
    kept = _kept(root, tuple(table.name for table in read), os.getpid())
    tier = kept.pop() if kept else FreshTier(root, read)
    try:
        yield tier
    except BaseException:
        tier.close()
        raise
    kept.append(tier)


@functools.lru_cache(maxsize=2)
def _kept(root: DataRoot, read: tuple[str, ...], process: int) -> list[FreshTier]:
    """Return where this process keeps the tier of an installation between folds."""
    return []
