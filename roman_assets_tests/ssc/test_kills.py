"""SIGKILL while a delivery is taken in: all of it is published in the end, once, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roman_assets.data_root import SSC_VARIABLE, DataRoot
from roman_assets.registry.registry import Registry
from roman_assets.upkeep.fsck import FindingKind, fsck
from roman_assets_tests.support.small_products import public_content, sha256
from roman_assets_tests.support.ssc_killing import NAMES

PARTIAL_SET = FindingKind.PARTIAL_SET
PROGRAM = "roman_assets_tests.support.ssc_killing"
PROJECT = Path(__file__).parents[2]


pytestmark = pytest.mark.slow


def test_a_delivery_survives_kills_whole_or_not_at_all(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    assert_taken_in_once(root, run(root, 30))


def test_so_does_one_in_an_object_store(
    tmp_path: Path, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SSC_VARIABLE, object_store)
    root = DataRoot(tmp_path / "data")
    assert_taken_in_once(root, run(root, 12))


def run(root: DataRoot, kills: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", PROGRAM, str(root.path), str(kills)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, cwd=PROJECT)
    deliveries = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(one["killed"] for one in deliveries) >= kills
    return deliveries


def assert_taken_in_once(root: DataRoot, deliveries: Sequence[dict[str, Any]]) -> None:
    for one in deliveries:
        wanted = one["before"] if one["bad"] else one["sent"]
        assert all(between in (one["before"], wanted) for between in one["between"])
        assert one["after"] == wanted
        assert one["left"] == []
        assert one["reports"] == ["rejected" if one["bad"] else "accepted"]
        assert bool(one["set_aside"]) is one["bad"]
        assert all(case == [*sorted(["notification.json", *NAMES])] for case in one["set_aside"])
    fsck(root, mend=True, grace=timedelta(0))
    # the images that were registered for it have no supplement
    left = [one for one in fsck(root, grace=timedelta(0)) if one.kind is not PARTIAL_SET]
    assert left == []
    good = [one for one in deliveries if not one["bad"]]
    with Registry(root) as registry:
        assert {entry.generation for entry in registry.generations.current(NAMES).values()} == {
            len(good)
        }
    public = public_content(root)
    assert {name: sha256(public[name]) for name in NAMES} == good[-1]["sent"]
