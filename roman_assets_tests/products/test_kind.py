from __future__ import annotations

import pytest
from roman_datamodels import datamodels

from roman_assets.products.kind import KINDS, Level, Step, expected_kinds
from roman_assets.products.observation import ExposureType, Survey


def names(survey: Survey, exposure_type: ExposureType, *steps: Step) -> set[str]:
    return {kind.name for kind in expected_kinds(survey, exposure_type, steps or tuple(Step))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_opens_with_a_data_model_that_exists(kind) -> None:
    assert kind.datamodel is None or hasattr(datamodels, kind.datamodel)


@pytest.mark.parametrize("survey", [Survey.HLWAS, Survey.HLTDS, Survey.GAS])
def test_imaging_of_the_soc_surveys_gets_everything(survey: Survey) -> None:
    assert names(survey, ExposureType.WFI_IMAGE) == {kind.name for kind in KINDS}


@pytest.mark.parametrize(
    ("survey", "exposure_type"),
    [(Survey.GBTDS, ExposureType.WFI_IMAGE)]
    + [(survey, ExposureType.WFI_SPECTRAL) for survey in Survey],
)
def test_what_the_ssc_makes_is_left_to_it(survey: Survey, exposure_type: ExposureType) -> None:
    levels = {kind.level for kind in expected_kinds(survey, exposure_type)}
    assert levels == {Level.L1, Level.L2}


def test_the_supplement_is_made_whatever_the_exposure_type() -> None:
    for exposure_type in ExposureType:
        made = names(Survey.HLWAS, exposure_type, Step.EXPOSURE)
        assert {"cal", "supplement"} <= made
