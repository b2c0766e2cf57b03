"""A season of the Galactic Bulge survey, from packets to its event catalogue (slow)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

import roman_assets
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.products.kind import KINDS, Step
from roman_assets.products.observation import OpticalElement, Survey, VisitId
from roman_assets.registry.registry import Registry
from roman_assets.simulation.ssc.event import THRESHOLD, constant_chi2, magnification
from roman_assets.simulation.ssc.program import run as run_stand_in
from roman_assets.simulation.ssc.season import light_curves
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets.simulation.telescope.telescope import DEFAULT_SEED
from roman_assets.simulation.telescope.truth import read_truth
from roman_assets.ssc.command import Commission, commission, deliver
from roman_assets.ssc.handover import hand_over, ready_images
from roman_assets.ssc.intake import take_in
from roman_assets.ssc.picture import draw
from roman_assets_tests.support.own_crds_cache import own_crds_cache

VISITS = 20
AT_PLACE = 0.1
"""Arcsec from a lensed star to the object of which it is a part."""
NEAR = 0.35
"""Arcsec within which its event may be given to a neighbour."""
MOST_FALSE_ALARMS = 0.002
"""Of the objects without an event."""


@dataclass(frozen=True)
class Sky:
    """A field at which a season looks.

    Parameters
    ----------
    program
        Of its visits.
    ra, dec
        Of the first pointing, degrees.
    seed
        Of sky, detectors and noise.
    least_events, least_steady
        Injected events above the threshold, and light curves without any, that it surely has.
    """

    program: int
    ra: float
    dec: float
    seed: int
    least_events: int
    least_steady: int

    @property
    def request(self) -> VisitRequest:
        """The visits of the season."""
        return VisitRequest(
            Survey.GBTDS, self.program, OpticalElement.F146, Pointing(self.ra, self.dec, 0.0),
            "NONE", 3, visits=VISITS, cadence=timedelta(days=1),
        )  # fmt: skip

    @property
    def first_visit(self) -> VisitId:
        return VisitId(self.program, 1, 1, 1, 1, 1)


SKIES = {
    "bulge": Sky(3, 268.0730, -29.2290, DEFAULT_SEED, 30, 1000),
    "another place of another bulge": Sky(8, 267.6000, -29.6000, 11, 30, 1000),
    "a third place of a third bulge": Sky(9, 268.4500, -28.9000, 23, 30, 1000),
    "a fourth place of a fourth bulge": Sky(10, 268.2000, -29.7000, 37, 30, 1000),
    "far from the bulge": Sky(5, 269.7718, 66.1600, DEFAULT_SEED, 5, 10),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with own_crds_cache():
        yield


@pytest.fixture(scope="module", params=SKIES.values(), ids=SKIES.keys())
def sky(request: pytest.FixtureRequest) -> Sky:
    chosen: Sky = request.param
    return chosen


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory, environment: None, sky: Sky) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("season") / "data")
    plan = VisitPlan.from_requests([sky.request], detectors=("WFI01",))
    exposures = observe(plan, root, seed=sky.seed)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
        assert not calibrate_exposure(root, exposure, workers=1).failures
    (root.path / "ssc.toml").write_text(
        "version = 1\n[[command]]\n"
        f'mode = "imaging"\nrun = ["{sys.executable}", "-m", "roman_assets.simulation.ssc"]\n'
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


@dataclass(frozen=True)
class Found:
    """What a season's last event catalogue has, against the truth.

    Parameters
    ----------
    injected
        A row for each lensed star at whose place there is an object: its event, by how much it
        improves χ² given the errors there are (``expected``), and whether it is ``found``.
    false
        The events of the catalogue near no lensed star.
    steady
        Scatter and photon noise of the objects near no lensed star.
    """

    injected: pd.DataFrame
    false: pd.DataFrame
    steady: pd.DataFrame


@pytest.fixture(scope="module")
def found(season: DataRoot, sky: Sky) -> Found:
    truth = read_truth(season, sky.first_visit).to_pandas()
    objects = last_table(season, "microlensing_object_fiducial_catalog")
    curves = dict(iter(last_table(season, "microlensing_light_curve_catalog").groupby("object_id")))
    events = last_table(season, "microlensing_event_catalog")
    lensed = truth[truth["lens_te"] > 0].reset_index(drop=True)
    scale = zero_point(objects, truth)
    star, at = pairs(lensed, objects, AT_PLACE)
    nearest = ~pd.Series(star).duplicated().to_numpy()
    injected = lensed.iloc[star[nearest]].reset_index(drop=True)
    injected["object_id"] = objects["object_id"].to_numpy()[at[nearest]]
    injected["expected"] = [
        expected_improvement(curves.get(row["object_id"]), row, scale)
        for _, row in injected.iterrows()
    ]
    star, event = pairs(injected, events, NEAR)
    same_time = (
        np.abs(injected["lens_t0"].to_numpy()[star] - events["t0"].to_numpy()[event])
        < injected["lens_te"].to_numpy()[star]
    )
    injected["found"] = np.isin(np.arange(len(injected)), star[same_time])
    _, explained = pairs(lensed, events, NEAR)
    _, varying = pairs(lensed, objects, NEAR)
    others = objects.drop(index=objects.index[np.unique(varying)])
    varied = last_table(season, "microlensing_variability_catalog")
    return Found(
        injected,
        events.drop(index=events.index[np.unique(explained)]),
        varied.merge(others[["object_id"]], on="object_id"),
    )


def pairs(
    first: pd.DataFrame, second: pd.DataFrame, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows of two tables that lie within arcsec of each other, the nearest first."""
    if first.empty or second.empty:
        return np.empty(0, int), np.empty(0, int)
    one, other = (SkyCoord(table["ra"], table["dec"], unit="deg") for table in (first, second))
    rows, others, distance, _ = other.search_around_sky(one, radius * u.arcsec)
    order = np.argsort(distance)
    return rows[order], others[order]


def zero_point(objects: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Give DN/s for a maggie: the median of what is bright."""
    bright = truth[(truth["F146"] > 10 ** (-0.4 * 20.5)) & (truth["lens_te"] == 0)]
    star, at = pairs(bright, objects, 0.06)
    return float(np.median(objects["flux"].to_numpy()[at] / bright["F146"].to_numpy()[star]))


def expected_improvement(rows: pd.DataFrame | None, star: pd.Series, scale: float) -> float:
    """By how much a constant is worse than the true event, given the errors there are."""
    if rows is None or len(rows) < 8:
        return 0.0
    (measured,) = light_curves(rows)
    curve = magnification(measured.time, star["lens_t0"], star["lens_te"], star["lens_u0"])
    return constant_chi2(scale * star["F146"] * curve, measured.error)[1]


def test_injected_events_are_found_and_hardly_any_others(found: Found, sky: Sky) -> None:
    above = found.injected[found.injected["expected"] > THRESHOLD]
    assert len(above) >= sky.least_events
    assert above["found"].mean() >= 0.9
    assert len(found.false) <= MOST_FALSE_ALARMS * len(found.steady)


def test_light_curves_scatter_as_photon_noise_lets_expect(found: Found, sky: Sky) -> None:
    steady = found.steady
    excess = steady["relative_scatter"] / steady["relative_photon_noise"]
    assert len(steady) >= sky.least_steady
    assert 0.6 < excess.median() < 1.6


def test_the_scatter_is_drawn_against_photon_noise(season: DataRoot) -> None:
    archive = roman_assets.open_archive(season.path)
    kind = "microlensing_variability_catalog"
    name = archive.find(kind=kind).sort_values("visit")["name"].iloc[-1]
    picture = draw(kind, lambda: archive.path(name))
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_none_of_it_is_among_the_soc_s_products(season: DataRoot) -> None:
    with Registry(season) as registry:
        kinds = set(registry.products.find(level=["L3", "L4"])["kind"])
        states = set(registry.deadlines.groups(kind="microlensing_event_catalog")["state"])
    assert all(kind.startswith("microlensing_") for kind in kinds)
    assert states == {"made in time"} or states == {"made late"}
