"""Publishers that are killed and readers that look on, as a program of its own.

Its own, since publishers have to start at once: a process has one fork server, and that of the
tests may have loaded something else.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TextIO

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import rebuild
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.retention import remove, supersede
from roman_assets_tests.support.small_products import publish_skycells, skycell_set

PUBLISHERS = 4
KEPT, RETIRED = range(3), range(3, 6)
"""Skycells that are overwritten only, and those that are superseded and removed as well.

Few names for many publishers: they get into each other's way.
"""
GRACE = timedelta(minutes=2)
_MAPPED_AT_ONCE = 40
_POLL = 0.005

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__spec__.name])


def publish(root: DataRoot, choice: random.Random, ledger: TextIO) -> None:
    """Publish whole file sets, and write down what was acknowledged."""
    cells = choice.sample([*KEPT, *RETIRED], k=choice.randint(1, 2))
    result = publish_skycells(root, {cell: str(choice.random()) for cell in cells})
    for entry in result.made:
        _acknowledge(ledger, "made", entry.name, result.record_id, entry.sha256)


def retire(root: DataRoot, choice: random.Random, ledger: TextIO) -> None:
    """Supersede or remove a file set."""
    act = choice.choice([supersede, remove, remove])
    coadd = skycell_set(choice.choice(RETIRED))[1]
    if Registry(root).generations.of([coadd]):
        report = act(root, [coadd], reason="for the test", cause="test")
        for change in report.transitions:
            _acknowledge(ledger, change.transition, change.name, change.made_by, change.sha256)


def release(root: DataRoot, choice: random.Random, ledger: TextIO) -> None:
    """Try to publish under a versioned name, which one publisher can do once."""
    cell = choice.choice(RETIRED)
    try:
        result = publish_skycells(root, {cell: str(choice.random())}, release="r0")
    except BadInputError:
        return
    for entry in result.made:
        _acknowledge(ledger, "made", entry.name, result.record_id, entry.sha256)


def _acknowledge(ledger: TextIO, *what: str | None) -> None:
    ledger.write(json.dumps(what) + "\n")


def rebuild_registry(root: DataRoot, choice: random.Random, ledger: TextIO) -> None:
    rebuild(root)


def mend(root: DataRoot, choice: random.Random, ledger: TextIO) -> None:
    fsck(root, mend=True, grace=GRACE)


WORK: dict[Callable[[DataRoot, random.Random, TextIO], None], int] = {
    publish: 12,
    retire: 4,
    release: 1,
    rebuild_registry: 1,
    mend: 1,
}
"""What publishers do, and how often."""


def work_for_ever(root: DataRoot, seed: int, acknowledged: Path) -> None:
    choice = random.Random(seed)
    with acknowledged.open("a", buffering=1) as ledger:
        while True:
            (act,) = choice.choices([*WORK], [*WORK.values()])
            act(root, choice, ledger)


def read_for_ever(root: DataRoot, failures: Path) -> None:
    """Read what the registry says by its hashes; write down whatever is not as promised."""
    registry, archive = Registry(root), FileArchive(root)
    generations: Counter[str] = Counter()
    while True:
        time.sleep(_POLL)
        for cell in (*KEPT, *RETIRED):
            with _noting(failures):
                found = registry.generations.current(skycell_set(cell))
                assert len(found) in (0, 4), f"part of a file set: {sorted(found)}"
                assert len({entry.record_id for entry in found.values()}) <= 1, "a mixture"
                for name, entry in found.items():
                    assert entry.generation >= generations[name], f"{name} went back"
                    generations[name] = entry.generation
                    content = archive.local(entry.sha256).read_bytes()
                    assert _sha256(content) == entry.sha256, f"wrong content of {name}"


def look_for_ever(root: DataRoot, failures: Path) -> None:
    """Open public files as fast as possible; those that are not retired stay, all are whole.

    What was mapped keeps its content, whatever becomes of the name.
    """
    archive = FileArchive(root)
    kept, retired = (
        [archive.public_path(ProductName.parse(n)) for cell in cells for n in skycell_set(cell)]
        for cells in (KEPT, RETIRED)
    )
    seen: set[Path] = set()
    mapped: list[tuple[mmap.mmap, str]] = []
    choice = random.Random(1)
    while True:
        time.sleep(_POLL)
        for path in (*kept, *retired):
            with _noting(failures):
                try:
                    with path.open("rb") as stream:
                        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except FileNotFoundError:
                    assert path not in seen or path in retired, f"{path} went away"
                    continue
                seen.add(path)
                assert archive.blob(_sha256(content)).exists(), f"{path} shows what is no blob"
                mapped.append((content, _sha256(content)))
        with _noting(failures):
            while len(mapped) > _MAPPED_AT_ONCE:
                content, sha256 = mapped.pop(choice.randrange(len(mapped)))
                assert _sha256(content) == sha256, "what was mapped has changed"


class _noting:  # noqa: N801 reads as a statement
    """Write down what goes wrong, and go on."""

    def __init__(self, failures: Path) -> None:
        self._failures = failures

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exception):
            with self._failures.open("a") as ledger:
                ledger.write(f"{error!r}\n")
        return isinstance(error, Exception)


def _sha256(content: bytes | mmap.mmap) -> str:
    return hashlib.sha256(content).hexdigest()


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
    workers = [start(work_for_ever, root, next(seeds), ledger) for ledger in ledgers]
    readers = [start(reader, root, failures) for reader in (read_for_ever, look_for_ever)]
    try:
        for _ in range(kills):
            _wait_for_progress(ledgers)
            time.sleep(choice.uniform(0, 0.5))
            victim = choice.randrange(PUBLISHERS)
            assert workers[victim].is_alive(), f"died by itself: {workers[victim].exitcode}"
            workers[victim].kill()
            workers[victim].join()
            workers[victim] = start(work_for_ever, root, next(seeds), ledgers[victim])
        _wait_for_progress(ledgers)
        assert all(reader.is_alive() for reader in readers), "a reader died"
    finally:
        for process in (*workers, *readers):
            process.kill()
            process.join()
    return _lines(ledgers), failures.read_text().splitlines() if failures.exists() else []


def _wait_for_progress(ledgers: list[Path]) -> None:
    """Wait until something more is acknowledged, however busy the machine is."""
    before, deadline = _size(ledgers), time.monotonic() + 60
    while _size(ledgers) == before:
        assert time.monotonic() < deadline, "nothing was acknowledged for a minute"
        time.sleep(0.01)


def _size(ledgers: list[Path]) -> int:
    return sum(ledger.stat().st_size for ledger in ledgers if ledger.exists())


def _lines(ledgers: list[Path]) -> list[list[str]]:
    return [
        json.loads(line)
        for ledger in ledgers
        if ledger.exists()
        for line in ledger.read_text().splitlines()
        if line.endswith("]")
    ]


if __name__ == "__main__":
    json.dump(run_with_kills(DataRoot(Path(sys.argv[1])), int(sys.argv[2]), 20_270_601), sys.stdout)
