from __future__ import annotations

import pytest
from roman_datamodels import datamodels

from roman_assets.products.kind import KINDS, Level, Maker, Step, expected_kinds
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.registry.catalog.archive_catalog import archive_catalog


def names(survey: Survey, exposure_type: ExposureType, *steps: Step) -> set[str]:
    return {kind.name for kind in expected_kinds(survey, exposure_type, steps or tuple(Step))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_opens_with_a_data_model_that_exists(kind) -> None:
    assert kind.datamodel is None or hasattr(datamodels, kind.datamodel)


@pytest.mark.parametrize("survey", [Survey.HLWAS, Survey.HLTDS, Survey.GAS])
def test_imaging_of_the_soc_surveys_is_promised_all_the_soc_makes_but_pictures(
    survey: Survey,
) -> None:
    by_soc = {kind.name for kind in KINDS if kind.maker is Maker.SOC and not kind.picture}
    assert names(survey, ExposureType.WFI_IMAGE) == by_soc


@pytest.mark.parametrize(
    ("survey", "exposure_type"),
    [(Survey.GBTDS, ExposureType.WFI_IMAGE)]
    + [(survey, ExposureType.WFI_SPECTRAL) for survey in Survey],
)
def test_what_the_ssc_makes_is_left_to_it(survey: Survey, exposure_type: ExposureType) -> None:
    expected = expected_kinds(survey, exposure_type)
    assert {kind.level for kind in expected if kind.maker is Maker.SOC} == {Level.L1, Level.L2}
    assert {kind.level for kind in expected if kind.maker is Maker.SSC} >= {Level.L4}


def test_microlensing_products_are_of_gbtds_imaging_and_spectra_of_every_survey() -> None:
    for survey in Survey:
        for exposure_type in ExposureType:
            made = names(survey, exposure_type)
            microlensing = (survey, exposure_type) == (Survey.GBTDS, ExposureType.WFI_IMAGE)
            assert any(name.startswith("microlensing_") for name in made) == microlensing
            spectral = exposure_type is ExposureType.WFI_SPECTRAL
            assert any(name.startswith("spec_") for name in made) == spectral


def test_every_schema_of_the_ssc_has_its_kind() -> None:
    delivered = {schema.name for schema in archive_catalog().schemas if "SSC/" in schema.name}
    assert delivered == {kind.rad_schema for kind in KINDS if kind.maker is Maker.SSC}


def test_the_supplement_is_made_whatever_the_exposure_type() -> None:
    for exposure_type in ExposureType:
        made = names(Survey.HLWAS, exposure_type, Step.EXPOSURE)
        assert {"cal", "supplement"} <= made
