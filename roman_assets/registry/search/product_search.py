"""Searches for products: by what they are, where they are on the sky, and in rad's tables."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb

from roman_assets.archive.store import Archive
from roman_assets.registry.catalog.obscore import ARCHIVE_URL, DEFAULT_PUBLISHER, OBSCORE, PUBLISHER
from roman_assets.registry.catalog.schema import (
    ARCHIVE_TABLES,
    CURRENT_PRODUCTS,
    IS_AVAILABLE,
    PLACES,
    search_columns,
)
from roman_assets.registry.search.condition import (
    OneOrMore,
    conditions_of,
    grouping_columns,
    named_like,
    places_of,
)
from roman_assets.registry.store.snapshot_reader import SnapshotReader

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


class ProductSearch(SnapshotReader):
    """Finds products."""

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
        columns = ", ".join(f'"{column}"' for column in search_columns(self._role))
        where = " and ".join(conditions) or "true"
        areas = areas_of(cone, polygon)
        if areas:
            margin = self._widest_footprint(overwritten)
            found = self._found_in_areas(areas, margin, columns, where, parameters, limit)
        else:
            selection = f"select {columns} from products where {where}"
            if limit is not None:
                selection += " order by committed_at desc, name limit $limit"
                parameters["limit"] = limit
            found = self._table(selection, parameters)
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
        with type(self)(self._root, self._role) as own, own._answer(sql, parameters) as answer:
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
        return self._query(
            f"select {listed}count(*) as products, coalesce(sum(size), 0)::bigint as size, "
            f"max(committed_at) as newest from {CURRENT_PRODUCTS} {grouping}",
            {},
        )

    def archive_rows(
        self, table: str, *, name: OneOrMore = None, overwritten: bool = False
    ) -> pd.DataFrame:
        """Return what products say in one of the metadata tables that rad declares.

        Parameters
        ----------
        table
            Such as ``WFIExposure``.
        name
            Only these products.
        overwritten
            Past generations as well.

        Returns
        -------
        pandas.DataFrame
            The table's columns but ``name_key``, ordered by name and commit.

        Raises
        ------
        ValueError
            If there is no such table.
        """
        if table not in (known := [declared.name for declared in ARCHIVE_TABLES]):
            raise ValueError(f"{table!r} is not a metadata table: known are {', '.join(known)}")
        conditions, parameters = conditions_of({"name": name})
        conditions += places_of({"name": name})
        if not overwritten:
            conditions.append(IS_AVAILABLE)
        return self._query(
            f"select {table}.* exclude (name_key) from {table} join "
            "(select name_key, record_id, name, state, committed_at from products) "
            "using (name_key, record_id, name) "
            f"where {' and '.join(conditions) or 'true'} order by name, committed_at",
            parameters,
        )

    def obscore(
        self,
        *,
        name: OneOrMore = None,
        dataproduct_type: OneOrMore = None,
        calib_level: int | Iterable[int] | None = None,
        archive_url: str | None = None,
        publisher: str | None = None,
    ) -> pd.DataFrame:
        """Return the available public data products as the IVOA's ObsCore 1.1 describes them.

        Parameters
        ----------
        name
            Only these products, by official file name.
        dataproduct_type, calib_level
            Only products of these types and levels, in ObsCore's words.
        archive_url
            Where users find the public tree; by default its own place.
        publisher
            The IVOA identifier of who publishes, such as ``ivo://observatory.example/roman``.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.catalog.obscore.OBSCORE_COLUMNS`, ordered by ``obs_id``
            and ``obs_publisher_did``. `roman_assets.registry.catalog.obscore.obscore_table` makes a
            VOTable.
        """
        conditions, parameters = conditions_of(
            {"dataproduct_type": dataproduct_type, "calib_level": calib_level}
        )
        if name is not None:
            conditions.append("split_part(obs_publisher_did, '?', -1) in (select unnest($names))")
            parameters["names"] = [name] if isinstance(name, str) else [str(one) for one in name]
        variables = {
            ARCHIVE_URL: archive_url or Archive.of(self._root).public_uri,
            PUBLISHER: publisher or DEFAULT_PUBLISHER,
        }
        return self._query(
            f"select * from {OBSCORE} where {' and '.join(conditions) or 'true'} "
            "order by obs_id, obs_publisher_did",
            parameters,
            prepare=partial(_set_variables, values=variables),
        )

    def unfit_values(self, name: OneOrMore = None) -> pd.DataFrame:
        """Return what products say that does not fit the column it belongs to.

        Parameters
        ----------
        name
            Only these products.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``table_name``, ``column_name``, ``datatype``, ``value`` and ``record_id``.
        """
        conditions, parameters = conditions_of({"name": name})
        conditions += places_of({"name": name})
        return self._query(
            "select name, table_name, column_name, datatype, value, record_id from unfit_values "
            f"where {' and '.join(conditions) or 'true'} order by all",
            parameters,
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
        with self._asked() as connection:
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

    def _widest_footprint(self, overwritten: bool) -> float:
        """Compute the largest radius of the footprints that a search can find, deg."""
        with self._lock:
            self._snapshot()
            if overwritten in self._widest:
                return self._widest[overwritten]
        where = "true" if overwritten else IS_AVAILABLE
        row = self._rows(f"select max(radius) as radius from products where {where}", {})[0]
        self._widest[overwritten] = widest = row["radius"] or 0.0
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


def _set_variables(connection: duckdb.DuckDBPyConnection, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        connection.execute(f"set variable {name} = $value", {"value": value})
