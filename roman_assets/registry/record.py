"""Commit records: the durable statement that a set of products exists.

Records are the truth; the DuckDB registry is folded from them and can be rebuilt. A record is
written once, as JSON, and never changed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Transition, require_possible
from roman_assets.products.name import ProductName

UtcTime = Annotated[
    AwareDatetime,
    PlainSerializer(lambda time: time.astimezone(UTC).isoformat(), return_type=str),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

WHOLE_ARCHIVE = "archive"
"""The partition of records that are about no single exposure or visit."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProductInput(_Frozen):
    """One file a product was made from: its name and what was in it."""

    name: str
    sha256: Sha256


class ProductEntry(_Frozen):
    """One product as made: what it is, what is in it, what it was made from.

    Parameters
    ----------
    name
        Official file name (see `roman_assets.products.name`).
    sha256, size
        Of the file, bytes; the blob is found by the hash.
    fingerprint
        Identifies the work: inputs, calibration context, software and parameters. Two products
        with the same name and fingerprint have the same content, dates and logs aside.
    inputs
        What it was made from.
    context
        CRDS pipeline context, None where no calibration is involved (R5).
    software
        Versions by package name (R5).
    references
        Reference files used, by kind.
    metadata
        Searchable facts of the product, by the column names of the registry.
    """

    name: str
    sha256: Sha256
    size: int
    fingerprint: Sha256
    inputs: tuple[ProductInput, ...] = ()
    context: str | None = None
    software: dict[str, str] = Field(default_factory=dict)
    references: dict[str, str] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def product_name(self) -> ProductName:
        """The parsed name; raises `ValueError` if it is not official."""
        return ProductName.parse(self.name)


class WorkFailure(_Frozen):
    """A file set of the partition that could not be made, while the others were."""

    file_set: str
    error: str
    message: str


class ProductTransition(_Frozen):
    """What happens to one generation of a product, other than being made.

    Nothing happens to it if it is not available any more, nor ever to another generation of that
    name.

    Parameters
    ----------
    transition
        What happens.
    name
        Official file name.
    made_by
        The commit record that made the generation.
    sha256
        Of the generation's file.
    reason
        Why, for people.
    cause
        What brought it about: a data release, another product, a program, a person.
    """

    transition: Transition
    name: str
    made_by: str
    sha256: Sha256
    reason: str
    cause: str


class CommitRecord(_Frozen):
    """The products that one step made for one partition, published together.

    A record can also state what happens to products made before: all of it, or nothing.

    Parameters
    ----------
    record_id
        Unique; folding is idempotent by it.
    step
        The work that was done.
    partition
        Exposure or visit; `WHOLE_ARCHIVE` where the work is not done for one of them.
    committed_at
        When the record was written; records are folded in this order.
    products
        What was made.
    transitions
        What happens to products made before.
    failures
        What could not be made.
    events
        Clock events of the partition known at this step.
    run_id
        The Dagster run, None outside Dagster.
    """

    record_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    step: Step
    partition: str
    committed_at: UtcTime = Field(default_factory=lambda: datetime.now(UTC))
    products: tuple[ProductEntry, ...] = ()
    transitions: tuple[ProductTransition, ...] = ()
    failures: tuple[WorkFailure, ...] = ()
    events: dict[ClockEvent, UtcTime] = Field(default_factory=dict)
    run_id: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names of all products it speaks of."""
        made = {product.name for product in self.products}
        return frozenset(made | {change.name for change in self.transitions})

    def require_lawful(self) -> None:
        """Refuse what no record can state.

        Raises
        ------
        ValueError
            If a name is not official, or a product has no such transition in its life cycle.
        """
        for product in self.products:
            require_possible(product.product_name, Transition.MADE)
        for change in self.transitions:
            if change.transition is Transition.MADE:
                raise ValueError(f"{change.name}: what is made is stated as a product")
            require_possible(ProductName.parse(change.name), change.transition)


def fingerprint(
    inputs: tuple[ProductInput, ...], context: str | None, software: dict[str, str], **settings: Any
) -> str:
    """Identify a piece of work by everything that decides its content.

    Parameters
    ----------
    inputs
        Files it reads.
    context
        CRDS pipeline context.
    software
        Versions by package name.
    **settings
        Parameters that change the result; JSON values.

    Returns
    -------
    str
        A sha256 in hexadecimal.
    """
    statement = {
        "inputs": sorted([entry.name, entry.sha256] for entry in inputs),
        "context": context,
        "software": software,
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(statement, sort_keys=True).encode()).hexdigest()
