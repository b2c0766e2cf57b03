"""Merging the registry's tiers while it is in use.

Tiers never change, so they are merged without the fold lock; it is taken only to name the merged
tier in place of the others. Never a part of publishing: the daemon does it, or a person.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from roman_assets.archive.watched_lock import watched_lock
from roman_assets.data_root import DataRoot
from roman_assets.registry.store.compaction import due_to_merge, fill_merged
from roman_assets.registry.store.fold_lock import fold_lock, require_fold_lock_not_held
from roman_assets.registry.store.new_tier import NewTier, draft_tier
from roman_assets.registry.store.repair import passing_disk_faults
from roman_assets.registry.store.snapshot import (
    Snapshot,
    publish_snapshot,
    read_snapshot,
    refresh_snapshot,
)
from roman_assets.registry.store.timing import TimedWork, timed

_LOCK = "merge"
_LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class MergeReport:
    """The result of a merge.

    Parameters
    ----------
    merged
        Number of tiers that became fewer.
    made
        Number of tiers they became.
    """

    merged: int = 0
    made: int = 0


def merge_due_tiers(
    root: DataRoot, *, largest: int | None = None, waits: bool = True
) -> MergeReport:
    """Merge the tiers that are due, until none is.

    Idempotent. Killed at any moment, or overtaken by a rebuild, it changes nothing.

    Parameters
    ----------
    root
        The installation.
    largest
        Most bytes to merge at once; larger merges wait.
    waits
        Wait while another process merges; otherwise leave it to that.

    Raises
    ------
    PassingFaultError
        If a disk is full.
    """
    require_fold_lock_not_held(root)
    report = MergeReport()
    with (
        passing_disk_faults(root),
        watched_lock(root.registry, _LOCK, "merging tiers", (), lambda: not waits) as lock,
    ):
        while lock is not None and (merged := _merge_once(root, largest, lock.confirm)):
            report = MergeReport(report.merged + merged, report.made + 1)
    return report


def _merge_once(root: DataRoot, largest: int | None, progress: Callable[[], None]) -> int:
    """Merge once; returns the number of tiers that became one, 0 if none did."""
    snapshot = _snapshot(root)
    if snapshot is None or not snapshot.is_of_this_version:
        return 0
    chosen = due_to_merge(root, snapshot.tiers, largest)
    if not chosen:
        return 0
    with timed(root, TimedWork.MERGE):
        return _merge(root, snapshot, chosen, progress)


def _merge(
    root: DataRoot, snapshot: Snapshot, chosen: Sequence[str], progress: Callable[[], None]
) -> int:
    end = snapshot.tiers.index(chosen[0]) + len(chosen)
    older = snapshot.tiers[end:]
    with draft_tier(root) as tier:
        write_merged(tier, chosen, older, progress)
        tier.upload()
        with fold_lock(root, "naming a merged tier") as fence:
            now = _snapshot(root)
            if now is None or now.tiers[-len(chosen) - len(older) :] != (*chosen, *older):
                return 0  # Rebuilt meanwhile.
            tier.place()
            newer = now.tiers[: -len(chosen) - len(older)]
            merged = Snapshot.of((*newer, tier.name, *older), now.fresh)
            publish_snapshot(root, merged, now, fence)
    return len(chosen)


def write_merged(
    tier: NewTier, tiers: Sequence[str], older: Sequence[str], progress: Callable[[], None]
) -> None:
    """Write the rows of some tiers into a new one, giving way to processes that publish.

    It takes one core at most, at the lowest priority.

    Parameters
    ----------
    tier
        The new tier.
    tiers
        The tiers to merge, newest first.
    older
        The tiers after them.
    progress
        Called again and again, as it goes on.
    """
    # A thread cannot raise its priority again, so the work has one of its own.
    with ThreadPoolExecutor(1, initializer=_give_way) as background:
        background.submit(_write, tier, tiers, older, progress).result()


def _give_way() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def _write(
    tier: NewTier, tiers: Sequence[str], older: Sequence[str], progress: Callable[[], None]
) -> None:
    # All of it happens in this thread then.
    tier.database.connection.execute("set threads = 1")
    fill_merged(tier, tiers, not older, progress)
    tier.finish(older)


def _snapshot(root: DataRoot) -> Snapshot | None:
    refresh_snapshot(root)
    return read_snapshot(root.registry)
