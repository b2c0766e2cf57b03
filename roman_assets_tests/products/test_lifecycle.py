from __future__ import annotations

import pytest
from hypothesis import given

from roman_assets.products.kind import GROUP_SCOPES, KINDS, Level
from roman_assets.products.lifecycle import (
    AVAILABLE,
    CHANGES,
    LIFECYCLES,
    State,
    Transition,
    lifecycle_of,
    require_possible,
)
from roman_assets.products.name import ProductName, parse_file_set, products_of
from roman_assets_tests.support.strategies import names

COADD = "r00010_{release}_v01001001001001_270p65x01y50_f158_coadd.asdf"
CAL = "r0001001001001001001_0001_wfi01_f158_cal.asdf"
CATALOGUE = "r0001001001001001001_0001_wfi01_f158_cat.parquet"


def possible(name: str) -> frozenset[Transition]:
    return lifecycle_of(ProductName.parse(name)).transitions


def test_every_kind_has_a_life_cycle_and_only_one() -> None:
    for kind in KINDS:
        for versioned in (False, True):
            rows = [r for r in LIFECYCLES if kind in r.kinds and r.versioned is versioned]
            assert len(rows) == (0 if versioned and kind.scope not in GROUP_SCOPES else 1)


@given(names)
def test_every_official_name_has_a_life_cycle(name: ProductName) -> None:
    assert Transition.MADE in lifecycle_of(name).transitions


@pytest.mark.parametrize("name", [CAL, CATALOGUE, CAL.replace("cal", "uncal")])
def test_l1_l2_and_l4_of_l2_are_overwritten_and_stay_otherwise(name: str) -> None:
    assert Transition.OVERWRITTEN in possible(name)
    assert possible(name).isdisjoint({Transition.SUPERSEDED, Transition.REMOVED})


@pytest.mark.parametrize("end", ["coadd.asdf", "asn.json", "cat.parquet", "segm.asdf"])
def test_prompt_l3_and_their_l4_are_superseded_and_removed(end: str) -> None:
    name = COADD.format(release="p").replace("coadd.asdf", end)
    assert {Transition.SUPERSEDED, Transition.REMOVED} <= possible(name)


@pytest.mark.parametrize("release", ["r0", "r1", "r12"])
def test_a_product_of_a_data_release_is_never_overwritten_superseded_or_removed(release) -> None:
    name = COADD.format(release=release)
    assert possible(name).isdisjoint(
        {Transition.OVERWRITTEN, Transition.SUPERSEDED, Transition.REMOVED}
    )
    with pytest.raises(ValueError, match="one version for each release"):
        require_possible(ProductName.parse(name), Transition.REMOVED)


def test_a_product_that_is_not_available_never_becomes_so_again() -> None:
    for change in CHANGES.values():
        assert change.origins is None or change.origins <= AVAILABLE
    assert {change.state for change in CHANGES.values()} == set(State) - {State.REFUSED}


def test_what_follows_a_product_is_of_its_file_set_and_shares_its_life_cycle() -> None:
    for text in (CAL, COADD.format(release="p"), COADD.format(release="r1")):
        leader = ProductName.parse(text)
        assert {follower.leader for follower in leader.followers} == {leader}
        assert {lifecycle_of(follower) for follower in leader.followers} == {lifecycle_of(leader)}
        assert Level.L4 in {follower.level for follower in leader.followers}


@given(names)
def test_a_file_set_is_found_by_its_name(name: ProductName) -> None:
    assert parse_file_set(str(name.file_set)) == name.file_set
    assert name in products_of(name.file_set)
    with pytest.raises(ValueError, match="not the name of a file set"):
        parse_file_set(str(name))
