"""A tier while a fold or a merge writes it: a draft that nobody sees before it is placed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from roman_assets.access import Role
from roman_assets.archive.durability import (
    fsync_directory,
    fsync_file,
    make_directory,
    temporary_name,
)
from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import Table
from roman_assets.registry.store.fresh import Rows
from roman_assets.registry.store.snapshot import (
    TIERS,
    registry_directory,
    shared_snapshot,
    tier_path,
)
from roman_assets.registry.store.tiers import NEWEST, TieredDatabase

_READ_ONLY = 0o444
_NO_ROWS: Rows = MappingProxyType({})
FULL = 4 << 20
"""Bytes of a tier from which on the next fold begins another."""


class NewTier:
    """A tier while it is written.

    Parameters
    ----------
    root
        The installation.
    published
        Whether there is a public part.
    database
        Where it is written, None for one of its own. It is left open.
    """

    def __init__(
        self, root: DataRoot, published: bool, database: TieredDatabase | None = None
    ) -> None:
        self.name = f"{uuid.uuid4().hex}.duckdb"
        self.database = database or TieredDatabase(root)
        self._is_borrowed = database is not None
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

    def open(self, older: Sequence[str], read: Sequence[Table], fresh: Rows) -> None:
        """Open the database to write, with the tables that are read meanwhile and fresh rows."""
        is_copy = self.draft.exists()
        self.database.write(self.draft, older, read)
        self._copied = self.database.sizes() if is_copy else None
        self.database.insert(NEWEST, fresh)

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
        self.database.detach(NEWEST)
        self.draft.chmod(_READ_ONLY)
        fsync_file(self.draft)

    def upload(self) -> None:
        """Bring the files to the object store, if the installation has one."""
        if self._root.object_store is not None:
            for role, draft in self._drafts.items():
                shared_snapshot(self._root, role).upload(draft, self.name)

    def place(self) -> None:
        """Rename the drafts to their final names, for a snapshot to list."""
        for role, draft in self._drafts.items():
            draft.replace(self._files[role])
        for path in self._files.values():
            fsync_directory(path.parent)

    def discard(self) -> None:
        """Remove the drafts that were not placed."""
        if not self._is_borrowed:
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
    fresh: Rows = _NO_ROWS,
    published: bool = True,
    database: TieredDatabase | None = None,
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
    fresh
        Rows that it has from the beginning, beside those it copies.
    published
        False for a tier that is only merged into another, so that the public part is not needed.
    database
        Where it is written, None for one of its own. It is left open.
    """
    tier = NewTier(root, published, database)
    try:
        if copied is not None:
            tier.copy(copied)
        tier.open(older, read, fresh)
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
    fresh: Rows = _NO_ROWS,
    published: bool = True,
    database: TieredDatabase | None = None,
) -> Iterator[NewTier]:
    """Write a tier as `draft_tier` does; it is finished and placed at the end.

    Hold the fold lock: until a snapshot names the tier, the holder of that lock may remove it.
    """
    with draft_tier(
        root, older, copied, read, fresh=fresh, published=published, database=database
    ) as tier:
        yield tier
        tier.finish(older)
        tier.place()


def newest_to_copy(root: DataRoot, tiers: Sequence[str]) -> str | None:
    """Return the tier that the next fold goes on with, None if it starts a new one."""
    return None if not tiers or is_full(root, tiers[0]) else tiers[0]


def is_full(root: DataRoot, tier: str) -> bool:
    """Return whether folds leave a tier as it is and begin another."""
    return tier_path(root, tier).stat().st_size >= FULL
