"""Faults that stop no fold, and the damage after which the registry rebuilds itself."""

import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from roman_assets.access import Role
from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import tiers as tiers_module
from roman_assets.registry.store.fold import all_folded, fold, rebuild
from roman_assets.registry.store.repair import REBUILD_VARIABLE
from roman_assets.registry.store.snapshot import SNAPSHOT
from roman_assets.registry.store.tiers import TieredDatabase
from roman_assets.upkeep.fsck import collect_blobs, fsck
from roman_assets_tests.support.small_products import (
    cal,
    commit,
    damage,
    moment,
    public_content,
    tiers,
)


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def test_nothing_that_may_fold_runs_under_the_fold_lock(root):
    commit(root, {cal(): b"a"})
    for work in (fold, rebuild, collect_blobs):
        with all_folded(root), pytest.raises(RuntimeError, match="already"):
            work(root)


def test_a_blob_with_all_the_links_it_can_have_is_shown_by_copies(root):
    commit(root, {cal(1): b"same"})
    fold(root)
    (blob,) = (path for path in root.blobs.rglob("*") if path.is_file())
    most = os.pathconf(blob, "PC_LINK_MAX")
    if most > 100_000:
        pytest.skip("this file system allows too many links to use them up")
    links = root.path / "links"
    links.mkdir()
    for number in range(most - blob.stat().st_nlink):
        os.link(blob, links / str(number))
    commit(root, {cal(2): b"same", cal(3): b"other"})
    assert fold(root).unshown == {}
    assert public_content(root) == {cal(1): b"same", cal(2): b"same", cal(3): b"other"}
    archive = FileArchive(root)
    assert archive.public_path(ProductName.parse(cal(2))).stat().st_mode & 0o222 == 0
    assert [one.kind for one in fsck(root)] == []


def test_a_name_that_the_file_system_refuses_is_a_finding_and_stops_no_fold(root):
    commit(root, {cal(1): b"a"})
    fold(root)
    refused = FileArchive(root).public_path(ProductName.parse(cal(2)))
    (refused / "in the way").mkdir(parents=True)
    commit(root, {cal(2): b"b", cal(3): b"c"})
    assert set(fold(root).unshown) == {cal(2)}
    assert public_content(root)[cal(3)] == b"c"
    found = [one for one in fsck(root) if one.subject == cal(2)]
    assert [one.kind for one in found] == [FindingKind.WRONG_PUBLIC_NAME]


def test_an_error_that_is_no_damage_comes_as_it_is_and_rebuilds_nothing(root, monkeypatch):
    commit(root, {cal(1): b"a"})
    fold(root)
    before = tiers(root)

    def fails(*_, **__):
        raise duckdb.OutOfMemoryException("out of memory")

    commit(root, {cal(2): b"b"})
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "apply_records", fails)
        with pytest.raises(duckdb.OutOfMemoryException):
            fold(root)
    assert tiers(root) == before
    assert SetAside(root).list() == ()
    fold(root)
    assert len(Registry(root).products.find()) == 2


def test_only_damage_writes_the_public_part_of_a_tier_anew(root, monkeypatch):
    commit(root, {cal(1): b"a"})
    fold(root)
    before = tiers(root)

    def fails(*_, **__):
        raise duckdb.OutOfMemoryException("out of memory")

    commit(root, {cal(2): b"b"})
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "MOST_BYTES", 0)
        patch.setattr(tiers_module, "append_to_public_tier", fails)
        with pytest.raises(duckdb.OutOfMemoryException):
            fold(root)
    assert tiers(root) == before
    fold(root)
    assert len(Registry(root, Role.PUBLIC).products.find()) == 2


def test_damage_rebuilds_a_small_registry_and_is_told(root):
    commit(root, {cal(1): b"a"})
    fold(root)
    damage(tiers(root)[0], b"garbage" * 1000)
    commit(root, {cal(2): b"b"})
    fold(root)
    assert len(Registry(root).products.find()) == 2
    (case,) = SetAside(root).list()
    assert "the registry was rebuilt" in case.reason


def test_a_registry_of_another_version_is_rebuilt_and_no_damage(root):
    commit(root, {cal(1): b"a"})
    fold(root)
    snapshot = root.registry / SNAPSHOT
    damage(snapshot, json.dumps(json.loads(snapshot.read_bytes()) | {"schema": "old"}).encode())
    commit(root, {cal(2): b"b"})
    fold(root)
    assert len(Registry(root).products.find()) == 2
    assert SetAside(root).list() == ()


@pytest.mark.parametrize("place", ["tier", "snapshot"])
def test_a_large_registry_is_rebuilt_by_a_person_only(root, monkeypatch, place):
    commit(root, {cal(1): b"a"})
    fold(root)
    damage({"tier": tiers(root)[0], "snapshot": root.registry / SNAPSHOT}[place], b"garbage")
    commit(root, {cal(2): b"b"})
    monkeypatch.setenv(REBUILD_VARIABLE, "0.0001")
    for _ in range(2):
        with pytest.raises(PassingFaultError, match="roman-assets rebuild"):
            fold(root)
    rebuild(root)
    assert len(Registry(root).products.find()) == 2


@pytest.mark.parametrize("role", Role)
def test_what_does_not_fit_into_memory_goes_to_a_private_place(root, monkeypatch, tmp_path, role):
    commit(root, {cal(1): b"a"})
    fold(root)
    monkeypatch.chdir(tmp_path)
    database = TieredDatabase(root, role)
    (spill,) = database.connection.execute("select current_setting('temp_directory')").fetchone()
    database.close()
    if role is Role.OPERATIONS:
        assert spill.startswith(str(root.registry / "spill"))
        assert (root.registry / "spill").stat().st_mode & 0o077 == 0
    assert Path(spill).is_absolute()
    assert Path(spill).parent != tmp_path


def test_a_clock_stepped_forward_frees_no_blob_that_is_about_to_be_published(root, monkeypatch):
    archive = FileArchive(root)
    source = root.path / "new.asdf"
    root.path.mkdir(exist_ok=True)
    with archive.claiming():
        source.write_bytes(b"staged")
        staged = archive.stage(source)
        monkeypatch.setattr(FileArchive, "now", lambda _: staged.staged_at + 10**9 * 200_000)
        assert collect_blobs(root) == []
    assert archive.has_blob(staged.sha256, staged.size)
    assert [one.mended for one in collect_blobs(root)] == [True]
    assert not archive.has_blob(staged.sha256, staged.size)


def test_a_leftover_that_its_writer_removes_meanwhile_is_no_error(root):
    commit(root, {cal(1): b"a"}, committed_at=moment(0))
    fold(root)
    root.staging.mkdir(parents=True, exist_ok=True)
    is_over = threading.Event()
    places = [root.staging / str(number) for number in range(2_000)]
    for place in places:
        place.touch()

    def write() -> None:
        for place in itertools.cycle(places):
            place.unlink()
            place.with_suffix(".next").touch()
            place.with_suffix(".next").rename(place)
            if is_over.is_set():
                return

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        try:
            for _ in range(5):
                found = fsck(root, grace=timedelta(seconds=-1), read_blobs=False)
        finally:
            is_over.set()
        writing.result()
    assert {one.kind for one in found} == {FindingKind.LEFTOVER}
