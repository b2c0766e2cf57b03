"""Visits of three surveys, one detector each, with a romancal that only writes.

Two visits are of one pass of HLWAS, one is of HLTDS, one of GBTDS.

It writes in this process: whether workers do what they are given is for other tests to say.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from unittest import mock

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration import exposure as exposure_pipeline
from roman_assets.calibration.detector import CalibratedDetector, DetectorQuality, DetectorTask
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.mosaic import coadd as mosaic_pipeline
from roman_assets.mosaic.skycell import MosaickedSkycell, SkycellTask
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.kind import KIND_BY_NAME, Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey, VisitId
from roman_assets.products.pointing import PointingSource
from roman_assets.publishing.workers import Completion
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.software import installed_version
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import damage, product_bytes, record_of

EARLY, LATE = "roman_0001.pmap", "roman_0002.pmap"
START = datetime(2027, 1, 10, tzinfo=UTC)
VISITS = {
    VisitId.parse("r0000101001001001001"): Survey.HLWAS,
    VisitId.parse("r0000101001002001001"): Survey.HLWAS,
    VisitId.parse("r0000201001001001001"): Survey.HLTDS,
    VisitId.parse("r0000301001001001001"): Survey.GBTDS,
}
FIRST, SECOND, OTHER, BULGE = VISITS
EXPOSURES = (
    ExposureId(FIRST, 1), ExposureId(FIRST, 2),
    ExposureId(SECOND, 1), ExposureId(OTHER, 1), ExposureId(BULGE, 1),
)  # fmt: skip
SKYCELL = "270p65x49y50"
FAIL_DETECTOR, FAIL_SKYCELL = "TEST_FAIL_DETECTOR", "TEST_FAIL_SKYCELL"

DECLARATION = """
version = 1
release = "{release}"
survey = "{survey}"
after = 2027-01-01T00:00:00Z
before = 2027-02-01T00:00:00Z
context = "{context}"
romancal = "{romancal}"
groupings = {groupings}
"""


def calibrate(task: DetectorTask) -> CalibratedDetector:
    """Write what romancal would, of the context in use."""
    if os.environ.get(FAIL_DETECTOR, "none") in task.uncal.name:
        raise RuntimeError("no pixel is good")
    file_set = ProductName.parse(task.uncal.name).file_set
    files = {}
    for kind in ("cal", "supplement", "exposure_catalog", "exposure_segmentation"):
        name = str(ProductName(file_set, KIND_BY_NAME[kind]))
        files[kind] = task.uncal.with_name(name)
        files[kind].write_bytes(product_bytes(name, os.environ["CRDS_CONTEXT"]))
    quality = DetectorQuality("COMPLETE", 20, 0.5, 3, 0.01, 0.2, PointingSource.OWN)
    return CalibratedDetector(files, os.environ["CRDS_CONTEXT"], {"flat": "flat.asdf"}, quality)


def outline(path: Path) -> tuple[str, ...]:
    return (SKYCELL,)


def add_up(task: SkycellTask) -> MosaickedSkycell:
    """Write what romancal would, with its pixel scale and the names of what was added up."""
    if os.environ.get(FAIL_SKYCELL, "none") in str(task.file_set):
        raise RuntimeError("no skycell today")
    directory = task.members[0].parent
    files = {}
    for kind in ("association", "coadd", "visit_catalog", "visit_segmentation"):
        name = str(ProductName(task.file_set, KIND_BY_NAME[kind]))
        files[kind] = directory / name
        text = " ".join(
            [os.environ["CRDS_CONTEXT"], task.pixel_scale, *(path.name for path in task.members)]
        )
        files[kind].write_bytes(product_bytes(name, text))
    return MosaickedSkycell(files=files)


class Bench:
    """Takes the place of the worker pool."""

    def __init__(self, size: int, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(
        self, function: Callable[[Any], Any], tasks: Mapping[str, Any]
    ) -> Iterator[Completion[Any]]:
        for key, task in tasks.items():
            with mock.patch.dict(os.environ, self.environment):
                try:
                    completion = Completion(key, value=function(task))
                except RuntimeError as error:
                    completion = Completion(key, error=error)
            yield completion


FAKES = (
    (exposure_pipeline, "WorkerPool", Bench),
    (mosaic_pipeline, "WorkerPool", Bench),
    (exposure_pipeline, "calibrate_detector", calibrate),
    (mosaic_pipeline, "skycells_of", outline),
    (mosaic_pipeline, "mosaic_skycell", add_up),
)
"""What takes the place of romancal, and where."""


@dataclass
class Night:
    """An installation with L1 of all visits, the first of two exposures.

    Parameters
    ----------
    place
        Its directory: the data root, and beside it a cache with the names of two contexts.
    object_store
        Where its archive is, None on disk.
    """

    place: Path
    object_store: str | None = None

    @property
    def root(self) -> DataRoot:
        return DataRoot(self.place / "data", self.object_store)

    @classmethod
    def begun(
        cls, place: Path, monkeypatch: pytest.MonkeyPatch, object_store: str | None = None
    ) -> Night:
        """Begin an installation without any exposure."""
        mappings = place / "crds" / "mappings" / "roman"
        mappings.mkdir(parents=True)
        for context in (EARLY, LATE):
            (mappings / context).touch()
        night = cls(place, object_store)
        night.prepare(monkeypatch)
        return night

    @classmethod
    def observed(cls, place: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
        night = cls.begun(place, monkeypatch)
        for number, exposure in enumerate(EXPOSURES):
            night.format(exposure, START + timedelta(hours=number))
        fold(night.root)
        return night

    @classmethod
    def copied(cls, made: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Copy an installation, and let this process use the copy."""
        # links, as files of an installation are replaced and never changed
        shutil.copytree(made, place, copy_function=os.link)
        copy = cls(place)
        copy.prepare(monkeypatch)
        return copy

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process and its workers use this installation without romancal."""
        monkeypatch.setenv("CRDS_PATH", str(self.place / "crds"))
        for pipeline, name, fake in FAKES:
            monkeypatch.setattr(pipeline, name, fake)

    def format(
        self,
        exposure: ExposureId,
        start: datetime,
        content: str = "ramp",
        *,
        survey: Survey | None = None,
        exposure_type: ExposureType = ExposureType.WFI_IMAGE,
        element: str = "f158",
        nexposures: int | None = None,
    ) -> None:
        """Register L1."""
        key = str(exposure)
        record = record_of(
            self.root,
            {
                name: product_bytes(name, content)
                for name in (
                    f"{key}_wfi01_{element}_uncal.asdf",
                    f"{key}_wfi01_{element}_gw.asdf",
                )
            },
            step=Step.FORMATTING,
            partition=key,
            metadata={
                "survey": (survey or VISITS[exposure.visit]).value,
                "exposure_type": exposure_type.value,
                "start_time": start.isoformat(),
                "end_time": (start + timedelta(seconds=60)).isoformat(),
                "nexposures": nexposures or sum(one.visit == exposure.visit for one in EXPOSURES),
            },
        )
        Journal(self.root).write(record)

    def make_promptly(self, context: str = EARLY) -> None:
        """Make L2, L3 and L4 of everything with a context."""
        for exposure in EXPOSURES:
            calibrate_exposure(self.root, exposure, context=context, workers=1)
        for visit in VISITS:
            mosaic_visit(self.root, visit, context=context, workers=1)

    def lose(self, names: Iterable[str]) -> None:
        """Damage the files of products, and let `fsck` state that they are lost."""
        with Registry(self.root) as registry:
            contents = {entry.sha256 for entry in registry.generations.current(names).values()}
        for sha256 in contents:
            damage(FileArchive(self.root).blob(sha256), b"something else")
        fsck(self.root, mend=True)

    def declare(self, release: str = "r0", **fields: Any) -> Path:
        """Write a declaration."""

        values = {
            "survey": "HLWAS",
            "context": LATE,
            "romancal": installed_version("romancal"),
            "groupings": '["visit", "pass"]',
        } | fields
        path = self.root.path / f"{release}_{values['survey']}.toml"
        path.write_text(DECLARATION.format(release=release, **values))
        return path
