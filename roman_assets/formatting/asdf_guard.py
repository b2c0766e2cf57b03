"""Whether it is safe to open an ASDF file from outside, told by its text and the sizes of blocks.

`asdf` follows references to other files, makes objects of the types that tags name, and believes
the shapes of arrays. So what a product never has is refused before `asdf` sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import yaml
from yaml.events import NodeEvent, ScalarEvent

from roman_assets.errors import BadInputError
from roman_assets.registry.catalog.header import AsdfLayout, asdf_layout, require_modest_values

TRUSTED_TAGS = (
    "tag:yaml.org,2002:",
    "tag:stsci.edu:asdf/",
    "tag:stsci.edu:gwcs/",
    "tag:astropy.org:astropy/",
    "asdf://asdf-format.org/",
    "asdf://astropy.org/",
    "asdf://stsci.edu/datamodels/roman/",
)
"""How the tags begin of what product files hold: by the schemas that the platform has installed."""

_PYTHON_TAG = "tag:yaml.org,2002:python"
_ELSEWHERE_TAG = "tag:stsci.edu:asdf/core/externalarray"
_ARRAY_TAG = re.compile(r"tag:stsci\.edu:asdf/core/ndarray-[\d.]+")
_INDEX = re.compile(rb"#ASDF BLOCK INDEX\s+%YAML [\d.]+\s+---\s*\[?((?:[\s,\-]*\d+)*)\s*\]?")
_LONGEST_INDEX = 1 << 20
_LONGEST_STRING = 4096
_CORRECT = "write the file with roman_datamodels or asdf alone, and deliver it again"


def require_harmless(path: Path) -> None:
    """Check an ASDF file before it is opened; nothing of a stated size is allocated.

    Raises
    ------
    BadInputError
        If it is not an ASDF file, is beyond the limits of `roman_assets.registry.catalog.header`,
        has a tag of another origin, refers to another file, or states arrays that its blocks do not
        hold.
    """
    try:
        layout = asdf_layout(path)
        _require_trusted_text(layout.text)
        _require_true_index(path, layout)
        tree = asdf.util.load_yaml(BytesIO(layout.text), tagged=True)
        require_modest_values(tree)
        for place, array in _arrays(tree):
            _require_held(place, array, layout)
    except OSError:
        raise
    except Exception as error:  # the parsers raise almost anything on damaged files
        raise BadInputError(
            path, "ASDF", str(error).partition("\n")[0] or repr(error), _CORRECT
        ) from error


def _require_trusted_text(text: bytes) -> None:
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        tag = getattr(event, "tag", None) if isinstance(event, NodeEvent) else None
        if tag is not None and (
            not tag.startswith(TRUSTED_TAGS) or tag.startswith((_PYTHON_TAG, _ELSEWHERE_TAG))
        ):
            raise ValueError(f"its tag {tag[:100]!r} is of nothing that a product holds")
        if isinstance(event, ScalarEvent) and event.value == "$ref":
            raise ValueError("it refers to another file or place by $ref")


def _require_true_index(path: Path, layout: AsdfLayout) -> None:
    """Check that the index at the end, which asdf believes, names just the blocks there are."""
    with path.open("rb") as stream:
        stream.seek(layout.end)
        rest = stream.read(_LONGEST_INDEX + 1)
    if not rest.strip(b"\0\r\n "):
        return
    found = _INDEX.match(rest.lstrip())
    if len(rest) > _LONGEST_INDEX or found is None:
        raise ValueError("something other than an index of blocks follows its last block")
    offsets = [int(number) for number in re.findall(rb"\d+", found[1])]
    if offsets != [block.offset for block in layout.blocks]:
        raise ValueError("the index of its blocks does not name the blocks there are")


def _arrays(tree: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Go through all arrays of a tagged tree of modest size, each with its place."""
    left = [("", tree)]
    while left:
        place, node = left.pop()
        if _ARRAY_TAG.fullmatch(getattr(node, "_tag", "")) and isinstance(node, Mapping):
            yield place, node
        if isinstance(node, Mapping):
            left += [(f"{place}.{key}".lstrip("."), value) for key, value in node.items()]
        elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
            left += [(place, value) for value in node]


def _require_held(place: str, array: Mapping[str, Any], layout: AsdfLayout) -> None:
    """Check that an array is within its block; values in the text are as many as these."""
    if "source" not in array:
        return
    source = array["source"]
    if not isinstance(source, int) or not 0 <= source < len(layout.blocks):
        raise ValueError(f"the array {place} is in block {str(source)[:100]!r}, which it has not")
    shape, offset = array.get("shape", ()), array.get("offset", 0)
    strides = array.get("strides", ())
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, offset)):
        raise ValueError(f"the shape of the array {place} is {str(shape)[:100]}")
    itemsize = _itemsize(array.get("datatype", "uint8"))
    if not all(isinstance(stride, int) and abs(stride) >= itemsize for stride in strides):
        raise ValueError(f"the strides of the array {place} are {str(strides)[:100]}")
    size = offset + prod(shape) * itemsize
    if size > layout.blocks[source].size:
        raise ValueError(
            f"the array {place} has {size} bytes, its block {layout.blocks[source].size}"
        )


def _itemsize(datatype: object) -> int:
    """Return the bytes of an element of ASDF's type, which may be a structure."""
    match datatype:
        case str(name):
            return np.dtype("bool" if name == "bool8" else name).itemsize
        case ["ascii", int(length)] if 0 < length <= _LONGEST_STRING:
            return length
        case ["ucs4", int(length)] if 0 < length <= _LONGEST_STRING:
            return 4 * length
        case [*fields]:
            return sum(_field_size(field) for field in fields)
    raise ValueError(f"an array has elements of type {str(datatype)[:100]}")


def _field_size(field: object) -> int:
    if not isinstance(field, Mapping):
        return _itemsize(field)
    return _itemsize(field.get("datatype")) * prod(field.get("shape", ()))
