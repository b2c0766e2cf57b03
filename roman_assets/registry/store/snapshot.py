"""The snapshot: which tiers of the registry count now, read and published at once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roman_assets.access import Role
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import schema_digest
from roman_assets.registry.store.fresh import FreshRows, Rows, public_rows
from roman_assets.registry.store.shared_snapshot import SharedSnapshot

SNAPSHOT = "snapshot.json"
TIERS = "tiers"
_READ_ONLY = 0o444
_NO_ROWS = FreshRows()


@dataclass(frozen=True)
class Snapshot:
    """One whole state of the registry.

    Parameters
    ----------
    schema
        Digest of the schema its tiers have.
    tiers
        Names of their files, newest first.
    fresh
        Rows that are not in a tier yet: all of them, or what general users may see.
    state
        Identifies this state, for every role.
    """

    schema: str
    tiers: tuple[str, ...]
    fresh: FreshRows = _NO_ROWS
    state: str = ""

    @classmethod
    def of(cls, tiers: Sequence[str], fresh: FreshRows = _NO_ROWS) -> Snapshot:
        """Return the state of tiers that have the schema of this version, with fresh rows."""
        return cls(schema_digest(), tuple(tiers), fresh, uuid.uuid4().hex)

    def seen_by(self, role: Role) -> Snapshot:
        """Return what a role may see of it.

        Raises
        ------
        SnapshotError
            If its fresh rows are damaged.
        """
        if role is not Role.PUBLIC or not self.fresh.tables:
            return self
        return replace(self, fresh=FreshRows.of(public_rows(self.rows())))

    def rows(self) -> Rows:
        """Return its fresh rows.

        Raises
        ------
        SnapshotError
            If they are damaged.
        """
        try:
            return self.fresh.rows()
        except ValueError as error:
            raise SnapshotError(str(error)) from error

    @property
    def is_of_this_version(self) -> bool:
        """Whether its tables are those this version declares; if not, a rebuild is due."""
        return self.schema == schema_digest()


class SnapshotError(Exception):
    """The snapshot is lost, damaged or of another version; a rebuild replaces it."""


def registry_directory(root: DataRoot, role: Role) -> Path:
    """Return where the registry that a role sees is."""
    return root.public_registry if role is Role.PUBLIC else root.registry


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
        raise SnapshotError(f"{path} is not a snapshot: {error!r}") from error


def refresh_snapshot(root: DataRoot, role: Role = Role.OPERATIONS) -> None:
    """Bring the copy of a registry up to that in the object store, if the installation has one."""
    if root.object_store is not None:
        shared_snapshot(root, role).fetch(_named)


def shared_snapshot(root: DataRoot, role: Role) -> SharedSnapshot:
    """Return the registry that a role sees, in the object store of an installation with one."""
    directory = registry_directory(root, role)
    return SharedSnapshot(root, directory / SNAPSHOT, directory / TIERS)


def _decoded(content: bytes) -> Snapshot:
    fields = json.loads(content)
    fresh = fields.get("fresh")
    return Snapshot(
        str(fields["schema"]),
        tuple(map(str, fields["tiers"])),
        FreshRows(dict(fresh["tables"]), str(fresh["sha256"])) if fresh else _NO_ROWS,
        str(fields.get("state", "")),
    )


def _encoded(snapshot: Snapshot) -> bytes:
    fresh = {"tables": snapshot.fresh.tables, "sha256": snapshot.fresh.sha256}
    return json.dumps({**vars(snapshot), "fresh": fresh}).encode()


def _named(content: bytes) -> tuple[str, ...]:
    """Return the files that a snapshot names; one that cannot be read names none."""
    try:
        return _decoded(content).tiers
    except (ValueError, KeyError, TypeError):
        return ()


def publish_snapshot(
    root: DataRoot, snapshot: Snapshot, previous: Snapshot | None, fence: Fence
) -> None:
    """Publish a state to readers at once; the fold lock is held.

    Files that neither this nor the previous snapshot names are removed. A process that has one open
    keeps it, and one that finds it gone reads the snapshot again.

    Raises
    ------
    PassingFaultError
        If another process has taken the fold lock over; nothing is published.
    """
    kept = {*snapshot.tiers, *(previous.tiers if previous else ())}
    contents = {role: _encoded(snapshot.seen_by(role)) for role in Role}
    for role, content in contents.items():
        if root.object_store is not None:
            shared_snapshot(root, role).publish(content, snapshot.tiers, fence)
            refresh_snapshot(root, role)
        else:
            fence.write(registry_directory(root, role) / SNAPSHOT, content, mode=_READ_ONLY)
    if previous is not None and previous.tiers == snapshot.tiers:
        return
    for role in Role:
        for path in (registry_directory(root, role) / TIERS).glob("[!.]*"):
            if path.name not in kept:
                fence.remove(path)


def tier_path(root: DataRoot, tier: str, role: Role = Role.OPERATIONS) -> Path:
    """Return where what a role sees of a tier is."""
    return registry_directory(root, role) / TIERS / tier


def require_tiers(root: DataRoot, tiers: Sequence[str]) -> None:
    """Raise an error if a file of a tier is missing, for either role.

    Raises
    ------
    SnapshotError
        Naming it.
    """
    for path in (tier_path(root, tier, role) for tier in tiers for role in Role):
        if not path.exists():
            raise SnapshotError(f"{path} is lost")


def is_published(root: DataRoot, snapshot: Snapshot) -> bool:
    """Return whether all files of a snapshot are there, for everyone."""
    return all(
        _is_state(read_snapshot(registry_directory(root, role)), snapshot)
        and all(tier_path(root, tier, role).exists() for tier in snapshot.tiers)
        for role in Role
    )


def _is_state(found: Snapshot | None, wanted: Snapshot) -> bool:
    return found is not None and replace(found, fresh=wanted.fresh) == wanted
