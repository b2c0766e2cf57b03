"""The step from L0 to L1 of one exposure (R2, R3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from asdf.exceptions import ValidationError

from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, LostPacketsError, PlatformError
from roman_assets.formatting.ancillary import (
    ExecutedExposure,
    ExecutedVisit,
    MATable,
    open_ephemeris,
)
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.delivered_step import publish_delivered, published_before
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.level1 import (
    Observation,
    check_shape,
    face_model,
    guide_window_model,
    science_raw,
)
from roman_assets.formatting.receipt import Receipt, SenderReceipt
from roman_assets.formatting.receipt_record import record_receipts
from roman_assets.formatting.telemetry import (
    DetectorReadout,
    FaceTelemetry,
    GuideWindowReadout,
)
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.name import FileSet, ProductName, level0_name
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.products.packet_policy import FACE, formatted_from
from roman_assets.products.visit_policy import MISSING
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.publishing.provenance import file_input
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.records.record import (
    ProductEntry,
    ProductInput,
    WorkFailure,
    fingerprint,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
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

    Each detector, and FACE, is made when its own packets are in. Once the wait for packets is over,
    a detector of which some are lost is made of the others, and what is wholly lost is recorded as
    a failure; when more arrives, both are reprocessed. Lost packets replace no L1.

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
        If nothing of the exposure can be formatted yet; it names what is missing.
    PassingFaultError
        If the disk is full.
    """
    landing = LandingArea(root)
    with StepAttempt(root, Step.FORMATTING, str(exposure), run, clock) as attempt:
        if published := published_before(root, landing.receipt(exposure)):
            return StepResult(reused=published)
        receipt, senders = _formattable(landing, exposure, clock)
        if receipt.origin is Origin.DELIVERED:
            return publish_delivered(root, receipt, attempt)
        work = _Work.plan(landing, receipt, _best_ephemeris(receipt), senders)
        with Registry(root) as registry:
            current = registry.current(work.names)
        kept: dict[str, ProductEntry] = {**reusable(root, work.fingerprints, force)}
        kept |= _standing(root, work, current, same_packets=routine and not force)
        with scratch_directory(root, str(exposure)) as scratch, disk_space(scratch):
            maker = _Maker(work, scratch, kept, {name for name in current if "_gw." in name})
            maker.make()
            return publish_step(
                root,
                step=Step.FORMATTING,
                partition=str(exposure),
                outputs=maker.outputs,
                failures=maker.failures,
                reused=maker.kept.values(),
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
    receipt, senders = _formattable(landing, exposure, utc_now)
    if receipt.origin is Origin.DELIVERED:
        return ()
    work = _Work.plan(landing, receipt, _best_ephemeris(receipt), senders)
    with Registry(root) as registry:
        current = registry.current(work.fingerprints)
    reasons = [
        f"{name} is not there"
        for name, sender in sorted(work.senders_of.items())
        if name not in current and not receipt.senders[sender].missing
    ]
    protected = _standing(root, work, current, same_packets=False)
    for name, entry in current.items():
        if name not in protected:
            reasons += _differences(entry, work)
    return tuple(dict.fromkeys(reasons))


def _differences(made: ProductEntry, work: _Work) -> Iterator[str]:
    if made.fingerprint == work.fingerprints[made.name]:
        return
    packets = work.packets[work.senders_of[made.name]]
    before = {item.name: item for item in made.inputs}
    if before.get(packets.name) != packets:
        yield "other packets or documents are in"
    if work.ephemeris not in made.inputs:
        old = ", ".join(name for name in before if name != packets.name) or "none"
        kind = work.observation.ephemeris_kind.lower()
        yield f"the {kind} ephemeris {work.ephemeris.name} in place of {old}"
    for package, version in deciding_software(Step.FORMATTING, work.software).items():
        if made.software.get(package) != version:
            yield f"{package} {version} in place of {made.software.get(package, 'none')}"


def _standing(
    root: DataRoot,
    work: _Work,
    current: Mapping[str, RegisteredProduct],
    *,
    same_packets: bool,
) -> dict[str, ProductEntry]:
    """Return the products that stay, by name, if their files are there.

    Lost packets replace no L1, except where more of them have arrived since. Of the same packets
    L1 stays as well when nobody has asked for it again (R8).
    """
    archive = Archive.of(root)
    lacks = any(work.receipt.senders[sender].missing for sender in work.senders)
    begun = _begun(root, work.receipt.exposure) if lacks else {}
    return {
        name: entry
        for name, entry in current.items()
        if (sender := work.senders_of.get(name)) is not None
        and (
            _is_better(entry, work.receipt.senders[sender], begun)
            or (same_packets and work.packets[sender] in entry.inputs)
        )
        and archive.has_blob(entry.sha256, entry.size)
    }


def _is_better(
    entry: RegisteredProduct, sender: SenderReceipt, begun: Mapping[str, datetime]
) -> bool:
    """Return whether a product was made of more packets than are in."""
    if not sender.missing:
        return False
    if MISSING not in entry.metadata or sender.newest is None:
        return True
    return sender.newest <= begun.get(entry.record_id, entry.committed_at)


def _begun(root: DataRoot, exposure: ExposureId) -> dict[str, datetime]:
    """Return when the work began that made L1 of an exposure, by commit record (UTC)."""
    with Registry(root) as registry:
        attempts = registry.attempts([str(exposure)])
    formatted = attempts[attempts["step"] == Step.FORMATTING]
    return {row["record_id"]: row["started"] for row in formatted.to_dict("records")}


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
    orbit = retained_ephemeris(landing, ephemeris)
    work = _Work.plan(landing, receipt, orbit, frozenset(receipt.senders))
    sender = work.senders_of.get(wanted.name, "")
    now = work.packets.get(sender)
    if now != packets:
        raise BadInputError(
            wanted.name, "inputs",
            f"the packets and documents of {packets.name} ({packets.sha256}) were replaced: the "
            f"landing area has {now.sha256 if now else 'none'} now",
            "bring back into the landing area what was there when it was made",
        )  # fmt: skip
    maker = _Maker(work, scratch, {})
    maker.make_again(wanted, sender)
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


def _formattable(
    landing: LandingArea, exposure: ExposureId, clock: Clock
) -> tuple[Receipt, frozenset[str]]:
    """Return what is in of an exposure, and the senders of which L1 is made now."""
    receipt = landing.receipt(exposure)
    if not receipt.complete:
        landing.scan()
        receipt = landing.receipt(exposure)
    record_receipts(landing.root, [receipt], clock=clock)
    if receipt.origin is Origin.DELIVERED and receipt.complete:
        return receipt, frozenset(receipt.senders)
    now, ready = clock(), frozenset[str]()
    if not receipt.lacks_ancillary:
        moments = formatted_from(
            receipt.senders,
            receipt.events.get(ClockEvent.ANCILLARY),
            _cut_off(landing.root, exposure),
            timedelta(0),
        )
        ready = frozenset(
            sender for sender, moment in moments.items() if receipt.complete or moment <= now
        )
    if not ready:
        raise BadInputError(
            exposure, "receipt", f"not all of it is in: {'; '.join(receipt.missing)}",
            "wait for it, or have it delivered again",
        )  # fmt: skip
    return receipt, ready


def _cut_off(root: DataRoot, exposure: ExposureId) -> datetime | None:
    """Return when the wait for packets of an exposure ends, as it is on record."""
    with Registry(root) as registry:
        _, moments = registry.receipts([str(exposure)])[str(exposure)]
    return moments.get(ClockEvent.CUT_OFF)


@dataclass(frozen=True)
class _Work:
    """What is to be made of an exposure, and from what."""

    landing: LandingArea
    receipt: Receipt
    observation: Observation
    senders: frozenset[str]
    packets: Mapping[str, ProductInput]
    ephemeris: ProductInput
    software: Mapping[str, str]
    facts: Mapping[str, Any]

    @classmethod
    def plan(
        cls, landing: LandingArea, receipt: Receipt, orbit_file: Path, senders: frozenset[str]
    ) -> _Work:
        visit, executed, table = _documents(landing, receipt.exposure)
        ephemeris = open_ephemeris(orbit_file)
        middle = executed.start_time + (executed.end_time - executed.start_time) / 2
        observation = Observation(
            receipt.exposure, visit, executed, table, ephemeris.state(middle), ephemeris.kind
        )
        packets = {
            sender: ProductInput(
                name=level0_name(receipt.exposure, sender),
                sha256=receipt.senders[sender].content_version,
            )
            for sender in senders
        }
        facts = {
            "survey": str(visit.survey),
            "exposure_type": str(visit.exposure_type),
            "nexposures": visit.nexposures,
        }
        orbit = file_input(orbit_file)
        software = installed_software(Step.FORMATTING)
        return cls(landing, receipt, observation, senders, packets, orbit, software, facts)

    def inputs(self, sender: str) -> tuple[ProductInput, ...]:
        return self.packets[sender], self.ephemeris

    def fingerprint(self, sender: str) -> str:
        return fingerprint(
            Step.FORMATTING,
            self.inputs(sender),
            None,
            self.software,
            ephemeris=str(self.observation.ephemeris_kind),
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all L1 of the exposure."""
        return tuple(
            str(name)
            for sender in (*self.observation.executed.detectors, FACE)
            for name in self.names_of(sender)
        )

    def names_of(self, sender: str) -> tuple[ProductName, ...]:
        if sender == FACE:
            return (self.observation.name("face"),)
        return tuple(self.observation.name(kind, sender) for kind in _DETECTOR_KINDS)

    @cached_property
    def senders_of(self) -> dict[str, str]:
        """The sender of the packets of each product that is made now, by name."""
        return {str(name): sender for sender in self.senders for name in self.names_of(sender)}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        return {name: self.fingerprint(sender) for name, sender in self.senders_of.items()}


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
    """Makes the files of an exposure, one detector after the other.

    Parameters
    ----------
    work
        What is to be made.
    scratch
        Where.
    kept
        Products that are there and stay, by name.
    windows
        Names of guide-window files that are there.
    """

    def __init__(
        self,
        work: _Work,
        scratch: Path,
        kept: Mapping[str, ProductEntry],
        windows: Collection[str] = (),
    ) -> None:
        self._work = work
        self._scratch = scratch
        self._windows = windows
        self.kept = dict(kept)
        self.outputs: list[Output] = []
        self.failures: list[WorkFailure] = []

    def make(self) -> None:
        observation = self._work.observation
        for detector in observation.executed.detectors:
            if detector in self._work.senders:
                make = partial(self._detector, detector, _DETECTOR_KINDS)
                self._attempt(detector, observation.file_set(detector), make)
        face = observation.name("face")
        if FACE in self._work.senders:
            missing = self._missing_windows()
            kept = self.kept.get(str(face))
            if kept is not None and kept.metadata.get(MISSING, []) != missing:
                del self.kept[str(face)]
            if str(face) not in self.kept:
                self._attempt(FACE, face.file_set, partial(self._face, face, missing))

    def make_again(self, wanted: ProductEntry, sender: str) -> None:
        """Make one product, as its record says."""
        name = wanted.product_name
        make = (
            partial(self._face, name, list(wanted.metadata.get(MISSING, ())))
            if sender == FACE
            else partial(self._detector, sender, (name.kind.name,))
        )
        self._attempt(sender, name.file_set, make)

    def _attempt(self, sender: str, file_set: FileSet, make: Callable[[], None]) -> None:
        """Make files; whatever is wrong with them is the failure of their file set alone."""
        try:
            make()
        except BadInputError as error:
            self._fail(sender, file_set, error, str(error))
        except ValidationError as error:
            place = ".".join(str(part) for part in error.absolute_path)
            self._fail(sender, file_set, error, f"not valid by rad: {place}: {error.message}")
        except (OSError, PlatformError):
            raise  # not of the data
        except Exception as error:
            self._fail(sender, file_set, error, f"it cannot be made: {error!r}")

    def _fail(self, sender: str, file_set: FileSet, error: Exception, message: str) -> None:
        self.failures.append(
            WorkFailure(
                file_set=str(file_set),
                error=type(error).__name__,
                message=message,
                content=self._work.packets[sender].sha256,
            )
        )

    def _detector(self, detector: str, kinds: Collection[str]) -> None:
        observation = self._work.observation
        names = {kind: observation.name(kind, detector) for kind in kinds}
        wanted = [kind for kind, name in names.items() if str(name) not in self.kept]
        if not wanted:
            return
        models: dict[str, Callable[[], Any]] = {}
        window = self._received(
            detector,
            partial(self._telemetry, GuideWindowReadout, Stream.GUIDE_WINDOW, detector),
        )
        if window is not None:
            models["guide_window"] = partial(guide_window_model, observation, window)
        if "uncal" in wanted:
            readout = self._received(detector, partial(self._readout, detector))
            if readout is not None:
                models["uncal"] = partial(science_raw, observation, readout, window)
        missing = {"uncal": list(self._work.receipt.senders[detector].missing)}
        made = [kind for kind in wanted if kind in models]
        written = [
            self._write(names[kind], models[kind](), detector, missing.get(kind, []))
            for kind in made
        ]
        self.outputs.extend(written)
        if len(made) < len(wanted):
            raise self._lost(detector)

    def _readout(self, detector: str) -> DetectorReadout:
        landing, observation = self._work.landing, self._work.observation
        shape = landing.readout_shape(observation.exposure, detector)
        check_shape(observation, detector, shape)
        if self._work.receipt.senders[detector].missing:
            return landing.received_readout(observation.exposure, detector)
        return self._telemetry(DetectorReadout, Stream.SCIENCE, detector)

    def _received(self, detector: str, read: Callable[[], _T]) -> _T | None:
        """Read telemetry; return None if it is lost."""
        try:
            return read()
        except LostPacketsError:
            return None

    def _lost(self, sender: str) -> LostPacketsError:
        missing = "; ".join(self._work.receipt.senders[sender].missing)
        return LostPacketsError(
            self._work.observation.exposure, sender,
            f"packets have not come down: {missing or 'they are gone from the landing area'}",
            "have them sent again: it is reprocessed when they arrive",
        )  # fmt: skip

    def _face(self, name: ProductName, missing: list[str]) -> None:
        if self._work.receipt.senders[FACE].missing:
            raise self._lost(FACE)
        observation = self._work.observation
        face = self._telemetry(FaceTelemetry, Stream.FACE)
        made = [
            detector
            for detector in observation.executed.detectors
            if _window_of(detector) not in missing
        ]
        model = face_model(observation, face, made)
        self.outputs.append(self._write(name, model, FACE, missing))

    def _missing_windows(self) -> list[str]:
        """Name the guide windows of which there is no file."""
        observation = self._work.observation
        there = {str(output.name) for output in self.outputs} | set(self._windows)
        return [
            _window_of(detector)
            for detector in observation.executed.detectors
            if str(observation.name("guide_window", detector)) not in there
        ]

    def _telemetry(self, kind: type[_T], stream: Stream, detector: str | None = None) -> _T:
        found = self._work.landing.telemetry(self._work.observation.exposure, stream, detector)
        if not isinstance(found, kind):
            raise TypeError(f"{stream.name} holds {type(found).__name__}")
        return found

    def _write(self, name: ProductName, model: Any, sender: str, missing: list[str]) -> Output:
        path = self._scratch / str(name)
        model.save(path)
        return Output(
            name,
            path,
            self._work.fingerprint(sender),
            inputs=self._work.inputs(sender),
            software=self._work.software,
            metadata={**self._work.facts, **({MISSING: missing} if missing else {})},
        )


def _window_of(detector: str) -> str:
    return f"{detector} guide window"
