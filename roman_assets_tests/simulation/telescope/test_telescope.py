import hashlib
import shutil

import numpy as np
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.telescope.crds_cache import DEFAULT_FIELDS, build_crds_cache
from roman_assets.simulation.telescope.observing import (
    observe,
    send_definitive_ephemeris,
    sky_fields,
)
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest, demo_plan
from roman_assets.simulation.telescope.telescope import PointingError, Telescope
from roman_assets.simulation.telescope.truth import compare_catalog, read_truth

SEED = 5
DETECTOR = "WFI02"
REQUEST = VisitRequest(
    Survey.HLWAS, 1, OpticalElement.F158, Pointing(269.8288, 65.8622, 0.0), "SUB2", 4
)
PLAN = VisitPlan.from_requests([REQUEST], detectors=[DETECTOR])


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    path = tmp_path_factory.mktemp("references") / "crds"
    build_crds_cache(
        path,
        detectors=[DETECTOR],
        optical_elements=[OpticalElement.F158],
        seed=SEED,
        sky_fields=DEFAULT_FIELDS,
    )
    return path


def _observe(root, references, processes=1, **options):
    shutil.copytree(references, root / "crds")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("CRDS_PATH", raising=False)
        observe(PLAN, DataRoot(root), seed=SEED, processes=processes, **options)
    return DataRoot(root)


@pytest.fixture(scope="session")
def observed(references, tmp_path_factory):
    return _observe(tmp_path_factory.mktemp("observed"), references)


def _landed(root):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.landing.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def test_what_is_landed_is_complete_for_the_ground(observed):
    landing = LandingArea(observed)
    assert not landing.scan().set_aside
    for planned in PLAN.exposures:
        receipt = landing.receipt(planned.exposure)
        assert receipt.complete, receipt.missing
        assert receipt.survey is Survey.HLWAS
        assert receipt.definitive_ephemeris is None
        assert receipt.detectors == (DETECTOR,)


def test_the_same_plan_and_seed_land_the_same_bytes(observed, references, tmp_path):
    again = _observe(tmp_path, references, processes=2)
    assert _landed(again) == {
        name: digest for name, digest in _landed(observed).items() if name in _landed(again)
    }
    assert len(_landed(again)) >= 5


def test_observing_again_in_place_changes_nothing(observed):
    before = _landed(observed)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("CRDS_PATH", raising=False)
        observe(PLAN, observed, seed=SEED, processes=1)
    assert _landed(observed) == before


def test_another_seed_is_another_sky_and_other_noise():
    first, second = (Telescope(seed) for seed in (1, 2))
    planned = PLAN.exposures[0]
    readouts = [each.expose(planned, DETECTOR)[0].resultants for each in (first, second)]
    assert not np.array_equal(*readouts)


def test_the_definitive_ephemeris_comes_when_it_is_sent(observed, tmp_path):
    root = DataRoot(tmp_path)
    shutil.copytree(observed.landing, root.landing)
    send_definitive_ephemeris(PLAN, root)
    landing = LandingArea(root)
    landing.scan()
    for planned in PLAN.exposures:
        assert landing.receipt(planned.exposure).definitive_ephemeris is not None


def test_the_truth_of_a_visit_is_kept_from_the_ground(observed):
    truth = read_truth(observed, PLAN.exposures[0].exposure.visit)
    assert truth.meta["seed"] == SEED
    assert np.count_nonzero(truth["kind"] == str(SourceKind.GAIA)) >= 4
    assert set(truth.meta["true_pointing"]) == {str(p.exposure) for p in PLAN.exposures}
    assert not observed.observatory.is_relative_to(observed.landing)
    assert not observed.observatory.is_relative_to(observed.public)


def test_the_telescope_misses_the_planned_pointing_as_told():
    planned = PLAN.exposures[0]
    exact = Telescope(1, pointing_error=PointingError(0.0, 0.0, 0.0, 0.0))
    assert exact.true_pointing(planned).ra == pytest.approx(planned.pointing.ra, abs=1e-10)
    missed = Telescope(1, pointing_error=PointingError(0.0, 3.0, 0.1, 0.0)).true_pointing(planned)
    assert (missed.dec - planned.pointing.dec) * 3600 == pytest.approx(3.0, abs=1e-6)
    assert missed.pa == pytest.approx(0.1)


def test_the_field_of_real_stars_serves_all_that_looks_at_it():
    assert sky_fields(demo_plan()) == DEFAULT_FIELDS
    elsewhere = VisitRequest(Survey.GAS, 9, OpticalElement.F129, Pointing(10.0, 10.0, 0.0))
    plan = VisitPlan.from_requests([elsewhere, REQUEST])
    assert len(sky_fields(plan)) == 2
    assert sky_fields(plan)[-1] == DEFAULT_FIELDS[0]


def test_romancal_finds_positions_and_fluxes_of_the_truth(observed, use_cache, tmp_path):
    from romancal.pipeline import ExposurePipeline

    use_cache(observed.path / "crds")
    exposure = PLAN.exposures[0].exposure
    landing = LandingArea(observed)
    landing.scan()
    (name,) = (
        entry.name
        for entry in format_exposure(observed, exposure).made
        if entry.name.endswith("_uncal.asdf")
    )
    (path,) = observed.public.rglob(name)
    local = tmp_path / name
    shutil.copy(path, local)
    image, catalog, _ = ExposurePipeline.call(str(local))
    truth = read_truth(observed, exposure.visit)
    found = compare_catalog(catalog.source_catalog, truth, OpticalElement.F158, wcs=image.meta.wcs)
    real = compare_catalog(
        catalog.source_catalog,
        truth,
        OpticalElement.F158,
        wcs=image.meta.wcs,
        kinds={SourceKind.GAIA},
        magnitudes=(16.0, 20.8),
    )
    assert found.n >= 8
    assert found.position_rms_mas < 2.0
    assert found.median_flux_error_mmag < 5.0
    assert real.n >= 2
    assert real.position_rms_mas < 2.0
