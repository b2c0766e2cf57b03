"""Exposures: L1 to L2, the L1 supplement and L4 per exposure, by romancal (R4, R5, R10)."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
from roman_assets.pipelines.attempt import Run, StepAttempt
from roman_assets.pipelines.detector import CalibratedDetector, DetectorTask, calibrate_detector
from roman_assets.pipelines.formatting.landing import LandingArea
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
            aligned=sum(image.get("alignment") == "COMPLETE" for image in images),
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
    and are recorded with every product (R5). What exists already, made from the same L1 with the
    same context and software, is not made again. One failing detector fails alone.

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
        The data release that it is made again for; its products are marked with it.
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
    wanted = {
        str(ramp.file_set): ramp
        for ramp in plan.ramps
        if (only is None or str(ramp.file_set) in only) and not ramp.names <= kept.keys()
    }
    refused = _refused(wanted)
    todo = {key: ramp for key, ramp in wanted.items() if key not in refused}
    outputs: list[Output] = []
    failures = [*_failed_before(root, exposure, only), *refused.values()]
    with scratch_directory(root, exposure) as directory:
        former = _Former.of(root, todo.values(), kept, directory)
        tasks = {
            key: DetectorTask(
                _lay_out(root, ramp.entry, directory),
                plan.ephemeris,
                plan.astrometric_catalog,
                former.files_of(ramp),
            )
            for key, ramp in todo.items()
        }
        for done in _calibrated(tasks, todo, plan.memory, workers):
            if done.value is None:
                failures.append(as_failure(done))
            else:
                outputs.extend(_outputs(todo[done.key], done.value, plan, kept, former))
        return publish_step(
            root,
            step=Step.EXPOSURE,
            partition=exposure,
            outputs=outputs,
            failures=failures,
            reused=kept.values(),
            attempt=attempt,
        )


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
    """

    entry: ProductEntry
    products: Mapping[ProductKind, str]
    context: str
    data_release: str | None = None
    standing: Standing = NOTHING

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
    software: Mapping[str, str]
    ephemeris: Path | None
    ephemeris_input: tuple[ProductInput, ...]
    astrometric_catalog: Path | None

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
        return cls(
            tuple(
                work.ramp(entry, best, data_release, standing.get(_file_set(entry), NOTHING))
                for entry in ramps
            ),
            work.software,
            ephemeris,
            orbit,
            catalog,
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
        self, entry: ProductEntry, best: str, data_release: str | None, standing: Standing
    ) -> _Ramp:
        """Plan a ramp: with the best context, or as the record of its L2 says."""
        leader = standing.leader
        context = best if leader is None or leader.context is None else leader.context
        products = {
            kind: fingerprint(
                Step.EXPOSURE, (as_input(entry), *_orbit_of(kind, self.orbit)), context,
                self.software, astrometric_catalog=self.catalog,
            )
            for kind in _expected_kinds(entry)
        }  # fmt: skip
        if leader is not None and leader.fingerprint == products[leader.product_name.kind]:
            data_release = leader.metadata.get("data_release")
        return _Ramp(entry, products, context, data_release, standing)


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
        place.mkdir()
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
            software=plan.software,
            references=made.references,
            inputs=inputs,
            files=made.change,
            not_compared=self.missing.get(name, made.not_compared),
        ).as_metadata()


def _left_alone(
    root: DataRoot, plan: _Plan, only: Collection[str] | None
) -> dict[str, RegisteredProduct]:
    """Return the products of file sets that nobody wants to be made again."""
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


def _orbit_of(kind: ProductKind, orbit: tuple[ProductInput, ...]) -> tuple[ProductInput, ...]:
    return orbit if kind.name == "supplement" else ()


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


def _calibrated(
    tasks: Mapping[str, DetectorTask],
    todo: Mapping[str, _Ramp],
    memory: int,
    workers: int | None,
) -> Iterator[Completion[CalibratedDetector]]:
    for context in sorted({ramp.context for ramp in todo.values()}):
        chosen = {key: tasks[key] for key, ramp in todo.items() if ramp.context == context}
        size = min(workers or worker_count(memory), len(chosen))
        with WorkerPool(size, calibration_environment(context)) as pool:
            yield from pool.run(calibrate_detector, chosen)


def _outputs(
    ramp: _Ramp,
    made: CalibratedDetector,
    plan: _Plan,
    kept: Mapping[str, ProductEntry],
    former: _Former,
) -> Iterator[Output]:
    mark = {} if ramp.data_release is None else {"data_release": ramp.data_release}
    for kind, identity in ramp.products.items():
        name = ProductName(ramp.file_set, kind)
        path = made.files.get(kind.name)
        if path is None or str(name) in kept:
            continue
        inputs = (as_input(ramp.entry), *_orbit_of(kind, plan.ephemeris_input))
        yield Output(
            name=name,
            path=path,
            fingerprint=identity,
            inputs=inputs,
            context=made.context,
            software=plan.software,
            references=made.references,
            metadata={
                **made.quality.metadata_of(kind.name),
                **former.change_by(str(name), made, plan, inputs),
                **mark,
            },
        )
