"""One installation on several machines: what each publishes, all of them find, whole and once."""

import json
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from roman_assets.access import Role
from roman_assets.archive.object_archive import ObjectArchive
from roman_assets.archive.object_store import ObjectStore
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, PassingFaultError
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import reusable
from roman_assets.reader.archive_reader import open_archive
from roman_assets.records import record_files
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import fold_lock as fold_lock_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.registry.store.fold_lock import fold_lock
from roman_assets.upkeep.fsck import FindingKind, fsck
from roman_assets_tests.support.s3_server import PUBLIC_KEY
from roman_assets_tests.support.small_products import (
    association,
    cal,
    moment,
    public_content,
    publish_associations,
    record_of,
    registry_content,
)

KILLING = "roman_assets_tests.support.killing_hosts"
PROJECT = Path(__file__).parents[3]
LATER = timedelta(seconds=-1)
"""A grace period by which everything is old, in a store whose clock knows whole seconds."""


@pytest.fixture
def hosts(tmp_path, object_store):
    return [DataRoot(tmp_path / name, object_store) for name in ("one", "two")]


@pytest.fixture
def plain(object_store):
    return S3Store.from_url(object_store, client_options={"allow_http": True})


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(fold_lock_module, "LEASE", 0.5)
    monkeypatch.setattr(fold_lock_module, "RENEWAL", 0.15)
    monkeypatch.setattr(fold_lock_module, "LOOKS", 0.02)


def faults(root, **options):
    """Check; that associations are published without their coadds is not the point here."""
    return [finding for finding in fsck(root, **options) if finding.kind != FindingKind.PARTIAL_SET]


def kinds(findings):
    return [finding.kind for finding in findings]


def generations(root):
    found = Registry(root).products.find(overwritten=True)
    return sorted(zip(found["name"], found["generation"], strict=True))


def test_what_one_machine_publishes_all_find_when_it_returns(hosts, tmp_path, object_store):
    one, two = hosts
    three = DataRoot(tmp_path / "three", object_store)
    seen_by_two, seen_by_all = Registry(two), Registry(three, Role.PUBLIC)
    for number, (host, text) in enumerate([(one, "a"), (two, "b"), (one, "c")], start=1):
        result = publish_associations(host, {1: text})
        for registry in (seen_by_two, seen_by_all):
            assert list(registry.products.find()["generation"]) == [number]
        assert (
            seen_by_two.generations.current([association(1)])[association(1)].sha256
            == result.made[0].sha256
        )
        assert f'"{text}"'.encode() in public_content(two)[association(1)]
    assert faults(one) == faults(two) == []


def test_work_that_one_machine_did_another_reuses(hosts):
    result = publish_associations(hosts[0], {1: "a", 2: "b"})
    planned = {entry.name: entry.fingerprint for entry in result.made}
    assert set(reusable(hosts[1], planned)) == set(planned)


def test_machines_that_publish_at_once_lose_and_double_nothing(tmp_path, object_store):
    hosts = [DataRoot(tmp_path / name, object_store) for name in ("one", "two", "three")]
    made = []

    def publish(host):
        for number in range(2):
            result = publish_associations(hosts[host], {number % 2: f"{host} {number}"})
            made.extend((result.record_id, entry.name, entry.sha256) for entry in result.made)

    threads = [threading.Thread(target=publish, args=(host,)) for host in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Registry(hosts[0]).products.find(overwritten=True)
    rows = sorted(zip(found["record_id"], found["name"], found["sha256"], strict=True))
    assert rows == sorted(made)
    assert len(made) == 6
    assert faults(hosts[1]) == []
    folded = registry_content(hosts[0])
    rebuild(hosts[2])
    assert registry_content(hosts[0]) == folded


class Killed(BaseException):
    """Stands for the end of the process at this place."""


@pytest.mark.parametrize("place", ["_link", "publish_snapshot"])
def test_a_fold_that_died_on_one_machine_is_finished_by_another(
    hosts, monkeypatch, short_lease, place
):
    one, two = hosts
    publish_associations(one, {1: "old", 2: "other"})
    whole = getattr(fold_module, place)

    def dying(*arguments):
        whole(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fold_module, place, dying)
        with pytest.raises(Killed):
            publish_associations(one, {1: "new"})
    fold(two)
    assert generations(one) == generations(two) == [
        (association(1), 1), (association(1), 2), (association(2), 1)
    ]  # fmt: skip
    assert b'"new"' in public_content(one)[association(1)]
    assert Journal(one).pending_paths() == []
    folded = registry_content(two)
    rebuild(two)
    assert registry_content(one) == folded


def test_a_machine_that_stalls_while_it_folds_publishes_nothing_stale(
    hosts, monkeypatch, short_lease
):
    one, two = hosts
    publish_associations(one, {1: "old"})
    monkeypatch.setattr(fold_lock_module, "RENEWAL", 3600.0)
    show, stalled = ObjectArchive.show, []

    def stall(archive, contents, fence):
        if not stalled:
            stalled.append(archive)
            publish_associations(two, {1: "newest"})
        return show(archive, contents, fence)

    monkeypatch.setattr(ObjectArchive, "show", stall)
    with pytest.raises(PassingFaultError, match="another machine"):
        publish_associations(one, {1: "new"})
    assert b'"newest"' in public_content(one)[association(1)]
    fold(one)
    assert [number for _, number in generations(one)] == [1, 2, 3]
    assert b'"newest"' in public_content(one)[association(1)]
    assert faults(one) == []


def test_a_record_is_durable_before_it_is_folded(hosts):
    one, two = hosts
    Journal(one).write(record_of(one, {cal(1): b"a"}))
    assert [record.partition for record in Journal(two).records()]
    fold(two)
    assert public_content(one) == {cal(1): b"a"}


def test_general_users_need_no_more_than_the_public_trees(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "astropy").mkdir(parents=True)
    for text in ("a", "b"):
        (entry,) = publish_associations(hosts[0], {1: text}).made
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", PUBLIC_KEY)
    archive = open_archive(hosts[0].object_store)
    assert list(archive.find()["name"]) == [entry.name]
    assert archive.open(entry.name)["note"] == "b"
    assert archive.copy(entry.name, tmp_path).read_bytes() == archive.path(entry.name).read_bytes()
    assert list(archive.history(entry.name)["generation"]) == [1, 2]
    for forbidden in (
        lambda: open_archive(hosts[0].object_store, role="operations").find(),
        lambda: Archive.of(hosts[0]).content_hash(entry.sha256),
        lambda: Journal(hosts[0]).pending_paths(),
        lambda: publish_associations(hosts[1], {1: "forged"}),
    ):
        with pytest.raises(AccessDeniedError, match=r"refuses this.*Remedy"):
            forbidden()


def test_many_folds_leave_few_segments(hosts, monkeypatch):
    monkeypatch.setattr("roman_assets.records.journal.MERGED_AT", 2)
    for number in range(4):
        publish_associations(hosts[number % 2], {1: str(number)})
    assert len(Journal(hosts[0]).segments()) == 2
    assert len(list(Journal(hosts[1]).records())) == 4
    rebuild(hosts[1])
    assert len(generations(hosts[0])) == 4


def test_a_new_machine_needs_no_more_than_the_object_store(hosts, tmp_path, object_store):
    publish_associations(hosts[0], {1: "a"})
    fresh = DataRoot(tmp_path / "fresh", object_store)
    result = publish_associations(fresh, {1: "b"})
    assert [number for _, number in generations(hosts[0])] == [1, 2]
    assert Archive.of(hosts[0]).path(result.made[0].product_name).is_file()


def test_an_installation_on_disk_stays_as_it_was_when_the_setting_changes(tmp_path, object_store):
    disk, shared = DataRoot(tmp_path), DataRoot(tmp_path, object_store)
    publish_associations(disk, {1: "a"})
    before = registry_content(disk)
    publish_associations(shared, {2: "b"})
    faults(shared, mend=True, grace=LATER)
    rebuild(shared)
    assert [name for name, _ in generations(shared)] == [association(2)]
    assert registry_content(disk) == before
    assert faults(disk) == []


@pytest.mark.parametrize("harm", ["tiers", pytest.param("snapshot.json", marks=pytest.mark.slow)])
def test_a_lost_registry_is_made_again_from_the_records(hosts, plain, harm):
    publish_associations(hosts[0], {1: "a"})
    folded = registry_content(hosts[0])
    lost = [meta["path"] for meta in obstore.list(plain, "registry").collect()]
    obstore.delete(plain, [path for path in lost if harm in path])
    fold(hosts[1])
    assert registry_content(hosts[1]) == folded
    assert faults(hosts[1]) == []


def test_a_damaged_record_is_set_aside_and_stops_nothing(hosts, plain):
    one, two = hosts
    publish_associations(one, {1: "a"})
    Journal(one).write(record_of(one, {cal(1): b"good"}, committed_at=moment(1)))
    Journal(one).write(record_of(one, {cal(2): b"bad"}, committed_at=moment(2)))
    damaged = Journal(one).pending_paths()[-1]
    obstore.put(plain, one.key(damaged), b"damaged")
    assert len(fold(two).damaged) == 1
    assert set(public_content(one)) == {association(1), cal(1)}
    (segment, *_) = Journal(two).segments()
    content, _ = ObjectStore(one.object_store).read(two.key(segment))
    obstore.put(plain, two.key(segment), b"damaged\n" + content)
    assert kinds(faults(one)) == [FindingKind.DAMAGED_RECORD]
    faults(one, mend=True)
    assert faults(two) == []
    assert [case.content.read_bytes() for case in SetAside(one).list()] == [b"damaged"]


def test_a_damaged_copy_of_a_segment_costs_no_record(hosts):
    one, _ = hosts
    publish_associations(one, {1: "a"})
    (segment,) = Journal(one).segments()
    segment.chmod(0o644)
    segment.write_bytes(b"x" * segment.stat().st_size)
    assert faults(one, mend=True) == []
    rebuild(one)
    assert len(generations(one)) == 1


def test_a_public_name_that_differs_from_the_records_is_mended(hosts, plain):
    entries = publish_associations(hosts[0], {1: "a", 2: "b"}).made
    before = public_content(hosts[0])
    hidden, forged = (
        f"archive/public/{Archive.public_key(entry.product_name)}" for entry in entries
    )
    obstore.delete(plain, [hidden])
    obstore.put(plain, forged, b"forged")
    assert kinds(faults(hosts[1])) == [FindingKind.WRONG_PUBLIC_NAME] * 2
    assert all(finding.mended for finding in faults(hosts[1], mend=True))
    assert faults(hosts[0]) == []
    assert public_content(hosts[0]) == before


def test_lost_damaged_and_orphan_blobs_and_strangers_are_mended(hosts, plain):
    one, two = hosts
    first, second = publish_associations(one, {1: "a", 2: "b"}).made
    publish_associations(one, {1: "c"})
    obstore.put(plain, "archive/public/L2/stranger.asdf", b"?")
    blobs = {entry.name: f"archive/blobs/{entry.sha256[:2]}/{entry.sha256}" for entry in (second,)}
    obstore.delete(plain, [blobs[second.name]])
    assert sorted(kinds(faults(two, grace=LATER))) == [
        FindingKind.MISSING_BLOB, FindingKind.ORPHAN_BLOB, FindingKind.UNKNOWN_PUBLIC_NAME
    ]  # fmt: skip
    assert all(finding.mended for finding in faults(two, mend=True, grace=LATER))
    assert faults(one, grace=LATER) == []
    assert not Archive.of(one).has_blob(first.sha256, first.size)

    obstore.put(plain, blobs[second.name], b"x" * second.size)
    assert kinds(faults(two)) == [FindingKind.WRONG_BLOB]
    faults(two, mend=True)
    assert association(2) not in public_content(one)
    assert len(SetAside(two).list()) == 1
    publish_associations(one, {2: "b"})
    assert faults(two) == []


def test_who_cannot_reach_the_store_is_told_and_what_is_published_stays(hosts, monkeypatch):
    publish_associations(hosts[0], {1: "a"})
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setattr("roman_assets.archive.object_store.RETRIES", {"max_retries": 0})
        for work in (
            lambda: Registry(hosts[0]).products.find(),
            lambda: publish_associations(hosts[0], {1: "b"}),
            lambda: fold(hosts[0]),
            lambda: faults(hosts[0]),
        ):
            with pytest.raises(PassingFaultError, match=r"127.0.0.1:9 fails.*Remedy"):
                work()
    assert generations(hosts[0]) == [(association(1), 1)]


def test_nothing_of_a_step_is_visible_if_its_record_cannot_be_written(hosts, monkeypatch):
    def unreachable(*_):
        raise PassingFaultError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(record_files.ObjectRecords, "commit", unreachable)
        with pytest.raises(PassingFaultError):
            publish_associations(hosts[0], {1: "a"})
    assert not public_content(hosts[1])
    assert generations(hosts[1]) == []
    faults(hosts[1], mend=True, grace=LATER)
    assert not list(Archive.of(hosts[0]).blobs())


def test_the_lock_of_one_machine_holds_back_the_others(hosts, short_lease, monkeypatch):
    monkeypatch.setattr(fold_lock_module, "PATIENCE", 0.3)
    Journal(hosts[1]).write(record_of(hosts[1], {cal(1): b"a"}))
    with fold_lock(hosts[0]), pytest.raises(PassingFaultError, match="lease of s3://"):
        fold(hosts[1])
    fold(hosts[1])
    assert Archive.of(hosts[0]).is_public(ProductName.parse(cal(1)))


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_on_several_machines_lose_double_or_spoil_nothing(
    tmp_path, object_store, short_lease, kills
):
    command = [sys.executable, "-m", KILLING, str(tmp_path), object_store, str(kills)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, cwd=PROJECT)
    acknowledged, failures = json.loads(done.stdout)
    assert acknowledged, "nothing was published"
    assert failures == []

    root = DataRoot(tmp_path / "afterwards", object_store)
    fold(root)
    assert faults(root) == []
    found = Registry(root).products.find(overwritten=True)
    made = Counter(zip(found["record_id"], found["name"], found["sha256"], strict=True))
    assert set(made.values()) == {1}
    assert {tuple(line) for line in acknowledged} <= made.keys()
    for _, rows in found.groupby("name"):
        ordered = rows.sort_values("committed_at")
        assert list(ordered["generation"]) == list(range(1, len(ordered) + 1))
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded
