from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.kind import Step
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names
from roman_assets_tests.support.small_products import VISIT, exposure


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """One exposure is late in the queue, the other was never received."""
    facts = Facts(DataRoot(tmp_path / "data"))
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(facts.root.path))
    monkeypatch.setenv(ROLE_VARIABLE, Role.OPERATIONS)
    first, second = exposure(1), exposure(2)
    facts.receipt(first, nexposures=2)
    facts.published(Step.FORMATTING, first, exposure_names(first, L1), start=30, end=31)
    facts.published(Step.EXPOSURE, first, exposure_names(first, L2), start=31, end=32)
    facts.receipt(second, nexposures=2, packets=None)
    facts.fold()
    return facts


def run(*arguments: str, hour: float = 150) -> Result:
    moment = f"{at(hour):%Y-%m-%dT%H:%M:%S}"
    return CliRunner().invoke(app, ["deadlines", "--at", moment, *arguments])


def test_what_is_overdue_comes_first_with_where_the_hours_went(facts: Facts) -> None:
    lines = [line for line in run().output.splitlines() if "r0001" in line]
    assert VISIT in lines[0]
    assert "overdue, waiting for downlink" in lines[0]
    assert "30.0 h late" in lines[0]
    assert "downlink 150.0" in lines[0]
    assert "made late" in run("--state", "made late").output


def test_programs_get_counts_and_rows(facts: Facts) -> None:
    told = json.loads(run("--json", "--level", "L1").output)
    counts = {(row["state"], row["step"]): row["products"] for row in told["counts"]}
    assert counts == {
        ("made in time", "exposure"): 2,
        ("made late", "formatting"): 5,
        ("waiting for downlink", "exposure"): 2,
        ("waiting for downlink", "formatting"): 5,
    }
    assert all(row["level"] == "L1" for row in told["most_urgent"])
    late = next(row for row in told["most_urgent"] if row["state"] == "made late")
    assert (late["blame"], late["queue_hours"]) == ("queue", 29)


def test_single_products_are_listed_by_name(facts: Facts) -> None:
    rows = json.loads(run("--products", "--json", "--exposure", exposure(2)).output)
    names = {row["name"] for row in rows}
    assert names == set(exposure_names(exposure(2), (*L1, *L2)))


def test_the_report_is_one_page_without_references_to_elsewhere(
    facts: Facts, tmp_path: Path
) -> None:
    result = run("--report", str(tmp_path / "report"))
    picture, page = (Path(line) for line in result.output.splitlines())
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "overdue" in text
    assert ">nan<" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "data:image/png;base64," in text


@pytest.mark.parametrize(
    "arguments",
    [("--level", "L0"), ("--state", "late"), ("--visit", "r1"), ("--limit", "0"), ("--at", "noon")],
)
def test_wrong_arguments_are_refused(facts: Facts, arguments: tuple[str, str]) -> None:
    assert CliRunner().invoke(app, ["deadlines", *arguments]).exit_code == 2


def test_an_empty_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setenv(ROLE_VARIABLE, Role.OPERATIONS)
    assert "Nothing is expected yet" in run().output
    assert run("--report", str(tmp_path / "report")).exit_code == 0
