"""A season of the Galactic Bulge survey, from packets to its event catalogue (slow)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

import roman_assets
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.observatory.plan import Pointing, VisitPlan, VisitRequest
from roman_assets.observatory.telescope import observe
from roman_assets.observatory.truth import read_truth
from roman_assets.pipelines.exposure import calibrate_exposure
from roman_assets.pipelines.formatting.landing import LandingArea
from roman_assets.pipelines.formatting.step import format_exposure
from roman_assets.pipelines.manifest import visit_manifests
from roman_assets.pipelines.ssc.command import Commission, commission, deliver
from roman_assets.pipelines.ssc.handover import hand_over, ready_images
from roman_assets.pipelines.ssc.intake import take_in
from roman_assets.products.kind import KINDS, Step
from roman_assets.products.observation import OpticalElement, Survey, VisitId
from roman_assets.registry.registry import Registry
from roman_assets.stand_in.event import THRESHOLD, constant_chi2, magnification, total_error
from roman_assets.stand_in.program import run as run_stand_in

VISITS = 24
REQUEST = VisitRequest(
    Survey.GBTDS, 3, OpticalElement.F146, Pointing(269.7718, 66.16, 0.0), "NONE", 3,
    visits=VISITS, cadence=timedelta(days=1),
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_OBSERVATORY", "CRDS_READONLY_CACHE"):
            patch.setenv(name, "")
            patch.delenv(name)
        patch.delenv("CRDS_CONTEXT", raising=False)
        yield


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory, environment: None) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("season") / "data")
    plan = VisitPlan.from_requests([REQUEST], detectors=("WFI01",))
    exposures = observe(plan, root)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
        assert not calibrate_exposure(root, exposure, workers=1).failures
    (root.path / "ssc.toml").write_text(
        "version = 1\n[[command]]\n"
        f'mode = "imaging"\nrun = ["{sys.executable}", "-m", "roman_assets.stand_in"]\n'
    )
    *others, last = plan.visits
    for visit in others:
        compute(root, visit, run_here)
    compute(root, last, run_as_command)
    return root


def run_as_command(root: DataRoot, work: Commission) -> None:
    subprocess.run(
        work.command,
        env={**os.environ, **work.environment, DATA_ROOT_VARIABLE: str(root.path)},
        cwd=Path(roman_assets.__file__).parents[1],
        check=True,
    )


def run_here(root: DataRoot, work: Commission) -> None:
    """Run the same without the seconds that a process takes to start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**work.environment, DATA_ROOT_VARIABLE: str(root.path)}.items():
            patch.setenv(name, value)
        run_stand_in()


def compute(root: DataRoot, visit: VisitId, run: Callable[[DataRoot, Commission], None]) -> None:
    """Do what sensors and runs do, one after the other."""
    with Registry(root) as registry:
        manifests = visit_manifests(root, registry, [visit])
    assert hand_over(root, list(ready_images(manifests[visit])))
    scratch = root.path / "work" / str(visit)
    scratch.mkdir(parents=True)
    work = commission(root, Step.MICROLENSING, str(visit), scratch)
    assert work is not None
    run(root, work)
    deliver(root, work)
    result = take_in(root, Step.MICROLENSING, str(visit))
    assert not result.failures, result.failures
    assert len(result.made) == sum(kind.step is Step.MICROLENSING for kind in KINDS)


def last_table(root: DataRoot, kind: str) -> pd.DataFrame:
    """Give a table as of the last visit."""
    archive = roman_assets.open_archive(root.path)
    name = archive.find(kind=kind).sort_values("visit")["name"].iloc[-1]
    return pd.read_parquet(archive.path(name, verify=True))


def matched_truth(root: DataRoot) -> pd.DataFrame:
    """Give the truth of the season's objects, with what their light curves let expect."""
    visit = VisitId.parse("r0000301001001001001")
    truth = read_truth(root, visit).to_pandas()
    objects = last_table(root, "microlensing_object_fiducial_catalog")
    curves = last_table(root, "microlensing_light_curve_catalog")
    sky = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    number, distance, _ = SkyCoord(objects["ra"], objects["dec"], unit="deg").match_to_catalog_sky(
        sky
    )
    near = distance < 0.1 * u.arcsec
    objects = objects[near].assign(row=number[near])
    matched = objects.merge(truth.reset_index(names="row"), on="row", suffixes=("", "_true"))
    matched["expected"] = [expected_improvement(curves, row) for _, row in matched.iterrows()]
    return matched


def expected_improvement(curves: pd.DataFrame, row: pd.Series) -> float:
    """By how much a constant is worse than the true event, given the errors there are."""
    rows = curves[curves["object_id"] == row["object_id"]]
    if row["lens_te"] <= 0 or len(rows) < 8:
        return 0.0
    curve = magnification(rows["mjd"].to_numpy(), row["lens_t0"], row["lens_te"], row["lens_u0"])
    base = float(np.median(rows["flux"].to_numpy() / curve))
    error = total_error(rows["flux"].to_numpy(), rows["flux_error"].to_numpy())
    return constant_chi2(base * curve, error)[1]


def test_injected_events_are_found_and_no_others(season: DataRoot) -> None:
    truth, events = matched_truth(season), last_table(season, "microlensing_event_catalog")
    above = truth[truth["expected"] > THRESHOLD]
    found = set(events["object_id"])
    lensed = set(truth[truth["lens_te"] > 0]["object_id"])
    assert len(above) >= 5
    assert len(found & set(above["object_id"])) >= 0.9 * len(above)
    assert found <= lensed


def test_light_curves_scatter_as_photon_noise_lets_expect(season: DataRoot) -> None:
    varied = last_table(season, "microlensing_variability_catalog")
    truth = matched_truth(season)
    steady = varied.merge(truth[truth["lens_te"] == 0][["object_id"]], on="object_id")
    excess = steady["relative_scatter"] / steady["relative_photon_noise"]
    assert len(steady) >= 10
    assert 0.6 < excess.median() < 1.6


def test_none_of_it_is_among_the_soc_s_products(season: DataRoot) -> None:
    with Registry(season) as registry:
        kinds = set(registry.find(level=["L3", "L4"])["kind"])
        states = set(registry.deadlines(kind="microlensing_event_catalog")["state"])
    assert all(kind.startswith("microlensing_") for kind in kinds)
    assert states == {"made in time"} or states == {"made late"}
