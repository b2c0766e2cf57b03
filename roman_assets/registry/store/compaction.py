"""Which tiers of the registry become one, and how their rows are merged."""

# Names put into SQL are names of the schema and of tiers; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import duckdb

from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.schema import REPLACES, TABLES, Table
from roman_assets.registry.store.new_tier import NewTier, is_full, new_tier
from roman_assets.registry.store.snapshot import tier_path
from roman_assets.registry.store.tiers import NEWEST, quoted, row_of

_SMALLEST = 4 << 20
_GROWTH = 16
_MEMORY = "4GB"
SORTED_AT_ONCE = 1_000_000
"""Rows of a merge: some 0.7 kB each, several times over while they are sorted."""


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
    `roman_assets.registry.store.merging`.
    """
    with new_tier(root) as tier:
        fill_merged(tier, tiers, is_whole, progress)
    return tier.name


def _slices(
    connection: duckdb.DuckDBPyConnection, table: Table, tiers: Sequence[str]
) -> Iterator[str]:
    """Yield conditions that part the rows of a table in its order, each few enough to be sorted."""
    first = f'"{table.order[0]}"'
    rows = " union all ".join(f'select {first} from "{tier}".{table.name}' for tier in tiers)
    (count,) = row_of(connection, f"select count(*) from ({rows})")
    parts = -(-count // SORTED_AT_ONCE)
    if parts <= 1:
        yield "true"
        return
    fractions = [part / parts for part in range(1, parts)]
    (found,) = row_of(connection, f"select quantile_disc({first}, {fractions}) from ({rows})")
    bounds = [quoted(str(bound)) for bound in dict.fromkeys(found)]
    yield f"{first} < {bounds[0]}"
    for low, high in itertools.pairwise(bounds):
        yield f"{first} >= {low} and {first} < {high}"
    yield f"({first} >= {bounds[-1]} or {first} is null)"


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
    first = 0 if tiers and is_full(root, tiers[0]) else 1
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
    level, capacity = 1, _SMALLEST * _GROWTH
    while size > capacity:
        level, capacity = level + 1, capacity * _GROWTH
    return level
