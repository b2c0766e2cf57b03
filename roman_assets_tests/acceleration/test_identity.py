"""Products with and without accelerations are the same, bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from roman_datamodels import datamodels

from roman_assets.acceleration.installed import ACCELERATION_VARIABLE
from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.detector import DetectorTask, calibrate_detector
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.skycell import SkycellTask, mosaic_skycell, skycells_of
from roman_assets.products.name import ProductName, SkycellFileSet
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.publishing.workers import WorkerPool, calibration_environment
from roman_assets.references.context import (
    astrometric_catalog,
    configure_crds,
    operational_context,
)
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan, VisitRequest
from roman_assets_tests.support.own_crds_cache import own_crds_cache
from roman_assets_tests.support.product_identity import difference_of_products

TWO_IMAGES = DEMO_REQUESTS[0]
IMAGE = replace(TWO_IMAGES, dither="NONE")
GRISM = DEMO_REQUESTS[3]
DARK = VisitRequest(Survey.GAS, 4, OpticalElement.DARK, IMAGE.pointing)
SATURATED = "saturated"


@pytest.fixture
def _crds() -> Iterator[pytest.MonkeyPatch]:
    with own_crds_cache() as patch:
        yield patch


def _ramps(
    place: Path, requests: Sequence[VisitRequest], seed: int, window: int | None = 512
) -> dict[str, Path]:
    """Simulate L1 of one detector, by name, and an image that saturates."""
    root = DataRoot(place / "data")
    plan = VisitPlan.from_requests(requests, detectors=["WFI02"])
    exposures = observe(plan, root, seed=seed, window=window, processes=1)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
    configure_crds(root)
    names = [ProductName.parse(name) for name in Registry(root).products.find(kind="uncal")["name"]]
    ramps = {str(name): FileArchive(root).path(name) for name in sorted(names, key=str)}
    image = next(path for name, path in ramps.items() if "f158" in name)
    bright = place / SATURATED / image.name
    bright.parent.mkdir()
    with datamodels.open(image) as model:
        # romancal 1.1.0 cannot save an image of nothing but saturated pixels
        model.data[3:, ::2] = 65_535
        model.data[:, 100:150] = 65_535
        model.data[1:, :, 200:210] = 65_535
        model.save(bright)
    return ramps | {SATURATED: bright}


def _calibrated(ramps: Mapping[str, Path], place: Path, patch: pytest.MonkeyPatch) -> Path:
    """Calibrate the ramps with accelerations and without, each in a directory of its own."""
    catalog = astrometric_catalog(DataRoot(place / "data"))
    for setting in ("off", "on"):
        patch.setenv(ACCELERATION_VARIABLE, setting)
        tasks = {}
        for key, path in ramps.items():
            directory = place / setting / key
            directory.mkdir(parents=True)
            (directory / path.name).symlink_to(path)
            tasks[key] = DetectorTask(directory / path.name, astrometric_catalog=catalog)
        _done(calibrate_detector, tasks)
    return place


def _done(function: Any, tasks: Mapping[str, Any]) -> None:
    with WorkerPool(1, calibration_environment(operational_context())) as pool:
        for completion in pool.run(function, tasks):
            assert completion.error is None, completion


def _assert_identical(place: Path, keys: Iterable[str]) -> None:
    for key in keys:
        assert len(list((place / "on" / key).glob("*_cal.asdf"))) == 1
        assert difference_of_products(place / "off" / key, place / "on" / key) is None


@pytest.mark.parametrize("seed", [1])
def test_windows_come_out_the_same(seed: int, tmp_path: Path, _crds: pytest.MonkeyPatch) -> None:
    ramps = _ramps(tmp_path, [IMAGE, GRISM, DARK], seed)
    assert len(ramps) == 4
    _assert_identical(_calibrated(ramps, tmp_path, _crds), ramps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_windows_of_ten_seeds_and_their_coadds_come_out_the_same(
    seed: int, tmp_path: Path, _crds: pytest.MonkeyPatch
) -> None:
    ramps = _ramps(tmp_path, [TWO_IMAGES, GRISM, DARK], seed)
    _assert_identical(_calibrated(ramps, tmp_path, _crds), ramps)
    images = [
        path for path in (tmp_path / "on").rglob("*f158_cal.asdf") if SATURATED not in str(path)
    ]
    skycell, visit = skycells_of(images[0])[0], ProductName.parse(images[0].name).exposure.visit
    file_set = SkycellFileSet.of_visit(visit, skycell, OpticalElement.F158)
    for setting in ("off", "on"):
        _crds.setenv(ACCELERATION_VARIABLE, setting)
        directory = tmp_path / "coadd" / setting
        directory.mkdir(parents=True)
        members = tuple(directory / path.name for path in images)
        for member, path in zip(members, images, strict=True):
            member.symlink_to(path)
        _done(mosaic_skycell, {skycell: SkycellTask(file_set, members, PixelScale.NATIVE)})
    assert difference_of_products(tmp_path / "coadd" / "off", tmp_path / "coadd" / "on") is None


@pytest.mark.slow
def test_a_whole_detector_comes_out_the_same(tmp_path: Path, _crds: pytest.MonkeyPatch) -> None:
    ramps = _ramps(tmp_path, [IMAGE], seed=1, window=None)
    whole = dict(list(ramps.items())[:1])
    _assert_identical(_calibrated(whole, tmp_path, _crds), whole)
