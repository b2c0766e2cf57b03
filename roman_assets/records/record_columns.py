"""DuckDB types of the models of commit records: derived, so that no field is stated twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Structure = str | list[Any] | dict[str, Any]
"""A type as ``from_json`` takes it: a type's name, a list of one type, or fields with theirs."""

_SCALARS = {"string": "VARCHAR", "integer": "BIGINT", "boolean": "BOOLEAN", "number": "DOUBLE"}


def structure_of(model: type[BaseModel]) -> dict[str, Structure]:
    """Return the type of each field of a model, of models in it too.

    A mapping whose keys are of a fixed set is a map, any other one is JSON.

    Raises
    ------
    TypeError
        If a field is of a type that has no counterpart.
    """
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return {
        name: _structure(f"{model.__name__}.{name}", described, definitions)
        for name, described in schema["properties"].items()
    }


def column_types(model: type[BaseModel]) -> dict[str, str]:
    """Return the type of a column for each field of a model, as SQL."""
    return {name: _sql(structure) for name, structure in structure_of(model).items()}


def _structure(
    name: str, described: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Structure:
    if "$ref" in described:
        return _structure(name, definitions[described["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in described:
        (known,) = (one for one in described["anyOf"] if one.get("type") != "null")
        return _structure(name, known, definitions)
    match described:
        case {"type": "string", "format": "date-time"}:
            return "TIMESTAMPTZ"
        case {"type": "array", "items": items}:
            return [_structure(name, items, definitions)]
        case {"type": "object", "properties": fields}:
            return {
                field: _structure(f"{name}.{field}", one, definitions)
                for field, one in fields.items()
            }
        case {"type": "object", "propertyNames": _, "additionalProperties": values}:
            return f"MAP(VARCHAR, {_sql(_structure(name, values, definitions))})"
        case {"type": "object"}:
            return "JSON"
        case {"type": str(kind)} if kind in _SCALARS:
            return _SCALARS[kind]
    raise TypeError(f"{name}: no type of DuckDB is known for {dict(described)}")


def _sql(structure: Structure) -> str:
    if isinstance(structure, str):
        return structure
    if isinstance(structure, list):
        return f"{_sql(structure[0])}[]"
    fields = ", ".join(f'"{name}" {_sql(one)}' for name, one in structure.items())
    return f"STRUCT({fields})"
