"""The registry's questions, asked side by side of the service's sealed snapshot."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.area import Cone, areas_of
from roman_assets.registry.search.condition import named_like
from roman_assets.service.sealed_snapshot import PublicSnapshots


@dataclass(frozen=True)
class Content:
    """What the registry states about the file that a public name shows."""

    name: ProductName
    sha256: str
    size: int
    committed_at: datetime


class ServedRegistry(Registry):
    """The public registry for many threads at once.

    Parameters
    ----------
    root
        The installation.
    snapshots
        Its newest state.
    """

    def __init__(self, root: DataRoot, snapshots: PublicSnapshots) -> None:
        super().__init__(root, Role.PUBLIC)
        self._snapshots = snapshots

    def __reduce__(self) -> Any:
        raise TypeError("a served registry belongs to its process")

    def names(self, pattern: str = "*") -> Iterator[str]:
        """Go through the names of current products, in order, however many there are."""
        condition, parameters = named_like([pattern])
        sql = f"select name from products where {IS_AVAILABLE} and {condition} order by name"
        with self._answer(sql, parameters) as answer:
            for batch in answer.to_arrow_reader():
                yield from batch.column(0).to_pylist()

    def close(self) -> None:
        """Close the registry."""
        self._snapshots.close()

    def content(self, name: ProductName) -> Content | None:
        """Return what a public name shows, None if it shows nothing."""
        rows = self._rows(
            f"select sha256, size, committed_at from products where name = $name "
            f"and name_key = name_key($name) and {IS_AVAILABLE} and access = '{Role.PUBLIC}'",
            {"name": str(name)},
        )
        return Content(name=name, **rows[0]) if rows else None

    def file_sets_met(self, cone: Cone) -> list[tuple[int, str]]:
        """Return the file sets with a product whose footprint meets a cone.

        Parameters
        ----------
        cone
            Right ascension, declination (ICRS) and radius, deg.

        Returns
        -------
        list of tuple
            ``name_key`` and name of each.
        """
        found = self._found_in_areas(
            areas_of(cone, None),
            self._widest_footprint(False),
            "name_key, file_set, footprint",
            f"{IS_AVAILABLE} and access = '{Role.PUBLIC}'",
            {},
            None,
        )
        return sorted(
            set(zip(found["name_key"].to_pylist(), found["file_set"].to_pylist(), strict=True))
        )

    @contextmanager
    def _asked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._snapshots.cursor() as cursor:
            yield cursor

    def widest_footprint(self) -> float:
        """Return the largest radius of the footprint of an available product, deg."""
        return self._widest_footprint(False)

    def _widest_footprint(self, overwritten: bool) -> float:
        newest = self._snapshots.identity or (0, 0, 0)
        with self._lock:
            if newest != self._opened:
                self._opened, self._widest = newest, {}
            if overwritten in self._widest:
                return self._widest[overwritten]
        where = "true" if overwritten else IS_AVAILABLE
        row = self._rows(f"select max(radius) as radius from products where {where}", {})[0]
        widest = row["radius"] or 0.0
        with self._lock:
            if newest == self._opened:
                self._widest[overwritten] = widest
        return widest
