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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from roman_assets.access import Role
from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.registry.fold_lock import confirm_fold_lock, fold_lock
from roman_assets.registry.incoming import apply_segments
from roman_assets.registry.journal import Journal, PendingRecord
from roman_assets.registry.schema import (
    IS_AVAILABLE,
    PRODUCTS,
    RECORDS,
    TRANSITIONS,
)
from roman_assets.registry.tiers import (
    Snapshot,
    SnapshotError,
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
                apply_segments(tier.database.connection, [journal.seal(records)])
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
            apply_segments(tier.database.connection, segments)
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
