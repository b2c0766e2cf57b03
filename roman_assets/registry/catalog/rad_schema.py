"""Reading rad's schemas, which are YAML: fast, since every process of the platform does."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A safe loader, in C where it is built: the one in Python takes seconds."""

_SOURCE_COLUMNS = re.compile(r"source_catalog_columns-(\d+)\.(\d+)\.(\d+)\.yaml")


def parse_schema(content: bytes) -> Any:
    """Return what a schema file says."""
    return yaml.load(content, Loader=_LOADER)  # noqa: S506


def source_catalog_columns() -> list[Mapping[str, Any]]:
    """Return the definitions of source catalogues' columns, by column name, oldest version first.

    Names hold ``~band~`` and ``~radius~`` where these stand in a catalogue of several.
    """
    tables = importlib.resources.files("rad.resources") / "schemas" / "tables"
    versions = {
        tuple(int(part) for part in match.groups()): path
        for path in tables.iterdir()
        if (match := _SOURCE_COLUMNS.fullmatch(path.name))
    }
    return [parse_schema(path.read_bytes())["definitions"] for _, path in sorted(versions.items())]
