from __future__ import annotations

from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.small_products import cal, record_of


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path)


def test_what_is_committed_is_found_and_the_open_snapshot_stays_as_it_was(root: DataRoot) -> None:
    engine = Engine(root)
    engine.commit(record_of(root, {cal(1): b"a"}))
    before = engine.open_snapshot(Role.PUBLIC)
    engine.commit(record_of(root, {cal(2): b"b"}), record_of(root, {cal(3): b"c"}))
    names = "select name from products order by name"
    assert before.connection.execute(names).fetchall() == [(cal(1),)]
    assert before.state != engine.state(Role.PUBLIC)
    before.close()
    assert list(Registry(root).products.find()["name"]) == [cal(1), cal(2), cal(3)]


def test_a_long_question_keeps_no_other_waiting(root: DataRoot) -> None:
    Engine(root).commit(record_of(root, {cal(1): b"a"}))
    registry = Registry(root)
    names = registry.products.names()
    assert next(names) == cal(1)
    assert len(registry.products.find()) == 1
