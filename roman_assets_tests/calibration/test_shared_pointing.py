"""Images that take their pointing from others: what is made again, and what the records say.

romancal only writes here; it finds too few stars in the images of `FEW_STARS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from roman_assets.calibration import exposure as exposure_pipeline
from roman_assets.calibration.common_pointing import CommonPointingTask
from roman_assets.calibration.detector import CalibratedDetector, DetectorQuality, DetectorTask
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.astrometry_check import wcs_fit
from roman_assets.defs.lib.materialization_metadata import pointings
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import KIND_BY_NAME, Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey
from roman_assets.products.pointing import ALIGNED, ALIGNMENT_FAILED, PointingSource
from roman_assets.publishing.step import StepResult
from roman_assets.publishing.workers import Completion
from roman_assets.reader.lineage import trace
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import product_bytes, record_of
from roman_assets_tests.support.survey_night import EARLY, LATE, Bench

EXPOSURE = ExposureId.parse("r0000101001001001001_0001")
FEW_STARS = ("wfi03", "wfi08")
KINDS = ("cal", "supplement", "exposure_catalog", "exposure_segmentation")


def name(detector: str, kind: str) -> str:
    file_set = ProductName.parse(f"{EXPOSURE}_{detector}_f158_uncal.asdf").file_set
    return str(ProductName(file_set, KIND_BY_NAME[kind]))


def file_set(detector: str) -> str:
    return f"{EXPOSURE}_{detector}_f158"


def calibrate(task: DetectorTask) -> CalibratedDetector:
    few = any(detector in task.uncal.name for detector in FEW_STARS)
    detector = task.uncal.name.split("_")[2]
    files = {kind: task.uncal.with_name(name(detector, kind)) for kind in KINDS}
    for path in files.values():
        path.write_bytes(product_bytes(path.name, os.environ["CRDS_CONTEXT"]))
    quality = DetectorQuality(
        ALIGNMENT_FAILED if few else ALIGNED, 0 if few else 20, None if few else 0.5,
        3, 0.01, 0.2, PointingSource.PLANNED if few else PointingSource.OWN,
    )  # fmt: skip
    return CalibratedDetector(files, os.environ["CRDS_CONTEXT"], {"flat": "flat.asdf"}, quality)


def point(task: CommonPointingTask) -> CalibratedDetector:
    assert task.aligned
    for path in task.aligned:
        assert path.is_file()
    quality = replace(
        task.made.quality,
        alignment=ALIGNED,
        pointing=PointingSource.COMMON,
        alignment_uncertainty=0.2,
    )
    return replace(task.made, quality=quality)


class Fragile(Bench):
    """A bench on which the work on some detectors is lost."""

    lost: tuple[str, ...] = ()

    def run(self, function: Callable[[Any], Any], tasks: Any) -> Any:
        for done in super().run(function, tasks):
            gone = any(detector in done.key for detector in self.lost)
            yield Completion(done.key, error=PassingFaultError("killed")) if gone else done


@dataclass
class Focus:
    """An installation with L1 of some detectors of one exposure."""

    root: DataRoot

    def format(self, detectors: Iterable[str]) -> None:
        contents = {
            name(one, "uncal"): product_bytes(name(one, "uncal"), "ramp") for one in detectors
        }
        facts = {"survey": Survey.HLWAS.value, "exposure_type": ExposureType.WFI_IMAGE.value}
        record = record_of(
            self.root, contents, step=Step.FORMATTING, partition=str(EXPOSURE), metadata=facts
        )
        Journal(self.root).write(record)
        fold(self.root)

    def calibrate(self, context: str = EARLY, **options: Any) -> StepResult:
        return calibrate_exposure(self.root, EXPOSURE, context=context, workers=1, **options)

    def current(self, detector: str, kind: str = "cal") -> RegisteredProduct:
        with Registry(self.root) as registry:
            return registry.generations.current([name(detector, kind)])[name(detector, kind)]

    def givers(self, detector: str) -> list[str]:
        """The detectors that gave an image its pointing, as its record says."""
        inputs = self.current(detector).inputs
        return [item.name.split("_")[2] for item in inputs if item.name.endswith("_wcs.asdf")]


@pytest.fixture
def focus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Focus:
    mappings = tmp_path / "crds" / "mappings" / "roman"
    mappings.mkdir(parents=True)
    for context in (EARLY, LATE):
        (mappings / context).touch()
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "crds"))
    monkeypatch.setattr(exposure_pipeline, "WorkerPool", Fragile)
    monkeypatch.setattr(exposure_pipeline, "calibrate_detector", calibrate)
    monkeypatch.setattr(exposure_pipeline, "point_like_the_others", point)
    return Focus(DataRoot(tmp_path / "data"))


def made(result: StepResult) -> set[str]:
    return {entry.name.split("_")[2] for entry in result.made}


def test_the_record_of_an_image_names_those_that_gave_its_pointing(focus: Focus) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    focus.calibrate()
    for kind in KINDS:
        inputs = {item.name: item.sha256 for item in focus.current("wfi03", kind).inputs}
        for giver in ("wfi01", "wfi02"):
            supplement = focus.current(giver, "supplement")
            assert inputs[supplement.name] == supplement.sha256
    assert focus.current("wfi03").metadata["pointing"] == "common"
    assert focus.current("wfi03", "supplement").metadata["pointing"] == "common"
    assert focus.givers("wfi01") == []
    with Registry(focus.root) as registry:
        told = set(trace(registry, focus.current("wfi03")).to_frame()["source"])
    assert {name("wfi01", "supplement"), name("wfi02", "uncal")} <= told


def test_doing_it_again_makes_nothing(focus: Focus) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    focus.calibrate()
    assert not focus.calibrate().made
    assert not focus.calibrate(routine=True).made


@pytest.mark.parametrize("routine", [True, False])
@pytest.mark.parametrize("first", [["wfi03"], ["wfi01", "wfi03"], ["wfi01", "wfi03", "wfi08"]])
def test_detectors_that_arrive_late_give_their_pointing_to_those_that_were_there(
    focus: Focus, first: list[str], routine: bool
) -> None:
    focus.format(first)
    focus.calibrate(routine=routine)
    late = sorted({"wfi01", "wfi02", "wfi03", "wfi08"} - set(first))
    focus.format(late)
    assert made(focus.calibrate(routine=routine)) == {*late, *(set(first) & set(FEW_STARS))}
    assert focus.givers("wfi03") == focus.givers("wfi08") == ["wfi01", "wfi02"]
    assert not focus.calibrate(routine=routine).made


def test_a_late_detector_with_few_stars_changes_no_other(focus: Focus) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    focus.calibrate(routine=True)
    focus.format(["wfi08"])
    assert made(focus.calibrate(routine=True)) == {"wfi08"}
    assert focus.givers("wfi08") == ["wfi01", "wfi02"]


def test_an_image_reprocessed_alone_takes_the_pointing_from_the_others_as_they_are(
    focus: Focus,
) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    focus.calibrate()
    before = focus.current("wfi01", "supplement")
    assert made(focus.calibrate(LATE, only={file_set("wfi03")})) == {"wfi03"}
    assert focus.givers("wfi03") == ["wfi01", "wfi02"]
    assert focus.current("wfi03").context == LATE
    assert focus.current("wfi01", "supplement") == before


def test_reprocessing_one_that_gives_its_pointing_leaves_the_others_until_somebody_asks(
    focus: Focus,
) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    focus.calibrate()
    assert made(focus.calibrate(LATE, only={file_set("wfi01")})) == {"wfi01"}
    assert not focus.calibrate(routine=True).made
    assert made(focus.calibrate(EARLY)) == {"wfi01", "wfi03"}
    assert not focus.calibrate(EARLY).made


def test_a_detector_whose_work_was_lost_gives_its_pointing_once_it_is_made(
    focus: Focus, monkeypatch: pytest.MonkeyPatch
) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    monkeypatch.setattr(Fragile, "lost", ("wfi02",))
    assert [one.file_set for one in focus.calibrate(routine=True).failures] == [file_set("wfi02")]
    assert focus.givers("wfi03") == ["wfi01"]
    monkeypatch.setattr(Fragile, "lost", ())
    assert made(focus.calibrate(routine=True)) == {"wfi02", "wfi03"}
    assert focus.givers("wfi03") == ["wfi01", "wfi02"]


def test_an_image_whose_own_work_was_lost_leaves_nothing_half_pointed(
    focus: Focus, monkeypatch: pytest.MonkeyPatch
) -> None:
    focus.format(["wfi01", "wfi02", "wfi03"])
    monkeypatch.setattr(Fragile, "lost", ("wfi03",))
    assert made(focus.calibrate()) == {"wfi01", "wfi02"}
    monkeypatch.setattr(Fragile, "lost", ())
    assert made(focus.calibrate()) == {"wfi03"}
    assert focus.current("wfi03").metadata["pointing"] == "common"


def test_without_any_other_image_the_pointing_stays_planned_and_the_check_fails(
    focus: Focus,
) -> None:
    focus.format(["wfi03"])
    focus.calibrate()
    image = focus.current("wfi03")
    assert image.metadata["pointing"] == "planned"
    result = wcs_fit(pointings([image]))
    assert not result.passed
    assert image.name in str(result.description)
