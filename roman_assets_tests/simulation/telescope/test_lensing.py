from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.telescope.lensing import LensingSeason, magnification
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.scene import Scene, SkyCircle, SourceKind
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets.simulation.telescope.telescope import Telescope

REQUEST = VisitRequest(
    Survey.GBTDS, 3, OpticalElement.F146, Pointing(269.77, 66.16, 0.0), "NONE", 3, visits=5,
    cadence=timedelta(days=1),
)  # fmt: skip
PLAN = VisitPlan.from_requests([REQUEST], detectors=("WFI01",))


def season() -> LensingSeason:
    found = LensingSeason.of(PLAN.exposures, seed=1)
    assert found is not None
    return found


def test_visits_of_a_cadence_start_so_far_from_each_other() -> None:
    starts = [one.start for one in PLAN.exposures]
    assert {late - early for early, late in itertools.pairwise(starts)} == {timedelta(days=1)}


def test_only_stars_of_a_season_of_the_bulge_survey_are_lensed() -> None:
    sources = Scene(1).sources([SkyCircle(269.77, 66.16, 0.02)])
    events = season().events(sources)
    lensed = events["lens_te"] > 0
    assert 0.2 < lensed[events["kind"] == str(SourceKind.STAR)].mean() < 0.6
    assert not lensed[events["kind"] == str(SourceKind.GALAXY)].any()
    other = VisitPlan.from_requests([replace(REQUEST, survey=Survey.HLTDS)])
    assert LensingSeason.of(other.exposures, seed=1) is None
    assert LensingSeason.of(PLAN.exposures[:1], seed=1) is None


def test_a_lensed_star_is_as_bright_as_its_event_says() -> None:
    sources = Scene(1).sources([SkyCircle(269.77, 66.16, 0.02)])
    when = PLAN.exposures[2].start
    now = season().magnified(sources, when)
    lensed = now["lens_te"] > 0
    ratio = np.asarray(now["F146"]) / np.asarray(sources["F146"])
    assert np.all(ratio[~lensed] == 1)
    assert np.all(ratio[lensed] > 1)
    row = now[lensed][0]
    mjd = 61557.0 + 2
    expected = magnification(mjd, row["lens_t0"], row["lens_te"], row["lens_u0"])
    assert ratio[lensed][0] == pytest.approx(float(expected), rel=1e-6)


def test_the_telescope_sees_them() -> None:
    planned = PLAN.exposures[2]
    plain = Telescope(seed=1).sources(planned, "WFI01")
    lensed = Telescope(seed=1, lensing=season()).sources(planned, "WFI01")
    assert (np.asarray(lensed["F146"]) > np.asarray(plain["F146"])).sum() > 3
