"""The fold lock, on one machine and on several that share an object store."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from roman_assets.archive.object_store import ObjectStore
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.registry.store import fold_lock as fold_lock_module
from roman_assets.registry.store.fold_lock import fold_lock

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(fold_lock_module, "LEASE", 1.0)
    monkeypatch.setattr(fold_lock_module, "RENEWAL", 0.3)
    monkeypatch.setattr(fold_lock_module, "LOOKS", 0.02)


@pytest.fixture
def hosts(tmp_path, object_store):
    return [DataRoot(tmp_path / name, object_store) for name in ("one", "two")]


def test_one_at_a_time_holds_it(new_root, short_lease):
    holders, most = 0, 0

    def hold(host: str) -> None:
        nonlocal holders, most
        for _ in range(4):
            with fold_lock(new_root(host)) as fence:
                holders += 1
                most = max(most, holders)
                time.sleep(0.01)
                fence.confirm()
                holders -= 1

    threads = [threading.Thread(target=hold, args=(host,)) for host in ("one", "one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


HOLD = """
import sys, time
from pathlib import Path
from roman_assets.data_root import DataRoot
from roman_assets.registry.store.fold_lock import fold_lock
with fold_lock(DataRoot(Path(sys.argv[1]), sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed_holder(hosts):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(hosts[0].path), hosts[0].object_store],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()


def test_a_killed_holder_frees_it_for_its_own_machine_at_once(hosts, killed_holder, monkeypatch):
    monkeypatch.setattr(fold_lock_module, "PATIENCE", 2.0)
    with fold_lock(hosts[0]) as fence:
        fence.confirm()


def test_a_killed_holder_frees_it_for_other_machines_when_its_lease_ends(
    hosts, killed_holder, short_lease
):
    began = time.monotonic()
    with fold_lock(hosts[1]):
        assert time.monotonic() - began >= fold_lock_module.LEASE


def test_who_does_not_answer_loses_it_and_is_told_so(hosts, short_lease, monkeypatch):
    monkeypatch.setattr(fold_lock_module, "RENEWAL", 3600.0)
    with fold_lock(hosts[0]) as first, fold_lock(hosts[1]) as second:
        second.confirm()
        with pytest.raises(PassingFaultError, match="another machine has begun to fold"):
            first.confirm()


def test_a_holder_that_works_for_long_keeps_it(hosts, short_lease):
    taken = threading.Event()

    def wait_for_it() -> None:
        with fold_lock(hosts[1]):
            taken.set()

    with fold_lock(hosts[0]) as fence:
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert not taken.wait(2.5 * fold_lock_module.LEASE)
        fence.confirm()
    thread.join()
    assert taken.is_set()


def test_who_waits_too_long_is_told_for_whom(hosts, short_lease, monkeypatch):
    monkeypatch.setattr(fold_lock_module, "PATIENCE", 0.2)
    with (
        fold_lock(hosts[0]),
        pytest.raises(PassingFaultError, match=rf"lease of s3://.*process {os.getpid()}"),
        fold_lock(hosts[1]),
    ):
        pytest.fail("two hold it")


def test_an_unreadable_lease_is_taken_over_when_it_ends(hosts, short_lease):
    ObjectStore(hosts[0].object_store).put("registry/fold.lease.json", b"damaged")
    with fold_lock(hosts[0]) as fence:
        fence.confirm()
