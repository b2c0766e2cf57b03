"""Adding up L2 on every skycell they touch: what visits and data releases share (R9, R13)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.calibration.preview import not_drawn, with_pictures
from roman_assets.calibration.standing import NOTHING, Standing, standing_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.mosaic.skycell import (
    MosaickedSkycell,
    SkycellTask,
    mosaic_skycell,
    skycells_of,
)
from roman_assets.products.kind import ProductKind, Step, pictures_of
from roman_assets.products.lifecycle import State, Transition
from roman_assets.products.name import (
    PROMPT_RELEASE,
    GroupedFileSet,
    ProductName,
    SkycellFileSet,
)
from roman_assets.products.pixel_scale import PIXEL_SCALE, PixelScale
from roman_assets.products.visit_policy import MISSING
from roman_assets.publishing.attempt import StepAttempt
from roman_assets.publishing.provenance import as_failure, as_input
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.publishing.workers import (
    Completion,
    WorkerPool,
    calibration_environment,
    worker_count,
)
from roman_assets.records.record import (
    ProductEntry,
    ProductInput,
    ProductTransition,
    WorkFailure,
    fingerprint,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.upkeep.retention import transitions_of

_OUTLINE_MEMORY = 700 * 2**20
_COADD_MEMORY = {PixelScale.NATIVE: 950 * 2**20, PixelScale.SKYMAP: 2_050 * 2**20}
_MEMORY_PER_BYTE = 5
"""Peak memory of a worker for an empty skycell, and more over the size of the L2 it adds up."""


@dataclass(frozen=True)
class MosaicResult(StepResult):
    """What became of the mosaics of a visit, or of a unit of a data release.

    Parameters
    ----------
    reason
        Why nothing was to be made, empty otherwise.
    without_data
        Skycells that the outlines of the images touch and no good pixel reaches.
    """

    reason: str = ""
    without_data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mosaic:
    """What is to be added up, and how it is recorded.

    Parameters
    ----------
    group
        Begins the names of all products.
    images
        The L2 images, by name.
    kinds
        What is made on each skycell.
    context, software
        CRDS pipeline context, and versions by package name.
    pixel_scale
        The pixels of the coadds.
    facts
        Metadata of all products; what is not known is None.
    missing
        What is missing: the products are marked with it.
    access
        Who sees the products.
    """

    group: GroupedFileSet
    images: Mapping[str, ProductEntry]
    kinds: tuple[ProductKind, ...]
    context: str
    software: Mapping[str, str]
    pixel_scale: PixelScale
    facts: Mapping[str, Any]
    missing: tuple[str, ...] = ()
    access: Role = Role.PUBLIC

    @property
    def mark(self) -> dict[str, Any]:
        """The metadata that says what is missing, empty if nothing is."""
        return {MISSING: list(self.missing)} if self.missing else {}


def make_mosaic(
    root: DataRoot,
    mosaic: Mosaic,
    step: Step,
    *,
    workers: int | None,
    force: bool,
    attempt: StepAttempt,
    routine: bool = False,
) -> MosaicResult:
    """Make coadds with their associations and L4, and publish them as one step.

    What exists already, made of the same images with the same context and software, is reused.
    One failing skycell fails alone. Routine work replaces no coadd of the same images, and
    makes a lost one with the context and pixel scale on its record (R15); no work replaces one of a
    release (R13).

    Parameters
    ----------
    root
        The installation; CRDS is configured.
    mosaic
        What is to be made.
    step
        The work that it counts as.
    workers
        Processes side by side; None for as many as the machine can feed.
    force
        Make everything again.
    attempt
        The attempt that it is part of.
    routine
        Nobody asked for the coadds of the same images again.
    """
    overlaps, failures = _overlaps(root, mosaic, workers)
    members = _by_skycell(mosaic, overlaps)
    standing = {} if force else _standing(root, mosaic, members, routine=routine)
    plan = [
        _Skycell(file_set, images, mosaic, standing.get(str(file_set), NOTHING))
        for file_set, images in members.items()
    ]
    marks = {str(name): cell.fingerprint for cell in plan for name in cell.names}
    kept = reusable(root, marks, force) | {
        name: entry
        for cell in plan
        if cell.standing.is_led
        for name, entry in cell.standing.kept.items()
    }
    todo = {
        str(cell.file_set): cell
        for cell in plan
        if not cell.standing.is_over and not {str(name) for name in cell.names} <= kept.keys()
    }
    refused = [failure for cell in todo.values() if (failure := cell.refusal()) is not None]
    failures += refused
    for failure in refused:
        del todo[failure.file_set]
    outputs: list[Output] = []
    undrawn: list[WorkFailure] = []
    without_data: list[str] = []
    with scratch_directory(root, attempt.partition) as directory:
        tasks = {key: cell.lay_out(Archive.of(root), directory / key) for key, cell in todo.items()}
        for done in _mosaicked(tasks, todo, workers):
            if done.value is None:
                failures.append(as_failure(done))
            elif not done.value.files:
                without_data.append(done.key)
            else:
                outputs.extend(todo[done.key].outputs(done.value, kept))
                undrawn.extend(not_drawn(done.key, done.value.not_drawn))
        result = publish_step(
            root,
            step=step,
            partition=attempt.partition,
            outputs=outputs,
            failures=[*failures, *undrawn],
            reused=kept.values(),
            transitions=() if failures else _unreached(root, mosaic, members, without_data),
            attempt=attempt,
        )
    return MosaicResult(
        result.made,
        result.reused,
        result.failures,
        result.record_id,
        without_data=tuple(sorted(without_data)),
    )


@dataclass(frozen=True)
class _Skycell:
    """What is to be made of a mosaic on one skycell."""

    file_set: SkycellFileSet
    members: tuple[ProductEntry, ...]
    mosaic: Mosaic
    standing: Standing = NOTHING

    @property
    def context(self) -> str:
        """The CRDS context of its mosaic, or the one on record if it is not to be replaced."""
        leader = self.standing.leader
        return self.mosaic.context if leader is None or leader.context is None else leader.context

    @property
    def pixel_scale(self) -> PixelScale:
        """The scale of its mosaic, or the one on record if it is not to be replaced."""
        leader = self.standing.leader
        return self.mosaic.pixel_scale if leader is None else PixelScale.recorded(leader.metadata)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the products beside inputs, context and software, as they are marked."""
        return {PIXEL_SCALE: self.pixel_scale.arcsec, **self.mosaic.mark}

    @property
    def inputs(self) -> tuple[ProductInput, ...]:
        return tuple(as_input(member) for member in self.members)

    @property
    def fingerprint(self) -> str:
        return fingerprint(
            Step.VISIT, self.inputs, self.context, self.mosaic.software, **self.settings
        )

    @property
    def names(self) -> tuple[ProductName, ...]:
        return tuple(ProductName(self.file_set, kind) for kind in self.mosaic.kinds)

    @property
    def memory(self) -> int:
        """Peak memory of the worker that makes it, bytes."""
        members = sum(member.size for member in self.members)
        return _COADD_MEMORY[self.pixel_scale] + _MEMORY_PER_BYTE * members

    def refusal(self) -> WorkFailure | None:
        """Return the failure of a skycell whose products must stay and cannot be completed."""
        leader, software = self.standing.leader, self.mosaic.software
        try:
            self.standing.require_possible(
                same_work=leader is not None
                and leader.fingerprint
                == fingerprint(
                    Step.VISIT,
                    leader.inputs,
                    leader.context,
                    software,
                    **recorded_settings(leader.metadata),
                )
            )
        except BadInputError as error:
            return as_failure(Completion(str(self.file_set), error=error))
        return None

    def lay_out(self, archive: Archive, directory: Path) -> SkycellTask:
        """Put exactly the registered members, under their official names, into a directory."""
        directory.mkdir()
        paths = tuple(directory / member.name for member in self.members)
        for path, member in zip(paths, self.members, strict=True):
            archive.lay_out(member.sha256, path)
        return SkycellTask(self.file_set, paths, self.pixel_scale)

    def outputs(self, made: MosaickedSkycell, kept: Mapping[str, ProductEntry]) -> Iterator[Output]:
        """Yield what is to be published of it."""
        facts = {name: value for name, value in self.mosaic.facts.items() if value is not None}
        kinds = dict.fromkeys(self.mosaic.kinds, self.fingerprint)
        for kind, identity in with_pictures(kinds, kept, self.file_set).items():
            name = ProductName(self.file_set, kind)
            if str(name) in kept or kind.name not in made.files:
                continue
            quality = dict(made.quality.get(kind.name, {}))
            yield Output(
                name=name,
                path=made.files[kind.name],
                fingerprint=identity,
                inputs=self.inputs,
                context=self.context,
                software=self.mosaic.software,
                references=made.references,
                metadata=facts | self.settings | quality,
                access=self.mosaic.access,
            )


def _overlaps(
    root: DataRoot, mosaic: Mosaic, workers: int | None
) -> tuple[dict[str, tuple[str, ...]], list[WorkFailure]]:
    """Find the skycells of every image; an image that cannot be read is a failure of its own."""
    archive = Archive.of(root)
    tasks = {
        str(image.product_name.file_set): archive.local(image.sha256)
        for image in mosaic.images.values()
    }
    overlaps: dict[str, tuple[str, ...]] = {}
    failures: list[WorkFailure] = []
    size = min(workers or worker_count(_OUTLINE_MEMORY), len(tasks))
    with WorkerPool(size, calibration_environment(mosaic.context)) as pool:
        for done in pool.run(skycells_of, tasks):
            if done.value is None:
                failures.append(as_failure(done))
            else:
                overlaps[done.key] = done.value
    return overlaps, failures


def _by_skycell(
    mosaic: Mosaic, overlaps: Mapping[str, tuple[str, ...]]
) -> dict[SkycellFileSet, tuple[ProductEntry, ...]]:
    """Group the images by skycell and optical element, in the order of their names."""
    group = mosaic.group
    groups: dict[SkycellFileSet, list[ProductEntry]] = {}
    for _, image in sorted(mosaic.images.items()):
        file_set = image.product_name.file_set
        for skycell in overlaps.get(str(file_set), ()):
            place = SkycellFileSet(
                group.program, group.release, group.grouping, skycell, file_set.optical_element
            )
            groups.setdefault(place, []).append(image)
    return {file_set: tuple(members) for file_set, members in groups.items()}


def _standing(
    root: DataRoot,
    mosaic: Mosaic,
    members: Mapping[SkycellFileSet, tuple[ProductEntry, ...]],
    *,
    routine: bool,
) -> dict[str, Standing]:
    """Return the products that must not be replaced, by file set."""
    released = mosaic.group.release != PROMPT_RELEASE
    if not routine and not released:
        return {}
    inputs = {
        str(file_set): {as_input(image) for image in images} for file_set, images in members.items()
    }

    def is_same(made: RegisteredProduct) -> bool:
        file_set = str(made.product_name.file_set)
        return released or (
            set(made.inputs) == inputs[file_set] and _mark(made.metadata) == mosaic.mark
        )

    names = [ProductName(file_set, kind) for file_set in members for kind in mosaic.kinds]
    return standing_of(root, names, is_same)


def _unreached(
    root: DataRoot, mosaic: Mosaic, members: Iterable[SkycellFileSet], without_data: Iterable[str]
) -> tuple[ProductTransition, ...]:
    """Withdraw the prompt products of skycells that no image of the group reaches any more."""
    if mosaic.group.release != PROMPT_RELEASE or mosaic.group.visit is None:
        return ()
    reached = {str(file_set) for file_set in members} - set(without_data)
    with Registry(root) as registry:
        found = registry.products.find(
            visit=str(mosaic.group.visit),
            kind=[one.name for kind in mosaic.kinds for one in (kind, *pictures_of(kind))],
            release=PROMPT_RELEASE,
        )
    gone = found[(found["state"] == State.CURRENT) & ~found["file_set"].isin(reached)]
    return transitions_of(
        gone,
        Transition.WITHDRAWN,
        "no image of the visit reaches the skycell any more",
        str(mosaic.group),
    )


def recorded_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return from the metadata of a product the settings that entered its fingerprint."""
    return {PIXEL_SCALE: PixelScale.recorded(metadata).arcsec, **_mark(metadata)}


def _mark(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {MISSING: metadata[MISSING]} if MISSING in metadata else {}


def _mosaicked(
    tasks: Mapping[str, SkycellTask], todo: Mapping[str, _Skycell], workers: int | None
) -> Iterator[Completion[MosaickedSkycell]]:
    for context in sorted({cell.context for cell in todo.values()}):
        chosen = [key for key, cell in todo.items() if cell.context == context]
        memory = max(todo[key].memory for key in chosen)
        size = min(workers or worker_count(memory), len(chosen))
        with WorkerPool(size, calibration_environment(context)) as pool:
            yield from pool.run(mosaic_skycell, {key: tasks[key] for key in chosen})
