"""An exposure of 18 detectors, four of which see too few stars to be aligned alone (R4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from crds.core import utils
from roman_datamodels import datamodels

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.astrometry_check import wcs_fit
from roman_assets.defs.lib.materialization_metadata import pointings
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.name import DetectorFileSet
from roman_assets.products.observation import DETECTORS
from roman_assets.products.pointing import PointingSource
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.reproduction import reproduce
from roman_assets.simulation.telescope import telescope
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets.simulation.telescope.truth import read_truth

SPARSE = ("WFI03", "WFI08", "WFI12", "WFI16")
STARS_LEFT = 5
WINDOW = 512

_sources = telescope.Telescope.sources


def thinned(self: telescope.Telescope, planned: PlannedExposure, detector: str) -> Table:
    """Leave a sparse detector a few of its brightest stars, and no galaxy."""
    table = _sources(self, planned, detector)
    if detector not in SPARSE:
        return table
    stars = np.flatnonzero(table["kind"] != str(SourceKind.GALAXY))
    brightest = stars[np.argsort(table["F158"][stars])[::-1]]
    return table[np.sort(brightest[:STARS_LEFT])]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_18_images_lie_within_5_mas_though_four_see_fewer_than_ten_stars(
    tmp_path: Path, _crds_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRDS_PATH", raising=False)
    monkeypatch.setattr(telescope.Telescope, "sources", thinned)
    root = DataRoot(tmp_path / "data")
    plan = VisitPlan.from_requests([replace(DEMO_REQUESTS[0], dither="NONE")], detectors=DETECTORS)
    (planned,) = plan.exposures
    observe(plan, root, window=WINDOW, processes=1)
    LandingArea(root).scan()
    assert not format_exposure(root, planned.exposure).failures
    assert not calibrate_exposure(root, planned.exposure).failures
    with Registry(root) as registry:
        images = registry.generations.current(registry.products.find(kind="cal")["name"]).values()
    assert len(images) == len(DETECTORS)
    for image in images:
        sparse = detector_of(image) in SPARSE
        assert image.metadata["pointing"] == (
            PointingSource.COMMON if sparse else PointingSource.OWN
        )
        assert off(root, planned, image) < 5
        if sparse:
            assert image.metadata["source_count"] < 10
            assert image.metadata["alignment_uncertainty"] < 1
            assert image.metadata["alignment_rms"] < 5
    assert wcs_fit(pointings(images)).passed
    dependent = next(image for image in images if detector_of(image) in SPARSE)
    (tmp_path / "again").mkdir()
    assert reproduce(root, dependent.name, tmp_path / "again").difference == ""
    utils.clear_function_caches()


def detector_of(image: RegisteredProduct) -> str:
    file_set = image.product_name.file_set
    assert isinstance(file_set, DetectorFileSet)
    return file_set.detector


def off(root: DataRoot, planned: PlannedExposure, image: RegisteredProduct) -> float:
    """The largest distance (mas) of an image's pixels from where the telescope saw them."""
    truth: dict[str, Any] = read_truth(root, planned.exposure.visit).meta["true_pointing"]
    true = detector_wcs(
        detector_of(image), **truth[str(planned.exposure)], window=WINDOW,
        velocity_aberration=telescope.velocity_aberration(planned),
    )  # fmt: skip
    x, y = map(np.ravel, np.meshgrid(*2 * [np.linspace(0, WINDOW - 1, 5)]))
    with datamodels.open(FileArchive(root).path(image.product_name)) as model:
        ra, dec = model.meta.wcs(x, y)
    true_ra, true_dec = true(x, y)
    east = (ra - true_ra) * np.cos(np.deg2rad(true_dec))
    return float(np.hypot(east, dec - true_dec).max() * 3.6e6)
