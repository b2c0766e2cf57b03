"""Functions of DuckDB that compare regions of the sky, by the registry's own footprints.

A region is an s_region polygon, a circle is right ascension, declination and radius; ICRS, deg.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

from roman_assets.registry.footprint import Footprint

_REMEMBERED = 1 << 14
_CIRCLE = ("DOUBLE", "DOUBLE", "DOUBLE")

MACROS: Mapping[str, str] = {
    "adql_distance(ra1, dec1, ra2, dec2)": (
        "degrees(2 * asin(least(1, sqrt(sin(radians(dec2 - dec1) / 2) ** 2 + "
        "cos(radians(dec1)) * cos(radians(dec2)) * sin(radians(ra2 - ra1) / 2) ** 2))))"
    ),
    "adql_log(number)": "ln(number)",
    "adql_truncate(number, digits)": "trunc(number * 10.0 ** digits) / 10.0 ** digits",
    "adql_round(number, digits)": "round(number, digits::integer)",
}
"""Functions that are expressions of DuckDB."""


@functools.lru_cache(_REMEMBERED)
def _footprint(region: str) -> Footprint:
    return Footprint.parse(region)


def _region_meets_circle(region: str, ra: float, dec: float, radius: float) -> bool:
    return _footprint(region).meets_cone(ra, dec, radius)


def _region_covers_circle(region: str, ra: float, dec: float, radius: float) -> bool:
    return _footprint(region).covers_cone(ra, dec, radius)


def _circle_covers_region(region: str, ra: float, dec: float, radius: float) -> bool:
    return _footprint(region).is_in_cone(ra, dec, radius)


def _region_meets_region(region: str, other: str) -> bool:
    return _footprint(region).meets(_footprint(other))


def _region_covers_region(region: str, other: str) -> bool:
    return _footprint(region).covers(_footprint(other))


def _of_circle(decide: Callable[..., bool]) -> Callable[..., pa.Array]:
    def decided(region: Any, ra: Any, dec: Any, radius: Any) -> pa.Array:
        return _decided(decide, region, ra, dec, radius)

    return decided


def _of_regions(decide: Callable[..., bool]) -> Callable[..., pa.Array]:
    def decided(region: Any, other: Any) -> pa.Array:
        return _decided(decide, region, other)

    return decided


_FUNCTIONS: Mapping[str, tuple[Callable[..., pa.Array], tuple[str, ...]]] = {
    "region_meets_circle": (_of_circle(_region_meets_circle), ("VARCHAR", *_CIRCLE)),
    "region_covers_circle": (_of_circle(_region_covers_circle), ("VARCHAR", *_CIRCLE)),
    "circle_covers_region": (_of_circle(_circle_covers_region), ("VARCHAR", *_CIRCLE)),
    "region_meets_region": (_of_regions(_region_meets_region), ("VARCHAR", "VARCHAR")),
    "region_covers_region": (_of_regions(_region_covers_region), ("VARCHAR", "VARCHAR")),
}


def create_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the functions, for all cursors of a connection."""
    for macro, sql in MACROS.items():
        connection.execute(f"create or replace macro memory.{macro} as {sql}")
    for name, (function, types) in _FUNCTIONS.items():
        connection.create_function(name, function, [*types], "BOOLEAN", type=PythonUDFType.ARROW)


def _decided(decide: Callable[..., bool], *columns: Any) -> pa.Array:
    """Decide row by row, once for rows that are alike."""
    rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
    verdicts = {row: _verdict(decide, row) for row in set(rows)}
    return pa.array([verdicts[row] for row in rows], pa.bool_())


def _verdict(decide: Callable[..., bool], row: tuple[Any, ...]) -> bool | None:
    """Decide for one row; unknown where a value is missing or a text is no region."""
    if any(value is None for value in row):
        return None
    try:
        return decide(*row)
    except ValueError:
        return None
