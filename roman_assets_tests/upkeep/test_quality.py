"""What operators say of products' quality: it is on record, everywhere, and in order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.lifecycle import Quality, State
from roman_assets.reader.archive_reader import ArchiveReader, QualityWarning
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.quality import Grade, grade, withdraw
from roman_assets_tests.support.small_products import (
    cal,
    commit_names,
    moment,
    public_content,
    registry_content,
    skycell_set,
)

COADD = skycell_set()[1]
START, END = moment(-100), moment(-50)
TIMES = {"survey": "HLWAS", "start_time": START.isoformat(), "end_time": END.isoformat()}
BAD = Grade(Quality.BAD, "stray light", "A. Person")
SUSPECT = Grade(Quality.SUSPECT, "one guide star", "B. Person")
GOOD = Grade(Quality.OK, "the light was the sky's", "A. Person")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[DataRoot]:
    root = DataRoot(tmp_path)
    commit_names(root, [cal(1), cal(2)], metadata=TIMES)
    commit_names(root, skycell_set())
    fold(root)
    yield root
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded, "a rebuilt registry has the same grades"


def newest(root: DataRoot, name: str) -> RegisteredProduct:
    return Registry(root).generations.of([name])[name][-1]


def quality(root: DataRoot, name: str) -> Quality | None:
    return newest(root, name).quality


def test_a_grade_shows_in_every_listing_and_the_product_stays(root: DataRoot) -> None:
    before = public_content(root)
    assert grade(root, [cal(1)], BAD).record_id
    assert public_content(root) == before
    with ArchiveReader(root) as reader:
        (row,) = reader.find(quality="bad").to_dict("records")
        assert (row["name"], row["quality_reason"]) == (cal(1), BAD.reason)
        assert list(reader.history(cal(1))["quality"]) == [Quality.BAD]
    titles = Registry(root, Role.PUBLIC).archive.obscore().set_index("obs_id")["obs_title"]
    warned = titles[titles.str.contains("graded BAD: stray light", regex=False)]
    assert list(warned.index) == [cal(1).removesuffix("_cal.asdf")]


def test_the_last_of_several_grades_counts_whatever_is_folded_together(root: DataRoot) -> None:
    for given in (BAD, SUSPECT, GOOD, SUSPECT):
        grade(root, [cal(1)], given)
    assert quality(root, cal(1)) is Quality.SUSPECT
    again = grade(root, [cal(1)], SUSPECT)
    assert (again.record_id, again.untouched) == (None, (cal(1),)), "said again, nothing happens"


def test_the_grade_of_an_image_outlives_its_reprocessing_and_that_of_a_coadd_does_not(
    root: DataRoot,
) -> None:
    grade(root, [cal(1), COADD], BAD)
    commit_names(root, [cal(1)], committed_at=moment(10), metadata=TIMES)
    commit_names(root, skycell_set(), committed_at=moment(10))
    fold(root)
    assert newest(root, cal(1)).generation == newest(root, COADD).generation == 2
    assert quality(root, cal(1)) is Quality.BAD
    assert quality(root, COADD) is None
    assert Registry(root).generations.of([COADD])[COADD][0].quality is Quality.BAD
    grade(root, [cal(1)], GOOD)
    assert quality(root, cal(1)) is Quality.OK


def test_a_grade_says_which_observations_it_is_about(root: DataRoot) -> None:
    within = Grade(Quality.SUSPECT, "flare", "A. Person", START, START + timedelta(seconds=9))
    grade(root, [cal(1)], within)
    (row,) = Registry(root).products.find(name=cal(1)).to_dict("records")
    assert (row["quality_from"], row["quality_until"]) == (within.valid_from, within.valid_until)
    elsewhere = Grade(Quality.BAD, "flare", "A. Person", END + timedelta(seconds=1))
    with pytest.raises(BadInputError, match="was observed from"):
        grade(root, [cal(1), cal(2)], elsewhere)
    assert quality(root, cal(2)) is None, "nothing is graded then"


@pytest.mark.parametrize(
    ("names", "reason", "field"),
    [([cal(7)], "light", "name"), (["no name"], "light", "name"), ([cal(1)], " ", "reason")],
)
def test_a_grade_that_cannot_be_given_names_the_field(
    root: DataRoot, names: list[str], reason: str, field: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        grade(root, names, Grade(Quality.BAD, reason, "A. Person"))
    assert raised.value.field == field


def test_what_is_withdrawn_is_gone_with_what_follows_it_and_can_be_cited(root: DataRoot) -> None:
    before = newest(root, COADD)
    report = withdraw(root, [COADD], reason="wrong target", author="A. Person")
    assert report.record_id
    assert set(public_content(root)) == {cal(1), cal(2)}
    for name in skycell_set():
        (one,) = Registry(root, Role.PUBLIC).generations.of([name])[name]
        assert (one.state, one.quality, one.quality_reason) == (
            State.WITHDRAWN, Quality.BAD, "wrong target",
        )  # fmt: skip
        assert one.is_withdrawn_for_good
    assert newest(root, COADD).sha256 == before.sha256
    again = withdraw(root, [COADD], reason="wrong target", author="A. Person")
    assert again.record_id is None
    assert fsck(root) == []


def test_what_follows_a_product_is_not_withdrawn_alone(root: DataRoot) -> None:
    catalogue = skycell_set()[2]
    with pytest.raises(BadInputError, match="stays as long as"):
        withdraw(root, [catalogue], reason="bad fits", author="A. Person")


@pytest.mark.parametrize("access", list(Role))
def test_a_name_of_a_release_is_free_after_a_withdrawal_only_if_nobody_has_seen_it(
    root: DataRoot, access: Role
) -> None:
    names = skycell_set(1, "r0")
    commit_names(root, names, access=access)
    fold(root)
    withdraw(root, [names[1]], reason="mixed contexts", author="A. Person")
    commit_names(root, names, committed_at=moment(10), access=access)
    fold(root)
    expected = State.REFUSED if access is Role.PUBLIC else State.CURRENT
    assert newest(root, names[1]).state is expected
    assert quality(root, names[1]) is None


def test_a_reader_is_warned_of_what_is_suspect_or_bad_and_of_nothing_else(root: DataRoot) -> None:
    with ArchiveReader(root) as reader:
        grade(root, [cal(1)], SUSPECT)
        with pytest.warns(QualityWarning, match=r"is graded SUSPECT: one guide star"):
            reader.path(cal(1))
        grade(root, [cal(1)], GOOD)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.path(cal(1))
            reader.path(cal(2))
