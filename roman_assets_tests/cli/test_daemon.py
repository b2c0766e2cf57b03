from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from roman_assets.cli.daemon import run_until_stopped, sole_daemon
from roman_assets.data_root import DataRoot

CLAIM_AND_SLEEP = """
import sys, time
from pathlib import Path
from roman_assets.cli.daemon import sole_daemon
from roman_assets.data_root import DataRoot
with sole_daemon(DataRoot(Path(sys.argv[1]))) as claim:
    print(claim is not None, flush=True)
    time.sleep(60)
"""


def test_one_daemon_runs_on_an_installation_and_a_killed_one_leaves_its_place(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", CLAIM_AND_SLEEP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "True"
        with sole_daemon(DataRoot(tmp_path)) as second:
            assert second is None
        os.kill(first.pid, signal.SIGKILL)
    with sole_daemon(DataRoot(tmp_path)) as third:
        assert third is not None


RUN_UNTIL_STOPPED = """
import sys
from pathlib import Path
from roman_assets.cli.daemon import run_until_stopped, sole_daemon
from roman_assets.data_root import DataRoot
root = DataRoot(Path(sys.argv[1]))
shell = "sleep 600 & echo $! > " + sys.argv[1] + "/grandchild; wait"
with sole_daemon(root) as claim:
    print("started", flush=True)
    sys.exit(run_until_stopped([["sh", "-c", shell]], root, claim))
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_service_manager_that_ends_dev_ends_all_that_dev_started(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_UNTIL_STOPPED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dev:
        assert dev.stdout is not None
        assert dev.stdout.readline().strip() == "started"
        grandchild = tmp_path / "grandchild"
        for _ in range(200):
            if grandchild.exists() and grandchild.read_text().strip():
                break
            time.sleep(0.05)
        pid = int(grandchild.read_text())
        assert is_running(pid)
        os.kill(dev.pid, signal.SIGTERM)
        assert dev.wait(40) == 0
    for _ in range(100):
        if not is_running(pid):
            return
        time.sleep(0.05)
    raise AssertionError("what dev started runs on")


def test_dev_ends_when_one_of_its_programs_does(tmp_path: Path) -> None:
    ready, root = tmp_path / "ready", DataRoot(tmp_path / "data")
    first = ["sh", "-c", f"sleep 0.2; touch {ready}; exec sleep 600"]
    second = ["sh", "-c", f"test -e {ready} && exit 3"]
    with sole_daemon(root) as claim:
        assert claim is not None
        assert run_until_stopped([first, second], root, claim, ready) == 3
