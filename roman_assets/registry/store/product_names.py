"""What official names say, as columns of the registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from roman_assets.products.kind import KINDS, ProductKind
from roman_assets.products.name import NAME_PATTERNS, PROMPT_RELEASE

_KINDS = {(kind.scope, kind.suffix, kind.extension): kind for kind in KINDS}

_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "kind": pa.string(),
        "level": pa.string(),
        "file_set": pa.string(),
        "exposure": pa.string(),
        "visit": pa.string(),
        "program": pa.int32(),
        "optical_element": pa.string(),
        "detector": pa.string(),
        "skycell": pa.string(),
        "release": pa.string(),
    }
)


def identities(names: Iterable[str]) -> pa.Table:
    """Return what official names say, one row for each.

    Raises
    ------
    ValueError
        If a name is not official.
    """
    rows = zip(*map(_identity, names), strict=True)
    columns = [list(column) for column in rows] or [[] for _ in _SCHEMA]
    return pa.table(columns, schema=_SCHEMA)


def _identity(name: str) -> tuple[str | int | None, ...]:
    kind, part = _taken_apart(name)
    exposure, grouping = part.get("exposure"), part.get("grouping", "")
    visit = exposure.partition("_")[0] if exposure else None
    if grouping.startswith("v"):
        visit = f"r{part['program']}{grouping[1:]}"
    detector = part.get("detector")
    return (
        name,
        kind.name,
        kind.level.value,
        name[: -len(kind.suffix) - len(kind.extension) - 2],
        exposure,
        visit,
        int(exposure[1:6] if exposure else part["program"]),
        part["element"].upper(),
        detector and detector.upper(),
        part.get("skycell"),
        part.get("release", PROMPT_RELEASE),
    )


def _taken_apart(name: str) -> tuple[ProductKind, dict[str, Any]]:
    for scope, pattern in NAME_PATTERNS.items():
        match = pattern.fullmatch(name)
        if match and (kind := _KINDS.get((scope, match["suffix"], match["extension"]))):
            return kind, match.groupdict()
    raise ValueError(f"{name!r} is not an official product name")
