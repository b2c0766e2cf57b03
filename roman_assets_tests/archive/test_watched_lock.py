"""The lock on disk, with real processes that are killed and stopped."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from roman_assets.archive import watched_lock as module
from roman_assets.archive.durability import locked
from roman_assets.archive.watched_lock import LostLockError, watched_lock
from roman_assets.errors import PassingFaultError

PROJECT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from roman_assets.archive import watched_lock as module
from roman_assets.archive.watched_lock import LostLockError, watched_lock
module.BEAT = 0.1
place = Path(sys.argv[1])
with watched_lock(place, "test", "holding it", (place,)) as fence:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            exec(line)
            print("done", flush=True)
        except LostLockError:
            print("lost", flush=True)
"""


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(module, "LEASE", 1.0)
    monkeypatch.setattr(module, "BEAT", 0.1)


def lock(place, purpose="testing", **options):
    return watched_lock(place, "test", purpose, (place,), **options)


class Holder:
    """Another process with the lock."""

    def __init__(self, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
        )  # fmt: skip
        self.pid = self._process.pid
        assert self.said() == "held"

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def asked(self, statement: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def holder(tmp_path):
    process = Holder(tmp_path)
    yield process
    process.end()


def test_a_killed_holder_frees_it_at_once(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(module, "LEASE", 60.0)
    holder.end()
    with lock(tmp_path) as fence:
        fence.confirm()


def test_a_holder_that_works_keeps_it_and_is_named(tmp_path, holder, monkeypatch, caplog):
    monkeypatch.setattr(module, "PATIENCE", 3.0)
    monkeypatch.setattr(module, "TOLD_AFTER", 0.0)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(PassingFaultError, match=rf"process {holder.pid} on .* for holding it"),
        lock(tmp_path),
    ):
        pytest.fail("two hold it")
    assert f"process {holder.pid}" in caplog.text


def test_a_stopped_holder_loses_it_and_changes_nothing_when_it_wakes(tmp_path, holder):
    target = tmp_path / "name"
    target.write_text("old")
    holder.signal(signal.SIGSTOP)
    began = time.monotonic()
    with lock(tmp_path) as fence:
        assert time.monotonic() - began >= module.LEASE
        fence.write(target, b"new")
    holder.asked("fence.write(place / 'name', b'stale')")
    holder.asked("fence.remove(place / 'name')")
    holder.asked("fence.link(place / 'other', place / 'name')")
    holder.asked("fence.confirm()")
    holder.signal(signal.SIGCONT)
    assert [holder.said() for _ in range(4)] == ["lost"] * 4
    assert target.read_text() == "new"


def test_a_holder_that_is_stopped_in_the_middle_of_a_change_does_not_finish_it(tmp_path, holder):
    """Between the look at the lock and the rename, where no look could help."""
    (tmp_path / "name").write_text("old")
    holder.asked(
        "import os, signal; draft = fence._draft(place / 'name'); path = draft.__enter__(); "
        "path.write_text('stale'); os.kill(os.getpid(), signal.SIGSTOP); "
        "print(path.exists(), flush=True)"
    )
    with lock(tmp_path) as fence:
        fence.write(tmp_path / "name", b"new")
    holder.signal(signal.SIGCONT)
    assert holder.said() == "False"
    assert (tmp_path / "name").read_text() == "new"


def test_a_holder_that_hangs_loses_it_although_its_process_lives(tmp_path, holder):
    holder.asked("module.STALLED = 0.5")
    assert holder.said() == "done"
    holder.asked("import time; time.sleep(60)")
    with lock(tmp_path) as fence:
        fence.confirm()


def test_only_one_of_many_takes_a_stopped_holders_place(tmp_path, holder):
    holder.signal(signal.SIGSTOP)
    holding, most, done = 0, 0, []

    def hold() -> None:
        nonlocal holding, most
        with lock(tmp_path) as fence:
            holding += 1
            most = max(most, holding)
            time.sleep(0.05)
            fence.confirm()
            holding -= 1
            done.append(1)

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(done)) == (1, 6)


def test_who_needs_it_no_more_stops_waiting(tmp_path, holder):
    with lock(tmp_path, needless=lambda: True) as fence:
        assert fence is None


@pytest.mark.parametrize("by", ["path", "link", "relative path"])
def test_taking_it_twice_in_one_thread_raises_at_once(tmp_path, monkeypatch, by):
    place, other = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    other.symlink_to(place)
    monkeypatch.chdir(tmp_path)
    again = {"path": place, "link": other, "relative path": Path("place")}[by]
    with lock(place), pytest.raises(RuntimeError, match="already"), lock(again):
        pytest.fail("held twice")
    with lock(again):
        pass


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_locking_a_file_or_directory_twice_in_one_thread_raises_at_once(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "directory":
        place.mkdir()
    with locked(place):
        other = tmp_path / "link"
        other.symlink_to(place)
        with pytest.raises(RuntimeError, match="already"), locked(other):
            pytest.fail("held twice")
    with locked(place):
        pass


def test_whoever_lost_it_is_told_by_confirming(tmp_path):
    with lock(tmp_path) as fence:
        fence.confirm()
        (drafts,) = (tmp_path / "drafts").iterdir()
        drafts.rename(tmp_path / "moved")
        with pytest.raises(LostLockError, match="next fold"):
            fence.confirm()
