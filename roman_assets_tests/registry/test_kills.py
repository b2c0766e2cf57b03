"""SIGKILL at random moments: nothing acknowledged is lost, doubled, wrong or unreadable."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections import Counter
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import fold, rebuild
from roman_assets.registry.fsck import fsck
from roman_assets.registry.registry import Registry
from roman_assets_tests.registry.installation import (
    association,
    publish_associations,
    registry_content,
)

PUBLISHERS = 4
CELLS = 6
"""Few names for many publishers: they overwrite each other."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["roman_assets_tests.registry.test_kills"])


def publish_for_ever(root: DataRoot, seed: int, acknowledged: Path) -> None:
    """Publish, and write down what was acknowledged; now and then rebuild or mend."""
    choice = random.Random(seed)
    with acknowledged.open("a", buffering=1) as ledger:
        while True:
            cells = choice.sample(range(CELLS), k=choice.randint(1, 3))
            result = publish_associations(root, {cell: str(choice.random()) for cell in cells})
            for entry in result.made:
                ledger.write(json.dumps([result.record_id, entry.name, entry.sha256]) + "\n")
            if choice.random() < 0.1:
                rebuild(root)
            if choice.random() < 0.1:
                fsck(root, mend=True)


def read_for_ever(root: DataRoot, failures: Path) -> None:
    """Read registry and public files; write down whatever is not as promised."""
    registry, archive = Registry(root), Archive(root)
    names = [association(cell) for cell in range(CELLS)]
    generations: Counter[str] = Counter()
    while True:
        try:
            for name, entry in registry.current(names).items():
                assert entry.generation >= generations[name], f"{name} went back"
                generations[name] = entry.generation
                json.loads(archive.path(ProductName.parse(name)).read_bytes())
        except Exception as error:
            with failures.open("a") as ledger:
                ledger.write(f"{error!r}\n")


def look_for_ever(root: DataRoot, failures: Path) -> None:
    """Open public files as fast as possible; a name once seen must stay and be whole."""
    paths = [Archive(root).public_path(ProductName.parse(association(c))) for c in range(CELLS)]
    seen: set[Path] = set()
    while True:
        for path in paths:
            try:
                json.loads(path.read_bytes())
                seen.add(path)
            except Exception as error:
                if path in seen or not isinstance(error, FileNotFoundError):
                    with failures.open("a") as ledger:
                        ledger.write(f"{path}: {error!r}\n")


def start(target, *arguments) -> ForkServerProcess:
    process = _processes.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run_with_kills(root: DataRoot, kills: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """Let publishers and readers run and kill a publisher so many times."""
    choice = random.Random(seed)
    ledgers = [root.path / f"acknowledged_{number}" for number in range(PUBLISHERS)]
    failures = root.path / "failures"
    root.path.mkdir(exist_ok=True)
    seeds = iter(range(seed, seed + 10_000))
    publishers = [start(publish_for_ever, root, next(seeds), ledger) for ledger in ledgers]
    readers = [start(reader, root, failures) for reader in (read_for_ever, look_for_ever)]
    try:
        for _ in range(kills):
            time.sleep(choice.uniform(0.05, 0.6))
            victim = choice.randrange(PUBLISHERS)
            assert publishers[victim].is_alive(), "a publisher died by itself"
            publishers[victim].kill()
            publishers[victim].join()
            publishers[victim] = start(publish_for_ever, root, next(seeds), ledgers[victim])
        time.sleep(0.5)
    finally:
        for process in (*publishers, *readers):
            process.kill()
            process.join()
    lines = [
        json.loads(line)
        for ledger in ledgers
        if ledger.exists()
        for line in ledger.read_text().splitlines()
        if line.endswith("]")
    ]
    return lines, failures.read_text().splitlines() if failures.exists() else []


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_double_or_spoil_nothing_and_no_reader_notices(tmp_path, kills):
    root = DataRoot(tmp_path / "data")
    acknowledged, failures = run_with_kills(root, kills, seed=20_270_601)
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
        assert sha256_of(Archive(root).path(ProductName.parse(name))) == sha256

    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded

    fsck(root, mend=True, grace=timedelta(0))
    assert fsck(root, grace=timedelta(0)) == []
