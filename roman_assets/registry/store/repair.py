"""Repair of a registry that cannot be folded: only damage makes it rebuild itself."""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import duckdb

from roman_assets.access import Role
from roman_assets.archive.durability import disk_space
from roman_assets.archive.set_aside import SetAside, SetAsideCase
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.records.journal import Journal
from roman_assets.registry.catalog.schema import tables_seen_by
from roman_assets.registry.store.damage import is_damage, is_disk_full
from roman_assets.registry.store.snapshot import (
    SNAPSHOT,
    Snapshot,
    SnapshotError,
    read_snapshot,
    tier_path,
)
from roman_assets.registry.store.tiers import TieredDatabase

REBUILD_VARIABLE = "ROMAN_ASSETS_REBUILD_MIB"
"""Largest size of commit records, MiB, for automatic rebuilds after damage, 512 by default."""
DEFAULT_REBUILD_MIB = 512
"""Commit records of some 100,000 products, from which a rebuild takes some ten seconds."""

_NOTICE = "registry"
"""Field of the cases that tell of damage to the registry."""

_log = logging.getLogger(__name__)


def require_repairable(root: DataRoot, error: duckdb.Error | SnapshotError) -> None:
    """Raise an error of a fold, unless a quick rebuild repairs its cause.

    Damage leaves a case among what is set aside, which `alert_sensor` reports. A registry of
    another version is not damage.

    Parameters
    ----------
    root
        The installation; its fold lock is held.
    error
        The error of the fold.

    Raises
    ------
    duckdb.Error
        The error itself, if nothing is damaged.
    PassingFaultError
        If another program holds the registry, or so much is on record that a person has to start
        the rebuild.
    """
    if isinstance(error, duckdb.Error):
        if is_disk_full(error):
            raise error
        _require_unlocked(error)
    size, most = Journal(root).size(), _most_bytes()
    if size > most:
        if isinstance(error, duckdb.Error) and not is_damage(error):
            raise error
        _give_notice_of_large(root, error)
        raise PassingFaultError(
            f"the registry below {root.registry} cannot be folded: {error}. Its commit records "
            f"have {size / 2**20:.0f} MiB, more than the {most / 2**20:.0f} MiB up to which it "
            "rebuilds itself. Remedy: run `roman-assets rebuild`; the committed records are safe "
            f"(or set {REBUILD_VARIABLE})"
        ) from error
    if _is_of_another_version(root):
        _log.info("the registry below %s is rebuilt for this version", root.registry)
        return
    damaged = SNAPSHOT if isinstance(error, SnapshotError) else _unreadable_tier(root)
    if damaged is None:
        raise error
    _give_notice(root, damaged, error)


@contextmanager
def passing_disk_faults(root: DataRoot) -> Iterator[None]:
    """Raise a passing fault for a full disk, whether DuckDB or the system reports it.

    Raises
    ------
    PassingFaultError
        Naming the file system and the remedy.
    """
    try:
        with disk_space(root.registry):
            yield
    except duckdb.Error as error:
        if not is_disk_full(error):
            raise
        raise PassingFaultError(
            f"the file system of {root.registry} is full: {error}. Remedy: free space there; the "
            "committed records are safe and the next fold finishes"
        ) from error


def _require_unlocked(error: duckdb.Error) -> None:
    if isinstance(error, duckdb.IOException) and "lock" in str(error):
        raise PassingFaultError(
            f"another program writes to the registry: {error}. Remedy: close it there and read "
            "with roman_assets.registry.registry.Registry; the committed records are safe and the "
            "next fold finishes"
        ) from error


def _is_of_another_version(root: DataRoot) -> bool:
    try:
        snapshot = read_snapshot(root.registry)
    except SnapshotError:
        return False
    return snapshot is not None and not snapshot.is_of_this_version


def _unreadable_tier(root: DataRoot) -> str | None:
    """Return the name of a tier that cannot be read to its end, None if all can."""
    snapshot = read_snapshot(root.registry)
    for tier in snapshot.tiers if snapshot else ():
        with closing(TieredDatabase(root)) as database:
            try:
                database.show(Snapshot.of([tier]))
                for table in tables_seen_by(Role.OPERATIONS):
                    database.connection.execute(
                        f"select bit_xor(hash(row)) from {table.name} as row"
                    ).fetchall()
            except duckdb.Error as error:
                if isinstance(error, duckdb.OutOfMemoryException) or is_disk_full(error):
                    raise
                return tier
    return None


def _give_notice(root: DataRoot, damaged: str, error: Exception) -> None:
    """Report in the log and among the cases set aside that the registry is rebuilt."""
    path = root.registry / SNAPSHOT if damaged == SNAPSHOT else tier_path(root, damaged)
    damage = BadInputError(
        path,
        _NOTICE,
        f"it was damaged, so the registry was rebuilt from the commit records: {error}",
        "none is needed for the registry; look after the disk",
    )
    _log.error("%s", damage)
    content = path if path.is_file() else str(error).encode()
    SetAside(root).add(content, damage, move=False, name=damaged)


def _give_notice_of_large(root: DataRoot, error: Exception) -> None:
    """Report that a person must rebuild the registry, once for each snapshot it has."""
    damage = BadInputError(
        root.registry,
        _NOTICE,
        f"it cannot be folded, and is too large to rebuild itself: {error}",
        "run `roman-assets rebuild`; if a file was damaged, look after the disk",
    )
    snapshot = root.registry / SNAPSHOT
    published = snapshot.stat().st_mtime if snapshot.exists() else 0.0
    if not any(
        case.source == str(damage.source) and case.when.timestamp() >= published
        for case in notices_of_damage(root)
    ):
        _log.error("%s", damage)
        SetAside(root).add(str(error).encode(), damage, name=_NOTICE)


def notices_of_damage(root: DataRoot) -> list[SetAsideCase]:
    """Return the cases that tell of damage to the registry, oldest first."""
    return [case for case in SetAside(root).list() if case.field == _NOTICE]


def _most_bytes() -> int:
    text = os.environ.get(REBUILD_VARIABLE) or str(DEFAULT_REBUILD_MIB)
    try:
        return int(float(text) * 2**20)
    except (ValueError, OverflowError) as error:
        raise BadInputError(
            REBUILD_VARIABLE, "value", f"{text!r} is not a number", "give a size in MiB"
        ) from error
