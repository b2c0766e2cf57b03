"""The plan of a whole survey: the published one where it is at hand, else a generated one."""

from __future__ import annotations

from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parents[3] / "shared/data/roman_gps.sim.ecsv"
"""The simulation plan of the Galactic Plane Survey, beside the checkout."""


@pytest.fixture(scope="session")
def survey_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 25,730 exposures."""
    from roman_assets.simulation.telescope.whole_survey import whole_survey

    if PUBLISHED.is_file():
        return PUBLISHED
    path = tmp_path_factory.mktemp("survey") / "plan.ecsv"
    whole_survey().write(path)
    return path
