"""Whatever a commit record says can be asked of the registry: no field is lost on the way.

The records are derived from the model, with every field set. So a new field fails here until the
registry has it, and until it is read back below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.products.lifecycle import Transition, require_possible
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    ArchivedMetadata,
    Attempt,
    CommitRecord,
    Decision,
    ExposureReceipt,
    Handover,
    ProductEntry,
    ProductTransition,
    Proposal,
    ReleaseStatement,
    WorkFailure,
)
from roman_assets.records.record_columns import structure_of
from roman_assets.registry.catalog.archive_catalog import archive_catalog
from roman_assets.registry.catalog.schema import columns_of
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.strategies import names

texts = st.text(st.characters(codec="utf-8"), min_size=1)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.integers(0, 2**63 - 1)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
FACTS: Mapping[str, Any] = {
    "survey": "HLWAS", "ra": 1.5, "start_time": "2027-01-01T00:00:00+00:00", "naxis1": 4096,
    "cal_step": {"flat": "COMPLETE"},
}  # fmt: skip
"""Metadata that have columns; the others are made up."""

ARCHIVED = next(
    (table, schema, column)
    for table in archive_catalog().tables
    for schema in table.schemas
    for column in table.columns
    if column.type == "VARCHAR" and column.length is None and len(column.paths) == 1
)


BY_FIELD: Mapping[tuple[str, str], st.SearchStrategy[Any]] = {
    ("ProductEntry", "name"): names.map(str),
    ("ProductTransition", "name"): names.map(str),
    ("ProductEntry", "metadata"): st.dictionaries(
        texts.map("of {}".format), values, min_size=1
    ).map(lambda others: {**FACTS, **others}),
    ("ProductEntry", "archived"): st.just(ArchivedMetadata(rad_schema=ARCHIVED[1], sections=(0,))),
    ("CommitRecord", "record_id"): st.uuids().map(lambda one: one.hex),
    ("CommitRecord", "sections"): texts.map(lambda text: ({ARCHIVED[2].paths[0]: text},)),
    ("WorkFailure", "content"): hashes,
    ("Proposal", "proposal_id"): st.text("0123456789abcdef-", min_size=1, max_size=30),
    ("Decision", "proposal_id"): st.text("0123456789abcdef-", min_size=1, max_size=30),
}
HASHES = {"sha256", "fingerprint", "declaration", "digest"}
UNIQUE = {"products": "name"}


def is_lawful(change: ProductTransition) -> bool:
    try:
        require_possible(ProductName.parse(change.name), change.transition)
    except ValueError:
        return False
    return change.transition is not Transition.MADE


def of_model(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return models with every field set."""
    built = st.builds(
        model,
        **{
            name: of_field(model.__name__, name, field.annotation)
            for name, field in model.model_fields.items()
        },
    )
    return built.filter(is_lawful) if model is ProductTransition else built


def of_field(model: str, name: str, annotation: Any) -> st.SearchStrategy[Any]:
    known = BY_FIELD.get((model, name))
    if known is not None:
        return known
    return hashes if name in HASHES else of_type(annotation, UNIQUE.get(name))


def of_type(annotation: Any, unique: str | None = None) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return of_type(arguments[0])
    if origin is tuple:
        key = None if unique is None else lambda one: getattr(one, unique)
        return st.lists(of_type(arguments[0]), min_size=1, max_size=3, unique_by=key).map(tuple)
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), min_size=1, max_size=3)
    if type(None) in arguments:
        return of_type(Union[arguments[:-1]])  # noqa: UP007
    if annotation is Any:
        return values
    if annotation is AwareDatetime or issubclass(annotation, datetime):
        return st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
    if issubclass(annotation, BaseModel):
        return of_model(annotation)
    if issubclass(annotation, StrEnum):
        return st.sampled_from(annotation)
    return {str: texts, int: numbers, bool: st.booleans()}[annotation]


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    answer = connection.execute(sql)
    columns = [column[0] for column in answer.description]
    return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]


def fields_of(model: type[BaseModel], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a row that describes a model; JSON as values."""
    structure = structure_of(model)
    return {
        name: json.loads(row[name]) if structure[name] == "JSON" else row[name]
        for name in model.model_fields
        if name in row
    }


PARTS = {
    "attempt": ("attempts", Attempt),
    "receipt": ("receipts", ExposureReceipt),
    "release": ("releases", ReleaseStatement),
    "handover": ("handovers", Handover),
    "decision": ("decisions", Decision),
}


def read_back(registry: Registry) -> CommitRecord:
    """Make a commit record of what the registry says."""
    made = registry.generations.of(registry.products.find(overwritten=True)["name"])
    entries = [entry for generations in made.values() for entry in generations]
    with registry.snapshot.connection() as connection:
        (stated,) = rows(connection, "from records")
        parts = {
            part: model(**fields_of(model, rows(connection, f"from {table}")[0]))
            for part, (table, model) in PARTS.items()
        }
        (proposal,) = rows(connection, "from proposals")
        (table, schema, column) = ARCHIVED
        archived = rows(connection, f'select name, "{column.name}" as said from {table.name}')
        return CommitRecord(
            **fields_of(CommitRecord, stated),
            products=tuple(
                ProductEntry(
                    **{name: getattr(entry, name) for name in ProductEntry.model_fields}
                    | {"archived": ArchivedMetadata(rad_schema=schema, sections=(0,))}
                )
                for entry in entries
            ),
            sections=tuple({column.paths[0]: said} for said in {one["said"] for one in archived}),
            transitions=tuple(
                ProductTransition(**fields_of(ProductTransition, row))
                for row in rows(connection, "from transitions")
            ),
            failures=tuple(
                WorkFailure(**fields_of(WorkFailure, row))
                for row in rows(connection, "from failures")
            ),
            events={row["event"]: row["time"] for row in rows(connection, "from events")},
            proposal=Proposal(**fields_of(Proposal, proposal), change=fields_of_change(proposal)),
            **parts,
        )


def fields_of_change(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"cause": row["cause"], "value": row["value"]}


def in_order(record: CommitRecord) -> dict[str, Any]:
    """Return a record as values, with unordered values sorted."""
    said = record.model_dump(mode="json")
    for part in ("products", "transitions", "failures"):
        said[part] = sorted(said[part], key=lambda one: json.dumps(one, sort_keys=True))
    return said


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=of_model(CommitRecord))
def test_the_registry_says_all_that_a_commit_record_says(
    tmp_path_factory: pytest.TempPathFactory, record: CommitRecord
) -> None:
    root = DataRoot(tmp_path_factory.mktemp("data"))
    Journal(root).write(record)
    fold(root)
    assert in_order(read_back(Registry(root, Role.OPERATIONS))) == in_order(record)


def test_a_field_that_no_table_holds_is_refused() -> None:
    class Longer(Decision):
        weight: int

    meanings = dict.fromkeys(Decision.model_fields, "")
    with pytest.raises(TypeError, match="which table holds weight"):
        columns_of(Longer, meanings)
    del meanings["author"]
    with pytest.raises(TypeError, match="which table holds author"):
        columns_of(Decision, meanings)


def test_a_field_that_no_column_can_hold_is_named() -> None:
    class Odd(BaseModel):
        anything: Any

    with pytest.raises(TypeError, match=r"Odd\.anything"):
        structure_of(Odd)
