"""Whether two files of a product have the same content, dates and logs aside.

Two products made of the same inputs, with the same references and software, have equal arrays,
tables and metadata; their files differ in when they were made and in what was logged then.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.products.name import ProductName

DATES_AND_LOGS = (
    "file_date", "cal_logs", "individual_image_cal_logs", ".date", "sdf_software_version",
)  # fmt: skip
"""Ends of metadata paths that describe when and how the file was made, not its content.

The formatting software has another version with each commit; what it does says its recipe.
"""


def first_difference(one: Path, other: Path, name: ProductName) -> str:
    """Return the first difference between the contents of two files of a product.

    Arrays and table columns are compared bit by bit, NaN being equal to NaN.

    Parameters
    ----------
    one, other
        The files.
    name
        The official name of both.

    Returns
    -------
    str
        Where it is and what either has; empty if there is none.
    """
    return next(_COMPARISONS[name.kind.extension](one, other), "")


def _asdf(one: Path, other: Path) -> Iterator[str]:
    import asdf

    with asdf.config_context() as config:
        config.validate_on_read = False
        with asdf.open(one) as first, asdf.open(other) as second:
            yield from _differing(first["roman"], second["roman"], "roman")


def _parquet(one: Path, other: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    first, second = pq.read_table(one), pq.read_table(other)
    yield from _differing(_schema_metadata(first), _schema_metadata(second), "metadata")
    if first.schema.names != second.schema.names:
        yield f"columns: {first.schema.names} and {second.schema.names}"
        return
    for column in first.schema.names:
        before, after = first[column].to_numpy(), second[column].to_numpy()
        yield from _differing_arrays(before, after, f"column {column}")


def _schema_metadata(table: Any) -> dict[str, Any]:
    from astropy.io.misc import yaml

    found = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
    if _TABLE not in found:
        return found
    described = yaml.load(found[_TABLE])
    return found | {_TABLE: described | {"meta": dict(described.get("meta", {}))}}


_TABLE = "table_meta_yaml"
"""Where astropy writes what it knows of columns and table, as one text."""


def _json(one: Path, other: Path) -> Iterator[str]:
    yield from _differing(json.loads(one.read_text()), json.loads(other.read_text()), "association")


def _png(one: Path, other: Path) -> Iterator[str]:
    from PIL import Image

    with Image.open(one) as first, Image.open(other) as second:
        yield from _differing_arrays(np.asarray(first), np.asarray(second), "pixels")


_COMPARISONS: Mapping[str, Callable[[Path, Path], Iterator[str]]] = {
    "asdf": _asdf,
    "parquet": _parquet,
    "json": _json,
    "png": _png,
}


def _differing(one: Any, other: Any, place: str) -> Iterator[str]:
    """Go through the differences between two trees."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}, key=str):
            if f"{place}.{key}".endswith(DATES_AND_LOGS):
                continue
            if key not in one or key not in other:
                yield f"{place}.{key}: only in one of them"
            else:
                yield from _differing(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for number, (first, second) in enumerate(zip_longest(one, other)):
            yield from _differing(first, second, f"{place}[{number}]")
    elif hasattr(one, "__array__") and hasattr(other, "__array__"):
        yield from _differing_arrays(np.asarray(one), np.asarray(other), place)
    elif type(one) is not type(other) or _value(one) != _value(other):
        yield f"{place}: {_shown(one)} and {_shown(other)}"


def _differing_arrays(one: NDArray[Any], other: NDArray[Any], place: str) -> Iterator[str]:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        yield f"{place}: {one.shape} {one.dtype} and {other.shape} {other.dtype}"
        return
    if one.dtype.names is not None:
        for field in one.dtype.names:
            yield from _differing_arrays(one[field], other[field], f"{place}.{field}")
        return
    differs = one != other
    if one.dtype.kind in "fc":
        differs &= ~(np.isnan(one) & np.isnan(other))
    number = int(np.count_nonzero(differs))
    if number:
        where = tuple(int(index) for index in np.argwhere(differs)[0])
        yield (
            f"{place}: {number} of {one.size} values differ, the first at {where}: "
            f"{one[where]} and {other[where]}"
        )


def _value(leaf: Any) -> Any:
    """Return something that is equal exactly if the leaves of the trees are."""
    if leaf is None or isinstance(leaf, str | bytes | bool | int):
        return leaf
    if isinstance(leaf, float):
        return repr(leaf)
    return _written(leaf)


def _written(leaf: Any) -> bytes:
    """Return what the file says of an object, such as a WCS, with its arrays."""
    import asdf

    stream = io.BytesIO()
    asdf.AsdfFile({"leaf": leaf}).write_to(
        stream, all_array_storage="inline", include_block_index=False
    )
    return stream.getvalue()


def _shown(leaf: Any) -> str:
    text = repr(leaf)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


_LONGEST_SHOWN = 100
