from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets_tests.support.strategies import exposures, names, visits


@given(names)
def test_every_official_name_reads_back_as_the_product_it_names(name: ProductName) -> None:
    assert ProductName.parse(str(name)) == name


@given(names, st.data())
def test_a_name_with_one_character_changed_is_never_taken_for_the_same_product(
    name: ProductName, data: st.DataObject
) -> None:
    text = str(name)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="ascii")) + text[place + 1 :]
    assume(changed != text)
    try:
        other = ProductName.parse(changed)
    except ValueError:
        return
    assert other != name


@given(visits)
def test_a_visit_reads_back_from_its_partition_key(visit: VisitId) -> None:
    assert VisitId.parse(str(visit)) == visit


@given(exposures)
def test_an_exposure_reads_back_from_its_partition_key(exposure: ExposureId) -> None:
    assert ExposureId.parse(str(exposure)) == exposure


@given(st.lists(exposures, max_size=5))
def test_exposures_sort_as_their_names_do(several: list[ExposureId]) -> None:
    assert [str(e) for e in sorted(several)] == sorted(str(e) for e in several)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("r0000101001001001001_0001_wfi01_f158_uncal.asdf", "uncal"),
        ("r0000101001001001001_0001_wfi18_grism_cal.asdf", "cal"),
        ("r0000101001001001001_0001_wfi01_f158_cat.parquet", "exposure_catalog"),
        ("r0000101001001001001_0002_f158_face.asdf", "face"),
        ("r00001_p_v01001001001001_270p65x69y50_f062_coadd.asdf", "coadd"),
        ("r00001_r1_full_270p65x69y50_f062_cat.parquet", "visit_catalog"),
        ("r00001_p_v01001001001001_270p65x69y50_f062_asn.json", "association"),
        (
            "r00001_p_v01001001001001_wfi05_f146_referenceframe.asdf",
            "microlensing_reference_frame",
        ),
        ("r00001_p_v01001001001001_f146_eventcatalog.parquet", "microlensing_event_catalog"),
        ("r00001_r1_full_f146_eventcatalog.parquet", "microlensing_event_catalog"),
        ("r0000101001001001001_0001_wfi01_grism_specindividual1d.parquet", "spec_individual_1d"),
        ("r00001_p_v01001001001001_prism_speccombined1d.parquet", "spec_combined_1d"),
    ],
)
def test_the_kind_of_a_product_is_what_its_name_says(text: str, kind: str) -> None:
    assert ProductName.parse(text).kind is KIND_BY_NAME[kind]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../r0000101001001001001_0001_wfi01_f158_uncal.asdf",
        "r0000101001001001001_0001_wfi19_f158_uncal.asdf",
        "r0000101001001001001_0000_wfi01_f158_uncal.asdf",
        "r0000101001001001001_0001_wfi01_f159_uncal.asdf",
        "r0000101001001001001_0001_wfi01_f158_l0.asdf",
        "r0000101001001001001_0001_wfi01_f158_cat.asdf",
        "r0000101001001001001_0001_wfi01_f158_uncal.asdf\n",
        "r00001_p_v01001001001001_270p65x69y50_f062_uncal.asdf",
        "r00001_p_v01001001001001_f146_referenceframe.asdf",
        "r00001_p_v01001001001001_wfi05_f146_eventcatalog.parquet",
        "r\u06600001_p_v01001001001001_270p65x69y50_f062_coadd.asdf",
    ],
)
def test_anything_but_an_official_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|not between"):
        ProductName.parse(text)


def test_the_supplement_is_archived_with_level_1_though_made_with_level_2() -> None:
    name = ProductName.parse("r0000101001001001001_0001_wfi01_f158_wcs.asdf")
    assert name.level is Level.L1


def test_a_visit_product_knows_its_visit_and_a_program_product_has_none() -> None:
    visit = ProductName.parse("r00001_p_v01001001001001_270p65x69y50_f062_coadd.asdf")
    assert str(visit.visit) == "r0000101001001001001"
    assert ProductName.parse("r00001_p_full_270p65x69y50_f062_coadd.asdf").visit is None
