from __future__ import annotations

import json
from pathlib import Path

import pytest
from astropy.table import Table
from click.testing import Result
from typer.testing import CliRunner

from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of three imaging visits and one grism visit."""
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "data"))
    path = tmp_path / "plan.ecsv"
    VisitPlan.from_requests(
        [
            VisitRequest(
                Survey.GAS, 1, element, Pointing(10.0, -30.0, 45.0), "SUB2", 4, visits=visits
            )
            for element, visits in ((OpticalElement.F129, 3), (OpticalElement.GRISM, 1))
        ]
    ).write(path)
    return path


def rehearse(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["rehearse", *map(str, arguments)])


def test_every_product_of_a_plan_is_counted(plan: Path, tmp_path: Path) -> None:
    result = rehearse(plan, "--json", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    levels = {level["level"]: level for level in found["levels"]}
    assert (found["exposures"], found["visits"]) == (8, 4)
    assert levels["L1"]["kept"] == 8 * (18 * 3 + 1)  # uncal, guide windows, supplement; FACE
    assert levels["L2"]["kept"] == 8 * 18
    assert levels["L4"]["kept"] == 6 * 18 * 2 + levels["L3"]["kept"]
    assert sum(level["missed"] for level in levels.values()) == 0
    assert levels["L3"]["not_expected"] == 2
    assert found["search"]["fewest_workers"] == 2
    assert json.loads((tmp_path / "report" / "rehearsal.json").read_text()) == found
    assert (tmp_path / "report" / "rehearsal.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missed_is_printed_with_its_blame(plan: Path) -> None:
    result = rehearse(plan, "--fault", "late_ancillary=1", "--ancillary", 2, 10_000, "--workers", 4)
    assert result.exit_code == 0, result.output
    assert "Blame for the missed ones" in result.stdout
    assert "ancillary" in result.stdout
    assert "docs/performance.md" in result.stdout


def test_a_single_fault_has_its_own_rate(plan: Path) -> None:
    found = json.loads(
        rehearse(plan, "--json", "--faults", 0.5, "--fault", "lost_exposures=0").stdout
    )
    assert found["faults"]["lost_exposures"] == 0
    assert found["faults"]["lost_workers"] == 0.5


def test_the_survey_decides_what_is_expected(plan: Path) -> None:
    found = json.loads(rehearse(plan, "--json", "--survey", "GBTDS").stdout)
    assert {level["survey"] for level in found["levels"]} == {"GBTDS"}
    assert {level["level"] for level in found["levels"] if level["products"]} == {"L1", "L2"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--workers", 0), "--workers"),
        (("--workers", 3), "multiple of 2"),
        (("--no-search",), "--workers"),
        (("--faults", 1.5), "--faults"),
        (("--fault", "lost_contacts=2"), "lost_contacts"),
        (("--fault", "lost_contacts=much"), "much"),
        (("--fault", "meteorites=0.1"), "meteorites"),
        (("--contacts", 4, 5), "contact_length"),
        (("--downlink-rate", 0), "rate"),
        (("--ancillary", -1, 5), "ancillary_delay"),
        (("--detectors", "WFI19"), "WFI19"),
        (("--survey", "SDSS"), "SDSS"),
        (("--times", "measured"), "measured"),
        (("--report", "{plan}"), "--report"),
    ],
)
def test_wrong_arguments_are_named(plan: Path, arguments: tuple[object, ...], named: str) -> None:
    result = rehearse(plan, *(str(argument).format(plan=plan) for argument in arguments))
    assert result.exit_code != 0
    assert named in f"{result.output}{result.exception}"


def test_a_plan_that_is_not_there_or_lacks_a_column_is_named(plan: Path, tmp_path: Path) -> None:
    result = rehearse(tmp_path / "nowhere.ecsv")
    assert result.exit_code != 0
    assert "nowhere.ecsv" in result.output.replace("\n", "")
    table = Table.read(plan, format="ascii.ecsv")
    table.remove_column("BANDPASS")
    table.write(plan, format="ascii.ecsv", overwrite=True)
    result = rehearse(plan)
    assert result.exit_code != 0
    assert "BANDPASS" in str(result.exception)
    plan.write_text("")
    result = rehearse(plan)
    assert result.exit_code != 0
    assert str(plan) in str(result.exception)
