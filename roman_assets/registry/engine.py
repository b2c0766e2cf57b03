"""The door to the engine that keeps the registry: no other package imports `registry.store`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from roman_assets.access import Role
from roman_assets.archive.set_aside import SetAsideCase
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord
from roman_assets.registry.queryable import Preparation, StateId
from roman_assets.registry.store import fold, fold_lock, merging, repair, snapshot, snapshot_reader
from roman_assets.registry.store.fold import FoldReport
from roman_assets.registry.store.incoming import EVENT_COLUMNS, insert_records
from roman_assets.registry.store.merging import MergeReport
from roman_assets.registry.store.snapshot_reader import OpenSnapshot, SnapshotReader
from roman_assets.registry.store.tiers import spill_directory
from roman_assets.registry.store.timing import TimedWork, Timing, recent_timings

__all__ = [
    "EVENT_COLUMNS",
    "Engine",
    "FoldReport",
    "MergeReport",
    "OpenSnapshot",
    "SnapshotReader",
    "TimedWork",
    "Timing",
    "insert_records",
]


@dataclass(frozen=True)
class Engine:
    """Keeps the registry of one installation: commit, fold, snapshot, rebuild and compact.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot

    def commit(self, *records: CommitRecord) -> FoldReport:
        """Write commit records and fold them: what they state is durable, and then visible.

        Raises
        ------
        PassingFaultError
            If the disk is full.
        """
        Journal(self.root).write_all(records)
        return self.fold()

    def fold(self) -> FoldReport:
        """Bring the registry and the public names up to the committed records.

        Raises
        ------
        PassingFaultError
            If the disk is full; the records stay pending, and a later fold finishes.
        RuntimeError
            If this thread holds the lock (`folded`, `locked`).
        """
        return fold.fold(self.root)

    def folded(self, purpose: str = "a decision") -> AbstractContextManager[None]:
        """Hold the lock with every record committed so far folded.

        What the snapshot says stays true within the block, save for records committed meanwhile.
        Nothing that folds may be called in it.

        Parameters
        ----------
        purpose
            Shown to processes that wait for the lock.
        """
        return fold.all_folded(self.root, purpose)

    def locked(self, purpose: str) -> AbstractContextManager[Fence]:
        """Hold the lock under which the registry and the public names change.

        Parameters
        ----------
        purpose
            Shown to processes that wait for the lock.
        """
        return fold_lock.fold_lock(self.root, purpose)

    def snapshot(self, role: Role = Role.OPERATIONS) -> SnapshotReader:
        """Return a reader of the newest snapshot that a role may see; it follows newer ones."""
        return SnapshotReader(self.root, role)

    def state(self, role: Role = Role.OPERATIONS) -> StateId:
        """Return the newest published state that a role may see."""
        snapshot.refresh_snapshot(self.root, role)
        return snapshot_reader.newest_state(self.root, role)

    def open_snapshot(
        self, role: Role = Role.OPERATIONS, prepare: Preparation | None = None
    ) -> OpenSnapshot:
        """Open the newest snapshot, which then stays as it is.

        Parameters
        ----------
        role
            For whom.
        prepare
            Called with the connection once it shows the state.

        Raises
        ------
        PassingFaultError
            If it cannot be read.
        """
        snapshot.refresh_snapshot(self.root, role)
        return snapshot_reader.open_snapshot(self.root, role, prepare)

    def rebuild(self) -> FoldReport:
        """Make the registry anew from the commit records; readers keep the old one until then.

        Raises
        ------
        PassingFaultError
            If the disk is full; the old registry stays.
        """
        return fold.rebuild(self.root)

    def compact(self, *, largest: int | None = None, waits: bool = True) -> MergeReport:
        """Merge the tiers that are due, until none is. Idempotent.

        Parameters
        ----------
        largest
            Most bytes to merge at once; larger merges wait.
        waits
            Wait while another process merges; otherwise leave it to that.

        Raises
        ------
        PassingFaultError
            If a disk is full.
        """
        return merging.merge_due_tiers(self.root, largest=largest, waits=waits)

    def notices_of_damage(self) -> list[SetAsideCase]:
        """Return the cases that tell of damage to the registry, oldest first."""
        return repair.notices_of_damage(self.root)

    def tier_sizes(self) -> list[int]:
        """Return the sizes of the files that hold the registry's rows, bytes, newest first.

        Raises
        ------
        SnapshotError
            If the snapshot is damaged.
        """
        snapshot.refresh_snapshot(self.root)
        newest = snapshot.read_snapshot(self.root.registry)
        tiers = () if newest is None else newest.tiers
        return [snapshot.tier_path(self.root, tier).stat().st_size for tier in tiers]

    def timings(self, since: datetime) -> list[Timing]:
        """Return how long the folds and merges took that ended since a time, oldest first."""
        return recent_timings(self.root, since)

    def leftovers(self) -> Iterator[Path]:
        """Yield the files that writers of the registry have not finished."""
        for role in Role:
            directory = snapshot.registry_directory(self.root, role)
            yield from directory.glob(".*.tmp*")
            yield from (directory / snapshot.TIERS).glob(".*.tmp*")
        yield from spill_directory(self.root).glob("*")
