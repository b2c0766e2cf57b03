"""Exposures: L1 to L2, the L1 supplement and L4 per exposure, by romancal (R4, R5, R10)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from roman_assets.archive.store import Archive
from roman_assets.calibration.aligned_supplements import AlignedSupplements
from roman_assets.calibration.calibration_plan import CalibrationPlan, PlannedRamp, refused_of
from roman_assets.calibration.common_pointing import CommonPointingTask, point_like_the_others
from roman_assets.calibration.detector import CalibratedDetector, DetectorTask, calibrate_detector
from roman_assets.calibration.former_images import FormerImages
from roman_assets.calibration.preview import not_drawn, with_pictures
from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import KIND_BY_NAME, Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId
from roman_assets.products.pointing import ALIGNED
from roman_assets.products.visit_policy import MISSING
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.publishing.provenance import as_failure
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.publishing.workers import (
    WorkerPool,
    calibration_environment,
    worker_count,
)
from roman_assets.records.record import ProductEntry, ProductInput, WorkFailure
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct


@dataclass(frozen=True)
class ExposureSummary:
    """The quality of an exposure's L2 images at a glance.

    Parameters
    ----------
    detectors
        Number of L2 images.
    aligned
        How many of them tweakreg aligned with the astrometric reference.
    alignment_rms
        The worst scatter about that reference, mas.
    source_count
        Sources in all catalogues, None where none are made.
    bad_pixel_fraction
        The worst.
    background
        Median over the detectors of the median of the good pixels, DN/s.
    """

    detectors: int
    aligned: int
    alignment_rms: float | None
    source_count: int | None
    bad_pixel_fraction: float | None
    background: float | None

    @classmethod
    def of(cls, entries: Iterable[ProductEntry]) -> Self:
        """Summarise the L2 images among some products (``StepResult.made`` and ``reused``)."""
        images = [
            entry.metadata for entry in entries if entry.product_name.kind is KIND_BY_NAME["cal"]
        ]
        counts, backgrounds = _known(images, "source_count"), _known(images, "background")
        return cls(
            detectors=len(images),
            aligned=sum(image.get("alignment") == ALIGNED for image in images),
            alignment_rms=max(_known(images, "alignment_rms"), default=None),
            source_count=int(sum(counts)) if counts else None,
            bad_pixel_fraction=max(_known(images, "bad_pixel_fraction"), default=None),
            background=median(backgrounds) if backgrounds else None,
        )


def _known(images: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    return [image[name] for image in images if image.get(name) is not None]


def calibrate_exposure(
    root: DataRoot,
    exposure: ExposureId,
    *,
    context: str | None = None,
    data_release: str | None = None,
    only: Collection[str] | None = None,
    routine: bool = False,
    workers: int | None = None,
    run: Run | None = None,
    force: bool = False,
    clock: Clock = utc_now,
) -> StepResult:
    """Calibrate every detector of an exposure that has L1, and publish what they give.

    Each detector gives L2 and the supplement of its L1 (with the definitive ephemeris if it has
    been received by now, else with that of L1), and for imaging of HLWAS, HLTDS and GAS a source
    catalogue and a segmentation map. The context and the software are the best of this moment
    and are recorded with every product (R5). What exists already, made from the same L1 with
    the same context and software, is reused. One failing detector fails alone.

    Routine work replaces no L2 of the same L1, whatever is best now, and makes a lost one with the
    context and for the data release on its record (R7, R15). If other software is installed by now,
    it makes a lost L2 without that mark, and adds nothing to an L2 that is there.

    Parameters
    ----------
    root
        The installation.
    exposure
        Which one.
    context
        The CRDS pipeline context, fixed by a data release (R7) or by what was approved (R15); by
        default the operational one of this moment.
    data_release
        The data release that it is reprocessed for; its products are marked with it.
    only
        File sets to calibrate, those that something new affects (R15): the products of the others
        stay as they are. All by default.
    routine
        Nobody asked for L2 of the same L1 again.
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
    StepResult
        What was made, reused, and could not be made. `ExposureSummary.of` gives its quality.

    Raises
    ------
    BadInputError
        If the exposure has no L1, or the CRDS cache has no usable context, or not the one given.
    PassingFaultError
        If the disk is full.
    """
    with StepAttempt(root, Step.EXPOSURE, str(exposure), run, clock) as attempt:
        plan = CalibrationPlan.make(
            root, exposure, context, data_release, routine=routine and not force
        )
        return _calibrate(root, plan, only, workers, force, attempt)


def _calibrate(
    root: DataRoot,
    plan: CalibrationPlan,
    only: Collection[str] | None,
    workers: int | None,
    force: bool,
    attempt: StepAttempt,
) -> StepResult:
    exposure = attempt.partition
    kept = reusable(root, plan.fingerprints, force) | plan.kept | _left_alone(root, plan, only)
    ramps = {
        str(ramp.file_set): ramp
        for ramp in plan.ramps
        if (only is None or str(ramp.file_set) in only) and not ramp.standing.is_over
    }
    wanted = {key: ramp for key, ramp in ramps.items() if not ramp.names <= kept.keys()}
    refused = refused_of(wanted)
    todo = {key: ramp for key, ramp in wanted.items() if key not in refused}
    with scratch_directory(root, exposure) as directory:
        work = _Calibration(root, plan, directory, workers)
        work.calibrate(todo, kept)
        aligned = plan.aligned.with_made(work.made)
        outdated = {
            key: ramp
            for key, ramp in ramps.items()
            if key not in wanted and plan.is_outdated(ramp, aligned, kept)
        }
        for ramp in outdated.values():
            kept = {name: entry for name, entry in kept.items() if name not in ramp.names}
        work.calibrate(outdated, kept)
        work.point_like(aligned)
        return publish_step(
            root,
            step=Step.EXPOSURE,
            partition=exposure,
            outputs=work.outputs(kept, aligned.inputs),
            failures=[
                *_failed_before(root, exposure, only), *refused.values(), *work.failures,
                *work.not_drawn,
            ],
            reused=kept.values(),
            attempt=attempt,
        )  # fmt: skip


@dataclass
class _Calibration:
    """The work on the detectors of an exposure, in one directory.

    Parameters
    ----------
    root, plan, workers
        As in `calibrate_exposure`.
    directory
        Where the files are.
    """

    root: DataRoot
    plan: CalibrationPlan
    directory: Path
    workers: int | None
    made: dict[str, CalibratedDetector] = field(default_factory=dict)
    failures: list[WorkFailure] = field(default_factory=list)
    _ramps: dict[str, PlannedRamp] = field(default_factory=dict)
    _former: dict[str, FormerImages] = field(default_factory=dict)

    def calibrate(self, ramps: Mapping[str, PlannedRamp], kept: Container[str]) -> None:
        """Calibrate detectors; those that fail are listed."""
        if not ramps:
            return
        former = FormerImages.of(self.root, ramps.values(), kept, self.directory)
        self._ramps |= ramps
        self._former |= dict.fromkeys(ramps, former)
        self._do(
            calibrate_detector,
            {
                key: DetectorTask(
                    _lay_out(self.root, ramp.entry, self.directory),
                    self.plan.ephemeris,
                    self.plan.astrometric_catalog,
                    former.files_of(ramp),
                )
                for key, ramp in ramps.items()
            },
        )

    def point_like(self, aligned: AlignedSupplements) -> None:
        """Return the images without an alignment of their own the pointing of the others."""
        unaligned = {key: one for key, one in self.made.items() if one.quality.is_unaligned}
        if not unaligned or not aligned.supplements:
            return
        paths = aligned.lay_out(self.root, self.directory)
        self._do(
            point_like_the_others,
            {
                key: CommonPointingTask(
                    made,
                    paths,
                    self.plan.astrometric_catalog,
                    self._former[key].files_of(self._ramps[key]),
                )
                for key, made in unaligned.items()
            },
        )

    def outputs(
        self, kept: Mapping[str, ProductEntry], aligned: tuple[ProductInput, ...]
    ) -> list[Output]:
        """Return the products that were made, but for those that are kept."""
        return [
            output
            for key, made in self.made.items()
            for output in _outputs(
                self.plan.work.made_with(
                    self._ramps[key], aligned if made.quality.needs_others else ()
                ),
                made, self.plan, kept, self._former[key],
            )
        ]  # fmt: skip

    @property
    def not_drawn(self) -> list[WorkFailure]:
        """The failures of detectors whose images are published without pictures."""
        return [
            failure for key, made in self.made.items() for failure in not_drawn(key, made.not_drawn)
        ]

    def _do(self, function: Callable[[Any], CalibratedDetector], tasks: Mapping[str, Any]) -> None:
        """Do tasks side by side; what fails is not made."""
        for context in sorted({self._ramps[key].context for key in tasks}):
            chosen = {key: one for key, one in tasks.items() if self._ramps[key].context == context}
            size = min(self.workers or worker_count(self.plan.memory), len(chosen))
            with WorkerPool(size, calibration_environment(context)) as pool:
                for done in pool.run(function, chosen):
                    if done.value is None:
                        self.made.pop(done.key, None)
                        self.failures.append(as_failure(done))
                    else:
                        self.made[done.key] = done.value


def _left_alone(
    root: DataRoot, plan: CalibrationPlan, only: Collection[str] | None
) -> dict[str, RegisteredProduct]:
    """Return the products of file sets that are not to be reprocessed."""
    if only is None:
        return {}
    others = (ramp for ramp in plan.ramps if str(ramp.file_set) not in only)
    with Registry(root) as registry:
        return registry.generations.current(name for ramp in others for name in ramp.names)


def _failed_before(
    root: DataRoot, exposure: str, only: Collection[str] | None
) -> list[WorkFailure]:
    """Return the failures of file sets that are left alone: the newest record tells of all."""
    if only is None:
        return []
    with Registry(root) as registry:
        rows = registry.work.failures([exposure]).to_dict("records")
    return [
        WorkFailure(file_set=row["file_set"], error=row["error"], message=row["message"])
        for row in rows
        if row["step"] == Step.EXPOSURE and row["file_set"] not in only
    ]


def _lay_out(root: DataRoot, ramp: ProductEntry, directory: Path) -> Path:
    """Put exactly the registered content, under its official name, into a directory of its own."""
    place = directory / ramp.name.rsplit("_", 1)[0]
    place.mkdir()
    uncal = place / ramp.name
    Archive.of(root).lay_out(ramp.sha256, uncal)
    return uncal


_SHARED = ("survey", "exposure_type", "nexposures", "start_time", "end_time")
"""Facts of an exposure that a picture does not carry."""


def _outputs(
    ramp: PlannedRamp,
    made: CalibratedDetector,
    plan: CalibrationPlan,
    kept: Mapping[str, ProductEntry],
    former: FormerImages,
) -> Iterator[Output]:
    mark = {} if ramp.data_release is None else {"data_release": ramp.data_release}
    mark |= {MISSING: ramp.entry.metadata[MISSING]} if MISSING in ramp.entry.metadata else {}
    for kind, identity in with_pictures(ramp.products, kept, ramp.file_set).items():
        name = ProductName(ramp.file_set, kind)
        path = made.files.get(kind.name)
        if path is None or str(name) in kept:
            continue
        facts = {key: ramp.entry.metadata.get(key) for key in _SHARED} if kind.picture else {}
        inputs = plan.work.inputs(ramp, kind)
        yield Output(
            name=name,
            path=path,
            fingerprint=identity,
            inputs=inputs,
            context=made.context,
            software=plan.work.software,
            references=made.references,
            metadata={
                **facts,
                **made.quality.metadata_of(kind.name),
                **former.change_by(str(name), made, plan, inputs),
                **mark,
            },
        )
