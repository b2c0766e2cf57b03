"""Publishers that are killed and readers that look on, as a program of its own.

Its own, since publishers have to start at once: a process has one fork server, and that of the
tests may have loaded something else.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import rebuild
from roman_assets.registry.fsck import fsck
from roman_assets.registry.registry import Registry
from roman_assets_tests.registry.installation import association, publish_associations

PUBLISHERS = 4
CELLS = 6
"""Few names for many publishers: they overwrite each other."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__spec__.name])


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
    registry, archive = Registry(root), FileArchive(root)
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
    paths = [FileArchive(root).public_path(ProductName.parse(association(c))) for c in range(CELLS)]
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


if __name__ == "__main__":
    json.dump(run_with_kills(DataRoot(Path(sys.argv[1])), int(sys.argv[2]), 20_270_601), sys.stdout)
