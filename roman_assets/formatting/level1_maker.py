"""Making of the L1 files of an exposure, one detector after the other (R2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from asdf.exceptions import ValidationError

from roman_assets.errors import BadInputError, LostPacketsError, PlatformError
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.formatting_work import DETECTOR_KINDS, FormattingWork
from roman_assets.formatting.level1 import check_shape, science_raw
from roman_assets.formatting.level1_guiding import face_model, guide_window_model
from roman_assets.formatting.telemetry import DetectorReadout, FaceTelemetry, GuideWindowReadout
from roman_assets.products.name import FileSet, ProductName
from roman_assets.products.packet_policy import FACE
from roman_assets.products.visit_policy import MISSING
from roman_assets.publishing.step import Output
from roman_assets.records.record import ProductEntry, WorkFailure

_T = TypeVar("_T", DetectorReadout, GuideWindowReadout, FaceTelemetry)


class Level1Maker:
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
        work: FormattingWork,
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
        """Make every file that is not kept."""
        observation = self._work.observation
        for detector in observation.executed.detectors:
            if detector in self._work.senders:
                make = partial(self._detector, detector, DETECTOR_KINDS)
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
        """Name the guide windows that have no file."""
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
