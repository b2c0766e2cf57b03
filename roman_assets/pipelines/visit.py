"""Visits: prompt L2 to VISIT L3 on the sky map and its L4, by romancal (R9, R10, R12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roman_assets.archive.store import Archive
from roman_assets.calibration.context import (
    configure_crds,
    operational_context,
    require_context,
    software_versions,
)
from roman_assets.data_root import DataRoot
from roman_assets.pipelines.attempt import Run, StepAttempt
from roman_assets.pipelines.manifest import VisitManifest, visit_manifest
from roman_assets.pipelines.provenance import as_failure, as_input
from roman_assets.pipelines.scratch import scratch_directory
from roman_assets.pipelines.skycell import (
    MosaickedSkycell,
    SkycellTask,
    mosaic_skycell,
    skycells_of,
)
from roman_assets.pipelines.step import Output, StepResult, publish_step, reusable
from roman_assets.pipelines.workers import (
    Completion,
    WorkerPool,
    calibration_environment,
    worker_count,
)
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName, SkycellFileSet
from roman_assets.products.observation import VisitId
from roman_assets.products.visit_policy import MISSING
from roman_assets.registry.record import ProductEntry, ProductInput, WorkFailure, fingerprint
from roman_assets.registry.registry import Registry

_OUTLINE_MEMORY = 700 * 2**20
_COADD_MEMORY = 1_700 * 2**20
_MEMORY_PER_BYTE = 5
"""Peak memory of a worker for an empty skycell, and more over the size of the L2 it adds up."""


@dataclass(frozen=True)
class MosaicResult(StepResult):
    """What became of the mosaics of a visit.

    Parameters
    ----------
    reason
        Why nothing was to be made, empty otherwise.
    without_data
        Skycells that the outlines of the images touch and no good pixel reaches.
    """

    reason: str = ""
    without_data: tuple[str, ...] = ()


def mosaic_visit(
    root: DataRoot,
    visit: VisitId,
    *,
    context: str | None = None,
    workers: int | None = None,
    run: Run | None = None,
    force: bool = False,
    clock: Clock = utc_now,
) -> MosaicResult:
    """Add up the prompt L2 of a visit on every skycell it touches, and publish what that gives.

    Each skycell gives a coadd on the sky map's own pixels with its association, and a source
    catalogue with its segmentation map. Skycells whose members, context and software are as
    before are not made again. One failing skycell fails alone. Which L2 there are is decided at
    the start: whether a visit is complete is for the caller to ask (`visit_manifest`). Products of
    a visit of which something lacks are marked: ``missing`` in their metadata names what. When the
    rest comes they are made again, with or without more images, so that the mark goes.

    Parameters
    ----------
    root
        The installation.
    visit
        Which one.
    context
        The CRDS pipeline context that was approved (R15); by default the operational one of this
        moment.
    workers
        Processes side by side; None for as many as the machine can feed.
    run
        The run it is done in, for the record.
    force
        Make everything again.
    clock
        Gives the time.

    Returns
    -------
    MosaicResult
        Empty, with the reason, for visits whose L3 and L4 are the SSC's (R12) and for calibration
        exposures.

    Raises
    ------
    BadInputError
        If the CRDS cache has no usable context, or not the one given.
    PassingFaultError
        If the disk is full.
    """
    manifest = visit_manifest(root, visit)
    if not manifest.members or not manifest.kinds:
        return MosaicResult(reason=_reason(manifest))
    with StepAttempt(root, Step.VISIT, str(visit), run, clock) as attempt:
        return _mosaic(root, manifest, context, workers, force, attempt)


def _mosaic(
    root: DataRoot,
    manifest: VisitManifest,
    fixed_context: str | None,
    workers: int | None,
    force: bool,
    attempt: StepAttempt,
) -> MosaicResult:
    visit = manifest.visit
    configure_crds(root)
    context = operational_context() if fixed_context is None else require_context(fixed_context)
    software = software_versions()
    with Registry(root) as registry:
        images = registry.current(member.name for member in manifest.members)
    overlaps, failures = _overlaps(root, images, context, workers)
    plan = [
        _Skycell(file_set, members, manifest, context, software)
        for file_set, members in _by_skycell(visit, images, overlaps).items()
    ]
    marks = {str(name): cell.fingerprint for cell in plan for name in cell.names}
    kept = reusable(root, marks, force)
    todo = {
        str(cell.file_set): cell
        for cell in plan
        if not {str(name) for name in cell.names} <= kept.keys()
    }
    outputs: list[Output] = []
    without_data: list[str] = []
    with scratch_directory(root, str(visit)) as directory:
        tasks = {key: cell.lay_out(Archive.of(root), directory / key) for key, cell in todo.items()}
        for done in _mosaicked(tasks, todo.values(), context, workers):
            if done.value is None:
                failures.append(as_failure(done))
            elif not done.value.files:
                without_data.append(done.key)
            else:
                outputs.extend(todo[done.key].outputs(done.value, kept))
        result = publish_step(
            root,
            step=Step.VISIT,
            partition=str(visit),
            outputs=outputs,
            failures=failures,
            reused=kept.values(),
            attempt=attempt,
        )
    return MosaicResult(
        result.made,
        result.reused,
        result.failures,
        result.record_id,
        without_data=tuple(sorted(without_data)),
    )


def _reason(manifest: VisitManifest) -> str:
    if not manifest.members:
        return f"{manifest.visit} has no L2"
    return (
        f"the SOC makes no prompt L3 of {manifest.survey} {manifest.exposure_type} visits "
        "(the Science Support Center does, where there is any)"
    )


@dataclass(frozen=True)
class _Skycell:
    """What is to be made of a visit on one skycell."""

    file_set: SkycellFileSet
    members: tuple[ProductEntry, ...]
    manifest: VisitManifest
    context: str
    software: Mapping[str, str]

    @property
    def inputs(self) -> tuple[ProductInput, ...]:
        return tuple(as_input(member) for member in self.members)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.inputs, self.context, dict(self.software), **self._mark)

    @property
    def names(self) -> tuple[ProductName, ...]:
        return tuple(ProductName(self.file_set, kind) for kind in self.manifest.kinds)

    @property
    def memory(self) -> int:
        """Peak memory of the worker that makes it, bytes."""
        return _COADD_MEMORY + _MEMORY_PER_BYTE * sum(member.size for member in self.members)

    def lay_out(self, archive: Archive, directory: Path) -> SkycellTask:
        """Put exactly the registered members, under their official names, into a directory."""
        directory.mkdir()
        paths = tuple(directory / member.name for member in self.members)
        for path, member in zip(paths, self.members, strict=True):
            archive.lay_out(member.sha256, path)
        return SkycellTask(self.file_set, paths)

    def outputs(self, made: MosaickedSkycell, kept: Mapping[str, ProductEntry]) -> Iterator[Output]:
        """Give what is to be published of it."""
        for name in self.names:
            if str(name) in kept:
                continue
            yield Output(
                name=name,
                path=made.files[name.kind.name],
                fingerprint=self.fingerprint,
                inputs=self.inputs,
                context=self.context,
                software=self.software,
                references=made.references,
                metadata=self._facts | dict(made.quality.get(name.kind.name, {})),
            )

    @property
    def _facts(self) -> dict[str, Any]:
        facts = {
            "survey": self.manifest.survey,
            "exposure_type": self.manifest.exposure_type,
            "nexposures": self.manifest.nexposures,
        }
        return {name: value for name, value in facts.items() if value is not None} | self._mark

    @property
    def _mark(self) -> dict[str, Any]:
        missing = list(self.manifest.missing)
        return {MISSING: missing} if missing else {}


def _overlaps(
    root: DataRoot, images: Mapping[str, ProductEntry], context: str, workers: int | None
) -> tuple[dict[str, tuple[str, ...]], list[WorkFailure]]:
    """Find the skycells of every image; an image that cannot be read is a failure of its own."""
    archive = Archive.of(root)
    tasks = {
        str(image.product_name.file_set): archive.local(image.sha256) for image in images.values()
    }
    overlaps: dict[str, tuple[str, ...]] = {}
    failures: list[WorkFailure] = []
    size = min(workers or worker_count(_OUTLINE_MEMORY), len(tasks))
    with WorkerPool(size, calibration_environment(context)) as pool:
        for done in pool.run(skycells_of, tasks):
            if done.value is None:
                failures.append(as_failure(done))
            else:
                overlaps[done.key] = done.value
    return overlaps, failures


def _by_skycell(
    visit: VisitId,
    images: Mapping[str, ProductEntry],
    overlaps: Mapping[str, tuple[str, ...]],
) -> dict[SkycellFileSet, tuple[ProductEntry, ...]]:
    """Group the images by skycell and optical element, in the order of their names."""
    groups: dict[SkycellFileSet, list[ProductEntry]] = {}
    for _, image in sorted(images.items()):
        file_set = image.product_name.file_set
        for skycell in overlaps.get(str(file_set), ()):
            group = SkycellFileSet.of_visit(visit, skycell, file_set.optical_element)
            groups.setdefault(group, []).append(image)
    return {file_set: tuple(members) for file_set, members in groups.items()}


def _mosaicked(
    tasks: Mapping[str, SkycellTask],
    skycells: Iterable[_Skycell],
    context: str,
    workers: int | None,
) -> Iterator[Completion[MosaickedSkycell]]:
    if not tasks:
        return
    memory = max(skycell.memory for skycell in skycells)
    size = min(workers or worker_count(memory), len(tasks))
    with WorkerPool(size, calibration_environment(context)) as pool:
        yield from pool.run(mosaic_skycell, tasks)
