"""Fresh rows: what the latest folds added is in the snapshot, and says what a tier would say."""

import json
import os

import pytest

from roman_assets.access import Role
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.lifecycle import Transition
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import fresh_tier as fresh_tier_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.registry.store.snapshot import SNAPSHOT, read_snapshot
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import (
    archived,
    cal,
    change_of,
    commit,
    damage,
    moment,
    record_of,
    registry_content,
    tiers,
)


@pytest.fixture
def root(tmp_path):
    root = DataRoot(tmp_path)
    commit(root, {cal(1): b"a"}, committed_at=moment(0))
    fold(root)
    return root


def add(root, number, **fields):
    record = commit(root, {cal(number): b"b"}, committed_at=moment(number), **fields)
    fold(root)
    return record


def found(root, role=Role.OPERATIONS):
    return set(Registry(root, role).products.find()["name"])


def test_a_fold_of_few_records_writes_no_tier_and_everyone_sees_them(root):
    before = tiers(root)
    for number in (2, 3, 4):
        place = {"ra": 10.0, "dec": number, "radius": 0.01}
        footprint = f"POLYGON ICRS 10 {number} 10.01 {number} 10.01 {number}.01"
        add(root, number, metadata={**place, "footprint": footprint})
        assert found(root) == found(root, Role.PUBLIC) == set(map(cal, range(1, number + 1)))
    assert tiers(root) == before
    assert set(Registry(root, Role.PUBLIC).products.find(cone=(10.0, 3.0, 0.1))["name"]) == {cal(3)}
    assert fsck(root) == []


def test_a_rebuilt_registry_has_the_content_of_fresh_rows(root):
    for number in (2, 3):
        about = archived("wfi_image", {"exposure.type": "WFI_IMAGE", "visit.nexposures": "two"})
        events = {ClockEvent.FIRST_PACKET: moment(number)}
        metadata = {"ra": 1e-7, "dec": -1.5, "note": "\u2028"}
        add(root, number, metadata=metadata, events=events, **about)
    held = set(read_snapshot(root.registry).fresh.tables)
    assert held > {"records", "products", "places", "events", "unfit_values", "WFIExposure"}
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded


def test_fresh_rows_become_a_tier_when_there_are_many(root, monkeypatch):
    add(root, 2)
    monkeypatch.setattr(fold_module, "MOST_BYTES", 1)
    add(root, 3)
    assert read_snapshot(root.registry).fresh.tables == {}
    assert found(root) == found(root, Role.PUBLIC) == set(map(cal, (1, 2, 3)))


def test_what_happens_to_fresh_rows_shows(root):
    first = add(root, 2)
    second = commit(root, {cal(2): b"new"}, committed_at=moment(3))
    fold(root)
    add(root, 4)
    change = change_of(second.products[0], second.record_id, Transition.WITHDRAWN)
    Journal(root).write(record_of(root, {}, transitions=(change,), committed_at=moment(5)))
    fold(root)
    found = Registry(root).products.find(name=cal(2), overwritten=True)
    assert dict(zip(found["record_id"], found["state"], strict=True)) == {
        first.record_id: "overwritten",
        second.record_id: "withdrawn",
    }
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded


def test_processes_that_fold_in_turn_lose_none_of_their_rows(root, monkeypatch):
    for number in range(2, 8):
        monkeypatch.setattr(fresh_tier_module.os, "getpid", lambda process=number % 2: process)
        add(root, number)
    monkeypatch.undo()
    assert os.getpid() > 1
    folded = registry_content(root)
    assert found(root) == set(map(cal, range(1, 8)))
    rebuild(root)
    assert registry_content(root) == folded


class Killed(BaseException):
    pass


def test_rows_that_were_not_published_are_not_kept(root, monkeypatch):
    add(root, 2)

    def dying(*_):
        raise Killed

    commit(root, {cal(3): b"c"}, committed_at=moment(3))
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "publish_snapshot", dying)
        with pytest.raises(Killed):
            fold(root)
    add(root, 4)
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded
    assert found(root) == set(map(cal, (1, 2, 3, 4)))


def test_the_public_sees_no_fresh_row_that_is_not_for_it(root):
    hidden = add(root, 2, access=Role.OPERATIONS, run_id="secret-run")
    add(root, 3, run_id="secret-run")
    rows = {
        role: str([part.to_pylist() for part in snapshot.rows().values()])
        for role, snapshot in (
            (Role.PUBLIC, read_snapshot(root.public_registry)),
            (Role.OPERATIONS, read_snapshot(root.registry)),
        )
    }
    assert cal(3) in rows[Role.PUBLIC]
    for secret in (cal(2), hidden.record_id, "secret-run"):
        assert secret in rows[Role.OPERATIONS]
        assert secret not in rows[Role.PUBLIC]
    assert found(root, Role.PUBLIC) == {cal(1), cal(3)}


def test_damaged_fresh_rows_are_not_believed_and_come_back_from_the_records(root):
    add(root, 2)
    path = root.registry / SNAPSHOT
    snapshot = json.loads(path.read_bytes())
    text = snapshot["fresh"]["tables"]["products"]
    place = len(text) // 2
    other = "B" if text[place] == "A" else "A"
    snapshot["fresh"]["tables"]["products"] = text[:place] + other + text[place + 1 :]
    damage(path, json.dumps(snapshot).encode())
    with pytest.raises(PassingFaultError, match="checksum"):
        Registry(root).products.find()
    fresh_tier_module._kept.cache_clear()
    add(root, 3)
    assert found(root) == set(map(cal, (1, 2, 3)))
    (case,) = SetAside(root).list()
    assert "the registry was rebuilt" in case.reason
