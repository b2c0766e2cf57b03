"""Records of guide windows and FACE: telemetry as the bytes of one data unit, and back."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from roman_assets.formatting.telemetry import (
    EARLIEST,
    LATEST,
    FaceTelemetry,
    GuideWindowPhase,
    GuideWindowReadout,
    Times,
    check_moment,
)

MOST_RECORD_BYTES = 1 << 27
"""Of a guide window or FACE record: those of an hour of guiding."""

_MOST_INDEX_BYTES = 1 << 16
_EPOCH = datetime(1958, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def rounded(time: datetime) -> datetime:
    """Return a moment as packets keep it: to the millisecond."""
    rounded: datetime = _EPOCH + round((time - _EPOCH) / _MILLISECOND) * _MILLISECOND
    return rounded


_LENGTH = struct.Struct(">I")


def pack_record(telemetry: GuideWindowReadout | FaceTelemetry) -> bytes:
    """Lay out a record: length of an index, the index as JSON, then its arrays, big-endian."""
    scalars: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    _flatten(telemetry, "", scalars, arrays)
    index = json.dumps(
        {
            "fields": scalars,
            "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()],
        }
    ).encode()
    return b"".join(
        (_LENGTH.pack(len(index)), index, *(array.tobytes() for array in arrays.values()))
    )


def _flatten(
    part: Any, prefix: str, scalars: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    for name in (
        f.name for f in dataclasses.fields(part) if f.name not in ("exposure", "detector")
    ):
        value = getattr(part, name)
        if dataclasses.is_dataclass(value):
            _flatten(value, f"{prefix}{name}.", scalars, arrays)
        elif isinstance(value, np.ndarray):
            arrays[prefix + name] = _portable(value)
        elif isinstance(value, datetime):
            scalars[prefix + name] = rounded(value).isoformat()
        elif value is not None:
            scalars[prefix + name] = value


def _portable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "M":
        array = array.astype("datetime64[ms]").astype("i8")
    elif array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(array.dtype.newbyteorder(">"))


def _decompressed(content: bytes) -> bytes:
    """Decompress a record, as far as one can be long."""
    stream = zlib.decompressobj()
    data = stream.decompress(content, MOST_RECORD_BYTES)
    if not stream.eof:
        what = f"more than {MOST_RECORD_BYTES} B" if stream.unconsumed_tail else "it is cut off"
        raise ValueError(f"{what} when decompressed")
    return data


def _unpack_record(data: bytes) -> dict[str, Any]:
    (length,) = _LENGTH.unpack_from(data)
    if length > _MOST_INDEX_BYTES:
        raise ValueError(f"an index of {length} B, at most {_MOST_INDEX_BYTES} can be")
    offset = _LENGTH.size + length
    index = json.loads(data[_LENGTH.size : offset])
    values: dict[str, Any] = dict(index["fields"])
    for name, dtype_name, shape in index["arrays"]:
        dtype = np.dtype(dtype_name)
        count = math.prod(shape)
        if count < 0 or offset + count * dtype.itemsize > len(data):
            raise ValueError(f"{name}: there is no array of {shape} {dtype_name}")
        values[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return values


_PHASES = frozenset({"acquisition", "tracking", "edge_acquisition"})
_Part = TypeVar("_Part", GuideWindowReadout, FaceTelemetry, GuideWindowPhase)


def read_record(kind: type[_Part], content: bytes, **identity: object) -> _Part:
    """Decompress and read a record; raises whatever its bytes lead to.

    Parameters
    ----------
    kind
        What is in it.
    content
        The compressed bytes.
    **identity
        What the packets tell of it: exposure, and detector where there is one.
    """
    return _unflatten(kind, "", {**_unpack_record(_decompressed(content)), **identity})


def _unflatten(kind: type[_Part], prefix: str, values: Mapping[str, Any]) -> _Part:
    arguments: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        key = prefix + name
        if name in _PHASES:
            if any(other.startswith(f"{key}.") for other in values):
                arguments[name] = _unflatten(GuideWindowPhase, f"{key}.", values)
        elif key in values:
            arguments[name] = _native(values[key], hint, name)
    return kind(**arguments)


def _native(value: Any, hint: Any, name: str) -> Any:
    if isinstance(value, np.ndarray):
        if name.endswith("_times"):
            return _times(value, name)
        if value.dtype.kind == "S":
            return np.char.decode(value, "utf-8")
        return value.astype(value.dtype.newbyteorder("="))
    return check_moment(datetime.fromisoformat(value)) if hint is datetime else value


def _times(value: NDArray[Any], name: str) -> Times:
    if value.dtype.kind != "i":
        raise ValueError(f"{name}: times are integers, not {value.dtype}")
    times = value.astype("i8").astype("datetime64[ms]")
    first, last = (np.datetime64(moment.replace(tzinfo=None)) for moment in (EARLIEST, LATEST))
    if not np.all((first <= times) & (times < last)):
        raise ValueError(f"{name}: a time is not between {EARLIEST:%Y} and {LATEST:%Y}")
    return times
