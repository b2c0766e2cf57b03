"""The registry's columns from a product's own metadata, or from those delivered beside it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astropy.time import Time

from roman_assets.errors import BadInputError
from roman_assets.products.kind import GROUP_SCOPES, Scope
from roman_assets.products.name import ProductName
from roman_assets.products.observation import Survey
from roman_assets.registry.catalog.archive_catalog import ArchiveSchema, archive_catalog
from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.catalog.header import Header, is_time, read_header

_ABSENT = (None, "?", -999999, -999999.0, "-999999", "-999999.0", "None", "")
"""How rad's defaults, and Parquet's text, say that a value is not known."""

_YEARS = range(1970, 2200)
"""In which something can have been observed."""
_AGAIN = "write the file again"


@dataclass(frozen=True)
class ArchiveValues:
    """What a product says for the metadata tables that rad declares.

    Parameters
    ----------
    rad_schema
        The schema of the product, by rad's name without version.
    values
        JSON values by path, such as ``exposure.start_time``; what is not known is absent.
    """

    rad_schema: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class ProductMetadata:
    """What a product says about itself.

    Parameters
    ----------
    facts
        By the column names of `roman_assets.registry.catalog.schema.METADATA`; JSON values, times
        in ISO 8601 UTC. Facts the file does not carry are absent: guide-window, FACE and
        association files know neither survey nor footprint.
    archived
        For the metadata tables, None for products without a row there.
    """

    facts: Mapping[str, Any]
    archived: ArchiveValues | None


def product_metadata(path: Path, name: ProductName) -> ProductMetadata:
    """Read what the registry makes searchable.

    Parameters
    ----------
    path
        The product file.
    name
        Its official name.

    Raises
    ------
    BadInputError
        If the file is not what its name says, or a fact in it is invalid.
    """
    header = read_header(path, name)
    schema = archive_catalog().schema_of(name.kind.datamodel)
    archived = None if schema is None else archive_values(schema, header.meta)
    return ProductMetadata(_facts(path, name, header), archived)


def delivered_metadata(name: ProductName, meta: Mapping[str, Any]) -> ProductMetadata:
    """Choose from metadata that came beside a file of the SSC (R12).

    Parameters
    ----------
    name
        The file's official name.
    meta
        Its metadata, flat, as its schema in rad has them.

    Raises
    ------
    BadInputError
        If a time, a number or the footprint is invalid.
    """
    source = Path(str(name))
    facts = {
        "start_time": _moment(source, meta, "expstart", "visit_start_time_mjd"),
        "end_time": _moment(source, meta, "expend", "visit_end_time_mjd"),
        "exposure_time": _number(source, meta, "exptime", float),
        **_place(source, meta, "s_region"),
    }
    schema = archive_catalog().schema_named(str(name.kind.rad_schema))
    return ProductMetadata(
        {column: value for column, value in facts.items() if value is not None},
        archive_values(schema, meta),
    )


def _moment(source: Path, meta: Mapping[str, Any], utc: str, mjd: str) -> str | None:
    """Return a time that is stated in UTC or as a modified Julian date."""
    if (stated := _time(source, meta, utc)) is not None:
        return stated
    days = _number(source, meta, mjd, float)
    return None if days is None else _time(source, {mjd: {"value": days, "format": "mjd"}}, mjd)


def archive_values(schema: ArchiveSchema, meta: Mapping[str, Any]) -> ArchiveValues:
    """Choose from metadata what the metadata tables need.

    Parameters
    ----------
    schema
        The schema of the product.
    meta
        Its metadata by path. Values need not fit: what does not is named by the fold.
    """
    known = {path: _known(meta[path]) for path in schema.paths if path in meta}
    return ArchiveValues(
        schema.name, {path: value for path, value in known.items() if value is not None}
    )


def _facts(path: Path, name: ProductName, header: Header) -> dict[str, Any]:
    meta, scope = header.meta, name.kind.scope
    axes = (f"naxis{number}" for number in (1, 2, 3))
    facts = {
        "survey": _survey(path, meta),
        "exposure_type": _text(path, meta, "exposure.type"),
        "start_time": _time(path, meta, *_START_TIMES[scope]),
        "end_time": _time(path, meta, *_END_TIMES[scope]),
        "nexposures": _number(path, meta, "visit.nexposures", int),
        "exposure_time": _number(path, meta, _EXPOSURE_TIME[scope], float),
        "cal_step": _section(meta, "cal_step"),
        **dict(zip(axes, reversed(header.shape), strict=False)),
        **_place(path, meta, "wcsinfo.s_region"),
    }
    return {column: value for column, value in facts.items() if value not in (None, {})}


_START_TIMES = {
    Scope.DETECTOR: ("exposure.start_time", "t_start"),
    Scope.EXPOSURE: ("exposure.start_time", "t_start"),
    **dict.fromkeys(GROUP_SCOPES, ("coadd_info.time_first",)),
}
_END_TIMES = {
    Scope.DETECTOR: ("exposure.end_time", "t_stop"),
    Scope.EXPOSURE: ("exposure.end_time", "t_stop"),
    **dict.fromkeys(GROUP_SCOPES, ("coadd_info.time_last",)),
}
_EXPOSURE_TIME = {
    Scope.DETECTOR: "exposure.exposure_time",
    Scope.EXPOSURE: "exposure.exposure_time",
    **dict.fromkeys(GROUP_SCOPES, "coadd_info.exposure_time"),
}


def _value(meta: Mapping[str, Any], *keys: str) -> Any:
    """Return the first known value among the keys, None if there is none."""
    for key in keys:
        value = meta.get(key)
        if value not in _ABSENT:
            return value
    return None


def _section(meta: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {
        key.removeprefix(prefix): _known(value)
        for key, value in meta.items()
        if key.startswith(prefix) and value not in _ABSENT
    }


def _survey(path: Path, meta: Mapping[str, Any]) -> str | None:
    key = "program.subcategory"
    subcategory = _text(path, meta, key)
    try:
        return None if subcategory is None else Survey.from_subcategory(subcategory).value
    except ValueError as error:
        raise BadInputError(path, key, str(error), _AGAIN) from error


def _text(path: Path, meta: Mapping[str, Any], key: str) -> str | None:
    value = _value(meta, key)
    if value is None or isinstance(value, str):
        return value
    raise BadInputError(path, key, f"{reprlib.repr(value)} is not a text", _AGAIN)


def _number(
    path: Path, meta: Mapping[str, Any], key: str, of_type: type[int] | type[float]
) -> int | float | None:
    value = _value(meta, key)
    if value is None:
        return None
    try:
        number = of_type(value)
        if isinstance(value, bool) or abs(number) > _LARGEST[of_type]:
            raise ValueError(f"more than {_LARGEST[of_type]}")
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInputError(
            path, key, f"{reprlib.repr(value)} is not a number that can be stored", _AGAIN
        ) from error
    return number if math.isfinite(number) else None


_LARGEST: Mapping[type, float] = {int: 2**31 - 1, float: math.inf}
"""The largest magnitude that the columns of numbers can hold."""


def _known(value: Any) -> Any:
    """Return a value as the journal can keep it, None if it says that nothing is known."""
    if is_time(value):
        return _iso_utc_or_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value in _ABSENT or value == "nan":
        return None
    if isinstance(value, bool | int | float | str):
        return value
    # Lists, such as read patterns; what JSON has no word for becomes text.
    return json.loads(json.dumps(value, default=str))


def _iso_utc_or_text(time: Mapping[str, Any]) -> str:
    try:
        return _iso_utc(time)
    except ValueError:
        return str(time["value"])


def _time(path: Path, meta: Mapping[str, Any], *keys: str) -> str | None:
    value = _value(meta, *keys)
    if value is None:
        return None
    try:
        return _iso_utc(value)
    except ValueError as error:
        raise BadInputError(
            path, " or ".join(keys), f"{reprlib.repr(value)} is not a time: {error}", _AGAIN
        ) from error


def _iso_utc(value: object) -> str:
    """Return a time in ISO 8601, or raise `ValueError`, whatever the value is."""
    try:
        moment = _moment_of(value)
        if moment.year in _YEARS:
            return moment.isoformat()
    except Exception as error:  # astropy raises almost anything
        raise ValueError(str(error)) from error
    raise ValueError(f"it is not between {_YEARS[0]} and {_YEARS[-1]}")


def _moment_of(value: object) -> datetime:
    if isinstance(value, Mapping):
        scale, form = value.get("scale", "utc"), value.get("format")
        moment: datetime = Time(value["value"], scale=scale, format=form).utc.to_datetime(UTC)
        return moment
    time = datetime.fromisoformat(str(value))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _place(path: Path, meta: Mapping[str, Any], field: str) -> dict[str, Any]:
    if (s_region := _text(path, meta, field)) is None:
        return {}
    try:
        footprint = Footprint.of_product(s_region)
    except ValueError as error:
        raise BadInputError(path, field, str(error), _AGAIN) from error
    ra, dec = footprint.centre
    return {"ra": ra, "dec": dec, "radius": footprint.radius, "footprint": s_region}
