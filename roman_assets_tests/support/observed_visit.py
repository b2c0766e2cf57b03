"""A visit of one detector at window size, from packets to L3, made once for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from roman_datamodels import datamodels

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.coadd import MosaicResult
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, OpticalElement, VisitId
from roman_assets.publishing.attempt import Run
from roman_assets.publishing.step import Output, StepResult, publish_step
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.simulation.telescope.crds_cache import build_crds_cache
from roman_assets.simulation.telescope.observing import (
    observe,
    send_definitive_ephemeris,
    sky_fields,
)
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets.simulation.telescope.telescope import DEFAULT_SEED
from roman_assets_tests.support.own_crds_cache import own_crds_cache

DETECTOR = "WFI02"
WRONG_SHAPE, WITHOUT_REFERENCES = "WFI01", "WFI03"


@dataclass
class Observed:
    """An installation with L1 of a visit of two exposures."""

    root: DataRoot
    plan: VisitPlan
    exposures: tuple[ExposureId, ...]

    @property
    def visit(self) -> VisitId:
        return self.exposures[0].visit

    def current(self, **search: str) -> dict[str, RegisteredProduct]:
        registry = Registry(self.root)
        return registry.generations.current(registry.products.find(**search)["name"])

    def path(self, name: str) -> Path:
        return FileArchive(self.root).path(ProductName.parse(name))

    def publish_altered(self, exposure: ExposureId, detector: str, rows: int) -> str:
        """Publish L1 of one more detector, cut to its first rows; give its name."""
        good = next(iter(self.current(exposure=str(exposure), kind="uncal", detector=DETECTOR)))
        name = good.replace(DETECTOR.lower(), detector.lower())
        path = self.root.path / name
        with datamodels.open(self.path(good)) as model:
            model.data = model.data[:, :rows, :].copy()
            model.meta.instrument.detector = detector
            model.save(path)
        publish_step(
            self.root,
            step=Step.FORMATTING,
            partition=str(exposure),
            outputs=[Output(ProductName.parse(name), path, "0" * 64)],
        )
        return name.removesuffix("_uncal.asdf")


@pytest.fixture(scope="session")
def _crds_environment() -> Iterator[None]:
    with own_crds_cache() as patch:
        patch.delenv("ROMAN_ASSETS_WORKERS", raising=False)
        yield


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory, _crds_environment: None) -> Observed:
    root = DataRoot(tmp_path_factory.mktemp("visit") / "data")
    plan = VisitPlan.from_requests(DEMO_REQUESTS[:1], detectors=(DETECTOR,))
    exposures = observe(plan, root, processes=1)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
    return Observed(root, plan, exposures)


@dataclass
class Calibrated:
    """The same with L2; the results of every call."""

    observed: Observed
    first: StepResult
    after_definitive_ephemeris: StepResult
    second: StepResult
    wrong_shape: str
    without_references: str


@pytest.fixture(scope="session")
def calibrated(observed: Observed) -> Calibrated:
    root, (first, second) = observed.root, observed.exposures
    build_crds_cache(
        root.crds,
        detectors=[WRONG_SHAPE],
        optical_elements=[OpticalElement.DARK],
        seed=DEFAULT_SEED,
        sky_fields=sky_fields(observed.plan),
    )
    wrong = observed.publish_altered(second, WRONG_SHAPE, rows=260)
    without = observed.publish_altered(second, WITHOUT_REFERENCES, rows=520)
    made = calibrate_exposure(root, first, run=Run("run-1"))
    send_definitive_ephemeris(observed.plan, root)
    LandingArea(root).scan()
    again = calibrate_exposure(root, first)
    return Calibrated(observed, made, again, calibrate_exposure(root, second), wrong, without)


@pytest.fixture(scope="session")
def mosaicked(calibrated: Calibrated) -> MosaicResult:
    return mosaic_visit(calibrated.observed.root, calibrated.observed.visit, run=Run("run-3"))


@pytest.fixture
def copy_of_observed(observed: Observed, tmp_path: Path) -> Observed:
    """A copy to be changed at will; it uses the CRDS cache of the original."""
    root = DataRoot(tmp_path / "data")
    shutil.copytree(
        observed.root.path,
        root.path,
        ignore=lambda directory, names: {"crds", "scratch"} & set(names),
    )
    return Observed(root, observed.plan, observed.exposures)
