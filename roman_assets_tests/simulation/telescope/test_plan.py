from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from roman_assets.cli import app
from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.multiaccum import FRAME_TIME, ma_table
from roman_assets.simulation.telescope.plan_table import PLAN_COLUMNS
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import (
    DEFAULT_START,
    DITHERS,
    VisitPlan,
    VisitRequest,
    demo_plan,
)
from roman_assets.simulation.telescope.whole_survey import whole_survey

PUBLISHED_EXPOSURE_TIMES = {1001: 60.08694, 1033: 999.34062, 1038: 298.1872, 1047: 1002.52592}
"""Seconds by MA table, as the published plan of the Galactic Plane Survey states them."""

offsets = st.floats(-200, 200)

REQUESTS = [
    VisitRequest(Survey.GAS, 7, element, Pointing(10.0, -30.0, 45.0), dither, 3)
    for element, dither in ((OpticalElement.F129, "SUB2"), (OpticalElement.GRISM, "NONE"))
]


@pytest.fixture
def table(tmp_path):
    """A small plan as a table, to be spoiled, and how to read it back."""
    path = tmp_path / "plan.ecsv"
    VisitPlan.from_requests(REQUESTS).write(path)

    def read(change):
        rows = Table.read(path, format="ascii.ecsv")
        changed = change(rows)
        (rows if changed is None else changed).write(path, format="ascii.ecsv", overwrite=True)
        return VisitPlan.read(path)

    return read


def test_a_whole_survey_plan_is_read(survey_plan):
    plan = VisitPlan.read(survey_plan)
    assert (len(plan.exposures), len(plan.visits)) == (25730, 12807)
    assert Counter(map(len, plan.visits.values())) == {1: 1346, 2: 11214, 4: 5, 8: 242}
    assert all(len(plan.visits[p.exposure.visit]) == p.nexposures for p in plan.exposures)
    assert (
        timedelta(days=30) < plan.exposures[-1].end - plan.exposures[0].start < timedelta(days=31)
    )
    assert len(plan.optical_elements) == 9
    spectral = {p.exposure_type for p in plan.exposures if p.optical_element.endswith("ISM")}
    assert spectral == {ExposureType.WFI_SPECTRAL}


def test_the_plan_that_the_command_writes_is_as_large_as_the_published_one(tmp_path):
    path = tmp_path / "plan.ecsv"
    result = CliRunner().invoke(app, ["plan", str(path)])
    assert result.exit_code == 0, result.output
    assert "25730 exposures of 12807 visits" in result.stdout.replace(",", "")
    test_a_whole_survey_plan_is_read(path)


def test_the_second_exposure_of_a_survey_visit_covers_the_gaps_of_the_first():
    first, second = next(iter(whole_survey().visits.values()))
    offset = first.pointing.offset(*DITHERS["LINEGAP2"][1])
    assert (second.pointing.ra, second.pointing.dec) == pytest.approx((offset.ra, offset.dec))


def test_ma_tables_last_as_long_as_survey_plans_say():
    for number, seconds in PUBLISHED_EXPOSURE_TIMES.items():
        assert ma_table(number).exposure_time == pytest.approx(seconds, rel=2e-3)


def test_a_plan_written_is_the_plan_read(tmp_path):
    plan = VisitPlan.from_requests(REQUESTS)
    plan.write(tmp_path / "plan.ecsv")
    again = VisitPlan.read(tmp_path / "plan.ecsv")
    assert Table.read(tmp_path / "plan.ecsv", format="ascii.ecsv").colnames == list(PLAN_COLUMNS)
    for attribute in ("start", "duration", "pointing", "optical_element", "ma_table_number"):
        values = [[getattr(p, attribute) for p in each.exposures] for each in (plan, again)]
        assert values[0] == values[1]


def test_a_table_holds_one_program(tmp_path):
    with pytest.raises(BadInputError, match="program"):
        demo_plan().write(tmp_path / "plan.ecsv")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda rows: rows.remove_column("PA"), "PA"),
        (lambda rows: rows.replace_column("BANDPASS", ["F999"] * len(rows)), "BANDPASS"),
        (lambda rows: rows.replace_column("MA_TABLE_NUMBER", [2] * len(rows)), "ma_table_number"),
        (lambda rows: rows.replace_column("DURATION", [0] * len(rows)), "DEC, DURATION"),
        (lambda rows: rows.replace_column("EXPOSURE", [1] * len(rows)), "EXPOSURE"),
        (lambda rows: rows.replace_column("VISIT", [1000] * len(rows)), "PLAN to EXPOSURE"),
        (lambda rows: rows.replace_column("VISIT", [1.5] * len(rows)), "VISIT"),
        (lambda rows: rows.replace_column("DURATION", ["long"] * len(rows)), "DURATION"),
        (lambda rows: rows.replace_column("RA", [np.nan] * len(rows)), "RA"),
    ],
)
def test_a_spoiled_plan_is_refused_by_the_name_of_the_field(table, change, field):
    with pytest.raises(BadInputError) as caught:
        table(change)
    assert caught.value.field == field


def test_what_is_no_table_is_refused(tmp_path):
    path = tmp_path / "plan.ecsv"
    path.write_text("not a plan")
    with pytest.raises(BadInputError, match="ECSV"):
        VisitPlan.read(path)


def test_dithered_exposures_follow_each_other_in_one_visit():
    request = VisitRequest(
        Survey.GAS, 7, OpticalElement.F129, Pointing(10.0, -30.0, 45.0), "SUB4", 3, visits=2
    )
    plan = VisitPlan.from_requests([request], detectors=["WFI05"])
    assert [len(exposures) for exposures in plan.visits.values()] == [4, 4]
    assert plan.exposures[0].start == DEFAULT_START
    for before, after in zip(plan.exposures, plan.exposures[1:], strict=False):
        assert after.start == before.start + before.duration > before.end
    assert len({p.pointing for p in plan.exposures}) == 4
    assert plan.head(1).exposures == plan.exposures[:4]


def test_unknown_detectors_and_dithers_are_refused():
    request = VisitRequest(Survey.GAS, 7, OpticalElement.F129, Pointing(0, 0, 0), "NO_SUCH")
    with pytest.raises(BadInputError, match="dither"):
        VisitPlan.from_requests([request])
    with pytest.raises(BadInputError, match="WFI19"):
        demo_plan(detectors=["WFI19"])


@settings(deadline=None, max_examples=20)
@given(x=offsets, y=offsets, pa=st.floats(0, 359))
def test_a_dither_moves_along_the_axes_of_the_aperture(x, y, pa):
    pointing = Pointing(200.0, 40.0, pa)
    moved = pointing.offset(x, y)
    wcs = detector_wcs("WFI01", pointing.ra, pointing.dec, pointing.pa, None)
    v2, v3 = wcs.get_transform("world", "v2v3vacorr")(moved.ra, moved.dec)
    v2_0, v3_0 = wcs.get_transform("world", "v2v3vacorr")(pointing.ra, pointing.dec)
    angle = np.radians(-60.0)
    along = -(v2 - v2_0) * np.cos(angle) + (v3 - v3_0) * np.sin(angle)
    across = (v2 - v2_0) * np.sin(angle) + (v3 - v3_0) * np.cos(angle)
    assert (along, across) == pytest.approx((x, y), abs=0.05)


@pytest.mark.parametrize("number", [3, 4, 12, 17, 110, 1001, 1033, 1038])
def test_reads_of_ma_tables_ascend_without_gaps_at_the_ends(number):
    table = ma_table(number)
    reads = [read for resultant in table.read_pattern for read in resultant]
    assert reads == sorted(set(reads))
    assert reads[0] == 1
    assert 0 < table.effective_exposure_time < table.exposure_time


def test_the_usual_table_is_that_of_the_flight_plan():
    table = ma_table(4)
    assert (table.nresultants, table.exposure_time) == (9, 44 * FRAME_TIME)


def test_the_demonstration_shows_imaging_bulge_and_spectra():
    plan = demo_plan()
    kinds = [(v[0].survey, v[0].exposure_type, len(v)) for v in plan.visits.values()]
    assert [count for survey, _, count in kinds if survey is Survey.GBTDS] == [1]
    assert [kind for *_, kind in kinds[:2]] == [2, 2]
    assert kinds[-1][1] is ExposureType.WFI_SPECTRAL
