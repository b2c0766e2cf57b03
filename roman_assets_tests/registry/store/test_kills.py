"""SIGKILL at random moments: nothing acknowledged is lost, doubled, wrong or unreadable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.products.lifecycle import AVAILABLE, State, Transition
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import public_content, registry_content

PROGRAM = "roman_assets_tests.support.registry_killing"
PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_double_or_spoil_nothing_and_no_reader_notices(tmp_path, kills):
    root = DataRoot(tmp_path / "data")
    command = [sys.executable, "-m", PROGRAM, str(root.path), str(kills)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, cwd=PROJECT)
    acknowledged, failures = json.loads(done.stdout)
    assert len(acknowledged) >= kills, "too little was done to tell anything"
    assert failures == []

    fold(root)
    assert fsck(root) == []

    rows = Registry(root).products.find(overwritten=True)
    all_made_is_there_once(rows, acknowledged)
    all_that_ended_is_gone(rows, acknowledged)
    generations_follow_each_other(rows)
    the_archive_shows_what_is_available(root, rows)

    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded

    fsck(root, mend=True, grace=timedelta(0))
    assert fsck(root, grace=timedelta(0)) == []


def all_made_is_there_once(rows: pd.DataFrame, acknowledged: list[list[str]]) -> None:
    made = Counter(zip(rows["name"], rows["record_id"], rows["sha256"], strict=True))
    assert set(made.values()) == {1}
    assert {tuple(entry) for what, *entry in acknowledged if what == "made"} <= made.keys()


def all_that_ended_is_gone(rows: pd.DataFrame, acknowledged: list[list[str]]) -> None:
    states = dict(
        zip(zip(rows["name"], rows["record_id"], strict=True), rows["state"], strict=True)
    )
    assert {State.LOST, State.REFUSED}.isdisjoint(states.values())
    for what, name, record_id, _ in acknowledged:
        if what == Transition.REMOVED:
            assert states[name, record_id] not in AVAILABLE
        if what == Transition.SUPERSEDED:
            assert states[name, record_id] != State.CURRENT


def generations_follow_each_other(rows: pd.DataFrame) -> None:
    for _, generations in rows.groupby("name"):
        ordered = generations.sort_values(["committed_at", "record_id"])
        assert list(ordered["generation"]) == list(range(1, len(ordered) + 1))
        assert AVAILABLE.isdisjoint(ordered["state"].iloc[:-1])
        assert ordered["state"].iloc[-1] != State.OVERWRITTEN


def the_archive_shows_what_is_available(root: DataRoot, rows: pd.DataFrame) -> None:
    available = rows[rows["state"].isin(AVAILABLE)]
    assert set(public_content(root)) == set(available["name"])
    for name, sha256 in available[["name", "sha256"]].to_numpy():
        assert sha256_of(FileArchive(root).path(ProductName.parse(name))) == sha256
