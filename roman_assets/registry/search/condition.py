"""What a search asks for, as SQL with parameters."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.registry.catalog.schema import IDENTITY

OneOrMore = str | Iterable[str] | None

_GROUPING_COLUMNS = frozenset(column.name for column in IDENTITY) | {
    "survey", "exposure_type", "state", "step", "partition",
}  # fmt: skip


def conditions_of(values: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions that columns have one of some values, and their parameters."""
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    for column, value in values.items():
        if value is None:
            continue
        single = isinstance(value, str | int | VisitId | ExposureId)
        items = [value] if single else list(value)
        parameters[column] = [item if isinstance(item, int) else str(item) for item in items]
        conditions.append(f'"{column}" in ${column}')
    return conditions, parameters


_KEYS_OF: Mapping[str, str] = {
    "name": "name_keys",
    "exposure": "partition_keys",
    "visit": "partition_keys",
}
"""The macro that tells where products lie that have one of some values in a column."""


def places_of(values: Mapping[str, Any]) -> list[str]:
    """Return conditions that tell where products with these values lie, and change nothing else."""
    return [
        f"name_key in {keys}(${column})"
        for column, keys in _KEYS_OF.items()
        if values.get(column) is not None
    ]


def of_partitions(parameter: str) -> str:
    """Return the condition that a statement is about one of the partitions of a parameter."""
    return f'"partition" in ${parameter} and partition_key in partition_keys(${parameter})'


def about(partition: OneOrMore) -> tuple[str, dict[str, Any]]:
    """Return the condition that a statement is about some partitions, and its parameters."""
    _, parameters = conditions_of({"partition": partition})
    return of_partitions("partition") if parameters else "true", parameters


def named_like(patterns: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Return the condition that a name matches a pattern, by its fixed beginning if any."""
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for number, pattern in enumerate(patterns):
        prefix = _WILDCARD.split(pattern, maxsplit=1)[0]
        lowest, highest = _key_range(prefix)
        parameters |= {
            f"like{number}": pattern,
            f"from{number}": prefix,
            f"to{number}": prefix + chr(sys.maxunicode),
            f"lowest{number}": lowest,
            f"highest{number}": highest,
        }
        parts.append(
            f"(name_key between $lowest{number} and $highest{number} "
            f"and name between $from{number} and $to{number} and name glob $like{number})"
        )
    return f"({' or '.join(parts) or 'false'})", parameters


def _key_range(prefix: str) -> tuple[int, int]:
    """Return between which keys (`schema.NAME_KEY`) names lie that begin so."""
    visits = _OF_EXPOSURES.match(prefix)
    if visits is not None:
        return int(visits[1].ljust(_VISIT_DIGITS, "0")), int(visits[1].ljust(_VISIT_DIGITS, "9"))
    visit = _OF_VISIT.match(prefix)
    if visit is not None:
        return int(visit[1] + visit[2]), int(visit[1] + visit[2])
    return 0, 2**64 - 1


_VISIT_DIGITS = 19


_OF_EXPOSURES = re.compile(r"r(\d{6,19})", re.ASCII)


_WILDCARD = re.compile(r"[*?\[]")


_OF_VISIT = re.compile(r"r(\d{5})_[^_]+_v(\d{14})", re.ASCII)


def visits_of(values: Mapping[str, Any]) -> list[str] | None:
    """Return the visits to which conditions on visit and exposure lead, None for all."""
    given = (values.get(column) for column in ("visit", "partition"))
    parts = [value for value in given if value is not None]
    names = [
        str(item)
        for value in parts
        for item in ([value] if isinstance(value, str | VisitId | ExposureId) else value)
    ]
    return sorted({name.split("_")[0] for name in names}) if parts else None


def grouping_columns(by: Iterable[str]) -> tuple[str, ...]:
    """Check the columns to group by; raises `ValueError` for one that cannot be grouped by."""
    columns = tuple(by)
    if unknown := sorted(set(columns) - _GROUPING_COLUMNS):
        raise ValueError(f"cannot count by {unknown}: known are {sorted(_GROUPING_COLUMNS)}")
    return columns
