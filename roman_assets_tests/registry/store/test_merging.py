"""Merging tiers while others publish: never in a publishing step, never wrong."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.products.lifecycle import Transition
from roman_assets.registry.catalog.schema import tables_seen_by
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import compaction as compaction_module
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import new_tier as new_tier_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.registry.store.fold_lock import fold_lock
from roman_assets.registry.store.merging import MergeReport, merge_due_tiers
from roman_assets_tests.support.small_products import (
    archived,
    cal,
    change_of,
    commit,
    moment,
    public_content,
    record_of,
    registry_content,
    tiers,
)

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def every_fold_fills_a_tier(monkeypatch):
    monkeypatch.setattr(new_tier_module, "FULL", 1)
    monkeypatch.setattr(fold_module, "MOST_BYTES", 0)


@pytest.fixture
def root(tmp_path, every_fold_fills_a_tier):
    return DataRoot(tmp_path)


def published(root, contents, **fields):
    record = commit(root, contents, **fields)
    fold(root)
    return record


def filled(root, number=4):
    for one in range(number):
        published(root, {cal(1): b"%d" % one, cal(one + 2): b"b"}, committed_at=moment(one))


def test_publishing_merges_nothing(root):
    filled(root, 6)
    assert len(tiers(root)) == 6


def test_merged_tiers_say_what_they_said(either_root, every_fold_fills_a_tier):
    root = either_root
    filled(root)
    before, shown = registry_content(root), public_content(root)
    assert merge_due_tiers(root) == MergeReport(merged=4, made=1)
    assert len(tiers(root)) == 1
    assert registry_content(root) == before
    assert public_content(root) == shown
    assert len(Registry(root, Role.PUBLIC).products.find(overwritten=True)) == 8
    assert merge_due_tiers(root) == MergeReport()


def test_publishing_goes_on_while_tiers_are_merged(root, monkeypatch):
    """The fold lock is free for as long as the merge takes."""
    filled(root)
    fill = compaction_module.fill_merged

    def publish_meanwhile(*arguments):
        monkeypatch.undo()
        fill(*arguments)
        published(root, {cal(1): b"meanwhile"}, committed_at=moment(50))

    monkeypatch.setattr("roman_assets.registry.store.merging.fill_merged", publish_meanwhile)
    merge_due_tiers(root)
    assert public_content(root)[cal(1)] == b"meanwhile"
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded


def test_a_merge_that_a_rebuild_has_overtaken_changes_nothing(root, monkeypatch):
    filled(root)
    fill = compaction_module.fill_merged
    monkeypatch.setattr(
        "roman_assets.registry.store.merging.fill_merged",
        lambda *arguments: (fill(*arguments), rebuild(root)),
    )
    content = registry_content(root)
    assert merge_due_tiers(root) == MergeReport()
    assert registry_content(root) == content
    assert not list((root.registry / "tiers").glob(".*"))


MERGE = """
import os, signal, sys
from pathlib import Path
from roman_assets.data_root import DataRoot
from roman_assets.registry.store import merging, new_tier
new_tier.FULL = 1
fill = merging.fill_merged
def stop(*arguments):
    merging.fill_merged = fill
    fill(*arguments)
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
merging.fill_merged = stop
merging.merge_due_tiers(DataRoot(Path(sys.argv[1])))
print("merged", flush=True)
"""


@pytest.mark.parametrize("then", [signal.SIGKILL, signal.SIGCONT])
def test_a_merge_that_is_stopped_or_killed_holds_up_nobody_and_leaves_nothing_wrong(root, then):
    filled(root)
    process = subprocess.Popen(
        [sys.executable, "-c", MERGE, str(root.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    published(root, {cal(1): b"meanwhile"}, committed_at=moment(50))
    assert merge_due_tiers(root, waits=False) == MergeReport()
    os.kill(process.pid, then)
    process.communicate()
    assert merge_due_tiers(root).made <= 1
    assert public_content(root)[cal(1)] == b"meanwhile"
    folded = registry_content(root)
    assert len(Registry(root).products.find()) == 5
    rebuild(root)
    assert registry_content(root) == folded


def test_merging_takes_no_longer_than_naming_under_the_lock(root):
    filled(root)
    reached = threading.Event()
    with fold_lock(root, "something else"):
        merging = threading.Thread(target=lambda: (merge_due_tiers(root), reached.set()))
        merging.start()
        time.sleep(0.2)
        while not list((root.registry / "tiers").glob(".*")):
            time.sleep(0.02)
        assert not reached.is_set()
    merging.join()
    assert len(tiers(root)) == 1


def test_a_merge_gives_way_to_publishing_and_its_process_does_not(root, monkeypatch):
    filled(root)
    fill, priorities = compaction_module.fill_merged, []

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def look(*arguments):
        priorities.append(priority())
        fill(*arguments)

    before = priority()
    monkeypatch.setattr("roman_assets.registry.store.merging.fill_merged", look)
    merge_due_tiers(root)
    assert priorities == [19]
    assert priority() == before


def test_a_merge_that_is_too_large_for_now_is_left(root):
    filled(root)
    assert merge_due_tiers(root, largest=1) == MergeReport()
    assert len(tiers(root)) == 4


MOSAIC = "r00010_r0_v01001001001001_270p65x01y50_f158_coadd.asdf"


def test_publishing_a_release_shows_all_of_it_and_rewrites_no_older_tier(root):
    values = archived("wfi_mosaic", {"instrument.optical_element": "F158"})
    hidden = published(
        root, {MOSAIC: b"mosaic"}, access=Role.OPERATIONS, committed_at=moment(0), **values
    )
    filled(root, 3)
    before = {path: path.stat().st_mtime_ns for path in tiers(root)}
    (entry,) = hidden.products
    published(
        root,
        {},
        transitions=(change_of(entry, hidden.record_id, Transition.PUBLISHED),),
        committed_at=moment(60),
    )
    kept = {path: path.stat().st_mtime_ns for path in tiers(root) if path in before}
    assert kept == before
    for step in (lambda: None, lambda: filled(root, 1), lambda: merge_due_tiers(root)):
        step()
        with Registry(root, Role.PUBLIC) as registry:
            assert MOSAIC in set(registry.products.find()["name"])
            assert list(registry.archive.archive_rows("WFIMosaic")["name"]) == [MOSAIC]
    with Registry(root) as registry:
        assert list(registry.archive.archive_rows("WFIMosaic")["name"]) == [MOSAIC]
    assert public_content(root)[MOSAIC] == b"mosaic"


def test_what_a_published_product_was_made_from_is_public_once_whatever_follows(root):
    inputs = tuple(entry for entry in record_of(root, {cal(9): b"x"}).products)
    hidden = published(
        root,
        {MOSAIC: b"mosaic"},
        access=Role.OPERATIONS,
        committed_at=moment(0),
        inputs=tuple({"name": one.name, "sha256": one.sha256} for one in inputs),
    )
    (entry,) = hidden.products
    for second, transition in enumerate([Transition.PUBLISHED, Transition.LOST], start=1):
        change = change_of(entry, hidden.record_id, transition)
        published(root, {}, transitions=(change,), committed_at=moment(second))
        with Registry(root, Role.PUBLIC) as registry, registry.snapshot.connection() as connection:
            found = connection.execute("select name, input_name from inputs").fetchall()
        assert found == [(MOSAIC, cal(9))]


def public_rows(root):
    with Registry(root, Role.PUBLIC) as registry, registry.snapshot.connection() as connection:
        return {
            table.name: connection.execute(f"select * from {table.name} order by all").fetchall()
            for table in tables_seen_by(Role.PUBLIC)
        }


def test_what_the_public_knows_is_the_same_however_it_was_folded(tmp_path):
    """Folds that only add append to the public part; others, and rebuilds, write it anew."""
    root = DataRoot(tmp_path)
    source = {"name": cal(9), "sha256": "0" * 64}
    for number, access in enumerate([Role.PUBLIC, Role.PUBLIC, Role.OPERATIONS, Role.PUBLIC]):
        published(
            root,
            {cal(number + 1): b"%d" % number},
            access=access,
            inputs=(source,),
            committed_at=moment(number),
            metadata={"ra": 10.0, "dec": 5.0},
        )
    published(root, {cal(1): b"new"}, committed_at=moment(10))
    published(root, {cal(5): b"last"}, committed_at=moment(11))
    appended = public_rows(root)
    assert len(appended["products"]) == 5
    rebuild(root)
    assert public_rows(root) == appended
