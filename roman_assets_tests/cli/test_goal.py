"""What the demo waits for, and who works in the place of the SSC."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from roman_assets.cli.goal import Goal
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import DELIVERY_STEPS, Step
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.ssc.command_settings import take_the_place_of_the_ssc
from roman_assets.simulation.telescope.survey_plan import demo_plan
from roman_assets.ssc.command import Mode, command_for

PLAN = demo_plan()
BULGE = {str(one.exposure.visit) for one in PLAN.exposures if one.survey is Survey.GBTDS}
GRISM = [one.exposure for one in PLAN.exposures if one.optical_element is OpticalElement.GRISM]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


def test_the_demo_waits_for_what_the_soc_and_its_stand_in_of_the_ssc_make(root: DataRoot) -> None:
    take_the_place_of_the_ssc(root)
    wanted = Goal.of(PLAN, root).partitions
    assert wanted[Step.MICROLENSING] == BULGE
    assert wanted[Step.SPECTRA] == {str(exposure) for exposure in GRISM}
    assert wanted[Step.COMBINED_SPECTRA] == {str(exposure.visit) for exposure in GRISM}
    assert len(wanted[Step.FORMATTING]) == len(wanted[Step.EXPOSURE]) == len(PLAN.exposures)
    assert wanted[Step.VISIT].isdisjoint(BULGE | wanted[Step.COMBINED_SPECTRA])
    assert len(wanted[Step.VISIT]) == 2


def test_deliveries_from_outside_are_not_waited_for(root: DataRoot) -> None:
    assert Goal.of(PLAN, root).partitions.keys().isdisjoint(DELIVERY_STEPS)


@pytest.mark.parametrize("mode", Mode)
def test_the_stand_in_works_for_every_survey_and_mode(root: DataRoot, mode: Mode) -> None:
    take_the_place_of_the_ssc(root)
    for survey in Survey:
        command = command_for(root, survey, mode)
        assert command == (sys.executable, "-m", "roman_assets.simulation.ssc")


def test_a_command_of_the_users_own_stays(root: DataRoot) -> None:
    root.path.mkdir(parents=True, exist_ok=True)
    own = 'version = 1\n[[command]]\nmode = "grism"\nrun = ["my-grism"]\n'
    (root.path / "ssc.toml").write_text(own)
    take_the_place_of_the_ssc(root)
    assert (root.path / "ssc.toml").read_text() == own
    assert Step.MICROLENSING not in Goal.of(PLAN, root).partitions
