from __future__ import annotations

import pytest
from dagster import AssetCheckSeverity

from roman_assets.defs.lib.astrometry_check import WCS_FIT_LIMIT_MAS, ImagePointing, wcs_fit
from roman_assets.defs.lib.completeness_check import CHECKS, completeness
from roman_assets.defs.lib.file_backed_check import files_only
from roman_assets.defs.visit.checks import whole_visit
from roman_assets.products.kind import Step
from roman_assets.products.pointing import PointingSource
from roman_assets.records.record import WorkFailure


@pytest.mark.parametrize("step", CHECKS)
def test_a_failed_file_set_is_named_with_its_error(step: Step) -> None:
    failure = WorkFailure(file_set="r_wfi01_f158", error="BadInputError", message="no stars")
    result = completeness(step, [failure])
    assert not result.passed
    assert result.severity is AssetCheckSeverity.ERROR
    assert "BadInputError" in str(result.metadata["r_wfi01_f158"].value)
    assert "no stars" in str(result.metadata["r_wfi01_f158"].value)
    assert completeness(step, []).passed


GOOD = ImagePointing("good", "WFI_IMAGE", PointingSource.OWN, 1.0)


@pytest.mark.parametrize("source", [PointingSource.OWN, PointingSource.COMMON])
@pytest.mark.parametrize(
    ("residual", "passed"),
    [
        (1.5, True),
        (WCS_FIT_LIMIT_MAS, True),
        (WCS_FIT_LIMIT_MAS * 1.01, False),
        (float("nan"), False),
    ],
)
def test_a_poor_alignment_is_a_warning(
    source: PointingSource, residual: float, passed: bool
) -> None:
    result = wcs_fit([GOOD, ImagePointing("other", "WFI_IMAGE", source, residual)])
    assert result.passed is passed
    assert result.severity is AssetCheckSeverity.WARN
    assert "other" in result.metadata or passed


def test_an_image_with_too_few_stars_and_no_common_pointing_is_an_error_that_names_it() -> None:
    lone = ImagePointing("lone", "WFI_IMAGE", PointingSource.PLANNED, None, 7.5)
    result = wcs_fit([GOOD, lone])
    assert not result.passed
    assert result.severity is AssetCheckSeverity.ERROR
    assert "lone" in str(result.description)
    assert result.metadata["lone"].value["uncertainty_mas"] == 7.5
    assert not wcs_fit([lone]).passed


def test_an_image_with_the_pointing_of_others_passes_and_is_named() -> None:
    other = ImagePointing("other", "WFI_IMAGE", PointingSource.COMMON, None, 0.3)
    result = wcs_fit([GOOD, other])
    assert result.passed
    assert result.metadata["common_pointing"].value == 1
    assert result.metadata["other"].value["pointing"] == "common"


@pytest.mark.parametrize("exposure_type", ["WFI_SPECTRAL", "WFI_IM_DARK"])
def test_what_romancal_never_aligns_needs_no_refined_pointing(exposure_type: str) -> None:
    assert wcs_fit([ImagePointing("grism", exposure_type, PointingSource.PLANNED)]).passed


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
