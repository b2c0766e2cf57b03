"""Whether metadata that come beside a file of the SSC are as rad's schema has them (R12).

rad keeps the schemas of the SSC apart from those that asdf knows of; asdf validates by them all the
same once it is told where they are.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

_URI = "asdf://stsci.edu/datamodels/roman/schemas"


def schema_faults(rad_schema: str, metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Compare metadata with the newest version of a schema.

    Parameters
    ----------
    rad_schema
        rad's name without version, such as ``SSC/GDPS/wfi_spec_catalog_level_4``.
    metadata
        Flat, with those of ``ssc_basic``.

    Returns
    -------
    list of tuple of str
        Field and fault; empty if they are as they should be.
    """
    from asdf.schema import get_validator

    faults = get_validator(_schema(rad_schema)).iter_errors(dict(metadata))
    return sorted(
        (".".join(map(str, fault.absolute_path)) or "metadata", fault.message) for fault in faults
    )


@functools.cache
def _schema(rad_schema: str) -> Any:
    import asdf
    from asdf.resource import DirectoryResourceMapping

    directory = importlib.resources.files("rad.resources") / "schemas" / "SSC"
    mapping = DirectoryResourceMapping(
        directory, f"{_URI}/SSC", recursive=True, filename_pattern="*.yaml", stem_filename=True
    )
    with asdf.config_context() as config:
        config.add_resource_mapping(mapping)
        newest = max(
            (uri for uri in mapping if uri.rpartition("-")[0] == f"{_URI}/{rad_schema}"),
            key=lambda uri: tuple(map(int, uri.rpartition("-")[2].split("."))),
        )
        return asdf.schema.load_schema(newest, resolve_references=True)
