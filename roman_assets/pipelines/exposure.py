"""Exposures: L1 to L2, the L1 supplement and L4 per exposure, by romancal (R4, R5, R10)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Self

from roman_assets.archive.store import Archive, sha256_of
from roman_assets.calibration.acceleration.installation import acceleration_wanted
from roman_assets.calibration.context import (
    astrometric_catalog,
    configure_crds,
    operational_context,
    require_context,
)
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PlatformError
from roman_assets.pipelines.aligned_supplements import AlignedSupplements
from roman_assets.pipelines.attempt import Run, StepAttempt
from roman_assets.pipelines.common_pointing import CommonPointingTask, point_like_the_others
from roman_assets.pipelines.detector import CalibratedDetector, DetectorTask, calibrate_detector
from roman_assets.pipelines.formatting.landing import LandingArea
from roman_assets.pipelines.preview import not_drawn, with_pictures
from roman_assets.pipelines.provenance import as_failure, as_input, file_input
from roman_assets.pipelines.scratch import scratch_directory
from roman_assets.pipelines.standing import NOTHING, Standing, standing_of
from roman_assets.pipelines.step import Output, StepResult, publish_step, reusable
from roman_assets.pipelines.workers import (
    Completion,
    WorkerPool,
    calibration_environment,
    worker_count,
)
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import KIND_BY_NAME, ProductKind, Step, expected_kinds
from roman_assets.products.name import DetectorFileSet, ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey
from roman_assets.products.pointing import ALIGNED
from roman_assets.reader.comparison import GenerationChange
from roman_assets.registry.generations import RegisteredProduct
from roman_assets.registry.record import ProductEntry, ProductInput, WorkFailure, fingerprint
from roman_assets.registry.registry import Registry
from roman_assets.software import installed_software

_IMPORTS_MEMORY = 550 * 2**20
_MEMORY_PER_BYTE = {True: 11, False: 19}
"""Peak memory of a worker beyond its imports, over the size of the L1 file it works on, with
accelerations and without."""


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
        plan = _Plan.make(root, exposure, context, data_release, routine=routine and not force)
        return _calibrate(root, plan, only, workers, force, attempt)


def _calibrate(
    root: DataRoot,
    plan: _Plan,
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
        if only is None or str(ramp.file_set) in only
    }
    wanted = {key: ramp for key, ramp in ramps.items() if not ramp.names <= kept.keys()}
    refused = _refused(wanted)
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
    plan: _Plan
    directory: Path
    workers: int | None
    made: dict[str, CalibratedDetector] = field(default_factory=dict)
    failures: list[WorkFailure] = field(default_factory=list)
    _ramps: dict[str, _Ramp] = field(default_factory=dict)
    _former: dict[str, _Former] = field(default_factory=dict)

    def calibrate(self, ramps: Mapping[str, _Ramp], kept: Container[str]) -> None:
        """Calibrate detectors; those that fail are listed."""
        if not ramps:
            return
        former = _Former.of(self.root, ramps.values(), kept, self.directory)
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
        """Give the images without an alignment of their own the pointing of the others."""
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


@dataclass(frozen=True)
class _Ramp:
    """The L1 ramp of one detector and the products it is to give.

    Parameters
    ----------
    entry
        The ramp.
    products
        The fingerprint of each kind.
    context
        The CRDS context to make them with.
    data_release
        The release that they are marked with, None for prompt ones.
    standing
        What stays of them, as the work is routine; nothing otherwise.
    aligned
        The supplements of other images that its pointing is taken from, if it is not from its own
        stars.
    """

    entry: ProductEntry
    products: Mapping[ProductKind, str]
    context: str
    data_release: str | None = None
    standing: Standing = NOTHING
    aligned: tuple[ProductInput, ...] = ()

    @property
    def file_set(self) -> DetectorFileSet:
        file_set = self.entry.product_name.file_set
        assert isinstance(file_set, DetectorFileSet)
        return file_set

    @property
    def names(self) -> frozenset[str]:
        return frozenset(str(ProductName(self.file_set, kind)) for kind in self.products)


@dataclass(frozen=True)
class _Plan:
    """What is to be made of an exposure, and with what, as decided at the start."""

    ramps: tuple[_Ramp, ...]
    work: _Work
    ephemeris: Path | None
    astrometric_catalog: Path | None
    aligned: AlignedSupplements

    @classmethod
    def make(
        cls,
        root: DataRoot,
        exposure: ExposureId,
        fixed: str | None,
        data_release: str | None,
        *,
        routine: bool,
    ) -> Self:
        configure_crds(root)
        best = operational_context() if fixed is None else require_context(fixed)
        receipt = LandingArea(root).receipt(exposure)
        ephemeris, catalog = receipt.definitive_ephemeris, astrometric_catalog(root)
        orbit = () if ephemeris is None else (file_input(ephemeris),)
        work = _Work(
            installed_software(Step.EXPOSURE),
            orbit,
            None if catalog is None else sha256_of(catalog),
        )
        ramps = _current_ramps(root, exposure)
        standing = _standing(root, ramps) if routine else {}
        aligned = AlignedSupplements.current(root, [ramp.product_name for ramp in ramps])
        return cls(
            tuple(
                work.ramp(
                    entry,
                    best,
                    data_release,
                    standing.get(_file_set(entry), NOTHING),
                    aligned.inputs if _file_set(entry) in aligned.dependent else (),
                )
                for entry in ramps
            ),
            work,
            ephemeris,
            catalog,
            aligned,
        )

    def is_outdated(
        self, ramp: _Ramp, aligned: AlignedSupplements, kept: Mapping[str, ProductEntry]
    ) -> bool:
        """Return whether an image that needs others for its pointing was made with other ones.

        A routine run makes it again only if further images can give its pointing now, and never if
        a data release made it (R7).
        """
        if str(ramp.file_set) not in aligned.dependent:
            return False
        image = kept[str(ProductName(ramp.file_set, KIND_BY_NAME["cal"]))]
        if ramp.standing.is_led:
            further = {item.name for item in aligned.inputs} - {item.name for item in image.inputs}
            return bool(further) and "data_release" not in image.metadata
        return (
            image.fingerprint
            != self.work.made_with(ramp, aligned.inputs).products[KIND_BY_NAME["cal"]]
        )

    @property
    def kept(self) -> dict[str, RegisteredProduct]:
        """The products that stay, by name, of detectors with L2."""
        return {
            name: entry
            for ramp in self.ramps
            if ramp.standing.is_led
            for name, entry in ramp.standing.kept.items()
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        return {
            str(ProductName(ramp.file_set, kind)): mark
            for ramp in self.ramps
            for kind, mark in ramp.products.items()
        }

    @property
    def memory(self) -> int:
        """Peak memory of a worker, bytes."""
        largest = max(ramp.entry.size for ramp in self.ramps)
        return _IMPORTS_MEMORY + _MEMORY_PER_BYTE[acceleration_wanted()] * largest


@dataclass(frozen=True)
class _Work:
    """The causes of a product's content besides L1 and context."""

    software: Mapping[str, str]
    orbit: tuple[ProductInput, ...]
    catalog: str | None

    def ramp(
        self,
        entry: ProductEntry,
        best: str,
        data_release: str | None,
        standing: Standing,
        aligned: tuple[ProductInput, ...],
    ) -> _Ramp:
        """Plan a ramp: with the best context, or as the record of its L2 says."""
        leader = standing.leader
        context = best if leader is None or leader.context is None else leader.context
        ramp = self.made_with(_Ramp(entry, {}, context, data_release, standing), aligned)
        if leader is not None and leader.fingerprint == ramp.products[leader.product_name.kind]:
            return replace(ramp, data_release=leader.metadata.get("data_release"))
        return ramp

    def made_with(self, ramp: _Ramp, aligned: tuple[ProductInput, ...]) -> _Ramp:
        """Return a ramp whose products have their pointing from some supplements, or from none."""
        ramp = replace(ramp, aligned=aligned)
        products = {
            kind: fingerprint(
                Step.EXPOSURE, self.inputs(ramp, kind), ramp.context, self.software,
                astrometric_catalog=self.catalog,
            )
            for kind in _expected_kinds(ramp.entry)
        }  # fmt: skip
        return replace(ramp, products=products)

    def inputs(self, ramp: _Ramp, kind: ProductKind) -> tuple[ProductInput, ...]:
        """Return the inputs of a product of a ramp."""
        orbit = self.orbit if kind.name == "supplement" else ()
        return (as_input(ramp.entry), *orbit, *ramp.aligned)


def _standing(root: DataRoot, ramps: Iterable[ProductEntry]) -> dict[str, Standing]:
    """Return the existing products of ramps, by file set."""
    inputs = {_file_set(ramp): as_input(ramp) for ramp in ramps}
    names = [
        ProductName(ramp.product_name.file_set, kind)
        for ramp in ramps
        for kind in _expected_kinds(ramp)
    ]
    return standing_of(
        root, names, lambda made: inputs[str(made.product_name.file_set)] in made.inputs
    )


def _refused(wanted: Mapping[str, _Ramp]) -> dict[str, WorkFailure]:
    """Return the failures of file sets whose products must stay and cannot be completed."""
    refused = {}
    for key, ramp in wanted.items():
        leader = ramp.standing.leader
        try:
            ramp.standing.require_possible(
                same_work=leader is not None
                and leader.fingerprint == ramp.products[leader.product_name.kind]
            )
        except BadInputError as error:
            refused[key] = as_failure(Completion(key, error=error))
    return refused


_COMPARED = ("cal", "exposure_catalog")


@dataclass(frozen=True)
class _Former:
    """The images that will be overwritten, to be compared while their files are there (R6).

    Parameters
    ----------
    products
        By name: images, and the catalogues made with them.
    files
        Where their files are laid out, by name.
    missing
        Why a file could not be, by name.
    """

    products: Mapping[str, RegisteredProduct]
    files: Mapping[str, Path]
    missing: Mapping[str, str]

    @classmethod
    def of(
        cls, root: DataRoot, ramps: Iterable[_Ramp], kept: Container[str], directory: Path
    ) -> Self:
        names = {
            str(ProductName(ramp.file_set, KIND_BY_NAME[kind]))
            for ramp in ramps
            if str(ProductName(ramp.file_set, KIND_BY_NAME["cal"])) not in kept
            for kind in _COMPARED
        }
        with Registry(root) as registry:
            products = registry.current(names)
        place, archive = directory / "former", Archive.of(root)
        place.mkdir(exist_ok=True)
        files, missing = {}, {}
        for name, product in products.items():
            try:
                archive.lay_out(product.sha256, place / name)
                files[name] = place / name
            except FileNotFoundError:
                missing[name] = "its file is gone from the archive"
            except (OSError, PlatformError) as error:
                missing[name] = f"its file cannot be read: {type(error).__name__}"
        return cls(products, files, missing)

    def files_of(self, ramp: _Ramp) -> dict[str, Path]:
        """Return the files of a detector, by name of the product kind."""
        names = {kind: str(ProductName(ramp.file_set, KIND_BY_NAME[kind])) for kind in _COMPARED}
        return {kind: self.files[name] for kind, name in names.items() if name in self.files}

    def change_by(
        self,
        name: str,
        made: CalibratedDetector,
        plan: _Plan,
        inputs: tuple[ProductInput, ...],
    ) -> dict[str, Any]:
        """Return what the record of a product is to say that it changed, if it overwrites one."""
        before = self.products.get(name)
        if before is None or before.product_name.kind.name != "cal":
            return {}
        return GenerationChange.of(
            before,
            context=made.context,
            software=plan.work.software,
            references=made.references,
            inputs=inputs,
            files=made.change,
            not_compared=self.missing.get(name, made.not_compared),
        ).as_metadata()


def _left_alone(
    root: DataRoot, plan: _Plan, only: Collection[str] | None
) -> dict[str, RegisteredProduct]:
    """Return the products of file sets that are not to be reprocessed."""
    if only is None:
        return {}
    others = (ramp for ramp in plan.ramps if str(ramp.file_set) not in only)
    with Registry(root) as registry:
        return registry.current(name for ramp in others for name in ramp.names)


def _failed_before(
    root: DataRoot, exposure: str, only: Collection[str] | None
) -> list[WorkFailure]:
    """Return the failures of file sets that are left alone: the newest record tells of all."""
    if only is None:
        return []
    with Registry(root) as registry:
        rows = registry.failures([exposure]).to_dict("records")
    return [
        WorkFailure(file_set=row["file_set"], error=row["error"], message=row["message"])
        for row in rows
        if row["step"] == Step.EXPOSURE and row["file_set"] not in only
    ]


def _current_ramps(root: DataRoot, exposure: ExposureId) -> list[ProductEntry]:
    registry = Registry(root)
    names = registry.find(exposure=str(exposure), kind="uncal")["name"]
    if names.empty:
        raise BadInputError(
            exposure, "uncal", "the registry has no L1 of it", "format the exposure first"
        )
    return sorted(registry.current(names).values(), key=lambda entry: entry.name)


def _file_set(ramp: ProductEntry) -> str:
    return str(ramp.product_name.file_set)


def _expected_kinds(ramp: ProductEntry) -> tuple[ProductKind, ...]:
    return expected_kinds(
        Survey(ramp.metadata["survey"]),
        ExposureType(ramp.metadata["exposure_type"]),
        (Step.EXPOSURE,),
    )


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
    ramp: _Ramp,
    made: CalibratedDetector,
    plan: _Plan,
    kept: Mapping[str, ProductEntry],
    former: _Former,
) -> Iterator[Output]:
    mark = {} if ramp.data_release is None else {"data_release": ramp.data_release}
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
