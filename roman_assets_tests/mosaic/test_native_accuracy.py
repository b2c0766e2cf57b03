"""L3 catalogues at the native pixel scale against the truth: fields of the demo, three skies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.name import ProductName
from roman_assets.products.observation import OpticalElement
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets.simulation.telescope.truth import (
    APERTURE,
    PSF,
    Measurement,
    Residuals,
    read_catalog,
    read_truth,
    star_residuals,
)
from roman_assets_tests.support.own_crds_cache import own_crds_cache

pytestmark = pytest.mark.slow

SEEDS = (1, 2, 3)
FIELDS = (OpticalElement.F106, OpticalElement.F158)
MEASUREMENTS = {"psf": PSF, "aperture": APERTURE}

Stars = Mapping[tuple[OpticalElement, str], NDArray[np.float64]]
"""Residuals of stars, as `star_residuals` gives them, by field and measurement."""


def coadded(root: DataRoot, seed: int) -> None:
    """Observe the imaging visits of the demo, and process them to L3 and L4."""
    plan = VisitPlan.from_requests(DEMO_REQUESTS[: len(FIELDS)], detectors=("WFI01", "WFI02"))
    exposures = observe(plan, root, seed=seed, processes=1)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
        assert not calibrate_exposure(root, exposure, workers=1).failures
    for visit in plan.visits:
        assert not mosaic_visit(root, visit, workers=1).failures


def residuals(root: DataRoot, element: OpticalElement, measurement: Measurement) -> Stars:
    """Compare all skycells of a field with the truth."""
    found = Registry(root).products.find(kind="visit_catalog", optical_element=element.value)
    names = [ProductName.parse(name) for name in found["name"]]
    return np.concatenate(
        [
            star_residuals(
                read_catalog(FileArchive(root).path(name)),
                read_truth(root, name.visit),
                element,
                measurement=measurement,
            )
            for name in names
        ],
        axis=1,
    )


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Stars]:
    """By seed; each has a reference cache of its own."""
    skies: dict[int, Stars] = {}
    for seed in SEEDS:
        root = DataRoot(tmp_path_factory.mktemp("sky") / "data")
        with own_crds_cache():
            coadded(root, seed)
        skies[seed] = {
            (field, name): residuals(root, field, measurement)
            for field in FIELDS
            for name, measurement in MEASUREMENTS.items()
        }
    return skies


def pooled(stars: Mapping[int, Stars], field: OpticalElement, name: str) -> Residuals:
    return Residuals.of(np.concatenate([sky[field, name] for sky in stars.values()], axis=1))


@pytest.mark.parametrize("field", FIELDS)
def test_stars_lie_within_5_mas_rms_of_the_truth_and_not_1_mas_off_together(
    stars: Mapping[int, Stars], field: OpticalElement
) -> None:
    found = pooled(stars, field, "psf")
    assert found.n >= 50
    assert found.position_rms_mas < 5.0
    assert found.position_offset_mas < 1.0


@pytest.mark.parametrize("field", FIELDS)
def test_aperture_fluxes_are_right_within_10_mmag(
    stars: Mapping[int, Stars], field: OpticalElement
) -> None:
    for sky in stars.values():
        found = Residuals.of(sky[field, "aperture"])
        assert found.n >= 10
        assert found.median_flux_error_mmag < 10.0


@pytest.mark.parametrize(
    ("field", "limit"), [(OpticalElement.F158, 25.0), (OpticalElement.F106, 45.0)]
)
def test_psf_fluxes_are_low_by_no_more_than_the_docs_say(
    stars: Mapping[int, Stars], field: OpticalElement, limit: float
) -> None:
    assert 0.0 < pooled(stars, field, "psf").flux_bias_mmag < limit
