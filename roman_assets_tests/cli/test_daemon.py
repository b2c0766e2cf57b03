from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from roman_assets.cli.daemon import sole_daemon
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
