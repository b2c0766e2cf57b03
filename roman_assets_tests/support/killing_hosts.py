"""Publishers on two machines that are killed, and a reader on a third, as a program of its own.

Its own, as `killing` is.
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

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.small_products import association, publish_associations

HOSTS = ("one", "two")
CELLS = 3

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__spec__.name])


def publish_for_ever(root: DataRoot, seed: int, acknowledged: Path) -> None:
    """Publish, and write down what was acknowledged."""
    choice = random.Random(seed)
    with acknowledged.open("a", buffering=1) as ledger:
        while True:
            cells = choice.sample(range(CELLS), k=choice.randint(1, 2))
            result = publish_associations(root, {cell: str(choice.random()) for cell in cells})
            for entry in result.made:
                ledger.write(json.dumps([result.record_id, entry.name, entry.sha256]) + "\n")


def read_for_ever(root: DataRoot, failures: Path) -> None:
    """Read registry and public names; write down whatever is not as promised."""
    registry, archive = Registry(root), Archive.of(root)
    generations: Counter[str] = Counter()
    while True:
        try:
            names = [association(cell) for cell in range(CELLS)]
            for name, entry in registry.generations.current(names).items():
                assert entry.generation >= generations[name], f"{name} went back"
                generations[name] = entry.generation
                json.loads(archive.path(ProductName.parse(name)).read_bytes())
        except Exception as error:
            with failures.open("a") as ledger:
                ledger.write(f"{error!r}\n")


def start(target, *arguments) -> ForkServerProcess:
    process = _processes.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def wait_for_more(ledger: Path) -> None:
    """Let a publisher come into its work."""
    before, until = size(ledger), time.monotonic() + 60
    while size(ledger) == before and time.monotonic() < until:
        time.sleep(0.02)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def run_with_kills(
    base: Path, store: str, kills: int, seed: int
) -> tuple[list[list[str]], list[str]]:
    """Let publishers and a reader run and kill a publisher so many times."""
    choice = random.Random(seed)
    roots = {host: DataRoot(base / host, store) for host in HOSTS}
    ledgers = {host: base / f"acknowledged_{host}" for host in HOSTS}
    failures = base / "failures"
    publishers = {
        host: start(publish_for_ever, roots[host], choice.random(), ledgers[host]) for host in HOSTS
    }
    reader = start(read_for_ever, DataRoot(base / "reader", store), failures)
    try:
        for _ in range(kills):
            victim = choice.choice(HOSTS)
            wait_for_more(ledgers[victim])
            time.sleep(choice.uniform(0.0, 1.0))
            assert publishers[victim].is_alive(), "a publisher died by itself"
            publishers[victim].kill()
            publishers[victim].join()
            publishers[victim] = start(
                publish_for_ever, roots[victim], choice.random(), ledgers[victim]
            )
        wait_for_more(ledgers[victim])
    finally:
        for process in (*publishers.values(), reader):
            process.kill()
            process.join()
    lines = [
        json.loads(line)
        for ledger in ledgers.values()
        if ledger.exists()
        for line in ledger.read_text().splitlines()
        if line.endswith("]")
    ]
    return lines, failures.read_text().splitlines() if failures.exists() else []


if __name__ == "__main__":
    place, store, kills = sys.argv[1:]
    json.dump(run_with_kills(Path(place), store, int(kills), 20_270_602), sys.stdout)
