"""The metadata part of a product file, read within stated limits.

Only the metadata are read: the YAML header of an ASDF file, the footer of a Parquet file, the JSON
of an association or a report, the size of a PNG. No array is loaded. Files come from outside as
well, so sizes, nesting and counts are checked before anything of that size is allocated.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import asdf
import pyarrow.parquet as pq
import yaml
from yaml.events import CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName

LARGEST_HEADER = 8 << 20
"""Bytes of a YAML header, a Parquet footer or a JSON file."""

LARGEST_ARRAYS = 4 << 30
"""Bytes that the compressed arrays of an ASDF file may have once they are decompressed."""

MOST_BLOCKS = 10_000
"""Arrays in one ASDF file."""

MOST_VALUES = 500_000
"""Values in the metadata of one file."""

DEEPEST = 100
"""Levels of nesting in the metadata."""

LONGEST_TEXT = 64 << 10
"""Characters of one text in the metadata."""

LARGEST_INTEGER = 2**63 - 1
"""A value that a column of the registry can hold."""

_TIME_KEYS = frozenset({"value", "format", "base_format", "scale"})
_PARQUET_PREFIX = "roman.meta."
_PARQUET_TAIL = struct.Struct("<I4s")
_YAML_END = re.compile(rb"\n\.\.\.\r?(?:\n|$)")
_CHUNK = 256 << 10
_BLOCK_MAGIC = b"\xd3BLK"
_BLOCK_SIZE = struct.Struct(">H")
_BLOCK = struct.Struct(">I4sQQQ")
_NOT_COMPRESSED = bytes(4)
_PNG = struct.Struct(">8sI4sII")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Header:
    """The header of a product file.

    Parameters
    ----------
    meta
        Its metadata by path, such as ``exposure.start_time``.
    shape
        Of its image, in the order of numpy.
    """

    meta: Mapping[str, Any]
    shape: tuple[int, ...] = ()


def read_header(path: Path, name: ProductName) -> Header:
    """Read the metadata of a product file.

    Parameters
    ----------
    path
        The file.
    name
        Its official name, which decides how it is read.

    Raises
    ------
    BadInputError
        If the file is not what its name says, or is beyond a limit of this module.
    """
    extension = name.kind.extension
    try:
        return _READERS[extension](path)
    except Exception as error:  # the libraries raise almost anything on damaged files
        raise BadInputError(
            path, "metadata", f"not readable as {extension}: {error}", f"write {name} again"
        ) from error


def is_time(value: object) -> bool:
    """Return whether a value is a time in the full form of the ASDF time schema."""
    return isinstance(value, Mapping) and "value" in value and value.keys() <= _TIME_KEYS


@dataclass(frozen=True)
class AsdfBlock:
    """One block of an ASDF file, as its header states.

    Parameters
    ----------
    offset
        Of the block's header in the file, bytes.
    size
        Of its content once it is decompressed, bytes.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class AsdfLayout:
    """The parts of an ASDF file.

    Parameters
    ----------
    text
        Its YAML, within the limits of this module.
    blocks
        In order.
    end
        Where the last block ends: the index of the blocks may follow.
    """

    text: bytes
    blocks: tuple[AsdfBlock, ...]
    end: int


def asdf_layout(path: Path) -> AsdfLayout:
    """Find the parts of an ASDF file, without loading any.

    Raises
    ------
    ValueError
        If it is beyond a limit of this module.
    """
    with path.open("rb") as stream:
        text = _yaml_of(stream)
        blocks, end = _modest_blocks(stream, path.stat().st_size)
    _require_modest_yaml(text)
    return AsdfLayout(text, blocks, end)


def _asdf_header(path: Path) -> Header:
    text = asdf_layout(path).text
    tree = asdf.util.load_yaml(BytesIO(text))["roman"]
    image = tree.get("data")
    shape = image.get("shape", ()) if isinstance(image, Mapping) else ()
    if not all(isinstance(length, int) and 0 <= length < 2**31 for length in shape):
        raise ValueError(f"the shape of its image is {str(shape)[:100]}")
    return Header(_flattened(tree["meta"]), tuple(shape))


def _yaml_of(stream: BinaryIO) -> bytes:
    """Read up to the end of the YAML, and leave the stream there."""
    text = b""
    while len(text) < LARGEST_HEADER and (chunk := stream.read(_CHUNK)):
        text += chunk
        if end := _YAML_END.search(text, max(0, len(text) - len(chunk) - len("\n...\r\n"))):
            stream.seek(end.end())
            return text[: end.end()]
    raise ValueError(f"its YAML has no end within {LARGEST_HEADER} bytes")


def _modest_blocks(stream: BinaryIO, file_size: int) -> tuple[tuple[AsdfBlock, ...], int]:
    """Return the blocks and where they end; only compressed ones can exceed the file's size."""
    size, blocks, offset = 0, [], stream.tell()
    while stream.read(len(_BLOCK_MAGIC)) == _BLOCK_MAGIC:
        (length,) = _BLOCK_SIZE.unpack(stream.read(_BLOCK_SIZE.size))
        header = stream.read(length)
        _, compression, allocated, used, decompressed = _BLOCK.unpack_from(header)
        compressed = compression != _NOT_COMPRESSED
        size += decompressed if compressed else 0
        if size > LARGEST_ARRAYS:
            raise ValueError(f"its arrays have more than {LARGEST_ARRAYS} bytes, decompressed")
        blocks.append(AsdfBlock(offset, decompressed if compressed else used))
        if len(blocks) > MOST_BLOCKS:
            raise ValueError(f"it has more than {MOST_BLOCKS} blocks")
        offset = stream.seek(allocated, os.SEEK_CUR)
        if offset > file_size:
            raise ValueError(f"its block {len(blocks)} goes beyond the end of the file")
    return tuple(blocks), offset


def _require_modest_yaml(text: bytes) -> None:
    """Check a YAML text by its events, for which the parser needs neither stack nor tree."""
    depth = values = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        values += isinstance(event, NodeEvent)
        if isinstance(event, ScalarEvent) and event.value == "<<":
            raise ValueError("its YAML merges mappings, which can multiply them")
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        _require_modest(values, depth)


def _parquet_header(path: Path) -> Header:
    with path.open("rb") as stream:
        stream.seek(-_PARQUET_TAIL.size, os.SEEK_END)
        length, _ = _PARQUET_TAIL.unpack(stream.read())
    if length > LARGEST_HEADER:
        raise ValueError(f"its footer has {length} bytes, more than {LARGEST_HEADER}")
    footer = pq.read_schema(path).metadata or {}
    return Header(
        _flattened(
            {
                key.decode().removeprefix(_PARQUET_PREFIX): value.decode()
                for key, value in footer.items()
                if key.decode().startswith(_PARQUET_PREFIX)
            }
        )
    )


def _json_header(path: Path) -> Header:
    if (size := path.stat().st_size) > LARGEST_HEADER:
        raise ValueError(f"it has {size} bytes, more than {LARGEST_HEADER}")
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return Header(_flattened(content))


def _png_header(path: Path) -> Header:
    with path.open("rb") as stream:
        signature, length, chunk, width, height = _PNG.unpack(stream.read(_PNG.size))
    if (signature, length, chunk) != (_PNG_SIGNATURE, 13, b"IHDR"):
        raise ValueError("it does not begin as a PNG")
    return Header({}, (height, width))


_READERS: dict[str, Callable[[Path], Header]] = {
    "png": _png_header,
    "asdf": _asdf_header,
    "parquet": _parquet_header,
    "json": _json_header,
}


def _flattened(tree: Mapping[str, Any]) -> dict[str, Any]:
    require_modest_values(tree)
    return dict(_leaves(tree, ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not is_time(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def require_modest_values(tree: object) -> None:
    """Check all values, and the keys, of a tree that may have any depth.

    Raises
    ------
    ValueError
        If it is beyond a limit of this module.
    """
    left, values = [(tree, 0)], 0
    while left:
        value, depth = left.pop()
        values += 1
        _require_modest(values, depth)
        if isinstance(value, Mapping):
            left += ((part, depth + 1) for item in value.items() for part in item)
        elif isinstance(value, list | tuple):
            left += ((part, depth + 1) for part in value)
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"it has an integer of {value.bit_length()} bits")
        elif isinstance(value, str):
            value.encode()  # lone surrogates can be stored nowhere
            if len(value) > LONGEST_TEXT:
                raise ValueError(f"it has a text of {len(value)} characters")


def _require_modest(values: int, depth: int) -> None:
    if values > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} metadata values")
    if depth > DEEPEST:
        raise ValueError(f"its metadata are nested more than {DEEPEST} levels deep")
