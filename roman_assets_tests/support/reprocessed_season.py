"""Products of some visits as a season leaves them on record, without their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.products.pixel_scale import PIXEL_SCALE, PixelScale
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    Attempt,
    CommitRecord,
    ExposureReceipt,
    Outcome,
    ProductEntry,
    Statement,
)
from roman_assets.references.context import best_references
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import archived

START = datetime(2027, 6, 1, tzinfo=UTC)
DETECTORS = (1, 2, 3)
OF_DETECTOR = ("cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf")
OF_SKYCELL = ("asn.json", "coadd.asdf", "cat.parquet", "segm.asdf")
RUN_SECONDS = 60


def visit_key(number: int) -> str:
    return f"r00010010010010010{number:02d}"


def exposure_key(visit: int, number: int) -> str:
    return f"{visit_key(visit)}_{number:04d}"


def start_of(visit: int, number: int) -> datetime:
    """One visit a day."""
    return START + timedelta(days=visit, minutes=10 * number)


def detector_names(key: str, detector: int, ends: Iterable[str] = OF_DETECTOR) -> list[str]:
    return [f"{key}_wfi{detector:02d}_f158_{end}" for end in ends]


def skycell_names(visit: int) -> list[str]:
    key = visit_key(visit)
    return [f"r{key[1:6]}_p_v{key[6:]}_270p65x50y50_f158_{end}" for end in OF_SKYCELL]


@dataclass
class Season:
    """An installation into which products are put on record."""

    root: DataRoot
    software: Mapping[str, str] = field(default_factory=lambda: {"romancal": "1.0.0"})
    ephemeris: str = "PREDICTED"
    pixel_scale: PixelScale | None = PixelScale.NATIVE
    """Of coadds; None is that of records which do not state any."""

    def observe(
        self, visits: Iterable[int], context: str, exposures: Iterable[int] = (1, 2)
    ) -> None:
        """Put all products of visits on record, made when they were observed."""
        numbers = tuple(exposures)
        for visit in visits:
            for number in numbers:
                self.format(visit, number)
                self.calibrate(visit, number, context)
            self.mosaic(visit, context)
        fold(self.root)

    def format(self, visit: int, number: int, at: datetime | None = None) -> None:
        names = [
            name
            for detector in DETECTORS
            for name in detector_names(exposure_key(visit, number), detector, ["uncal.asdf"])
        ]
        stated = archived("wfi_science_raw", {"ephemeris.type": self.ephemeris})
        self._commit(Step.FORMATTING, visit, number, names, at=at, **stated)

    def calibrate(
        self,
        visit: int,
        number: int,
        context: str,
        detectors: Iterable[int] = DETECTORS,
        at: datetime | None = None,
    ) -> None:
        key, moment = exposure_key(visit, number), start_of(visit, number)
        for detector in detectors:
            found = best_references(
                f"WFI{detector:02d}",
                OpticalElement.F158,
                ExposureType.WFI_IMAGE,
                moment,
                context=context,
            )
            recorded = {
                kind: name
                for kind, name in found.items()
                if name != "N/A" and not kind.startswith("pars-")
            }
            self._commit(
                Step.EXPOSURE,
                visit,
                number,
                detector_names(key, detector),
                at=at,
                context=context,
                references=recorded,
            )

    def mosaic(self, visit: int, context: str, at: datetime | None = None) -> None:
        self._commit(Step.VISIT, visit, None, skycell_names(visit), at=at, context=context)

    def wait_for(self, visit: int, number: int, received: datetime) -> None:
        """Let all of an exposure be received, so that its products wait for a run."""
        Journal(self.root).write(
            CommitRecord(
                step=Step.FORMATTING,
                partition=exposure_key(visit, number),
                committed_at=received,
                statement=Statement.RECEIPT,
                receipt=ExposureReceipt(
                    survey="HLWAS",
                    exposure_type="WFI_IMAGE",
                    optical_element="F158",
                    detectors=("WFI01",),
                    nexposures=1,
                ),
                events={
                    ClockEvent.EXECUTION_END: received,
                    ClockEvent.FIRST_PACKET: received,
                    ClockEvent.LAST_PACKET: received,
                    ClockEvent.ANCILLARY: received,
                    ClockEvent.ALL_RECEIVED: received,
                },
            )
        )
        fold(self.root)

    def _commit(
        self,
        step: Step,
        visit: int,
        number: int | None,
        names: Iterable[str],
        at: datetime | None = None,
        sections: tuple[dict[str, Any], ...] = (),
        **about: Any,
    ) -> None:
        moment = at or start_of(visit, number or 9) + timedelta(days=1)
        metadata: dict[str, Any] = {
            "survey": "HLWAS",
            "exposure_type": "WFI_IMAGE",
            "start_time": start_of(visit, number or 1).isoformat(),
            "end_time": (start_of(visit, number or 1) + timedelta(minutes=2)).isoformat(),
        }
        if step is Step.VISIT and self.pixel_scale is not None:
            metadata[PIXEL_SCALE] = self.pixel_scale.arcsec
        products = tuple(
            ProductEntry(
                name=name,
                sha256=hashlib.sha256(f"{name} {moment}".encode()).hexdigest(),
                size=1_000,
                fingerprint="0" * 64,
                software=dict(self.software),
                metadata=metadata,
                **about,
            )
            for name in names
        )
        key = visit_key(visit) if number is None else exposure_key(visit, number)
        Journal(self.root).write(
            CommitRecord(
                step=step,
                partition=key,
                committed_at=moment,
                products=products,
                sections=sections,
                events={
                    ClockEvent.STARTED: moment - timedelta(seconds=RUN_SECONDS),
                    ClockEvent.FINISHED: moment,
                },
                attempt=Attempt(
                    attempt_id=f"{key}{step}{moment}{products[0].name}", outcome=Outcome.FINISHED
                ),
            )
        )


@pytest.fixture
def season(tmp_path: Path, cache_of_three: Path) -> Season:
    """An installation whose references are those of `cache_of_three`."""
    return Season(DataRoot(tmp_path / "data"))
