from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets_tests.support.small_products import (
    installed_with_release,
    public_content,
    skycell_set,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    """An installation whose release superseded a skycell years ago."""
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "data"))
    return installed_with_release(DataRoot(tmp_path / "data"))


def retention(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["retention", *arguments])


def test_what_is_due_is_listed_and_nothing_is_changed_until_it_is_applied(root: DataRoot) -> None:
    listed = retention()
    assert listed.exit_code == 0, listed.output
    assert all(name in listed.output for name in skycell_set(1))
    assert "4 products are due" in listed.output
    assert set(skycell_set(1)) <= set(public_content(root))
    applied = retention("--apply")
    assert applied.exit_code == 0, applied.output
    assert "4 products removed" in applied.output
    assert not set(skycell_set(1)) & set(public_content(root))
    assert "0 products are due" in retention().output


def test_products_whose_time_has_not_come_are_listed_as_waiting(root: DataRoot) -> None:
    (root.path / "retention.toml").write_text("version = 1\ndays = 36500\n")
    found = json.loads(retention("--json", "--apply").stdout)
    assert found["due"] == []
    assert {row["name"] for row in found["waiting"]} == set(skycell_set(1))
    assert {row["removed_for"] for row in found["waiting"]} == {"r0"}
    assert found["removed"] == {"products": 0, "size": 0, "records": []}


def test_settings_that_cannot_be_used_stop_it_before_anything_goes(root: DataRoot) -> None:
    (root.path / "retention.toml").write_text("version = 1\ndays = 'soon'\n")
    result = retention("--apply")
    assert result.exit_code != 0
    assert "retention.toml" in str(result.exception)
    assert set(skycell_set(1)) <= set(public_content(root))


def test_the_what_if_tells_the_volume_of_the_archive_over_time(
    root: DataRoot, tmp_path: Path
) -> None:
    picture = tmp_path / "volume.png"
    result = retention("--if", "90d", "--if", "30d", "--picture", str(picture))
    assert result.exit_code == 0, result.output
    assert all(title in result.output for title in ("kept 30 d", "kept 90 d", "kept for ever"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(retention("--if", "90d", "--json").stdout)["volumes"]
    prompt = {title: held["prompt L3 and their L4"] for title, held in numbers.items()}
    assert prompt["kept 90 d"][-1] < prompt["kept for ever"][-1]
    assert set(skycell_set(1)) <= set(public_content(root))


def test_the_what_if_of_a_plan_needs_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "data"))
    plan = tmp_path / "plan.ecsv"
    VisitPlan.from_requests(
        [
            VisitRequest(
                Survey.GAS, 1, OpticalElement.F129, Pointing(10.0, -30.0, 45.0), "SUB2", 4, visits=1
            )
        ]
    ).write(plan)
    result = retention("--if", "90d", "--plan", str(plan), "--release", "100d")
    assert result.exit_code == 0, result.output
    assert "2 exposures in 1 visits" in result.output
    assert "whole detectors" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--if", "90d", "--apply"], "leave --apply out"),
        (["--release", "90d"], "need --if"),
        (["--if", "soon"], "not a duration"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, told, root: DataRoot) -> None:
    result = retention(*arguments)
    assert result.exit_code == 2
    assert told in result.output
