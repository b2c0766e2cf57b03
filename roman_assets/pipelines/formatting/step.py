"""The step from L0 to L1 of one exposure (R2, R3)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from asdf.exceptions import ValidationError

from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PlatformError
from roman_assets.pipelines.attempt import Run, StepAttempt
from roman_assets.pipelines.formatting.ancillary import (
    ExecutedExposure,
    ExecutedVisit,
    MATable,
    open_ephemeris,
)
from roman_assets.pipelines.formatting.data_unit import Stream
from roman_assets.pipelines.formatting.delivered_step import publish_delivered, published_before
from roman_assets.pipelines.formatting.landing import LandingArea
from roman_assets.pipelines.formatting.level1 import (
    Observation,
    check_shape,
    face_model,
    guide_window_model,
    science_raw,
)
from roman_assets.pipelines.formatting.receipt import Receipt
from roman_assets.pipelines.formatting.receipt_record import record_receipts
from roman_assets.pipelines.formatting.telemetry import (
    DetectorReadout,
    FaceTelemetry,
    GuideWindowReadout,
)
from roman_assets.pipelines.provenance import file_input
from roman_assets.pipelines.scratch import scratch_directory
from roman_assets.pipelines.step import Output, StepResult, publish_step, reusable
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Scope, Step
from roman_assets.products.name import FileSet, ProductName
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.registry.record import (
    ProductEntry,
    ProductInput,
    WorkFailure,
    fingerprint,
)
from roman_assets.registry.registry import Registry
from roman_assets.software import deciding_software, installed_software

_T = TypeVar("_T", DetectorReadout, GuideWindowReadout, FaceTelemetry)
_DETECTOR_KINDS = ("uncal", "guide_window")


def format_exposure(
    root: DataRoot,
    exposure: ExposureId,
    *,
    run: Run | None = None,
    force: bool = False,
    routine: bool = False,
    clock: Clock = utc_now,
) -> StepResult:
    """Make and publish L1 of an exposure: science, guide windows and FACE.

    L1 that was formatted elsewhere is published as it was delivered; published L1 stays when its
    files are taken out of the landing area.

    A product that exists as it would be made is reused. A detector whose content cannot be
    used fails alone. When a person asks, L1 is reprocessed with the definitive ephemeris once that
    is in, or by newer software; routine work leaves it as it is (R3, R8).

    Parameters
    ----------
    root
        The installation.
    exposure
        Which exposure.
    run
        The run it is done in.
    force
        Make everything again.
    routine
        Nobody asked for L1 again: products made of the same packets stay, whatever ephemeris or
        software came since.
    clock
        Gives the time.

    Returns
    -------
    StepResult
        What was made, reused and failed.

    Raises
    ------
    BadInputError
        If something of the exposure has not been received; it names what.
    PassingFaultError
        If the disk is full.
    """
    landing = LandingArea(root)
    with StepAttempt(root, Step.FORMATTING, str(exposure), run, clock) as attempt:
        if published := published_before(root, landing.receipt(exposure)):
            return StepResult(reused=published)
        receipt = _complete_receipt(landing, exposure, clock)
        if receipt.origin is Origin.DELIVERED:
            return publish_delivered(root, receipt, attempt)
        work = _Work.plan(landing, receipt, _best_ephemeris(receipt))
        kept = reusable(root, work.fingerprints, force)
        if routine and not force:
            kept |= _of_same_packets(root, work)
        with scratch_directory(root, str(exposure)) as scratch, disk_space(scratch):
            maker = _Maker(work, scratch, kept)
            maker.make()
            return publish_step(
                root,
                step=Step.FORMATTING,
                partition=str(exposure),
                outputs=maker.outputs,
                failures=maker.failures,
                reused=kept.values(),
                attempt=attempt,
            )


def why_again(root: DataRoot, exposure: ExposureId) -> tuple[str, ...]:
    """Return why L1 of an exposure would differ if reprocessed now.

    Returns
    -------
    tuple of str
        For people; empty when all L1 is as it would be made, or was formatted elsewhere.

    Raises
    ------
    BadInputError
        If something of the exposure has not been received; it names what.
    """
    landing = LandingArea(root)
    receipt = _complete_receipt(landing, exposure, utc_now)
    if receipt.origin is Origin.DELIVERED:
        return ()
    work = _Work.plan(landing, receipt, _best_ephemeris(receipt))
    with Registry(root) as registry:
        current = registry.current(work.fingerprints)
    reasons = [f"{name} is not there" for name in sorted(work.fingerprints.keys() - current.keys())]
    for entry in current.values():
        reasons += _differences(entry, work)
    return tuple(dict.fromkeys(reasons))


def _differences(made: ProductEntry, work: _Work) -> Iterator[str]:
    if made.fingerprint == work.fingerprint:
        return
    before = {item.name: item for item in made.inputs}
    if before.get(work.packets.name) != work.packets:
        yield "other packets or documents are in"
    if work.ephemeris not in made.inputs:
        old = ", ".join(name for name in before if name != work.packets.name) or "none"
        kind = work.observation.ephemeris_kind.lower()
        yield f"the {kind} ephemeris {work.ephemeris.name} in place of {old}"
    for package, version in deciding_software(Step.FORMATTING, work.software).items():
        if made.software.get(package) != version:
            yield f"{package} {version} in place of {made.software.get(package, 'none')}"


def _of_same_packets(root: DataRoot, work: _Work) -> dict[str, ProductEntry]:
    """Return the products made of these packets, by name, if their files exist (R8)."""
    archive = Archive.of(root)
    with Registry(root) as registry:
        current = registry.current(work.fingerprints)
    return {
        name: entry
        for name, entry in current.items()
        if work.packets in entry.inputs and archive.has_blob(entry.sha256, entry.size)
    }


def make_level1(
    landing: LandingArea, exposure: ExposureId, wanted: ProductEntry, scratch: Path
) -> Path:
    """Make one L1 product again as its record says, without publishing it.

    Parameters
    ----------
    landing
        Where its packets and documents are retained.
    exposure
        Of the product.
    wanted
        What the record says of it.
    scratch
        A directory of the caller's own.

    Raises
    ------
    BadInputError
        If the packets or the ephemeris that it was made of are not there any more, or it cannot be
        made.
    """
    if wanted.metadata.get("origin") == Origin.DELIVERED:
        raise BadInputError(
            wanted.name, "origin", "it was formatted elsewhere and delivered",
            "ask who delivered it, or take it out of the landing area",
        )  # fmt: skip
    receipt = landing.receipt(exposure)
    packets, ephemeris = wanted.inputs
    work = _Work.plan(landing, receipt, retained_ephemeris(landing, ephemeris))
    if work.packets != packets:
        raise BadInputError(
            wanted.name, "inputs",
            f"the packets and documents of {packets.name} ({packets.sha256}) were replaced: the "
            f"landing area has {work.packets.sha256} now",
            "bring back into the landing area what was there when it was made",
        )  # fmt: skip
    alone = wanted.product_name.kind.scope is not Scope.EXPOSURE
    others = set(work.fingerprints) - {wanted.name} if alone else set()
    maker = _Maker(work, scratch, others)
    maker.make()
    made = {str(output.name): output.path for output in maker.outputs}
    if wanted.name not in made:
        reasons = "; ".join(failure.message for failure in maker.failures) or "nothing was made"
        raise BadInputError(wanted.name, "L0", reasons, "see `roman-assets status`")
    return made[wanted.name]


def retained_ephemeris(landing: LandingArea, recorded: ProductInput) -> Path:
    """Return the ephemeris that a record names, out of the landing area.

    Raises
    ------
    BadInputError
        If it is gone, or its content is another.
    """
    for path in landing.ephemerides_named(recorded.name):
        if path.is_file() and sha256_of(path) == recorded.sha256:
            return path
    raise BadInputError(
        landing.path / recorded.name, "ephemeris",
        f"the one with the sha256 {recorded.sha256} is gone",
        "bring it back into the landing area, or a directory in it",
    )  # fmt: skip


def _complete_receipt(landing: LandingArea, exposure: ExposureId, clock: Clock) -> Receipt:
    receipt = landing.receipt(exposure)
    if not receipt.complete:
        landing.scan()
        receipt = landing.receipt(exposure)
    record_receipts(landing.root, [receipt], clock=clock)
    if not receipt.complete:
        raise BadInputError(
            exposure, "receipt", f"not all of it is in: {'; '.join(receipt.missing)}",
            "wait for it, or have it delivered again",
        )  # fmt: skip
    return receipt


@dataclass(frozen=True)
class _Work:
    """What is to be made of an exposure, and from what."""

    landing: LandingArea
    observation: Observation
    packets: ProductInput
    ephemeris: ProductInput
    software: Mapping[str, str]
    facts: Mapping[str, Any]

    @classmethod
    def plan(cls, landing: LandingArea, receipt: Receipt, orbit_file: Path) -> _Work:
        visit, executed, table = _documents(landing, receipt.exposure)
        ephemeris = open_ephemeris(orbit_file)
        middle = executed.start_time + (executed.end_time - executed.start_time) / 2
        observation = Observation(
            receipt.exposure, visit, executed, table, ephemeris.state(middle), ephemeris.kind
        )
        packets = ProductInput(name=f"{receipt.exposure}_l0", sha256=receipt.content_version)
        facts = {
            "survey": str(visit.survey),
            "exposure_type": str(visit.exposure_type),
            "nexposures": visit.nexposures,
        }
        orbit = file_input(orbit_file)
        software = installed_software(Step.FORMATTING)
        return cls(landing, observation, packets, orbit, software, facts)

    @property
    def inputs(self) -> tuple[ProductInput, ...]:
        return self.packets, self.ephemeris

    @property
    def fingerprint(self) -> str:
        return fingerprint(
            Step.FORMATTING,
            self.inputs,
            None,
            self.software,
            ephemeris=str(self.observation.ephemeris_kind),
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        names = [
            self.observation.name(kind, detector)
            for detector in self.observation.executed.detectors
            for kind in _DETECTOR_KINDS
        ]
        return {str(name): self.fingerprint for name in [*names, self.observation.name("face")]}


def _documents(
    landing: LandingArea, exposure: ExposureId
) -> tuple[ExecutedVisit, ExecutedExposure, MATable]:
    ancillary = landing.ancillary(exposure)
    visit, table = ancillary.visit, ancillary.ma_table
    executed = None if visit is None else visit.executed(exposure)
    if visit is None or executed is None or table is None:
        raise BadInputError(
            exposure, "ancillary", "a document is gone since all was received",
            "deliver the executed visit and the MA table again",
        )  # fmt: skip
    return visit, executed, table.truncated(executed.nresultants)


def _best_ephemeris(receipt: Receipt) -> Path:
    """Return the definitive ephemeris if there is one, else the predicted (R3)."""
    path = receipt.definitive_ephemeris or receipt.ephemeris
    if path is None:
        raise BadInputError(
            receipt.exposure, "ephemeris", "it is gone since all was received",
            "deliver an ephemeris that covers the exposure",
        )  # fmt: skip
    return path


class _Maker:
    """Makes the files of an exposure, one detector after the other."""

    def __init__(self, work: _Work, scratch: Path, kept: Container[str]) -> None:
        self._work = work
        self._scratch = scratch
        self._kept = kept
        self.outputs: list[Output] = []
        self.failures: list[WorkFailure] = []

    def make(self) -> None:
        observation = self._work.observation
        for detector in observation.executed.detectors:
            self._attempt(observation.file_set(detector), partial(self._detector, detector))
        face = observation.name("face")
        if str(face) not in self._kept:
            self._attempt(face.file_set, partial(self._face, face))

    def _attempt(self, file_set: FileSet, make: Callable[[], None]) -> None:
        """Make files; whatever is wrong with them is the failure of their file set alone."""
        try:
            make()
        except BadInputError as error:
            self._fail(file_set, error, str(error))
        except ValidationError as error:
            place = ".".join(str(part) for part in error.absolute_path)
            self._fail(file_set, error, f"not valid by rad: {place}: {error.message}")
        except (OSError, PlatformError):
            raise  # not of the data
        except Exception as error:
            self._fail(file_set, error, f"it cannot be made: {error!r}")

    def _fail(self, file_set: FileSet, error: Exception, message: str) -> None:
        self.failures.append(
            WorkFailure(file_set=str(file_set), error=type(error).__name__, message=message)
        )

    def _detector(self, detector: str) -> None:
        observation = self._work.observation
        names = {kind: observation.name(kind, detector) for kind in _DETECTOR_KINDS}
        wanted = [kind for kind, name in names.items() if str(name) not in self._kept]
        if not wanted:
            return
        guide_window = self._telemetry(GuideWindowReadout, Stream.GUIDE_WINDOW, detector)
        models: dict[str, Callable[[], Any]] = {
            "guide_window": partial(guide_window_model, observation, guide_window)
        }
        if "uncal" in wanted:
            shape = self._work.landing.readout_shape(observation.exposure, detector)
            check_shape(observation, detector, shape)
            readout = self._telemetry(DetectorReadout, Stream.SCIENCE, detector)
            models["uncal"] = partial(science_raw, observation, readout, guide_window)
        written = [self._write(names[kind], models[kind]()) for kind in wanted]
        self.outputs.extend(written)

    def _face(self, name: ProductName) -> None:
        face = self._telemetry(FaceTelemetry, Stream.FACE)
        failed = {failure.file_set for failure in self.failures}
        observation = self._work.observation
        made = [
            detector
            for detector in observation.executed.detectors
            if str(observation.file_set(detector)) not in failed
        ]
        self.outputs.append(self._write(name, face_model(observation, face, made)))

    def _telemetry(self, kind: type[_T], stream: Stream, detector: str | None = None) -> _T:
        found = self._work.landing.telemetry(self._work.observation.exposure, stream, detector)
        if not isinstance(found, kind):
            raise TypeError(f"{stream.name} holds {type(found).__name__}")
        return found

    def _write(self, name: ProductName, model: Any) -> Output:
        path = self._scratch / str(name)
        model.save(path)
        return Output(
            name,
            path,
            self._work.fingerprint,
            inputs=self._work.inputs,
            software=self._work.software,
            metadata=self._work.facts,
        )
