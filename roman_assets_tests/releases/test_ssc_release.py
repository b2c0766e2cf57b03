"""Data releases with the SSC's L3 and L4: the same promises as for those of the SOC (R12, R13)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.errors import BadInputError
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.products.lifecycle import State
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.releases.publication import publish_release
from roman_assets.releases.run import state_of
from roman_assets.ssc.handover import ready_images
from roman_assets.ssc.released_images import changed_by_releases_alone
from roman_assets.upkeep.fsck import collect_blobs, fsck
from roman_assets.upkeep.sweep import Superseded, sweep
from roman_assets_tests.support.small_products import commit, public_content, registry_content
from roman_assets_tests.support.ssc_season import (
    BULGE,
    EXPOSURES,
    GRISM,
    STEPS,
    Season,
    names_of,
    unit,
)
from roman_assets_tests.support.survey_night import EARLY, LATE

SURVEY = "GBTDS"
PERIOD = timedelta(days=90)
AT_ONCE = timedelta(seconds=-1)
"""A grace period that is over, in a store whose clock knows whole seconds, too."""


@pytest.fixture(scope="module")
def _prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("season")
    with pytest.MonkeyPatch.context() as patch:
        Season.prompt(place, patch)
    return place


@pytest.fixture(scope="module")
def _made(_prompt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "season"
    with pytest.MonkeyPatch.context() as patch:
        Season.copied(_prompt, place, patch).make(SURVEY)
    return place


@pytest.fixture
def season(_prompt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Season:
    """A season whose products, the SSC's too, are made promptly with the early context."""
    return Season.copied(_prompt, tmp_path / "season", monkeypatch)


@pytest.fixture
def made(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Season:
    """The same with the SOC's part of r0 of GBTDS: its L2 are handed over."""
    return Season.copied(_made, tmp_path / "made", monkeypatch)


def shown(season: Season, **search: object) -> set[str]:
    """Give what general users find in the registry, each of it under its public name."""
    found = set(Registry(season.root, Role.PUBLIC).products.find(**search)["name"])
    assert found <= set(public_content(season.root))
    return found


def states(season: Season, names: list[str]) -> set[str]:
    found = Registry(season.root).products.find(name=names, overwritten=True)
    return set(found["state"])


def publish(season: Season, survey: str = SURVEY, **options: bool) -> None:
    assert publish_release(season.root, season.begin(survey), **options).record_id


def fault(season: Season, delivery: str) -> tuple[str, str]:
    """Field and reason of the first fault of a delivery that was rejected."""
    (report,) = season.center.reports(delivery)
    assert report["outcome"] == "rejected"
    return report["faults"][0]["field"], report["faults"][0]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["disk", "s3"])
def test_after_publication_and_90_days_only_the_release_is_left_of_soc_and_ssc_alike(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue("object_store") if store == "s3" else None
    season = Season.prompt(tmp_path, monkeypatch, place)
    prompt = shown(season, release="p")
    of_exposures = {name for name in prompt if ProductName.parse(name).exposure}
    of_visits = prompt - of_exposures
    assert of_visits >= {*names_of(GRISM), *names_of(BULGE)}
    for survey in ("HLWAS", "GBTDS"):
        season.make(survey)
    for visit in STEPS:
        assert not season.receive(visit, "r0").failures
        assert shown(season, release="r0") == set(), "nobody sees a release before its publication"
    for survey in ("HLWAS", "GBTDS"):
        publish(season, survey)
    released = shown(season, release="r0")
    assert released >= {*names_of(GRISM, "r0"), *names_of(BULGE, "r0")}
    assert len(released) == len(of_visits)
    with Registry(season.root, Role.PUBLIC) as registry:
        found = registry.products.find(release="r0").set_index("name")
        cal = registry.products.find(kind="cal")
    assert set(found["context"]) == set(cal["context"]) == {LATE}
    assert set(found["state"]) == {State.CURRENT}
    assert (len(cal), set(cal["generation"])) == (len(EXPOSURES), {2})
    assert states(season, list(of_visits)) == {State.SUPERSEDED}
    assert of_visits <= set(public_content(season.root)), "what is superseded is there till its end"

    now = datetime.now(UTC)
    assert sweep(season.root, clock=lambda: now + PERIOD - timedelta(hours=1)).products == 0
    assert sweep(season.root, clock=lambda: now + PERIOD).products == len(of_visits)
    collect_blobs(season.root, grace=AT_ONCE)
    left = of_exposures | released
    assert set(public_content(season.root)) == left
    assert shown(season) == left
    assert states(season, list(of_visits)) == {State.REMOVED}
    assert fsck(season.root) == []
    folded = registry_content(season.root)
    rebuild(season.root)
    assert registry_content(season.root) == folded


def test_the_ssc_is_told_which_l2_a_release_consists_of(made: Season) -> None:
    told = made.manifest(unit(BULGE))
    assert told["release"] == {
        "release": "r0", "survey": "GBTDS", "context": LATE,
        "romancal": made.begin(SURVEY).declaration.romancal,
        "exposures": [f"{BULGE}_0001", f"{BULGE}_0002"],
    }  # fmt: skip
    assert {image["context"] for image in told["images"]} == {LATE}
    assert len(told["images"]) == 2
    assert "eventcatalog.parquet" in told["products"]
    assert Registry(made.root).receipts.unanswered_handovers([unit(BULGE)])
    made.receive(BULGE, "r0")
    assert not Registry(made.root).receipts.unanswered_handovers([unit(BULGE)])


def test_a_release_is_published_when_the_ssc_has_delivered_all_of_it_or_a_person_says_so(
    made: Season,
) -> None:
    *some, last = names_of(BULGE, "r0")
    made.receive(BULGE, "r0", names=some)
    state = state_of(made.root, made.begin(SURVEY))
    assert (state.undelivered, state.complete) == ({last}, False)
    with pytest.raises(BadInputError, match=rf"not delivered 1 products, {last}.*--without-ssc"):
        publish(made)
    assert not fsck(made.root), "a release that is being delivered is no partial set"
    publish(made, without_ssc=True)
    assert shown(made, release="r0") == set(some)
    assert states(made, names_of(BULGE)[:-1]) == {State.SUPERSEDED}
    assert states(made, names_of(BULGE)[-1:]) == {State.CURRENT}
    (partial,) = fsck(made.root)
    assert ProductName.parse(last).kind.name in partial.detail


def test_what_the_ssc_delivers_after_the_publication_is_public_and_supersedes_at_once(
    made: Season,
) -> None:
    publish(made, without_ssc=True)
    assert states(made, names_of(BULGE)) == {State.CURRENT}
    made.receive(BULGE, "r0")
    assert shown(made, release="r0") == set(names_of(BULGE, "r0"))
    assert states(made, names_of(BULGE)) == {State.SUPERSEDED}
    swept = sweep(made.root, clock=lambda: datetime.now(UTC) + PERIOD)
    assert swept.products == len(names_of(BULGE))


def test_nothing_is_removed_before_releases_have_its_kind_of_all_its_exposures(
    made: Season,
) -> None:
    *some, last = names_of(BULGE, "r0")
    made.receive(BULGE, "r0", names=some)
    publish(made, without_ssc=True)
    later = datetime.now(UTC) + PERIOD
    held = set(Superseded.of(made.root, later).held["name"])
    assert names_of(BULGE)[-1] in held
    assert names_of(BULGE)[0] not in held, "that of a detector is complete"
    sweep(made.root, clock=lambda: later)
    assert held <= shown(made)
    made.receive(BULGE, "r0", names=[last], text="late")
    sweep(made.root, clock=lambda: later + timedelta(days=1))
    assert not held & shown(made)


@pytest.mark.parametrize(
    ("release", "fields", "field", "reason"),
    [
        ("r1", {}, "filename", "no release r1 with it was begun"),
        ("r0", {"ssc_groupings": "[]"}, "filename", "takes no such products"),
    ],
    ids=["not begun", "not declared"],
)
def test_a_delivery_for_a_release_that_does_not_take_it_is_rejected(
    season: Season, release: str, fields: dict[str, str], field: str, reason: str
) -> None:
    declared = "".join(f"\n{name} = {value}" for name, value in fields.items())
    season.make(SURVEY, groupings=f'["visit"]{declared}')
    images = season.images(str(BULGE))
    assert season.receive(BULGE, release, inputs=images).failures
    found = fault(season, f"{unit(BULGE, release)}_x")
    assert found[0] == field
    assert reason in found[1]
    assert Registry(season.root).products.find(release=release).empty


def test_nothing_in_a_release_is_made_from_prompt_l2_or_prompt_products(made: Season) -> None:
    (first, *_) = names_of(BULGE, "r0")
    (prompt, *_) = names_of(BULGE)
    with Registry(made.root) as registry:
        generations = registry.generations.of([f"{BULGE}_0001_wfi01_f146_cal.asdf", prompt])
    (old, _), (frame,) = generations.values()
    assert old.context == EARLY
    for number, (entry, reason) in enumerate([(old, EARLY), (frame, "is not a product of r0")]):
        inputs = [*made.images(unit(BULGE)), {"name": entry.name, "sha256": entry.sha256}]
        assert made.receive(BULGE, "r0", names=[first], inputs=inputs, text=str(number)).failures
        field, said = fault(made, f"{unit(BULGE)}_{number}")
        assert field == "inputs"
        assert reason in said
    assert not made.receive(BULGE, "r0", names=[first], text="right").failures


def test_a_product_of_a_release_is_delivered_once_and_never_overwritten(made: Season) -> None:
    tables = [name for name in names_of(BULGE, "r0") if "_wfi" not in name]
    made.receive(BULGE, "r0", names=tables)
    before = Registry(made.root).products.find(release="r0")[["name", "sha256", "generation"]]
    again = made.receive(BULGE, "r0", names=tables)
    assert (len(again.reused), again.failures) == (len(tables), ())
    assert made.receive(BULGE, "r0", names=tables, text="another").failures
    assert "never overwritten" in fault(made, f"{unit(BULGE)}_another")[1]
    after = Registry(made.root).products.find(release="r0")[["name", "sha256", "generation"]]
    assert after.equals(before)


def test_a_prompt_product_that_comes_after_its_release_is_rejected(made: Season) -> None:
    made.receive(BULGE, "r0")
    assert not made.receive(BULGE, text="before").failures
    publish(made)
    assert made.receive(BULGE, text="after").failures
    assert "r0 of GBTDS is published" in fault(made, f"{BULGE}_after")[1]
    assert states(made, names_of(BULGE)) <= {State.SUPERSEDED, State.OVERWRITTEN}


@pytest.mark.slow
def test_a_second_release_leaves_the_first_in_place_and_overwrites_l2(made: Season) -> None:
    made.receive(BULGE, "r0")
    publish(made)
    first = {name: public_content(made.root)[name] for name in shown(made, release="r0")}
    made.make(SURVEY, "r1", context=EARLY)
    assert not made.receive(BULGE, "r1").failures
    assert publish_release(made.root, made.begin(SURVEY, "r1", context=EARLY)).record_id
    content = public_content(made.root)
    assert {name: content[name] for name in first} == first
    assert shown(made, release="r1") == set(names_of(BULGE, "r1"))
    assert states(made, list(first)) == {State.CURRENT}
    assert not fsck(made.root)


def test_a_release_has_no_part_in_prompt_deadlines(season: Season, made: Season) -> None:
    made.receive(BULGE, "r0")
    publish(made)
    columns = ["name", "generation", "state"]
    before, after = (Registry(one.root).deadlines.ledger()[columns] for one in (season, made))
    ours = [frame.sort_values(columns, ignore_index=True) for frame in (before, after)]
    assert ours[0].equals(ours[1])


def test_the_ssc_is_told_again_of_prompt_l2_and_not_of_what_a_release_made_of_them(
    made: Season,
) -> None:
    def changed_by_a_release() -> bool:
        with Registry(made.root) as registry:
            ready = list(ready_images(visit_manifests(made.root, registry, [BULGE])[BULGE]))
            told = registry.receipts.handovers([str(BULGE)])
            assert [one.digest != told[str(BULGE)].digest for one in ready] == [True]
            return changed_by_releases_alone(registry, ready, told) == {str(BULGE)}

    def reprocess(text: str) -> None:
        name = f"{BULGE}_0001_wfi01_f146_cal.asdf"
        about = {"metadata": {"survey": SURVEY, "exposure_type": "WFI_IMAGE"}}
        commit(made.root, {name: text.encode()}, partition=f"{BULGE}_0001", **about)
        fold(made.root)

    assert changed_by_a_release()
    reprocess("by a person's decision")
    assert not changed_by_a_release()
    made.make(SURVEY)
    made.receive(BULGE, "r0")
    publish(made)
    reprocess("by another decision")
    assert changed_by_a_release(), "a release has superseded its prompt products"
