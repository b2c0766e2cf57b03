"""What every pipeline does around its science: skip what is made, publish what it made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from roman_assets.access import Role
from roman_assets.archive.store import Archive, Staged
from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step, makes
from roman_assets.products.name import ProductName
from roman_assets.publishing.attempt import StepAttempt
from roman_assets.publishing.publication_order import Publication, decided
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    ArchivedMetadata,
    CommitRecord,
    ProductEntry,
    ProductInput,
    ProductTransition,
    Sections,
    WorkFailure,
)
from roman_assets.registry.catalog.metadata import ArchiveValues, product_metadata
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry


@dataclass(frozen=True)
class Output:
    """A finished file that is to become a product.

    Parameters
    ----------
    name
        Its official name.
    path
        The file as written; it is moved into the archive.
    fingerprint
        Identifies the work (see `roman_assets.records.record.fingerprint`).
    inputs
        What it was made from.
    context
        CRDS pipeline context, None where no calibration is involved (R5).
    software
        Versions by package name (R5).
    references
        Reference files used, by kind.
    metadata
        Facts the file itself does not carry, by registry column (see
        `roman_assets.registry.catalog.schema.METADATA`): the ``survey``, ``exposure_type`` and
        ``nexposures`` of guide-window, FACE and association files, say. They win over what is
        read from the file.
    archived
        What goes into the metadata tables of the archive, for files whose metadata come beside
        them; else it is read from the file.
    access
        Who may see it: a product of a data release only operators, until that is published.
    """

    name: ProductName
    path: Path
    fingerprint: str
    inputs: tuple[ProductInput, ...] = ()
    context: str | None = None
    software: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    archived: ArchiveValues | None = None
    access: Role = Role.PUBLIC


@dataclass(frozen=True)
class StepResult:
    """What became of one step of one partition.

    Parameters
    ----------
    made
        Products that this call made and published.
    reused
        Products that were there already, made by the same work.
    failures
        File sets that could not be made.
    record_id
        The commit record, None when there was nothing to record.
    """

    made: tuple[ProductEntry, ...] = ()
    reused: tuple[ProductEntry, ...] = ()
    failures: tuple[WorkFailure, ...] = ()
    record_id: str | None = None


def reusable(
    root: DataRoot, planned: Mapping[str, str], force: bool = False
) -> dict[str, ProductEntry]:
    """Find the planned products that exist as planned, so that a rerun need not make them.

    Parameters
    ----------
    root
        The installation.
    planned
        Fingerprint of the intended work by official file name.
    force
        Make everything again: nothing is reusable.

    Returns
    -------
    dict
        The current entry by name, for products whose fingerprint is the planned one and whose
        file is there. Records that a killed run left behind are folded first.
    """
    if force or not planned:
        return {}
    Engine(root).fold()
    archive = Archive.of(root)
    return {
        name: entry
        for name, entry in Registry(root).generations.current(planned).items()
        if entry.fingerprint == planned[name] and archive.has_blob(entry.sha256, entry.size)
    }


def publish_step(
    root: DataRoot,
    *,
    step: Step,
    partition: str,
    outputs: Iterable[Output],
    failures: Iterable[WorkFailure] = (),
    events: Mapping[ClockEvent, datetime] | None = None,
    reused: Iterable[ProductEntry] = (),
    transitions: Iterable[ProductTransition] = (),
    run_id: str | None = None,
    attempt: StepAttempt | None = None,
) -> StepResult:
    """Publish what a step made, all of it or nothing.

    The files become blobs, one commit record makes them products, and the fold gives them their
    public names. When this returns, archive and registry show them. A crash before the record
    leaves no product; a crash after it is finished by the next fold.

    What follows a product and was not remade with it is overwritten too, by the same record
    (R14). A product of a data release is published once and never again (R13); it is public if the
    release is.

    Parameters
    ----------
    root
        The installation.
    step, partition
        The work, and the exposure or visit it was done for.
    outputs
        What was made; the files are moved.
    failures
        File sets that could not be made, while the others were.
    events
        Clock events known at this step.
    reused
        Entries of `reusable`; a rerun that only reuses writes no record.
    transitions
        What happens to other products by the same record: prompt L3 that a release supersedes.
    run_id
        The Dagster run.
    attempt
        The attempt that made it; it ends with the record, and knows the run.

    Raises
    ------
    BadInputError
        If an output is not a readable product file, a product of a data release that exists, or
        made from a product that was overwritten meanwhile; nothing is published.
    PassingFaultError
        If a disk is full, or a product in `reused` was overwritten meanwhile; nothing half written
        is visible, and the work can be repeated.
    ValueError
        If an output is of another step, or two outputs share a name.
    """
    made, kept = tuple(outputs), tuple(reused)
    failed, moments = tuple(failures), dict(events or {})
    _require_outputs_of(step, made)
    changes = tuple(transitions)
    if not made and not failed and not changes and (kept or not moments):
        return StepResult(reused=kept)
    journal = Journal(root)
    archive = Archive.of(root)
    with ExitStack() as committing:
        committing.enter_context(archive.claiming())
        with _Staging(archive) as staging:
            products = tuple(staging.entry(output) for output in made)
            publication = Publication({output.name: output.inputs for output in made}, kept)
            outcome = committing.enter_context(decided(root, publication))
            record = CommitRecord(
                step=step,
                partition=partition,
                products=tuple(map(outcome.shown, products)),
                sections=staging.sections.collected,
                transitions=(*changes, *outcome.transitions),
                failures=failed,
                events=moments,
                run_id=run_id,
            )
            if attempt is not None:
                record = attempt.publication(record)
            prepared = journal.prepare(record)
        journal.commit(prepared)
    if attempt is not None:
        attempt.published = True
    Engine(root).fold()
    return StepResult(record.products, kept, failed, record.record_id)


class _Staging:
    """Stages outputs, and takes them back if the record is not reached."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._staged: list[Staged] = []
        self.sections = Sections()

    def __enter__(self) -> _Staging:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            for staged in self._staged:
                self._archive.withdraw(staged)

    def entry(self, output: Output) -> ProductEntry:
        metadata = product_metadata(output.path, output.name)
        staged = self._archive.stage(output.path)
        self._staged.append(staged)
        return ProductEntry(
            name=str(output.name),
            sha256=staged.sha256,
            size=staged.size,
            fingerprint=output.fingerprint,
            inputs=output.inputs,
            context=output.context,
            software=dict(output.software),
            references=dict(output.references),
            metadata={**metadata.facts, **output.metadata},
            archived=self._archived(output.archived or metadata.archived),
            access=output.access,
        )

    def _archived(self, values: ArchiveValues | None) -> ArchivedMetadata | None:
        if values is None:
            return None
        return ArchivedMetadata(
            rad_schema=values.rad_schema, sections=self.sections.add(values.values)
        )


def _require_outputs_of(step: Step, outputs: Sequence[Output]) -> None:
    names = [str(output.name) for output in outputs]
    if len(set(names)) != len(names):
        raise ValueError(f"two outputs of one step share a name: {sorted(names)}")
    for output in outputs:
        if not makes(step, output.name.kind):
            raise ValueError(f"{output.name} is made by {output.name.kind.step}, not by {step}")
