from __future__ import annotations

import mmap
from datetime import timedelta

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.upkeep import retention
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.retention import remove, supersede
from roman_assets_tests.support.small_products import (
    cal,
    change_of,
    commit,
    moment,
    public_content,
    record_of,
    registry_content,
    sha256,
    skycell_set,
)

ASSOCIATION, COADD, CATALOGUE, SEGMENTATION = skycell_set()
WHY = {"reason": "superseded 90 days ago", "cause": "r0"}


@pytest.fixture
def root(tmp_path):
    """An installation with two skycells of a visit and the L2 image they come from."""
    root = DataRoot(tmp_path)
    commit(root, {cal(): b"image"})
    for cell in (1, 2):
        contents = {name: f"{cell} {name}".encode() for name in skycell_set(cell)}
        commit(
            root,
            contents,
            inputs=(ProductInput(name=cal(), sha256=sha256(b"image")),),
            context="roman_0042.pmap",
            software={"romancal": "1.1.0"},
        )
    fold(root)
    return root


def states(root, *names):
    found = Registry(root).products.find(name=names, overwritten=True)
    return dict(zip(found["name"], found["state"], strict=True))


def test_a_removed_coadd_takes_its_association_and_its_l4_along_by_one_record(root):
    before = len(registry_content(root)["records"])
    report = remove(root, [COADD], **WHY)
    assert {change.name for change in report.transitions} == set(skycell_set(1))
    assert set(public_content(root)) == {cal(), *skycell_set(2)}
    assert set(Registry(root).products.find()["name"]) == {cal(), *skycell_set(2)}
    assert set(states(root, *skycell_set(1)).values()) == {"removed"}
    assert len(registry_content(root)["records"]) == before + 1


def test_a_file_set_is_removed_by_its_name(root):
    report = remove(root, [COADD.removesuffix("_coadd.asdf")], **WHY)
    assert len(report.transitions) == 4
    assert set(public_content(root)) == {cal(), *skycell_set(2)}


def test_what_is_removed_can_still_be_cited_and_made_again(root):
    remove(root, [COADD], **WHY)
    row = Registry(root).products.find(name=COADD, overwritten=True).iloc[0]
    assert row["sha256"] == sha256(f"1 {COADD}".encode())
    assert row["context"] == "roman_0042.pmap"
    content = registry_content(root)
    assert any(cal() in made_from and COADD in made_from for made_from in content["inputs"])
    (stated,) = [row for row in content["transitions"] if COADD in row]
    assert {"removed", "superseded 90 days ago", "r0"} <= set(stated)


def test_what_is_superseded_stays_available_and_says_so(root):
    supersede(root, [COADD], **WHY)
    assert set(states(root, *skycell_set(1)).values()) == {"superseded"}
    assert set(Registry(root).products.find()["name"]) == {cal(), *skycell_set(1), *skycell_set(2)}
    assert set(skycell_set(1)) <= set(public_content(root))
    assert Registry(root).generations.current([COADD])[COADD].state == "superseded"


def test_a_dry_run_tells_what_would_go_and_changes_nothing(root):
    before = registry_content(root), public_content(root)
    would = remove(root, [COADD], **WHY, dry_run=True)
    assert (registry_content(root), public_content(root)) == before
    assert would.record_id is None
    did = remove(root, [COADD], **WHY)
    assert (did.transitions, did.size) == (would.transitions, would.size)
    assert did.size == sum(len(f"1 {name}") for name in skycell_set(1))


@pytest.mark.parametrize("retain", [remove, supersede])
def test_done_again_it_does_nothing(root, retain):
    retain(root, [COADD], **WHY)
    before = registry_content(root)
    again = retain(root, [COADD], **WHY)
    assert again.transitions == ()
    assert again.untouched == (COADD,)
    assert registry_content(root) == before


def test_a_generation_published_while_its_forerunner_is_removed_stays(root, monkeypatch):
    newer = dict.fromkeys(skycell_set(1), b"newer")

    def publish_first(root, report, clock):
        commit(root, newer)
        return committed(root, report, clock)

    committed = retention.committed
    monkeypatch.setattr(retention, "committed", publish_first)
    remove(root, [COADD], **WHY)
    assert {name: public_content(root)[name] for name in newer} == newer
    found = Registry(root).products.find(name=COADD, overwritten=True)
    assert list(found["state"]) == ["overwritten", "current"]


def test_what_is_made_again_after_its_removal_is_available(root):
    remove(root, [COADD], **WHY)
    commit(root, dict.fromkeys(skycell_set(1), b"again"))
    fold(root)
    assert public_content(root)[COADD] == b"again"
    found = Registry(root).products.find(name=COADD, overwritten=True)
    assert list(found["state"]) == ["removed", "current"]


def test_the_file_of_a_removed_product_is_kept_for_the_grace_period(root):
    sha = Registry(root).generations.current([COADD])[COADD].sha256
    remove(root, [COADD], **WHY)
    assert fsck(root, mend=True) == []
    assert FileArchive(root).blob(sha).exists()


def test_who_has_mapped_a_removed_product_keeps_its_content_even_when_it_is_collected(root):
    with FileArchive(root).path(ProductName.parse(COADD)).open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    remove(root, [COADD], **WHY)
    fsck(root, mend=True, grace=timedelta(0))
    assert sha256(mapped[:]) == sha256(f"1 {COADD}".encode())
    assert sha256(mapped[:]) not in {blob.sha256 for blob in FileArchive(root).blobs()}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-thing", "neither an official file name nor a file set"),
        (cal(7), "there never was such a product"),
        (cal(), "cannot be removed: L1, L2 and L4 of L2"),
        (CATALOGUE, "stays as long as .*_coadd.asdf"),
    ],
)
def test_what_must_stay_or_never_was_is_refused_with_its_reason(root, name, why):
    before = registry_content(root), public_content(root)
    with pytest.raises(BadInputError, match=why):
        remove(root, [skycell_set(2)[1], name], **WHY)
    assert (registry_content(root), public_content(root)) == before


def test_an_l4_whose_coadd_is_gone_can_be_removed(root):
    coadd = Registry(root).generations.current([COADD])[COADD]
    lost = change_of(coadd, coadd.record_id, Transition.LOST)
    commit(root, {}, transitions=(lost,))
    remove(root, [CATALOGUE], **WHY)
    assert states(root, COADD, CATALOGUE) == {COADD: "lost", CATALOGUE: "removed"}


@pytest.mark.parametrize("transition", [Transition.REMOVED, Transition.SUPERSEDED])
def test_no_record_can_state_what_does_not_happen_to_a_product(root, transition):
    entry = Registry(root).generations.current([cal()])[cal()]
    change = change_of(entry, entry.record_id, transition)
    with pytest.raises(ValueError, match="cannot be"):
        Journal(root).write(record_of(root, {}, transitions=(change,)))


def test_a_second_commit_under_a_versioned_name_is_never_shown(tmp_path):
    root = DataRoot(tmp_path)
    released = skycell_set(release="r0")[1]
    for number, content in enumerate((b"first", b"second"), start=1):
        commit(root, {released: content}, committed_at=moment(number))
        fold(root)
    assert public_content(root) == {released: b"first"}
    assert list(Registry(root).products.find(name=released, overwritten=True)["state"]) == [
        "current",
        "refused",
    ]
