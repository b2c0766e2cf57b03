"""Parameters of an image search as conditions on ObsCore."""

# Names put into SQL are those of this module; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from roman_assets.registry.search.area import Area, areas_of
from roman_assets.service.archive_service import Service
from roman_assets.service.request_error import UsageError
from roman_assets.service.tap.database import set_addresses, sources
from roman_assets.service.tap.place import Places
from roman_assets.service.vo.descriptor import descriptors, with_identifier
from roman_assets.service.vo.parameters import Parameters
from roman_assets.service.vo.votable import Field, votable

MOST_VALUES = 1000
_INTERVALS = {
    "BAND": ("em_min", "em_max"),
    "TIME": ("t_min", "t_max"),
    "FOV": ("s_fov", "s_fov"),
    "SPATRES": ("s_resolution", "s_resolution"),
    "SPECRP": ("em_res_power", "em_res_power"),
    "EXPTIME": ("t_exptime", "t_exptime"),
    "TIMERES": ("t_resolution", "t_resolution"),
}
"""Parameters that are intervals: the columns that begin and end what a product covers."""

_TEXTS = {
    "ID": "obs_publisher_did",
    "COLLECTION": "obs_collection",
    "FACILITY": "facility_name",
    "INSTRUMENT": "instrument_name",
    "DPTYPE": "dataproduct_type",
    "TARGET": "target_name",
    "FORMAT": "access_format",
    "POL": "pol_states",
}
"""Parameters that are texts, and their columns."""

PARAMETERS = ("POS", *_INTERVALS, *_TEXTS, "CALIB")
_IMAGES = "dataproduct_type in ('image', 'cube')"
_ROWS_AT_ONCE = 1000


@dataclass
class _Conditions:
    """Conditions that must all hold, with the values of their parameters."""

    sql: list[str] = field(default_factory=lambda: [_IMAGES])
    values: dict[str, Any] = field(default_factory=dict)

    def mark(self, value: object) -> str:
        """Return the placeholder of a value."""
        name = f"value{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def either(self, parts: Sequence[str]) -> None:
        """Add the condition that one of some holds."""
        if parts:
            self.sql.append(f"({' or '.join(parts)})")


def search_images(
    service: Service, parameters: Parameters, url: str, most_rows: int
) -> Iterator[str]:
    """Go through the parts of the VOTable with the images that a search finds.

    Parameters
    ----------
    service
        Whose registry is asked.
    parameters
        Those of SIA 2.0; values of one are alternatives, all parameters must be met.
    url
        Address of the service.
    most_rows
        Rows of the answer.

    Raises
    ------
    UsageError
        If a value is invalid.
    """
    conditions = _Conditions()
    for name, (low, high) in _INTERVALS.items():
        ranges = [_interval(name, value) for value in _values(parameters, name)]
        conditions.either(
            [
                f"({low} <= {conditions.mark(end)} and {high} >= {conditions.mark(begin)})"
                for begin, end in ranges
            ]
        )
    for name, column in _TEXTS.items():
        given = _values(parameters, name)
        if given:
            conditions.sql.append(
                f"lower({column}) in (select lower(unnest({conditions.mark(given)})))"
            )
    levels = [_level(value) for value in _values(parameters, "CALIB")]
    if levels:
        conditions.sql.append(f"calib_level in {conditions.mark(levels)}")
    positions = [_position(value) for value in _values(parameters, "POS")]
    table = sources()["ivoa", "obscore"]
    columns = ", ".join(f'"{column.name}"' for column in table.table.columns)
    fields = with_identifier(
        Field(
            column.name, column.type.datatype, column.type.arraysize, column.type.xtype,
            column.unit, column.ucd, column.utype, column.description,
        )
        for column in table.table.columns
    )  # fmt: skip
    with service.snapshots.cursor() as cursor:
        set_addresses(cursor, url, service.settings.publisher)
        places = Places(cursor, service.registry.products.widest_footprint())
        conditions.either([_met(position, places, conditions) for position in positions])
        cursor.execute(
            f"select {columns} from {table.place} as obscore "
            f"where {' and '.join(conditions.sql)} "
            f"order by obs_id, obs_publisher_did limit {int(most_rows) + 1}",
            conditions.values,
        )
        rows = iter(lambda: cursor.fetchmany(_ROWS_AT_ONCE), [])
        yield from votable(
            fields,
            (row for part in rows for row in part),
            [("SERVICE_PROTOCOL", "SIA 2.0"), *_echoed(parameters)],
            most_rows,
            descriptors(url),
        )


@dataclass(frozen=True)
class _Position:
    """A region to search in: the function that decides, its arguments, and areas around it."""

    function: str
    arguments: tuple[object, ...]
    areas: tuple[Area, ...]


def _met(position: _Position, places: Places, conditions: _Conditions) -> str:
    marks = ", ".join(conditions.mark(argument) for argument in position.arguments)
    near = [places.near("obscore", area).sql("duckdb") for area in position.areas]
    return " and ".join([*near, f"{position.function}(s_region, {marks})"])


def _values(parameters: Parameters, name: str) -> list[str]:
    found = parameters.all(name)
    if len(found) > MOST_VALUES:
        raise UsageError(f"{name}: give at most {MOST_VALUES} values")
    return found


def _echoed(parameters: Parameters) -> list[tuple[str, str]]:
    return [(name, value) for name in PARAMETERS for value in parameters.all(name)]


def _position(text: str) -> _Position:
    shape, *words = text.split() or [""]
    numbers = _numbers("POS", words)
    try:
        return _SHAPES[shape.upper()](numbers)
    except KeyError as error:
        raise UsageError(f"POS: give one of {', '.join(_SHAPES)}, not {shape[:30]!r}") from error
    except ValueError as error:
        raise UsageError(f"POS: {error}") from error


def _circle(numbers: list[float]) -> _Position:
    ra, dec, radius = _exactly(3, numbers)
    return _Position(
        "region_meets_circle", (ra, dec, radius), (*areas_of((ra, dec, radius), None),)
    )


def _polygon(numbers: list[float]) -> _Position:
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError("a polygon has three or more corners")
    region = "POLYGON ICRS " + " ".join(map(repr, numbers))
    return _Position("region_meets_region", (region,), tuple(areas_of(None, region)))


def _range(numbers: list[float]) -> _Position:
    west, east, south, north = _exactly(4, numbers, infinite=True)
    west, east = max(west, 0.0), min(east, 360.0)
    south, north = max(south, -90.0), min(north, 90.0)
    if west > east or south > north:
        raise ValueError("a range goes from the lower to the higher value")
    return _Position("region_meets_range", (west, east, south, north), ())


_SHAPES: dict[str, Callable[[list[float]], _Position]] = {
    "CIRCLE": _circle,
    "RANGE": _range,
    "POLYGON": _polygon,
}


def _exactly(count: int, numbers: list[float], infinite: bool = False) -> list[float]:
    if len(numbers) != count or not (infinite or all(map(math.isfinite, numbers))):
        raise ValueError(f"give {count} numbers")
    return numbers


def _interval(name: str, text: str) -> tuple[float, float]:
    numbers = _numbers(name, text.split())
    if len(numbers) not in (1, 2) or numbers[0] > numbers[-1]:
        raise UsageError(f"{name}: give a value, or two in order")
    return numbers[0], numbers[-1]


def _level(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 3):
        raise UsageError(f"CALIB: {text[:30]!r} is not a calibration level")
    return int(text)


def _numbers(name: str, words: Sequence[str]) -> list[float]:
    try:
        numbers = [float(word.replace("Inf", "inf")) for word in words]
    except ValueError as error:
        raise UsageError(f"{name}: give numbers, not {' '.join(words)[:60]!r}") from error
    if any(map(math.isnan, numbers)):
        raise UsageError(f"{name}: NaN is not a number")
    return numbers
