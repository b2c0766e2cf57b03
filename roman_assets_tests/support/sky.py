"""An installation in which exposures are received, formatted and calibrated by one line each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    SensorResult,
    SkipReason,
)

from roman_assets.data_root import DataRoot
from roman_assets.defs.exposure.sensors import landing_sensor
from roman_assets.defs.ssc.handover_sensor import handover_sensor
from roman_assets.defs.visit.sensors import visit_sensor
from roman_assets.formatting import landing
from roman_assets.formatting.inventory import ReceiptChanges
from roman_assets.formatting.landing import ScanResult
from roman_assets.formatting.receipt import Receipt, SenderReceipt
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement, Survey
from roman_assets.publishing.attempt import StepAttempt
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput, WorkFailure
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import record_of, sha256
from roman_assets_tests.support.ticks import Ticks

VISIT = "r0001001001001001001"
EPOCH = datetime(2027, 6, 1, tzinfo=UTC)
EXECUTED = (EPOCH - timedelta(hours=2), EPOCH - timedelta(hours=1))
"""Start and end of every exposure."""


def exposure_key(number: int, visit: str = VISIT) -> str:
    return f"{visit}_{number:04d}"


def version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Sky:
    """What a landing area and a registry would hold, with the sensors looking at them.

    The registry is real; the landing area tells what `receive` was told.
    """

    def __init__(self, root: DataRoot, instance: DagsterInstance, monkeypatch: Any) -> None:
        self.root = root
        self.instance = instance
        self._ticks = Ticks(root, instance)
        self.receipts: dict[str, Receipt] = {}
        self._received: list[str] = []
        monkeypatch.setattr(landing.LandingArea, "scan", lambda area, budget: ScanResult())
        monkeypatch.setattr(landing.LandingArea, "changes", lambda area, *of: self._changes(*of))
        monkeypatch.setattr(
            landing.LandingArea,
            "known_receipts",
            lambda area, exposures: [
                self.receipts[str(one)] for one in exposures if str(one) in self.receipts
            ],
        )

    def _changes(self, mark: tuple[int, int] | None, most: int) -> ReceiptChanges:
        start = mark[1] if mark else 0
        end = min(start + most, len(self._received))
        changed = [self.receipts[key] for key in dict.fromkeys(self._received[start:end])]
        return ReceiptChanges(tuple(changed), (1, end), more=end < len(self._received))

    def receive(
        self,
        key: str,
        content: str = "first",
        *,
        complete: bool = True,
        first: datetime | None = None,
        second: str = "",
        newest: datetime | None = None,
    ) -> None:
        """Receive WFI01, and WFI02 or what there is of it.

        Parameters
        ----------
        key
            The exposure.
        content
            Of all packets.
        complete
            Whether WFI02 is in.
        first
            When WFI01 was in.
        second
            Content of WFI02, if another.
        newest
            When the newest packet of WFI02 was in.
        """
        moment = first or EPOCH + timedelta(minutes=len(self.receipts))
        gap = () if complete else ("WFI02: no packet",)
        self._received.append(key)
        self.receipts[key] = Receipt(
            ExposureId.parse(key),
            complete,
            gap,
            version(content),
            {
                ClockEvent.EXECUTION_END: EXECUTED[1],
                ClockEvent.ANCILLARY: moment,
                ClockEvent.FIRST_PACKET: moment,
                **({ClockEvent.ALL_RECEIVED: moment} if complete else {}),
            },
            lacks_packets=not complete,
            senders={
                "WFI01": SenderReceipt(version(content), moment, moment),
                "WFI02": SenderReceipt(
                    version(second or content),
                    (newest or moment) if complete else None,
                    newest or (moment if complete else None),
                    gap,
                ),
            },
            survey=Survey.HLWAS,
            exposure_type=ExposureType.WFI_IMAGE,
            optical_element=OpticalElement.F158,
            detectors=("WFI01", "WFI02"),
            nexposures=2,
        )

    def format(self, key: str, *, executed: datetime = EXECUTED[1], **facts: Any) -> None:
        """Register L1 made of what is received."""
        senders = self.receipts[key].senders
        packets = tuple(
            ProductInput(name=f"{key}_{name.lower()}_l0", sha256=sender.content_version)
            for name, sender in senders.items()
        )
        events = {ClockEvent.EXECUTION_START: EXECUTED[0], ClockEvent.EXECUTION_END: executed}
        self._register(key, Step.FORMATTING, "uncal", packets, events=events, **facts)

    def calibrate(self, key: str, failed: Iterable[int] = (), **facts: Any) -> None:
        """Register L2 made of the L1 that `format` registered."""
        self._register(key, Step.EXPOSURE, "cal", self._files(key, "uncal"), failed, **facts)

    def process(
        self,
        key: str,
        content: str = "first",
        *,
        executed: datetime = EXECUTED[1],
        **facts: Any,
    ) -> None:
        self.receive(key, content)
        self.format(key, executed=executed, **facts)
        self.calibrate(key, **facts)

    def mosaic(self, visit: str, *exposures: str, missing: Iterable[str] = ()) -> None:
        """Register L3 made of the L2 that `calibrate` registered."""
        inputs = tuple(file for key in exposures for file in self._files(key, "cal"))
        coadd = f"r{visit[1:6]}_p_v{visit[6:]}_270p65x49y50_f158_coadd.asdf"
        mark = {"missing": list(missing)} if missing else {}
        self._commit(visit, Step.VISIT, {coadd: b"coadd"}, inputs, metadata=mark)

    def _content(self, key: str, kind: str, detector: int) -> bytes:
        return f"{kind} {detector} of {key} {self.receipts[key].content_version}".encode()

    def _files(self, key: str, kind: str) -> tuple[ProductInput, ...]:
        return tuple(
            ProductInput(
                name=name(key, detector, kind), sha256=sha256(self._content(key, kind, detector))
            )
            for detector in (1, 2)
        )

    def _register(
        self,
        key: str,
        step: Step,
        kind: str,
        inputs: tuple[ProductInput, ...],
        failed: Iterable[int] = (),
        survey: Survey = Survey.HLWAS,
        exposure_type: ExposureType = ExposureType.WFI_IMAGE,
        nexposures: int = 2,
        events: Mapping[ClockEvent, datetime] | None = None,
        data_release: str | None = None,
        error: str = "BadInputError",
        attempt: StepAttempt | None = None,
        without: Iterable[int] = (),
    ) -> None:
        lost = set(failed)
        contents = {
            name(key, detector, kind): self._content(key, kind, detector)
            for detector in (1, 2)
            if detector not in lost.union(without)
        }
        senders = self.receipts[key].senders if step is Step.FORMATTING else {}
        self._commit(
            key,
            step,
            contents,
            inputs,
            metadata={
                "survey": survey.value,
                "exposure_type": exposure_type.value,
                "nexposures": nexposures,
                **({"data_release": data_release} if data_release else {}),
            },
            events=dict(events or {}),
            failures=tuple(
                WorkFailure(
                    file_set=name(key, detector, kind).rpartition("_")[0],
                    error=error,
                    message="all pixels are bad",
                    content=senders[f"WFI{detector:02d}"].content_version if senders else None,
                )
                for detector in lost
            ),
            of_attempt=attempt,
        )

    def _commit(
        self,
        partition: str,
        step: Step,
        contents: dict[str, bytes],
        inputs: tuple[ProductInput, ...],
        of_attempt: StepAttempt | None = None,
        **fields: Any,
    ) -> None:
        record = record_of(
            self.root, contents, step=step, partition=partition, inputs=inputs, **fields
        )
        if of_attempt is not None:
            record = of_attempt.publication(record)
            of_attempt.published = True
        Journal(self.root).write(record)

    def look_at_landing(self) -> list[RunRequest]:
        """Let the landing sensor look, and create the runs it asks for."""
        return self.look(landing_sensor)

    def look_at_visits(self) -> list[RunRequest]:
        """Let the visit sensor look, and create the runs it asks for."""
        return self.look(visit_sensor)

    def look_at_handover(self) -> None:
        """Let the hand-over sensor look."""
        self.look(handover_sensor)

    def look_at_proposals(self) -> list[RunRequest]:
        """Let the reprocessing sensor look, and create the runs it asks for."""
        from roman_assets.defs.reprocessing.sensors import reprocessing_sensor

        return self.look(reprocessing_sensor)

    def look(self, sensor: Any) -> list[RunRequest]:
        fold(self.root)
        with self._ticks.look(sensor) as result:
            return self._take_over(result)

    def _take_over(self, result: SensorResult | SkipReason) -> list[RunRequest]:
        if isinstance(result, SkipReason):
            return []
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        requests = list(result.run_requests or ())
        for request in requests:
            self.start(request)
        return requests

    def lose(self, sensor: Any) -> None:
        """Run a sensor's look whose results never arrive: Dagster has given up its tick."""
        fold(self.root)
        with suppress(LookupError), self._ticks.look(sensor):
            raise LookupError

    def restart(self) -> None:
        """Start the code server again: its sensors remember nothing."""
        self._ticks.restart()

    def start(self, request: RunRequest) -> str:
        run = DagsterRun(
            job_name="any",
            status=DagsterRunStatus.STARTED,
            tags={
                **request.tags,
                "dagster/partition": str(request.partition_key),
                "dagster/run_key": str(request.run_key),
            },
        )
        return self.instance.add_run(run).run_id

    def start_range(self, first: str, last: str) -> None:
        tags = {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        self.instance.add_run(
            DagsterRun(job_name="any", status=DagsterRunStatus.STARTED, tags=tags)
        )

    def end_runs(self, how: DagsterEventType = DagsterEventType.RUN_SUCCESS) -> None:
        for run in self.instance.get_runs():
            if not run.is_finished:
                event = DagsterEvent(event_type_value=how.value, job_name=run.job_name)
                self.instance.report_dagster_event(event, run.run_id)


def name(key: str, detector: int, kind: str) -> str:
    return f"{key}_wfi{detector:02d}_f158_{kind}.asdf"
