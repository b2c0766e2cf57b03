"""A data release, from its declaration to its publication, by its rules (R7, R8, R13)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from roman_assets.access import Role
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.errors import BadInputError
from roman_assets.products.lifecycle import State
from roman_assets.products.observation import ExposureId
from roman_assets.products.release_id import parse_unit
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases import state as state_module
from roman_assets.registry.releases.declaration import read_declaration
from roman_assets.registry.releases.state import Release
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.releases.publication import ReleasePublication, publish_release
from roman_assets.releases.release_plan import plan_release
from roman_assets.releases.run import begin_release, state_of, work_on_release
from roman_assets.releases.unit import mosaic_release_unit
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import record_of, registry_content
from roman_assets_tests.support.survey_night import (
    BULGE,
    EARLY,
    FAIL_DETECTOR,
    FAIL_SKYCELL,
    FIRST,
    LATE,
    OTHER,
    SECOND,
    START,
    Night,
)

UNITS = ["r00001_r0_p01001", "r00001_r0_v01001001001001", "r00001_r0_v01001002001001"]
IMAGES = [f"{FIRST}_0001", f"{FIRST}_0002", f"{SECOND}_0001"]


@pytest.fixture(scope="module")
def _prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as patch:
        Night.observed(place, patch).make_promptly()
    return place


@pytest.fixture(scope="module")
def _released(_prompt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("released") / "night"
    with pytest.MonkeyPatch.context() as patch:
        make(Night.copied(_prompt, place, patch))
    return place


@pytest.fixture
def night(_prompt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """A night whose products are made promptly with the early context."""
    return Night.copied(_prompt, tmp_path / "night", monkeypatch)


@pytest.fixture
def released(_released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """The same with r0 of HLWAS, made with the late context and not published."""
    return Night.copied(_released, tmp_path / "released", monkeypatch)


def begin(night: Night, release: str = "r0", **fields: str) -> Release:
    return begin_release(night.root, night.declare(release, **fields))


def make(night: Night, release: str = "r0", **fields: str) -> Release:
    """Make a release to the end."""
    begun = begin(night, release, **fields)
    assert work_on_release(night.root, begun, workers=1).complete
    return begun


def publish(night: Night, release: str = "r0", **options: bool) -> ReleasePublication:
    return publish_release(night.root, begin(night, release), **options)


def public(night: Night, **search: object) -> pd.DataFrame:
    return Registry(night.root, Role.PUBLIC).products.find(**search)


def contents(night: Night, **search: object) -> dict[str, str]:
    found = public(night, **search)
    return dict(zip(found["name"], found["sha256"], strict=True))


def coadds(night: Night, unit: str) -> list[RegisteredProduct]:
    registry = Registry(night.root)
    return [
        *registry.generations.current(
            registry.products.find(partition=unit, kind="coadd")["name"]
        ).values()
    ]


def test_a_plan_tells_what_a_release_would_do_and_does_nothing(night):
    before = registry_content(night.root)
    plan = plan_release(night.root, read_declaration(night.declare())[0])
    assert plan.visits == (FIRST, SECOND)
    assert [image.exposure for image in plan.to_make] == IMAGES
    assert [str(unit) for unit in plan.units] == UNITS
    assert set(plan.superseded) == set(contents(night, partition=[str(FIRST), str(SECOND)]))
    assert plan.rewritten_size == public(night, exposure=IMAGES, step="exposure")["size"].sum() > 0
    assert plan.contexts == {EARLY: 3}
    assert plan.computation > timedelta()
    assert registry_content(night.root) == before


def test_a_release_makes_l2_of_its_own_survey_again_and_l1_never(night, released):
    made = public(released, visit=[FIRST, SECOND], step="exposure")
    assert {len(made[made["kind"] == kind]) for kind in made["kind"]} == {3}
    assert set(made["context"]) == {LATE}
    assert set(made["data_release"]) == {"r0"}
    assert set(made["generation"]) == {2}
    for kept in ({"visit": [OTHER, BULGE]}, {"kind": "uncal"}, {"release": "p", "step": "visit"}):
        assert contents(released, **kept) == contents(night, **kept) != {}


def test_a_deeper_grouping_adds_up_all_its_visits(released):
    (coadd,) = coadds(released, UNITS[0])
    assert [one.name[:25] for one in coadd.inputs] == IMAGES


def test_a_release_is_made_on_the_pixels_of_the_sky_map_unless_it_declares_others(night, released):
    groupings = '["visit", "pass"]\npixel_scales.visit = "native"'
    make(night, groupings=groupings)
    for unit in UNITS:
        (by_default,), (as_declared,) = coadds(released, unit), coadds(night, unit)
        assert by_default.metadata["pixel_scale"] == 0.055
        assert as_declared.metadata["pixel_scale"] == (0.055 if "_p" in unit else 0.11)
    followers = public(night, release="p", step="visit")
    assert set(followers["pixel_scale"]) == {0.11}


def test_nobody_sees_a_release_until_everybody_sees_all_of_it(released):
    assert public(released, release="r0").empty
    foreseen = publish(released, dry_run=True)
    assert public(released, release="r0").empty
    publication = publish(released)
    shown = public(released, release="r0")
    assert tuple(shown["name"]) == publication.published == foreseen.published
    assert set(shown["partition"]) == set(UNITS)
    assert set(shown["context"]) == {LATE}
    prompt = public(released, release="p", step="visit").set_index("name")["state"]
    assert tuple(prompt[prompt == State.SUPERSEDED].index) == publication.superseded
    assert {name[:6] for name in publication.superseded} == {"r00001"}
    assert {name[:6] for name in prompt[prompt == State.CURRENT].index} == {"r00002"}
    assert publish(released).record_id is None
    assert not fsck(released.root)
    folded = registry_content(released.root)
    rebuild(released.root)
    assert registry_content(released.root) == folded


def test_a_lost_product_of_a_published_release_is_made_and_public_again(released):
    publish(released)
    release = begin(released)
    assert state_of(released.root, release).complete
    before = contents(released, release="r0")
    (coadd,) = (one.name for one in coadds(released, UNITS[1]))
    released.lose([coadd])
    assert coadd not in contents(released)
    assert [str(unit) for unit in state_of(released.root, release).units_left] == [UNITS[1]]
    assert {finding.subject for finding in fsck(released.root)} >= {coadd}
    assert work_on_release(released.root, release, workers=1).complete
    after = contents(released, release="r0")
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} <= {coadd}
    assert not fsck(released.root)


def test_a_product_that_a_published_release_lacked_is_public_when_it_is_made(night, monkeypatch):
    release = begin(night)
    monkeypatch.setenv(FAIL_SKYCELL, UNITS[2])
    work_on_release(night.root, release, workers=1)
    publish(night, without_failed=True)
    monkeypatch.delenv(FAIL_SKYCELL)
    assert work_on_release(night.root, release, workers=1).complete
    assert set(public(night, release="r0")["partition"]) == set(UNITS)


def test_a_hidden_product_of_a_published_release_is_found_and_shown(released):
    publish(released)
    name = next(iter(contents(released, release="r0"))).replace("49y50", "48y50")
    hidden = record_of(
        released.root, {name: b"left by another version"}, step="release", partition=UNITS[0],
        metadata={"survey": "HLWAS"}, access=Role.OPERATIONS,
    )  # fmt: skip
    Journal(released.root).write(hidden)
    fold(released.root)
    found = {finding.subject: finding.kind for finding in fsck(released.root)}
    assert found[name] is FindingKind.HIDDEN_PRODUCT
    assert name not in contents(released)
    fsck(released.root, mend=True)
    assert name in contents(released)


def test_a_published_release_takes_nothing_back_from_a_later_one(released):
    publish(released)
    publish_release(released.root, make(released, "r1", context=EARLY))
    before = contents(released)
    assert work_on_release(released.root, begin(released), workers=1).complete
    assert contents(released) == before


def test_a_release_has_no_part_in_prompt_deadlines(night, released):
    publish(released)
    before, after = (Registry(one.root) for one in (night, released))
    columns = ["name", "generation", "state"]
    pd.testing.assert_frame_equal(
        after.deadlines.ledger()[columns].sort_values(columns, ignore_index=True),
        before.deadlines.ledger()[columns].sort_values(columns, ignore_index=True),
    )


@pytest.mark.parametrize(
    ("release", "fields", "field"),
    [
        ("r0", {"context": "roman_0009.pmap"}, "context"),
        ("r0", {"romancal": "0.1.0"}, "romancal"),
        ("r0", {"survey": "HLSS"}, "survey"),
        ("r0", {"groupings": '["decade"]'}, "groupings.0"),
        ("r0", {"groupings": '["visit", "visit"]'}, "groupings"),
        ("r0", {"groupings": '["visit"]\nextra = 1'}, "extra"),
        ("r0", {"groupings": '["visit"]\nssc_groupings = ["visit", "visit"]'}, "groupings"),
        ("r0", {"groupings": "oops"}, "file"),
        ("r0", {"groupings": '["visit"]\npixel_scales.pass = "native"'}, "groupings"),
        ("r0", {"groupings": '["visit"]\npixel_scales.visit = "coarse"'}, "pixel_scales.visit"),
        ("p", {}, "release"),
        ("r0", {"survey": "GAS"}, "survey, after, before"),
    ],
)
def test_a_declaration_that_cannot_be_used_names_field_and_remedy(night, release, fields, field):
    with pytest.raises(BadInputError) as raised:
        begin(night, release, **fields)
    assert field in raised.value.field
    assert raised.value.remedy
    assert Registry(night.root).decisions.releases() == []


def test_a_release_that_was_begun_is_never_changed(night):
    release = begin(night)
    assert begin(night) == release
    assert len(Registry(night.root).decisions.releases()) == 1
    with pytest.raises(BadInputError, match="another declaration"):
        begin(night, context=EARLY)
    state = state_of(night.root, release)
    assert [str(one) for one in state.exposures_left] == IMAGES
    assert [str(unit) for unit in state.units_left] == UNITS


def test_a_release_goes_on_only_with_the_software_it_was_begun_with(night, monkeypatch):
    release = begin(night)
    newer = release.statement.software | {"stcal": "99"}
    monkeypatch.setattr(state_module, "installed_software", lambda step: newer)
    with pytest.raises(BadInputError, match=r"stcal: .* 99 is installed"):
        work_on_release(night.root, release, workers=1)


def test_no_product_of_a_release_is_made_from_l2_of_another_context(night):
    release = begin(night)
    unit = parse_unit(UNITS[1])
    with pytest.raises(BadInputError, match=f"made with {EARLY}, and r0 of HLWAS with {LATE}"):
        mosaic_release_unit(night.root, unit, workers=1)
    calibrate_exposure(night.root, ExposureId(FIRST, 1), context=LATE, workers=1)
    with pytest.raises(BadInputError, match=IMAGES[1]):
        mosaic_release_unit(night.root, unit, workers=1)
    assert Registry(night.root).products.find(release="r0").empty
    assert not state_of(night.root, release).made


@pytest.mark.slow
def test_a_second_release_makes_l2_again_and_leaves_the_first_in_place(released):
    publish(released)
    first = contents(released, release="r0")
    publish_release(released.root, make(released, "r1", context=EARLY))
    assert contents(released, release="r0") == first
    assert set(public(released, release="r0")["state"]) == {State.CURRENT}
    assert len(public(released, release="r1")) == len(first)
    images = public(released, visit=[FIRST, SECOND], kind="cal")
    assert set(images["generation"]) == {3}
    assert set(images["data_release"]) == {"r1"}
    assert not fsck(released.root)


@pytest.mark.slow
def test_l2_that_are_as_the_release_fixes_them_stay(night):
    images = contents(night, kind="cal")
    make(night, context=EARLY)
    assert contents(night, kind="cal") == images


@pytest.mark.slow
def test_a_product_of_a_release_is_never_made_again_from_other_l2(released):
    before = contents(released, release="r0")
    calibrate_exposure(released.root, ExposureId(FIRST, 1), context=EARLY, workers=1)
    with pytest.raises(BadInputError, match="still to be made"):
        publish(released)
    calibrate_exposure(released.root, ExposureId(FIRST, 1), context=LATE, workers=1)
    with pytest.raises(BadInputError, match="never overwritten"):
        mosaic_release_unit(released.root, parse_unit(UNITS[1]), workers=1, force=True)
    assert contents(released, release="r0") == before


@pytest.mark.slow
def test_what_arrives_after_the_beginning_is_not_in_a_release(night):
    release, late = begin(night), ExposureId(FIRST, 3)
    night.format(late, START + timedelta(minutes=3))
    fold(night.root)
    calibrate_exposure(night.root, late, context=EARLY, workers=1)
    assert work_on_release(night.root, release, workers=1).complete
    inputs = {one.name for coadd in coadds(night, UNITS[1]) for one in coadd.inputs}
    assert {name[:25] for name in inputs} == set(IMAGES[:2])


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_a_release_that_was_stopped_goes_on_where_it_was(night):
    done: list[str] = []

    def stop(name: str, result: object) -> None:
        done.append(name)
        if len(done) in (2, 5):
            raise Stopped

    release = begin(night)
    for _ in range(2):
        with pytest.raises(Stopped):
            work_on_release(night.root, release, workers=1, report=stop)
        with pytest.raises(BadInputError, match="still to be made"):
            publish_release(night.root, release)
    assert work_on_release(night.root, release, workers=1, report=stop).complete
    assert sorted(done) == sorted(IMAGES + UNITS)


@pytest.mark.slow
def test_what_failed_is_tried_again_and_left_out_only_if_a_person_says_so(night, monkeypatch):
    lost = f"{FIRST}_0002_wfi01_f158"
    release = begin(night)
    monkeypatch.setenv(FAIL_DETECTOR, f"{FIRST}_0002")
    monkeypatch.setenv(FAIL_SKYCELL, UNITS[2])
    state = work_on_release(night.root, release, workers=1)
    assert state.failed_images == {lost}
    assert {name.startswith(UNITS[2]) for name in state.failed_skycells} == {True}
    assert coadds(night, UNITS[1])[0].metadata["missing"] == [lost]
    monkeypatch.delenv(FAIL_SKYCELL)
    assert not work_on_release(night.root, release, workers=1).failed_skycells
    with pytest.raises(BadInputError, match="without-failed"):
        publish(night)
    assert publish(night, without_failed=True).lacking == (lost,)
    assert set(public(night, release="r0")["partition"]) == set(UNITS)


@pytest.mark.slow
def test_a_release_of_the_bulge_survey_without_the_ssc_has_l2_alone(night):
    release = make(night, survey="GBTDS", groupings='["visit"]\nssc_groupings = []')
    assert state_of(night.root, release).units == ()
    assert publish_release(night.root, release).published == ()
    assert set(public(night, visit=BULGE, kind="cal")["data_release"]) == {"r0"}


@pytest.mark.slow
def test_two_surveys_have_releases_of_the_same_identity(released):
    publish(released)
    before = contents(released, release="r0")
    other = make(released, survey="HLTDS")
    assert contents(released, release="r0") == before
    publish_release(released.root, other)
    assert {name[:6] for name in contents(released, release="r0")} == {"r00001", "r00002"}
