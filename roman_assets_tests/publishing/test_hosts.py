"""The real pipelines on machines that share nothing but an object store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from roman_datamodels import datamodels

import roman_assets
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.observed_visit import Observed


@pytest.mark.slow
def test_an_exposure_goes_from_packets_to_coadds_over_machines_that_share_an_object_store(
    observed: Observed, object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDS_PATH", str(observed.root.crds))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "astropy").mkdir(parents=True)
    one, two, three = (DataRoot(tmp_path / name, object_store) for name in ("one", "two", "three"))
    exposure = observed.exposures[0]

    shutil.copytree(observed.root.landing, one.landing)
    LandingArea(one).scan()
    formatted = format_exposure(one, exposure)
    calibrated = calibrate_exposure(two, exposure)
    mosaicked = mosaic_visit(three, observed.visit)

    assert not (formatted.failures or calibrated.failures or mosaicked.failures)
    assert {entry.product_name.kind.name for entry in calibrated.made} == {
        "cal", "cal_preview", "cal_thumbnail", "supplement", "exposure_catalog",
        "exposure_segmentation",
    }  # fmt: skip
    again = calibrate_exposure(three, exposure)
    assert {entry.name for entry in again.reused} == {
        entry.name for entry in calibrated.made if not entry.product_name.kind.picture
    }
    assert not again.made
    archive = roman_assets.open_archive(object_store)
    assert len(archive.find(level="L3")) >= 2
    (image,) = (entry for entry in calibrated.made if entry.product_name.kind.name == "cal")
    with archive.open(image.name) as model:
        assert isinstance(model, datamodels.ImageModel)
    assert fsck(three) == []
    assert not any(three.scratch.iterdir())
