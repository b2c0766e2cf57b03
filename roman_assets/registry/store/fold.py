"""Folding commit records into the registry, one folder at a time.

The order of the steps makes a crash anywhere harmless: records are sealed into a segment, applied
in one transaction that skips known record ids, their public names linked, the snapshot published,
and only then are they no longer pending. Running it again ends in the same state.

The generations of a name are numbered by the time of commit, which a fold first sets right (see
`roman_assets.records.order`); so the folded registry and one rebuilt from the journal have the
same content.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal, PendingRecord
from roman_assets.records.order import new_in_order
from roman_assets.registry.catalog.schema import (
    IS_AVAILABLE,
    PRODUCTS,
    RECORDS,
    TRANSITIONS,
)
from roman_assets.registry.store.compaction import merge_tiers
from roman_assets.registry.store.fold_lock import (
    fold_lock,
    fold_lock_unless,
    require_fold_lock_not_held,
)
from roman_assets.registry.store.fresh import MOST_BYTES
from roman_assets.registry.store.fresh_tier import FreshTier, fresh_tier
from roman_assets.registry.store.incoming import apply_records, apply_segments
from roman_assets.registry.store.new_tier import new_tier, newest_to_copy
from roman_assets.registry.store.repair import passing_disk_faults, require_repairable
from roman_assets.registry.store.snapshot import (
    Snapshot,
    SnapshotError,
    is_published,
    publish_snapshot,
    read_snapshot,
    refresh_snapshot,
    require_tiers,
)
from roman_assets.registry.store.tiers import TieredDatabase
from roman_assets.registry.store.timing import TimedWork, timed

_RECORDS_AT_ONCE = 2_000
_SEGMENTS_AT_ONCE = 64
_MOST_FRESH_RECORDS = 64
_MOST_FRESH_BYTES = 1 << 20
"""Bytes of the records that a fold adds to the snapshot at most."""
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
    unshown
        Why, by public name, for names that cannot show their product: its blob is missing, or the
        file system refuses the name. `fsck` finds them too.
    """

    records: int = 0
    damaged: tuple[Path, ...] = ()
    unshown: Mapping[str, str] = field(default_factory=dict)


def fold(root: DataRoot) -> FoldReport:
    """Bring the registry and the public names up to the committed records.

    Waits while another process folds, at most until that one has folded what was committed before
    the call. When this returns, all of that is in the snapshot and under its public names.

    Parameters
    ----------
    root
        The installation.

    Raises
    ------
    PassingFaultError
        If the disk is full; the records stay pending, and a later fold finishes.
    RuntimeError
        If this thread holds the fold lock.
    """
    require_fold_lock_not_held(root)
    journal = Journal(root)
    wanted = journal.pending_paths()
    if not wanted and _is_published(root, journal):
        return FoldReport()

    def folded_by_another() -> bool:
        # Names of pending records are files on a file system only.
        on_disk = root.object_store is None
        return on_disk and bool(wanted) and not any(path.exists() for path in wanted)

    with fold_lock_unless(root, "folding", folded_by_another) as fence:
        if fence is None or _is_folded(root, journal):
            return FoldReport()
        with passing_disk_faults(root):
            return _fold_pending(root, journal, fence)


@contextmanager
def all_folded(root: DataRoot, purpose: str = "a decision") -> Iterator[None]:
    """Hold the fold lock, with every record committed so far folded.

    What the snapshot says stays true within the block, save for records committed meanwhile.
    Nothing that folds may be called in it.

    Parameters
    ----------
    root
        The installation.
    purpose
        Shown to processes that wait for the lock.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    RuntimeError
        If this thread holds the fold lock.
    """
    journal = Journal(root)
    with fold_lock(root, purpose) as fence:
        if not _is_folded(root, journal):
            with passing_disk_faults(root):
                _fold_pending(root, journal, fence)
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
    with fold_lock(root, "rebuilding") as fence, passing_disk_faults(root):
        damaged = _rebuild_registry(root, journal, fence)
        report = _fold_pending(root, journal, fence)
        return replace(report, damaged=(*damaged, *report.damaged))


def _is_folded(root: DataRoot, journal: Journal) -> bool:
    return not journal.pending_paths() and _is_published(root, journal)


def _is_published(root: DataRoot, journal: Journal) -> bool:
    try:
        snapshot = _newest_snapshot(root)
        return is_published(root, snapshot) if snapshot else not journal.segments()
    except SnapshotError:
        return False


def _fold_pending(root: DataRoot, journal: Journal, fence: Fence) -> FoldReport:
    with timed(root, TimedWork.FOLD):
        try:
            return _fold_into_registry(root, journal, fence)
        except (duckdb.Error, SnapshotError) as error:
            require_repairable(root, error)
            damaged = _rebuild_registry(root, journal, fence)
            report = _fold_into_registry(root, journal, fence)
            return replace(report, damaged=(*damaged, *report.damaged))


def _fold_into_registry(root: DataRoot, journal: Journal, fence: Fence) -> FoldReport:
    snapshot = _usable_snapshot(root, journal)
    require_tiers(root, snapshot.tiers)
    with fresh_tier(root, READ_BY_FOLD) as fresh:
        report = _fold_into_snapshot(root, journal, fence, snapshot, fresh)
        return report or _fold_into_tier(root, journal, fence, snapshot, fresh.lend(snapshot))


def _fold_into_snapshot(
    root: DataRoot, journal: Journal, fence: Fence, snapshot: Snapshot, fresh: FreshTier
) -> FoldReport | None:
    """Add pending records to the fresh rows of the snapshot; None if they need a tier.

    They do if they change rows, if there are many, and if any is damaged or known.
    """
    paths = journal.pending_paths()
    if not snapshot.tiers or len(paths) > _MOST_FRESH_RECORDS or snapshot.fresh.size >= MOST_BYTES:
        return None
    records, damage = journal.read_pending(paths)
    if damage or sum(len(item.line) for item in records) > _MOST_FRESH_BYTES:
        return None
    fresh.load(snapshot)
    new = new_in_order(fresh.connection, journal, records, fence)
    if len(new) < len(records):
        return None
    applied = apply_records(fresh.connection, new, only_adds=True) if new else None
    if applied is not None:
        if applied.changes:
            return None
        fence.confirm()
        journal.seal(new)
    shown = _made_public(new)
    unshown = _link(root, shown, fence)
    publish_snapshot(root, fresh.grown(snapshot, applied), snapshot, fence)
    names = {name for item in new for name in item.record.names}
    _unlink(root, map(ProductName.parse, names - shown.keys()), fence)
    journal.discard(new)
    journal.merge_segments()
    return FoldReport(len(new), (), unshown)


def _fold_into_tier(
    root: DataRoot, journal: Journal, fence: Fence, snapshot: Snapshot, database: TieredDatabase
) -> FoldReport:
    copied = newest_to_copy(root, snapshot.tiers)
    older = [tier for tier in snapshot.tiers if tier != copied]
    damaged: list[Path] = []
    folded: list[PendingRecord] = []
    changes = False
    with new_tier(
        root, older, copied, READ_BY_FOLD, fresh=snapshot.rows(), database=database
    ) as tier:
        connection = tier.database.connection
        for paths in _batches(journal.pending_paths(), _RECORDS_AT_ONCE):
            records, damage = journal.read_pending(paths)
            damaged += [journal.set_aside(error) for error in damage]
            folded += records
            fence.confirm()
            if new := new_in_order(connection, journal, records, fence):
                journal.seal(new)
                changes |= apply_records(connection, new).changes
            changes |= len(new) < len(records)
        tier.only_grows = not changes
        names = {name for item in folded for name in item.record.names}
        shown = _available_hashes(connection, names) if changes else _made_public(folded)
    unshown = _link(root, shown, fence)
    publish_snapshot(root, Snapshot.of((tier.name, *older)), snapshot, fence)
    _unlink(root, map(ProductName.parse, names - shown.keys()), fence)
    journal.discard(folded)
    journal.merge_segments()
    return FoldReport(len(folded), tuple(damaged), unshown)


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


def _rebuild_registry(root: DataRoot, journal: Journal, fence: Fence) -> list[Path]:
    damaged = [path for segment in journal.segments() for path in journal.repair_segment(segment)]
    with new_tier(root, read=READ_BY_FOLD, published=False) as tier:
        for segments in _batches(journal.segments(), _SEGMENTS_AT_ONCE):
            fence.confirm()
            apply_segments(tier.database.connection, segments)
    whole = merge_tiers(root, [tier.name], is_whole=True, progress=fence.confirm)
    publish_snapshot(root, Snapshot.of((whole,)), None, fence)
    return damaged


def _link(root: DataRoot, contents: Mapping[str, str], fence: Fence) -> dict[str, str]:
    """Update public names to show their blobs; return the reason for each that cannot."""
    shown = {ProductName.parse(name): sha256 for name, sha256 in contents.items()}
    unshown = Archive.of(root).show(shown, fence)
    return {str(name): reason for name, reason in unshown.items()}


def _unlink(root: DataRoot, names: Iterable[ProductName], fence: Fence) -> None:
    """Remove the public names of products that are no longer available.

    Only after the snapshot says so: who finds a product in the newest one also finds its name.
    """
    archive = Archive.of(root)
    for name in names:
        archive.unlink(name, fence)


def _available_hashes(connection: duckdb.DuckDBPyConnection, names: set[str]) -> dict[str, str]:
    rows = connection.execute(
        "select name, sha256 from products "
        f"where {IS_AVAILABLE} and access = '{Role.PUBLIC}' and name in $names "
        "and name_key in name_keys($names)",
        {"names": sorted(names)},
    ).fetchall()
    return dict(rows)


def _made_public(folded: Iterable[PendingRecord]) -> dict[str, str]:
    """Return what public names show of products that nothing else ever happened to."""
    return {
        entry.name: entry.sha256
        for item in folded
        for entry in item.record.products
        if entry.access is Role.PUBLIC
    }


def _batches(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))
