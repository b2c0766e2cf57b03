"""Facts of receipts, attempts and publications as steps record them, at hours of one's choice.

No file is behind the products: the ledger asks records only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import KIND_BY_NAME, Scope, Step, expected_kinds
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    Attempt,
    CommitRecord,
    ExposureReceipt,
    Handover,
    Outcome,
    ProductEntry,
    SenderArrival,
    Statement,
    WorkFailure,
)
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import ANY_FINGERPRINT, VISIT, exposure

START = datetime(2027, 6, 1, tzinfo=UTC)
CELL = "270p65x49y70"
DETECTORS = ("WFI01", "WFI02")


def at(hours: float) -> datetime:
    """Give the moment so many hours after the end of the execution."""
    return START + timedelta(hours=hours)


def exposure_names(
    partition: str, kinds: Iterable[str], detectors: Iterable[str] = DETECTORS
) -> list[str]:
    """Give the official names of an exposure's products."""
    names = []
    for kind in (KIND_BY_NAME[name] for name in kinds):
        places = [""] if kind.scope is Scope.EXPOSURE else [f"_{d.lower()}" for d in detectors]
        names += [f"{partition}{place}_f158_{kind.suffix}.{kind.extension}" for place in places]
    return names


def visit_names(visit: str = VISIT, cell: str = CELL) -> list[str]:
    """Give the official names of a visit's products on one skycell."""
    kinds = expected_kinds(Survey.HLWAS, ExposureType.WFI_IMAGE, (Step.VISIT,))
    stem = f"r{visit[1:6]}_p_v{visit[6:]}_{cell}_f158"
    return [f"{stem}_{kind.suffix}.{kind.extension}" for kind in kinds]


L1 = ("uncal", "guide_window", "face")
L2 = ("cal", "supplement", "exposure_catalog", "exposure_segmentation")


@dataclass
class Facts:
    """Writes commit records of one installation; hours count from the end of the execution."""

    root: DataRoot
    attempts: int = 0

    def receipt(
        self,
        partition: str = exposure(),
        *,
        packets: float | None = 1,
        ancillary: float | None = 1,
        recorded: float | None = None,
        first_packet: float | None = 0.5,
        executed: float = 0,
        arrivals: Mapping[str, float] = MappingProxyType({}),
        cut_off: float | None = None,
        **known: Any,
    ) -> None:
        """Tell what is in: packets and ancillary data since the hours given, or not (None).

        ``arrivals`` are those of single detectors, or of FACE, whose packets were in before the
        others; ``cut_off`` ends the wait for the others.
        """
        moments = {
            ClockEvent.EXECUTION_END: executed,
            ClockEvent.FIRST_PACKET: first_packet,
            ClockEvent.LAST_PACKET: packets,
            ClockEvent.ANCILLARY: ancillary,
        }
        if packets is not None and ancillary is not None:
            moments[ClockEvent.ALL_RECEIVED] = max(packets, ancillary)
        defaults: dict[str, Any] = {
            "survey": Survey.HLWAS,
            "exposure_type": ExposureType.WFI_IMAGE,
            "optical_element": OpticalElement.F158,
            "detectors": DETECTORS,
            "nexposures": 1,
        }
        self._write(
            Step.FORMATTING,
            partition,
            recorded
            if recorded is not None
            else max(m for m in (*moments.values(), *arrivals.values()) if m is not None),
            statement=Statement.RECEIPT,
            receipt=ExposureReceipt(
                **{
                    **defaults,
                    "lacks_packets": packets is None,
                    "lacks_ancillary": ancillary is None,
                    "arrivals": tuple(
                        SenderArrival(sender=sender, received=at(hour))
                        for sender, hour in arrivals.items()
                    ),
                    **known,
                }
            ),
            events={
                event: at(hour)
                for event, hour in (*moments.items(), (ClockEvent.CUT_OFF, cut_off))
                if hour is not None
            },
        )

    def attempt(
        self,
        step: Step,
        partition: str = exposure(),
        *,
        start: float,
        end: float | None = None,
        queued: float | None = None,
        outcome: Outcome = Outcome.RUNNING,
        last_try: bool = False,
        names: Sequence[str] = (),
        failed: Sequence[str] = (),
        error: str = "BadInputError",
    ) -> None:
        """Tell of an attempt: begun and still running, failed, or published."""
        self.attempts += 1
        key = f"{self.attempts:032x}"
        events = {ClockEvent.STARTED: at(start)}
        if queued is not None:
            events[ClockEvent.QUEUED] = at(queued)
        running = Attempt(attempt_id=key, outcome=Outcome.RUNNING, last_try=last_try)
        self._write(
            step, partition, start, statement=Statement.ATTEMPT, attempt=running, events=events
        )
        if end is None:
            return
        ended = "" if outcome is Outcome.FINISHED else "SomeError"
        published = bool(names or failed)
        self._write(
            step,
            partition,
            end,
            statement=Statement.PUBLICATION if published else Statement.ATTEMPT,
            attempt=running.model_copy(update={"outcome": outcome, "error": ended}),
            events={**events, ClockEvent.FINISHED: at(end)},
            products=tuple(_entry(name, key) for name in names),
            failures=tuple(
                WorkFailure(file_set=name, error=error, message="no stars") for name in failed
            ),
        )

    def published(
        self, step: Step, partition: str, names: Sequence[str], *, start: float, end: float,
        queued: float | None = None, failed: Sequence[str] = (), error: str = "BadInputError",
    ) -> None:  # fmt: skip
        """Tell of an attempt that published products."""
        self.attempt(
            step, partition, start=start, end=end, queued=queued, outcome=Outcome.FINISHED,
            names=names, failed=failed, error=error,
        )  # fmt: skip

    def handed_over(self, partition: str, hour: float) -> None:
        """Tell that the SSC was told of the L2 images of an exposure or visit."""
        self.attempts += 1
        told = Handover(manifest="x.json", digest=f"{self.attempts:064x}", images=1)
        self._write(
            Step.HANDOVER, partition, hour, statement=Statement.HANDOVER, handover=told,
            events={ClockEvent.HANDED_OVER: at(hour)},
        )  # fmt: skip

    def fold(self) -> None:
        """Bring the facts into the registry."""
        fold(self.root)

    def _write(self, step: Step, partition: str, hour: float, **fields: Any) -> None:
        Journal(self.root).write(
            CommitRecord(step=step, partition=partition, committed_at=at(hour), **fields)
        )


def _entry(name: str, key: str) -> ProductEntry:
    ProductName.parse(name)
    content = hashlib.sha256(f"{name} {key}".encode()).hexdigest()
    return ProductEntry(name=name, sha256=content, size=1, fingerprint=ANY_FINGERPRINT)
