from __future__ import annotations

import mmap
import os
import shutil
from datetime import timedelta

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import Survey
from roman_assets.products.retention_policy import STANDARD_PERIOD, RetentionPeriods
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.settings.retention_settings import retention_periods_of
from roman_assets.upkeep import sweep as sweep_module
from roman_assets.upkeep.fsck import collect_blobs, fsck
from roman_assets.upkeep.retention import supersede
from roman_assets.upkeep.sweep import Superseded, sweep
from roman_assets_tests.support.small_products import (
    SUPERSEDED_AT,
    cal,
    commit_names,
    damage,
    image_input,
    installed_with_release,
    public_content,
    registry_content,
    skycell_set,
)

COADD = skycell_set()[1]
PERIOD = timedelta(days=90)
OVER = SUPERSEDED_AT + PERIOD
ALL_AT_ONCE = {FindingKind.PARTIAL_SET}
AT_ONCE = timedelta(seconds=-1)
"""A grace period that is over, in a store whose clock knows whole seconds, too."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return installed_with_release(DataRoot(tmp_path_factory.mktemp("swept")))


@pytest.fixture
def root(template, tmp_path):
    shutil.copytree(template.path, tmp_path / "data", copy_function=os.link)
    return DataRoot(tmp_path / "data")


def due(root, now, **options):
    return set(Superseded.of(root, now, **options).due["name"])


def swept(root, now, **options):
    return sweep(root, clock=lambda: now, **options)


@pytest.mark.parametrize("late", [timedelta(0), 1000 * PERIOD])
def test_only_superseded_coadds_go_with_association_and_l4_when_their_time_is_over(root, late):
    report = swept(root, OVER + late)
    assert report.products == 4
    assert {cal(), *skycell_set(2), *skycell_set(1, "r0")} == set(public_content(root))


def test_a_sweep_frees_what_it_removes_wherever_the_archive_is(either_root):
    root = installed_with_release(either_root)
    assert swept(root, OVER).products == 4
    kept = {cal(), *skycell_set(2), *skycell_set(1, "r0")}
    assert set(public_content(root)) == kept
    freed = collect_blobs(root, grace=AT_ONCE)
    assert {finding.kind for finding in freed if finding.mended} == {FindingKind.ORPHAN_BLOB}
    assert set(public_content(root)) == kept
    assert {finding.kind for finding in fsck(root)} <= ALL_AT_ONCE


def test_nothing_goes_before_its_time(root):
    early = OVER - timedelta(microseconds=1)
    before = registry_content(root), public_content(root)
    assert swept(root, early).record_ids == ()
    assert (registry_content(root), public_content(root)) == before
    waiting = Superseded.of(root, early).waiting
    assert set(waiting["name"]) == set(skycell_set(1))
    assert set(waiting["remove_at"]) == {OVER}


def test_what_is_due_is_told_and_nothing_is_changed(root):
    before = registry_content(root), public_content(root)
    assert due(root, OVER) == set(skycell_set(1))
    assert (registry_content(root), public_content(root)) == before


def test_a_product_without_any_of_a_release_in_its_place_is_held_back_and_told(root):
    (other, *_) = (name for name in skycell_set(2) if "coadd" in name)
    supersede(root, [other], reason="said too early", cause="r1", clock=lambda: SUPERSEDED_AT)
    assert set(Superseded.of(root, OVER).held["name"]) == set(skycell_set(2))
    swept(root, OVER)
    assert set(skycell_set(2)) <= set(public_content(root))


@pytest.mark.parametrize("used", [(2,), (1,), (1, 2)], ids=["none", "one of two", "all"])
def test_a_release_takes_the_place_of_a_visit_only_with_all_its_exposures(tmp_path, used):
    root = DataRoot(tmp_path)
    for number in (1, 2, 3):
        commit_names(root, [cal(number)])
    made_from = (1,) if used == (2,) else (1, 2)
    commit_names(root, skycell_set(), inputs=tuple(map(image_input, made_from)))
    # of that skycell, released with another visit's image in any case
    inputs = tuple(map(image_input, (3, *used)))
    commit_names(root, skycell_set(1, "r0"), inputs=inputs, committed_at=SUPERSEDED_AT)
    supersede(root, [COADD], reason="r0", cause="r0", clock=lambda: SUPERSEDED_AT)
    swept(root, OVER)
    is_there = set(skycell_set()) <= set(public_content(root))
    assert is_there is (used != (1, 2))
    held = set(Superseded.of(root, OVER).held["name"])
    assert held == (set(skycell_set()) if is_there else set())


def test_the_record_of_what_was_swept_can_be_cited(root):
    report = swept(root, OVER)
    (row,) = Registry(root).generations.of([COADD])[COADD]
    assert (row.state, row.ended_at) == ("removed", OVER)
    (stated,) = [
        row
        for row in registry_content(root)["transitions"]
        if row[0] in report.record_ids and COADD in row
    ]
    assert "retention" in stated
    assert any("superseded by r0" in str(value) for value in stated)


def test_swept_again_there_is_nothing_to_do(root):
    swept(root, OVER)
    before = registry_content(root)
    assert swept(root, OVER).record_ids == ()
    assert registry_content(root) == before


def test_a_coadd_that_was_made_again_after_the_release_stays(root):
    commit_names(root, skycell_set(1), committed_at=SUPERSEDED_AT + timedelta(days=1))
    assert due(root, OVER) == set()


def test_a_generation_published_while_its_forerunner_is_swept_stays(root, monkeypatch):
    committed = sweep_module.commit_transitions

    def publish_first(root, transitions, clock):
        commit_names(root, skycell_set(1), committed_at=OVER - timedelta(seconds=1))
        return committed(root, transitions, clock)

    monkeypatch.setattr(sweep_module, "commit_transitions", publish_first)
    swept(root, OVER)
    assert set(skycell_set(1)) <= set(public_content(root))
    assert {one.state for one in Registry(root).generations.current(skycell_set(1)).values()} == {
        "current"
    }


def test_an_l4_made_again_alone_goes_with_its_coadd(root):
    catalogue = skycell_set(1)[2]
    commit_names(root, [catalogue], committed_at=SUPERSEDED_AT + timedelta(days=1))
    assert catalogue in due(root, OVER)


def test_a_lost_coadd_does_not_keep_its_l4_for_ever(root):
    blob = FileArchive(root).local(Registry(root).generations.current([COADD])[COADD].sha256)
    damage(blob, b"something else")
    fsck(root, mend=True)
    assert due(root, OVER) == set(skycell_set(1)) - {COADD}


def test_a_survey_can_have_a_period_of_its_own(root):
    periods = RetentionPeriods(timedelta(0), {Survey.HLWAS: PERIOD, Survey.GAS: 3 * PERIOD})
    assert due(root, OVER, periods=periods) == set(skycell_set(1))
    assert due(root, OVER - timedelta(seconds=1), periods=periods) == set()
    assert periods.of(None) == 3 * PERIOD


def dies_after_the_first():
    """Give a commit that does its work once, and is killed before it does it again."""
    commit, done = sweep_module.commit_transitions, []

    def dying(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(commit(*arguments))
        return done[0]

    return dying


def test_many_file_sets_go_by_several_records_and_a_killed_sweep_is_finished(root, monkeypatch):
    monkeypatch.setattr(sweep_module, "FILE_SETS_A_RECORD", 1)
    cells = (3, 4)
    # the fold puts what is committed late after what it has folded of the visit
    over = OVER + timedelta(seconds=1)
    for cell in cells:
        commit_names(root, skycell_set(cell))
        commit_names(root, skycell_set(cell, "r0"))
    coadds = [skycell_set(cell)[1] for cell in cells]
    supersede(root, coadds, reason="r0", cause="r0", clock=lambda: SUPERSEDED_AT)
    with monkeypatch.context() as dying:
        dying.setattr(sweep_module, "commit_transitions", dies_after_the_first())
        with pytest.raises(KeyboardInterrupt):
            swept(root, over)
    assert len(due(root, over)) == 8
    report = swept(root, over)
    assert (report.products, len(report.record_ids)) == (8, 2)
    assert due(root, over) == set()
    of_record = {}
    for record in Journal(root).records():
        if record.record_id in report.record_ids:
            sets = {change.name.rpartition("_")[0] for change in record.transitions}
            of_record[record.record_id] = sets
    assert all(len(sets) == 1 for sets in of_record.values())


def blob_bytes(root):
    return sum(path.stat().st_blocks for path in root.blobs.rglob("*") if path.is_file())


def test_the_bytes_of_what_was_swept_are_freed_after_the_grace_period(root):
    swept_blobs = [
        FileArchive(root).local(entry.sha256)
        for entry in Registry(root).generations.current(skycell_set(1)).values()
    ]
    before = blob_bytes(root)
    swept(root, OVER)
    assert collect_blobs(root, grace=timedelta(days=1)) == []
    assert all(path.is_file() for path in swept_blobs)
    freed = collect_blobs(root, grace=timedelta(0))
    assert {finding.kind for finding in freed if finding.mended} == {FindingKind.ORPHAN_BLOB}
    assert not any(path.exists() for path in swept_blobs)
    assert blob_bytes(root) < before
    assert {finding.kind for finding in fsck(root)} <= ALL_AT_ONCE


def test_a_reader_who_has_a_swept_file_open_keeps_it(tmp_path):
    root = installed_with_release(DataRoot(tmp_path))
    path = FileArchive(root).path(Registry(root).generations.current([COADD])[COADD].product_name)
    content = path.read_bytes()
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        swept(root, OVER)
        collect_blobs(root, grace=timedelta(0))
        assert not path.exists()
        assert os.fstat(stream.fileno()).st_nlink == 0
        assert mapped[:] == content == stream.read()


def test_no_blob_is_collected_while_the_registry_is_damaged(root):
    swept(root, OVER)
    blobs = {path: path.stat().st_ino for path in root.blobs.rglob("*") if path.is_file()}
    (segment, *_) = Journal(root).segments()
    damage(segment, b"rubbish\n")
    found = collect_blobs(root, grace=timedelta(0))
    assert found
    assert not any(finding.mended for finding in found)
    assert {path: path.stat().st_ino for path in root.blobs.rglob("*") if path.is_file()} == blobs


def test_the_registry_rebuilt_after_a_sweep_is_the_same(root):
    swept(root, OVER)
    fold(root)
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded


def test_without_a_file_the_standard_period_holds(tmp_path):
    assert retention_periods_of(DataRoot(tmp_path)) == RetentionPeriods(STANDARD_PERIOD)


def test_the_settings_file_is_what_the_sweep_goes_by(root):
    (root.path / "retention.toml").write_text("version = 1\ndays = 2\n[surveys]\nHLWAS = 1.5\n")
    assert due(root, SUPERSEDED_AT + timedelta(days=1.5)) == set(skycell_set(1))
    assert due(root, SUPERSEDED_AT + timedelta(days=1.4)) == set()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("no toml", "file"),
        ("days = 3", "version"),
        ("version = 1\ndays = -1", "days"),
        ("version = 1\ndays = nan", "days"),
        ("version = 1\n[surveys]\nHLWES = 3", "surveys.HLWES"),
        ("version = 1\nweeks = 3", "weeks"),
    ],
)
def test_settings_that_cannot_be_used_name_file_and_field(tmp_path, text, field):
    (tmp_path / "retention.toml").write_text(text)
    with pytest.raises(BadInputError) as caught:
        retention_periods_of(DataRoot(tmp_path))
    assert caught.value.source == str(tmp_path / "retention.toml")
    assert caught.value.field.startswith(field)
