"""The searchable facts of a product, read from the product's own metadata.

Only the metadata are read: the YAML header of an ASDF file, the footer of a Parquet file, the
JSON of an association. No array is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asdf
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from astropy.time import Time

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Scope
from roman_assets.products.name import ProductName
from roman_assets.products.observation import Survey
from roman_assets.registry.footprint import Footprint

_ABSENT = (None, "?", -999999, -999999.0, "-999999", "-999999.0", "None", "")
"""How rad's defaults, and Parquet's text, say that a value is not known."""

_TIME_KEYS = frozenset({"value", "format", "base_format", "scale"})
_PARQUET_PREFIX = "roman.meta."


def product_metadata(path: Path, name: ProductName) -> dict[str, Any]:
    """Read the facts that the registry makes searchable.

    Parameters
    ----------
    path
        The product file.
    name
        Its official name.

    Returns
    -------
    dict
        By the column names of `roman_assets.registry.schema.METADATA`; JSON values, times in ISO
        8601 UTC. Facts the file does not carry are absent: guide-window, FACE and association
        files know neither survey nor footprint.

    Raises
    ------
    BadInputError
        If the file cannot be read as what its name says.
    """
    read = _READERS[name.kind.extension]
    try:
        meta = read(path)
    except (OSError, ValueError, KeyError, yaml.YAMLError, pa.ArrowException) as error:
        raise BadInputError(
            path,
            "metadata",
            f"not readable as {name.kind.extension}: {error}",
            f"make {name} again",
        ) from error
    facts = {
        "survey": _survey(meta),
        "exposure_type": _value(meta, "exposure.type"),
        "start_time": _time(path, meta, *_START_TIMES[name.kind.scope]),
        "end_time": _time(path, meta, *_END_TIMES[name.kind.scope]),
        "nexposures": _integer(path, meta, "visit.nexposures"),
        "cal_step": _section(meta, "cal_step"),
        **_place(path, _value(meta, "wcsinfo.s_region")),
    }
    return {column: value for column, value in facts.items() if value not in (None, {})}


_START_TIMES = {
    Scope.DETECTOR: ("exposure.start_time", "t_start"),
    Scope.EXPOSURE: ("exposure.start_time", "t_start"),
    Scope.SKYCELL: ("coadd_info.time_first",),
}
_END_TIMES = {
    Scope.DETECTOR: ("exposure.end_time", "t_stop"),
    Scope.EXPOSURE: ("exposure.end_time", "t_stop"),
    Scope.SKYCELL: ("coadd_info.time_last",),
}


def _asdf_metadata(path: Path) -> dict[str, Any]:
    meta = asdf.util.load_yaml(path)["roman"]["meta"]
    return _flattened(meta)


def _parquet_metadata(path: Path) -> dict[str, Any]:
    footer = pq.read_schema(path).metadata or {}
    return {
        key.decode().removeprefix(_PARQUET_PREFIX): value.decode()
        for key, value in footer.items()
        if key.decode().startswith(_PARQUET_PREFIX)
    }


def _association_metadata(path: Path) -> dict[str, Any]:
    association = json.loads(path.read_text())
    if not isinstance(association, dict):
        raise ValueError("an association is a JSON object")
    return _flattened(association)


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "asdf": _asdf_metadata,
    "parquet": _parquet_metadata,
    "json": _association_metadata,
}


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not _is_time(value):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_time(value: object) -> bool:
    """Tell whether a value is a time as the ASDF time schema writes it in full."""
    return isinstance(value, Mapping) and "value" in value and value.keys() <= _TIME_KEYS


def _value(meta: Mapping[str, Any], *keys: str) -> Any:
    """Give the first known value among the keys, None if there is none."""
    for key in keys:
        value = meta.get(key)
        if value not in _ABSENT:
            return value
    return None


def _section(meta: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {
        key.removeprefix(prefix): value
        for key, value in meta.items()
        if key.startswith(prefix) and value not in _ABSENT
    }


def _survey(meta: Mapping[str, Any]) -> str | None:
    subcategory = _value(meta, "program.subcategory")
    return None if subcategory is None else Survey.from_subcategory(str(subcategory)).value


def _integer(path: Path, meta: Mapping[str, Any], key: str) -> int | None:
    value = _value(meta, key)
    try:
        return None if value is None else int(value)
    except ValueError as error:
        raise BadInputError(path, key, f"{value!r} is no number", "make the file again") from error


def _time(path: Path, meta: Mapping[str, Any], *keys: str) -> str | None:
    value = _value(meta, *keys)
    if value is None:
        return None
    try:
        return _iso_utc(value)
    except ValueError as error:
        raise BadInputError(
            path, " or ".join(keys), f"{value!r} is no ISO 8601 time", "make the file again"
        ) from error


def _iso_utc(value: object) -> str:
    if isinstance(value, Mapping):
        scale, form = value.get("scale", "utc"), value.get("format")
        moment: datetime = Time(value["value"], scale=scale, format=form).utc.to_datetime(UTC)
        return moment.isoformat()
    time = datetime.fromisoformat(str(value))
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return aware.isoformat()


def _place(path: Path, s_region: str | None) -> dict[str, Any]:
    if s_region is None:
        return {}
    try:
        footprint = Footprint.parse(s_region)
    except ValueError as error:
        raise BadInputError(
            path, "meta.wcsinfo.s_region", str(error), "make the file again"
        ) from error
    ra, dec = footprint.centre
    return {"ra": ra, "dec": dec, "radius": footprint.radius, "footprint": s_region}
