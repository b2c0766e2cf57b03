"""The registry of one installation, for reading."""

from __future__ import annotations

from typing import Self

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.registry.deadline_query import DeadlineQuery
from roman_assets.registry.decisions import Decisions
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.receipts import Receipts
from roman_assets.registry.search.archive_search import ArchiveSearch
from roman_assets.registry.search.generations import Generations
from roman_assets.registry.search.product_search import ProductSearch
from roman_assets.registry.store.snapshot_reader import SnapshotReader
from roman_assets.registry.work_history import WorkHistory


class Registry:
    """The registry of one installation, for reading, from any process or thread.

    Every call of its parts sees one whole state: the newest snapshot at its beginning. Before the
    first fold all results are empty.

    Parameters
    ----------
    root
        The installation.
    role
        For whom: the public role reads the public registry, which knows neither records nor
        events nor failures (R1); what needs them raises `AccessDeniedError`.
    snapshot
        What answers the questions; by default a reader of the newest snapshot.

    Attributes
    ----------
    snapshot : Queryable
        What the parts ask, also for questions of one's own.
    products : ProductSearch
        Searches: by what products are, and where they are on the sky.
    archive : ArchiveSearch
        The metadata tables that rad declares, and ObsCore.
    generations : Generations
        Products by name: what is current, and what was before.
    work : WorkHistory
        What steps did for exposures and visits.
    receipts : Receipts
        What is in, and what the SSC was told.
    deadlines : DeadlineQuery
        How products stand against their deadlines.
    decisions : Decisions
        What people decided: releases, proposals, approvals.
    """

    def __init__(
        self, root: DataRoot, role: Role = Role.OPERATIONS, snapshot: Queryable | None = None
    ) -> None:
        self.snapshot = SnapshotReader(root, role) if snapshot is None else snapshot
        self.products = ProductSearch(self.snapshot)
        self.archive = ArchiveSearch(self.snapshot)
        self.generations = Generations(self.snapshot)
        self.work = WorkHistory(self.snapshot)
        self.receipts = Receipts(self.snapshot)
        self.deadlines = DeadlineQuery(self.snapshot)
        self.decisions = Decisions(self.snapshot)

    def __reduce__(self) -> tuple[type[Self], tuple[DataRoot, Role, Queryable]]:
        return (type(self), (self.snapshot.root, self.snapshot.role, self.snapshot))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the snapshot; a later question opens it again."""
        self.snapshot.close()
