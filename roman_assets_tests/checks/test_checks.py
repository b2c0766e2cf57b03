from __future__ import annotations

import pytest
from dagster import AssetCheckSeverity

from roman_assets.checks.astrometry import WCS_FIT_LIMIT_MAS, wcs_fit
from roman_assets.checks.completeness import CHECKS, completeness
from roman_assets.checks.file_backed import files_only
from roman_assets.checks.whole_visit import whole_visit
from roman_assets.products.kind import Step
from roman_assets.registry.record import WorkFailure


@pytest.mark.parametrize("step", CHECKS)
def test_a_failed_file_set_is_named_with_its_error(step: Step) -> None:
    failure = WorkFailure(file_set="r_wfi01_f158", error="BadInputError", message="no stars")
    result = completeness(step, [failure])
    assert not result.passed
    assert result.severity is AssetCheckSeverity.ERROR
    assert "BadInputError" in str(result.metadata["r_wfi01_f158"].value)
    assert "no stars" in str(result.metadata["r_wfi01_f158"].value)
    assert completeness(step, []).passed


@pytest.mark.parametrize(
    ("residual", "passed"),
    [
        (1.5, True),
        (WCS_FIT_LIMIT_MAS, True),
        (WCS_FIT_LIMIT_MAS * 1.01, False),
        (float("nan"), False),
        (None, True),
    ],
)
def test_a_poor_alignment_is_a_warning(residual: float | None, passed: bool) -> None:
    result = wcs_fit({"good": 1.0, "other": residual})
    assert result.passed is passed
    assert result.severity is AssetCheckSeverity.WARN
    assert any("other" in name for name in result.metadata) is not passed


@pytest.mark.parametrize(
    ("tables", "missing", "passed"),
    [
        ([], [], True),
        (["sources: columns of a source catalogue"], [], False),
        ([], ["r_cat.parquet"], False),
    ],
)
def test_l4_must_be_files_and_nothing_else(
    tables: list[str], missing: list[str], passed: bool
) -> None:
    result = files_only(Step.EXPOSURE, tables, missing)
    assert result.passed is passed
    assert result.severity is AssetCheckSeverity.ERROR


def test_a_visit_made_in_part_is_a_warning_that_names_what_lacked() -> None:
    result = whole_visit(["v_0002", "v_0001_wfi02_f158"])
    assert not result.passed
    assert result.severity is AssetCheckSeverity.WARN
    assert result.metadata["missing"].value == ["v_0001_wfi02_f158", "v_0002"]
    assert whole_visit([]).passed
