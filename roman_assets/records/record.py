"""Commit records: the durable statement that a set of products exists.

Records are the truth; the DuckDB registry is folded from them and can be rebuilt. A record is
written once, as JSON, and never changed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    model_validator,
)

from roman_assets.access import Role
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Quality, Transition, require_possible
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.products.origin import Origin
from roman_assets.software import deciding_software

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


class ArchivedMetadata(_Frozen):
    """What a product's own metadata say for the metadata tables of the archive.

    Parameters
    ----------
    rad_schema
        The schema of the product's file, by rad's name without version.
    sections
        Where the record has them: places in `CommitRecord.sections`, from 0.
    """

    rad_schema: str
    sections: tuple[NonNegativeInt, ...]


class ProductEntry(_Frozen):
    """One product as made: what it is, what is in it, what it was made from.

    Parameters
    ----------
    name
        Official file name (see `roman_assets.products.name`).
    sha256, size
        Of the file, bytes; the blob is found by the hash.
    fingerprint
        Identifies the work: inputs, calibration context, deciding software and parameters (see
        `fingerprint`). Two products with the same name and fingerprint have the same content, dates
        and logs aside.
    inputs
        What it was made from.
    context
        CRDS pipeline context, None where no calibration is involved (R5).
    software
        Versions by name of package or recipe, the deciding ones and others (R5).
    references
        Reference files used, by kind.
    metadata
        Searchable facts of the product, by the column names of the registry.
    archived
        Its metadata for the tables that rad declares, None if it has no row in any.
    access
        Who may see it (R1); what is not public gets no public name.
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
    archived: ArchivedMetadata | None = None
    access: Role = Role.PUBLIC

    @property
    def product_name(self) -> ProductName:
        """The parsed name; raises `ValueError` if it is not official."""
        return ProductName.parse(self.name)


class WorkFailure(_Frozen):
    """A file set of the partition that could not be made, while the others were.

    Parameters
    ----------
    file_set
        Which one.
    error, message
        Class of the error and what it said.
    content
        Of L1: the content version of the packets that it could not be made from.
    """

    file_set: str
    error: str
    message: str
    content: Sha256 | None = None


class ProductTransition(_Frozen):
    """What happens to one generation of a product, other than being made.

    Nothing happens to it if it is not available any more, nor ever to another generation of that
    name. A grade is the exception: any generation can be graded, and those of single exposures hand
    it on to later ones.

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
    quality
        The grade that it is given, None for other transitions.
    valid_from, valid_until
        The time of observation for which the grade holds, UTC; None where it has no bound.
    """

    transition: Transition
    name: str
    made_by: str
    sha256: Sha256
    reason: str
    cause: str
    quality: Quality | None = None
    valid_from: UtcTime | None = None
    valid_until: UtcTime | None = None


class Statement(StrEnum):
    """What a commit record is about."""

    PUBLICATION = "publication"
    """What a step made and could not make."""
    ATTEMPT = "attempt"
    """That a step was begun, or ended without anything to publish."""
    RECEIPT = "receipt"
    """What is in of an exposure."""
    RELEASE = "release"
    """That a data release was begun, or is published."""
    HANDOVER = "handover"
    """What the SSC was told."""
    PROPOSAL = "proposal"
    """A proposal to reprocess early (R15)."""
    DECISION = "decision"
    """What was decided about a proposal, and by whom (R15)."""


class Outcome(StrEnum):
    """What became of an attempt; the two classes of errors are kept apart."""

    RUNNING = "running"
    FINISHED = "finished"
    BAD_INPUT = "bad input"
    PASSING_FAULT = "passing fault"


class Attempt(_Frozen):
    """One try of a step at a partition, as far as it has come; its times are clock events.

    Parameters
    ----------
    attempt_id
        Unique; the records of one attempt share it.
    outcome
        How far it has come. An attempt whose process died stays running until another one of the
        same step and partition begins.
    error, message
        Class of the error and what it said, empty without one.
    last_try
        Whether nothing tries again by itself, should it fail.
    """

    attempt_id: str
    outcome: Outcome
    error: str = ""
    message: str = ""
    last_try: bool = False


class SenderArrival(_Frozen):
    """When the packets of one sender of an exposure, a detector or FACE, were all in."""

    sender: str
    received: UtcTime


class ExposureReceipt(_Frozen):
    """What is known and in of an exposure; its times are clock events.

    Parameters
    ----------
    survey, exposure_type, optical_element
        From the executed visit, None before it is in.
    detectors
        Those planned, empty before the executed visit is in.
    nexposures
        Planned number of exposures of the visit.
    truncated
        The observatory cut the visit short: no more exposures will come.
    lacks_packets, lacks_ancillary
        What is awaited.
    origin
        Where its L1 comes from.
    arrivals
        The senders whose packets were all in at another moment than the last packet of all.
    closed_by, closed_because
        The person who ended the wait for packets, and why.
    """

    survey: Survey | None = None
    exposure_type: ExposureType | None = None
    optical_element: OpticalElement | None = None
    detectors: tuple[str, ...] = ()
    nexposures: int | None = None
    truncated: bool = False
    lacks_packets: bool = False
    lacks_ancillary: bool = False
    origin: Origin = Origin.PACKETS
    arrivals: tuple[SenderArrival, ...] = ()
    closed_by: str | None = None
    closed_because: str | None = None


class ReleasePhase(StrEnum):
    """How far a data release has come."""

    BEGUN = "begun"
    """Its declaration counts and is never changed; what it contains is decided."""
    PUBLISHED = "published"
    """Everyone sees its products."""


class ReleaseStatement(_Frozen):
    """What a record says of a data release (R7, R13).

    Parameters
    ----------
    release
        ``r0``, ``r1``, ...
    survey
        Whose release it is; each survey counts its own.
    phase
        What has happened.
    declaration
        The sha256 of the file that declares it.
    content
        That file, as text.
    software
        Versions by package name with which it was begun; all of it is made with these.
    exposures
        What it is made from, decided when it was begun; empty in other statements.
    """

    release: str
    survey: Survey
    phase: ReleasePhase
    declaration: Sha256
    content: str
    software: dict[str, str] = Field(default_factory=dict)
    exposures: tuple[str, ...] = ()


class Handover(_Frozen):
    """That the SSC was told which L2 images of an exposure or visit are ready (R12).

    Parameters
    ----------
    manifest
        Where the manifest is in the exchange with the SSC.
    digest
        Identifies what it says: the images, by name and content, and what is missing.
    images
        Number of images.
    """

    manifest: str
    digest: Sha256
    images: NonNegativeInt


class Cause(StrEnum):
    """What can make products worth reprocessing."""

    CONTEXT = "context"
    """Another CRDS pipeline context."""
    SOFTWARE = "software"
    """Another version of a package."""
    EPHEMERIS = "ephemeris"
    """A definitive ephemeris (R3)."""
    LEVEL0 = "level0"
    """Packets or ancillary data that were repaired, or formatted wrongly."""
    DATA = "data"
    """A problem of the data of a time range: what was observed then is reprocessed from L0."""
    PIXEL_SCALE = "pixel_scale"
    """Another pixel scale of prompt coadds."""


class Change(_Frozen):
    """Something new that products were not made with.

    Parameters
    ----------
    cause
        What kind of thing it is.
    value
        Which one: ``roman_0003.pmap``, ``romancal=1.2.0``, a file of the landing area, a pixel
        scale; exposures separated by blanks; a time range and detectors.
    """

    cause: Cause
    value: str

    def __str__(self) -> str:
        return f"{self.cause} {self.value}"


class Proposal(_Frozen):
    """A proposal to reprocess products early (R15).

    Parameters
    ----------
    proposal_id
        Unique, at most 30 characters.
    change
        What they would be made with.
    author, reason
        Who proposes it, and why.
    exposures
        The exposures to reprocess.
    visits
        The visits whose L3 and L4 are reprocessed, after their exposures.
    impact
        What it was said to change and cost, for people and programs.
    """

    proposal_id: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,30}$")]
    change: Change
    author: str
    reason: str
    exposures: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()
    impact: dict[str, Any] = Field(default_factory=dict)


class Verdict(StrEnum):
    """What can be decided about a proposal."""

    APPROVED = "approved"
    REJECTED = "rejected"


class Decision(_Frozen):
    """What a person decided about a proposal (R15); the first decision counts.

    Parameters
    ----------
    proposal_id
        Which one.
    verdict
        What.
    author, reason
        Who decided, and why.
    """

    proposal_id: str
    verdict: Verdict
    author: str
    reason: str


class CommitRecord(_Frozen):
    """The products that one step made for one partition, published together.

    A record can also state what happens to products made before: all of it, or nothing.
    Some records have no products: they say what is in of an exposure, how far an attempt has
    come, what the SSC was told, or what is proposed and decided.

    Parameters
    ----------
    record_id
        Unique; folding is idempotent by it.
    step
        The work that was done.
    partition
        Exposure, visit, unit of a data release or such a release; `WHOLE_ARCHIVE` where the work is
        not done for one of them.
    committed_at
        When the record was written; records are folded in this order.
    products
        What was made.
    transitions
        What happens to products made before.
    sections
        Distinct sections of the products' metadata for the archive, by path (such as
        ``exposure.start_time``): what the products of an exposure share is written once.
    failures
        What could not be made.
    events
        Clock events of the partition known at this step.
    run_id
        The Dagster run, None outside Dagster.
    statement
        What the record is about.
    attempt
        The attempt it tells of: of publications the one that made them.
    receipt
        What is in, in records about that.
    release
        What happened to a data release, in records about that.
    handover
        What the SSC was told, in records about that.
    proposal, decision
        What is proposed or decided, in records about that.
    """

    record_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    step: Step
    partition: str
    committed_at: UtcTime = Field(default_factory=lambda: datetime.now(UTC))
    products: tuple[ProductEntry, ...] = ()
    transitions: tuple[ProductTransition, ...] = ()
    sections: tuple[dict[str, Any], ...] = ()
    failures: tuple[WorkFailure, ...] = ()
    events: dict[ClockEvent, UtcTime] = Field(default_factory=dict)
    run_id: str | None = None
    statement: Statement = Statement.PUBLICATION
    attempt: Attempt | None = None
    receipt: ExposureReceipt | None = None
    release: ReleaseStatement | None = None
    handover: Handover | None = None
    proposal: Proposal | None = None
    decision: Decision | None = None

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
            If a name is not official, a product has no such transition in its life cycle, or a
            grade has no quality.
        """
        for product in self.products:
            require_possible(product.product_name, Transition.MADE)
        for change in self.transitions:
            if change.transition is Transition.MADE:
                raise ValueError(f"{change.name}: what is made is stated as a product")
            if change.transition is Transition.GRADED and change.quality is None:
                raise ValueError(f"{change.name}: a grade needs a quality")
            require_possible(ProductName.parse(change.name), change.transition)

    @model_validator(mode="after")
    def _has_sections_of_products(self) -> Self:
        for product in self.products:
            if product.archived and max(product.archived.sections, default=-1) >= len(
                self.sections
            ):
                raise ValueError(f"{product.name} refers to sections that the record does not have")
        return self


class Sections:
    """Collects the metadata of a record's products, each distinct section once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def add(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """Take over values by path; give the places of their sections."""
        sections: dict[str, dict[str, Any]] = {}
        for path in sorted(values):
            section, _, inner = path.partition(".")
            sections.setdefault(section if inner else "", {})[path] = values[path]
        return tuple(
            self._places.setdefault(json.dumps(section), len(self._places))
            for section in sections.values()
        )

    @property
    def collected(self) -> tuple[dict[str, Any], ...]:
        """The sections, in the order of their places."""
        return tuple(json.loads(section) for section in self._places)


def fingerprint(
    step: Step,
    inputs: tuple[ProductInput, ...],
    context: str | None,
    software: Mapping[str, str],
    **settings: Any,
) -> str:
    """Compute what identifies a piece of work from everything that decides its content.

    Parameters
    ----------
    step
        The work; which software decides its content says `roman_assets.software`.
    inputs
        Files it reads.
    context
        CRDS pipeline context.
    software
        Versions by package name; those that decide nothing do not count.
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
        "software": deciding_software(step, software),
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(statement, sort_keys=True).encode()).hexdigest()
