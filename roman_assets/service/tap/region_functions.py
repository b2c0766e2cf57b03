"""Functions of DuckDB that compare regions of the sky, by the registry's own footprints.

A region is an s_region polygon, a circle is right ascension, declination and radius; ICRS, deg.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from roman_assets.registry.catalog.footprint import Footprint

_REMEMBERED = 1 << 14
_POINTS_OF_EDGE = 16
_POINTS_OF_RANGE = 64
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


def _region_meets_range(region: str, west: float, east: float, south: float, north: float) -> bool:
    """Decide by points along all edges: each side may cut through the other's middle."""
    footprint = _footprint(region)
    ra, dec = _along_edges(footprint.corners)
    inside = (south <= dec) & (dec <= north) & (((ra - west) % 360) <= east - west)
    if inside.any():
        return True
    steps = np.linspace(0, 1, _POINTS_OF_RANGE)
    across, up = west + steps * (east - west), south + steps * (north - south)
    edges = (
        *((x, y) for x in across for y in (south, north)),
        *((x, y) for y in up for x in (west, east)),
    )
    return any(footprint.meets_cone(x, y, 0.0) for x, y in edges)


def _along_edges(corners: Any) -> tuple[Any, Any]:
    """Return directions along the great circles between corners, deg."""
    ra, dec = np.radians(corners).T
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    steps = np.linspace(0, 1, _POINTS_OF_EDGE, endpoint=False)[:, None, None]
    points = (vectors * (1 - steps) + np.roll(vectors, -1, axis=0) * steps).reshape(-1, 3)
    x, y, z = (points / np.linalg.norm(points, axis=1, keepdims=True)).T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))


def _of_range(decide: Callable[..., bool]) -> Callable[..., pa.Array]:
    def decided(region: Any, west: Any, east: Any, south: Any, north: Any) -> pa.Array:
        return _decided(decide, region, west, east, south, north)

    return decided


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
    "region_meets_range": (_of_range(_region_meets_range), ("VARCHAR", *_CIRCLE, "DOUBLE")),
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
    """Decide for one row; unknown where a value is missing or a text is not a region."""
    if any(value is None for value in row):
        return None
    try:
        return decide(*row)
    except ValueError:
        return None
