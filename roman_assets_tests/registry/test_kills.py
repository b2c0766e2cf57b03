"""SIGKILL at random moments: nothing acknowledged is lost, doubled, wrong or unreadable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import fold, rebuild
from roman_assets.registry.fsck import fsck
from roman_assets.registry.registry import Registry
from roman_assets_tests.registry.installation import registry_content

PROGRAM = "roman_assets_tests.registry.killing"
PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_double_or_spoil_nothing_and_no_reader_notices(tmp_path, kills):
    root = DataRoot(tmp_path / "data")
    command = [sys.executable, "-m", PROGRAM, str(root.path), str(kills)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, cwd=PROJECT)
    acknowledged, failures = json.loads(done.stdout)
    assert len(acknowledged) > kills / 2, "too little was published to tell anything"
    assert failures == []

    fold(root)
    assert fsck(root) == []

    rows = Registry(root).find(overwritten=True)
    made = Counter(zip(rows["record_id"], rows["name"], rows["sha256"], strict=True))
    assert set(made.values()) == {1}
    assert {tuple(line) for line in acknowledged} <= made.keys()
    for _, generations in rows.groupby("name"):
        ordered = generations.sort_values("committed_at")
        assert list(ordered["generation"]) == list(range(1, len(ordered) + 1))
        assert list(ordered["state"]) == ["overwritten"] * (len(ordered) - 1) + ["current"]
    for name, sha256 in rows[rows["state"] == "current"][["name", "sha256"]].to_numpy():
        assert sha256_of(FileArchive(root).path(ProductName.parse(name))) == sha256

    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded

    fsck(root, mend=True, grace=timedelta(0))
    assert fsck(root, grace=timedelta(0)) == []
