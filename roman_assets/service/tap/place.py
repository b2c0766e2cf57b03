"""Where products lie: the registry's index on the sky, for conditions of queries."""

# Names put into SQL are those of the schema and of this module; values are parameters or numbers.
# ruff: noqa: S608

from __future__ import annotations

import duckdb
from sqlglot import exp, parse_one

from roman_assets.registry.catalog.schema import PLACES
from roman_assets.registry.search.area import Area

HEALPIX, NAME_KEY = "_healpix", "_name_key"
"""Columns of the tables that queries see, which no query can name."""

PLACE_COLUMNS = frozenset({"s_region", "footprint", "s_ra", "ra"})
"""Columns that tell where a row is: its footprint, or the centre of it."""

_FEW = 20


class Places:
    """Conditions on the registry's index, one table of places an area.

    Parameters
    ----------
    cursor
        On the snapshot that will be asked.
    margin
        Largest radius of a footprint, deg.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, margin: float) -> None:
        self._cursor = cursor
        self._margin = margin
        self._count = 0

    def near(self, alias: str, area: Area) -> exp.Expr:
        """Return the condition that the rows of a table lie near an area.

        Parameters
        ----------
        alias
            Name of the table in the query.
        area
            A region of the sky; what meets it lies near.
        """
        self._count += 1
        table = f"near{self._count}"
        low, high = area.pixel_ranges(self._margin)
        self._cursor.execute(
            f"""
            create temp table {table} as
            select distinct healpix, name_key from {PLACES.name}
            asof join (select unnest($low) as low, unnest($high) as high) as ranges
                on healpix >= ranges.low
            where healpix < ranges.high and healpix between $lowest and $highest
            """,
            {
                "low": low.tolist(), "high": high.tolist(),
                "lowest": int(low.min()), "highest": int(high.max()),
            },
        )  # fmt: skip
        found = self._cursor.execute(f"from {table} limit {_FEW + 1}").fetchall()
        quoted = exp.to_identifier(alias, quoted=True).sql("duckdb")
        if not found:
            return exp.false()
        if len(found) <= _FEW:
            pixels = ", ".join(str(int(pixel)) for pixel in sorted({pixel for pixel, _ in found}))
            keys = ", ".join(str(int(key)) for key in sorted({key for _, key in found}))
            sql = f"{quoted}.{HEALPIX} in ({pixels}) and {quoted}.{NAME_KEY} in ({keys})"
        else:
            sql = (
                f"{quoted}.{HEALPIX} in (select healpix from {table}) "
                f"and {quoted}.{NAME_KEY} in (select name_key from {table})"
            )
        return exp.paren(parse_one(sql, read="duckdb"))
