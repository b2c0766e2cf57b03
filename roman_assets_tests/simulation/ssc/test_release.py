"""The SSC's double delivers a data release: two visits of a season, by their order (R12, R13)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

import roman_assets
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.kind import Step
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.releases.publication import publish_release
from roman_assets.releases.run import begin_release, state_of, work_on_release
from roman_assets.simulation.ssc.program import run
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets.software import installed_version
from roman_assets.ssc.command import commission, deliver
from roman_assets.ssc.intake import take_in
from roman_assets_tests.support.own_crds_cache import own_crds_cache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

STEP = Step.RELEASE_MICROLENSING
SEASON = VisitPlan.from_requests(
    [
        VisitRequest(
            Survey.GBTDS, 5, OpticalElement.F146, Pointing(269.7718, 66.16, 0.0), "NONE", 3,
            visits=2, cadence=timedelta(days=1),
        )
    ],
    detectors=("WFI01",),
)  # fmt: skip
DECLARATION = f"""
version = 1
release = "r0"
survey = "GBTDS"
after = 2020-01-01T00:00:00Z
before = 2040-01-01T00:00:00Z
context = "{CONTEXTS[-1]}"
romancal = "{installed_version("romancal")}"
groupings = ["visit"]
"""


def compute(root: DataRoot, unit: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do for a unit what sensors and runs do, one after the other."""
    scratch.mkdir()
    work = commission(root, STEP, unit, scratch)
    assert work is not None
    for name, value in {**work.environment, DATA_ROOT_VARIABLE: str(root.path)}.items():
        monkeypatch.setenv(name, value)
    run()
    deliver(root, work)
    result = take_in(root, STEP, unit)
    assert not result.failures, result.failures


def test_a_release_of_a_season_has_light_curves_of_all_its_visits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = DataRoot(tmp_path / "data")
    with own_crds_cache():
        exposures = observe(SEASON, root)
        LandingArea(root).scan()
        for exposure in exposures:
            assert not format_exposure(root, exposure).failures
        (root.path / "ssc.toml").write_text(
            'version = 1\n[[command]]\nmode = "imaging"\nrun = ["roman-assets"]\n'
        )
        declaration = root.path / "gbtds_r0.toml"
        declaration.write_text(DECLARATION)
        release = begin_release(root, declaration)
        first, second = work_on_release(root, release, workers=1).ssc_units_left
        with pytest.raises(PassingFaultError, match=f"waits for {first.unit}"):
            compute(root, str(second.unit), tmp_path / "early", monkeypatch)
        for number, one in enumerate((first, second)):
            compute(root, str(one.unit), tmp_path / str(number), monkeypatch)
        assert state_of(root, release).complete
        assert publish_release(root, release).record_id
    archive = roman_assets.open_archive(root.path)
    curves = archive.find(kind="microlensing_light_curve_catalog", release="r0")
    epochs = [pd.read_parquet(archive.path(name))["mjd"].nunique() for name in curves["name"]]
    assert epochs == [1, 2]
