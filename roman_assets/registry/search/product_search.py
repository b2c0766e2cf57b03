"""Searches for products: by what they are, where they are on the sky, and in rad's tables."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roman_assets.access import Role
from roman_assets.registry.catalog.schema import (
    CURRENT_PRODUCTS,
    IS_AVAILABLE,
    PLACES,
    search_columns,
)
from roman_assets.registry.queryable import NO_STATE, Queryable
from roman_assets.registry.search.condition import (
    OneOrMore,
    conditions_of,
    grouping_columns,
    named_like,
    places_of,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from roman_assets.registry.search.area import Area, Cone, Polygon


_FEW_PLACES = 20
"""Largest number named in a search for products; beyond it, the search joins."""

_PLACES_IN_RANGES = f"""
    select distinct healpix, name_key from {PLACES.name}
    asof join (select unnest($low) as low, unnest($high) as high) as ranges
        on healpix >= ranges.low
    where healpix < ranges.high and healpix between $lowest and $highest
"""
"""Half-open ranges of pixels have none in common: one at most begins last before a pixel."""


class ProductSearch:
    """Finds products.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._measured = NO_STATE
        self._widest: dict[bool, float] = {}
        """Largest radius of a footprint, deg, with and without overwritten products, as of then."""

    def find(
        self,
        *,
        name: OneOrMore = None,
        kind: OneOrMore = None,
        level: OneOrMore = None,
        exposure: OneOrMore = None,
        visit: OneOrMore = None,
        program: int | Iterable[int] | None = None,
        survey: OneOrMore = None,
        exposure_type: OneOrMore = None,
        optical_element: OneOrMore = None,
        detector: OneOrMore = None,
        skycell: OneOrMore = None,
        release: OneOrMore = None,
        step: OneOrMore = None,
        partition: OneOrMore = None,
        access: OneOrMore = None,
        quality: OneOrMore = None,
        pattern: OneOrMore = None,
        cone: Cone | None = None,
        polygon: Polygon | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        overwritten: bool = False,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Search products; all conditions must hold, an iterable means any of its values.

        Parameters
        ----------
        name, kind, level, exposure, visit, program, survey, exposure_type, optical_element, \
detector, skycell, release, step, partition, access, quality
            Values of the columns of that name.
        pattern
            Official names with ``*``, ``?`` and ``[...]``.
        cone
            Right ascension, declination (ICRS) and radius, deg: products whose footprint has a
            point in common with it.
        polygon
            Corners (right ascension and declination, ICRS, deg) of a convex polygon of great
            circles, or an s_region: products whose footprint has a point in common with it.
        after, before
            Products whose exposures overlap this time range, UTC.
        overwritten
            Past generations as well (their files are no longer public).
        limit
            At most so many rows, of the newest.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.catalog.schema.search_columns`; times are UTC, angles
            ICRS deg, sizes bytes. Ordered by name and generation.

        Raises
        ------
        ValueError
            If the cone is not on the sky, or the polygon not convex or too wide
            (`Footprint.of_region`).
        """
        from roman_assets.registry.search.area import areas_of

        values = {
            "name": name, "kind": kind, "level": level, "exposure": exposure, "visit": visit,
            "program": program, "survey": survey, "exposure_type": exposure_type,
            "optical_element": optical_element, "detector": detector, "skycell": skycell,
            "release": release, "step": step, "partition": partition, "access": access,
            "quality": quality,
        }  # fmt: skip
        conditions, parameters = conditions_of(values)
        conditions += places_of(values)
        if after is not None:
            conditions.append("end_time >= $after")
            parameters["after"] = after
        if before is not None:
            conditions.append("start_time <= $before")
            parameters["before"] = before
        if not overwritten:
            conditions.append(IS_AVAILABLE)
        if pattern is not None:
            condition, named = named_like([pattern] if isinstance(pattern, str) else pattern)
            conditions.append(condition)
            parameters |= named
        columns = ", ".join(f'"{column}"' for column in search_columns(self._snapshot.role))
        where = " and ".join(conditions) or "true"
        areas = areas_of(cone, polygon)
        if areas:
            margin = self.widest_footprint(overwritten)
            found = self._found_in_areas(areas, margin, columns, where, parameters, limit)
        else:
            selection = f"select {columns} from products where {where}"
            if limit is not None:
                selection += " order by committed_at desc, name limit $limit"
                parameters["limit"] = limit
            found = self._snapshot.table(selection, parameters)
        # Arrow sorts a few wide rows in a tenth of the time that a sort adds to DuckDB's plan.
        in_order = found.sort_by([("name", "ascending"), ("generation", "ascending")])
        frame: pd.DataFrame = in_order.to_pandas()
        return frame

    def names(self, pattern: str = "*") -> Iterator[str]:
        """Go through the names of current products, in order, however many there are.

        Parameters
        ----------
        pattern
            An official name with ``*``, ``?`` and ``[...]``.
        """
        condition, parameters = named_like([pattern])
        sql = f"select name from products where {IS_AVAILABLE} and {condition} order by name"
        # On a connection of its own, so that whoever goes through slowly keeps nobody waiting.
        with self._snapshot.beside() as own, own.answer(sql, parameters) as answer:
            for batch in answer.to_arrow_reader():
                yield from batch.column(0).to_pylist()

    def counts(self, by: Iterable[str] = ("visit", "exposure", "level")) -> pd.DataFrame:
        """Count current products by columns, for a table of what there is.

        Parameters
        ----------
        by
            Columns that say what, where or whose a product is.

        Returns
        -------
        pandas.DataFrame
            The columns `by`, ``products`` (number), ``size`` (bytes) and ``newest`` (time of the
            newest commit, UTC), ordered by the former.

        Raises
        ------
        ValueError
            If a column cannot be grouped by.
        """
        columns = grouping_columns(by)
        listed = "".join(f'"{column}", ' for column in columns)
        grouping = f"group by {listed.rstrip(', ')} order by all" if columns else ""
        return self._snapshot.query(
            f"select {listed}count(*) as products, coalesce(sum(size), 0)::bigint as size, "
            f"max(committed_at) as newest from {CURRENT_PRODUCTS} {grouping}",
            {},
        )

    def file_sets_met(self, cone: Cone) -> list[tuple[int, str]]:
        """Return the public file sets with a product whose footprint meets a cone.

        Parameters
        ----------
        cone
            Right ascension, declination (ICRS) and radius, deg.

        Returns
        -------
        list of tuple
            ``name_key`` and name of each.
        """
        from roman_assets.registry.search.area import areas_of

        found = self._found_in_areas(
            areas_of(cone, None),
            self.widest_footprint(),
            "name_key, file_set, footprint",
            f"{IS_AVAILABLE} and access = '{Role.PUBLIC}'",
            {},
            None,
        )
        return sorted(
            set(zip(found["name_key"].to_pylist(), found["file_set"].to_pylist(), strict=True))
        )

    def _found_in_areas(
        self,
        areas: Sequence[Area],
        margin: float,
        columns: str,
        where: str,
        parameters: Mapping[str, Any],
        limit: int | None,
    ) -> pa.Table:
        # The first area selects by pixels; each is asked exactly.
        low, high = areas[0].pixel_ranges(margin)
        ranges = {"low": low.tolist(), "high": high.tolist()}
        extent = {"lowest": int(low.min()), "highest": int(high.max())}
        # Both questions are of one snapshot, in which a product has one place.
        with self._snapshot.connection() as connection:
            near = connection.execute(
                f"{_PLACES_IN_RANGES} limit {_FEW_PLACES + 1}", {**ranges, **extent}
            ).fetchall()
            if len(near) <= _FEW_PLACES:
                selection = (
                    f"select {columns} from products "
                    f"where healpix in $pixels and name_key in $keys and {where}"
                )
                given: dict[str, Any] = {
                    "pixels": [*{pixel for pixel, _ in near}],
                    "keys": [*{key for _, key in near}],
                }
            else:
                selection = (
                    f"with near as materialized ({_PLACES_IN_RANGES}) select {columns} "
                    f"from products semi join near using (healpix, name_key) where {where}"
                )
                given = {**ranges, **extent}
            found = connection.sql(selection, params={**parameters, **given}).to_arrow_table()
        found = found.filter(_meets(areas, found["footprint"].to_pylist()))
        if limit is not None:
            newest = found.sort_by([("committed_at", "descending"), ("name", "ascending")])
            return newest.slice(0, limit)
        return found

    def widest_footprint(self, overwritten: bool = False) -> float:
        """Return the largest radius of the footprints that a search can find, deg.

        Parameters
        ----------
        overwritten
            Of past generations as well.
        """
        state = self._snapshot.state()
        with self._lock:
            if state != self._measured:
                self._measured, self._widest = state, {}
            if overwritten in self._widest:
                return self._widest[overwritten]
        where = "true" if overwritten else IS_AVAILABLE
        sql = f"select max(radius) as radius from products where {where}"
        widest: float = self._snapshot.rows(sql, {})[0]["radius"] or 0.0
        with self._lock:
            if state == self._measured:
                self._widest[overwritten] = widest
        return widest


def _meets(areas: Sequence[Area], regions: Sequence[str]) -> pa.BooleanArray:
    """Return which footprints have a point in common with all areas."""
    import pyarrow as pa

    from roman_assets.registry.catalog.footprint import Footprint

    footprints = {region: Footprint.parse(region) for region in set(regions)}
    verdicts = {
        region: all(area.meets(footprint) for area in areas)
        for region, footprint in footprints.items()
    }
    return pa.array([verdicts[region] for region in regions], pa.bool_())
