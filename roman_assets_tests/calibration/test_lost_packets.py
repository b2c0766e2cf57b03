"""What becomes of the L2 of a detector with lost packets, and when they come down after all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import roman_datamodels as rdm
from roman_datamodels.dqflags import pixel

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.products.deadline import utc_now
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.downlink import Downlink, DownlinkDelivery, Loss
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets_tests.support.observed_visit import DETECTOR, Observed


def work(root: DataRoot, exposure: ExposureId, *, hours: float) -> None:
    moment = utc_now() + timedelta(hours=hours)
    format_exposure(root, exposure, routine=True, clock=lambda: moment)
    assert not calibrate_exposure(root, exposure, routine=True, workers=1).failures


@pytest.fixture
def opened(observed: Observed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = DataRoot(tmp_path / "data")
    root.path.mkdir()
    monkeypatch.setenv("CRDS_PATH", str(observed.root.crds))
    plan = VisitPlan.from_requests(
        [replace(DEMO_REQUESTS[0], dither="NONE")], detectors=(DETECTOR,)
    )
    (exposure,) = observe(
        plan, root, delivery=DownlinkDelivery(losses=(Loss(DETECTOR, 3),)), processes=1
    )

    def open_product(kind: str) -> rdm.DataModel:
        name = f"{exposure}_{DETECTOR.lower()}_f158_{kind}.asdf"
        return rdm.open(FileArchive(root).path(ProductName.parse(name)))

    return root, exposure, open_product


def test_an_image_does_without_lost_pixels_until_they_come_down(opened) -> None:
    root, exposure, open_product = opened
    work(root, exposure, hours=13)
    with open_product("uncal") as ramp:
        lost = np.array(ramp.resultantdq[2, 4:-4, 4:-4]) != 0
    assert 0.2 < lost.mean() < 0.8
    with open_product("cal") as image:
        assert image.meta.exposure.data_problem == "LOST_PACKETS"
        before, error = np.array(image.data), np.array(image.err)
        bad = (np.array(image.dq) & pixel.DO_NOT_USE) != 0
    assert bad[lost].mean() < bad[~lost].mean() + 0.02, "one of its resultants costs no pixel"
    with Registry(root) as registry:
        names = registry.products.find(kind="cal")["name"]
        (made,) = registry.generations.current(names).values()
    assert made.metadata["missing"][0].startswith(f"{DETECTOR} resultant 3: packets ")
    Downlink(root).release()
    work(root, exposure, hours=1)
    with open_product("cal") as image:
        after, dq = np.array(image.data), np.array(image.dq)
        assert image.meta.exposure.data_problem is None
    good = (dq == 0) & np.isfinite(before) & np.isfinite(after)
    change = np.abs(after - before) / error
    assert np.median(change[good & lost]) < 0.5
    assert np.median(change[good & lost]) > np.median(change[good & ~lost])
