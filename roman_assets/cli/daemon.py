"""Dagster's daemon for the time a command needs it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from roman_assets.dagster_home import dagster_environment, prepare_dagster_home, workspace_file
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

if TYPE_CHECKING:
    from dagster import DagsterInstance

_STOP_SECONDS = 30.0
_LOCK = "daemon.lock"


def dagster_program(name: str) -> str:
    """Give the path of one of Dagster's programs, from the environment of this interpreter."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def sole_daemon(root: DataRoot) -> Iterator[bool]:
    """Claim the right to run the daemon of an installation; two daemons would double its work.

    Yields
    ------
    bool
        False if another process has it.
    """
    home = prepare_dagster_home(root)
    with (home / _LOCK).open("w") as lock:
        # a child that inherits the descriptor keeps the claim when this program is replaced by it
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def running_daemon(root: DataRoot) -> Iterator[DagsterInstance]:
    """Run Dagster's daemon and code server, unless ``dev`` runs them already, and stop them.

    Yields
    ------
    DagsterInstance
        The installation's Dagster instance.

    Raises
    ------
    PassingFaultError
        If the daemon dies meanwhile; the message names its log.
    """
    from dagster import DagsterInstance

    home = prepare_dagster_home(root)
    environment = dagster_environment(root)
    with sole_daemon(root) as ours, DagsterInstance.from_config(str(home)) as instance:
        if not ours:
            yield instance
            return
        log = home / "daemon.log"
        with log.open("ab") as output:
            command = [dagster_program("dagster-daemon"), "run", "-w", str(workspace_file())]
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                yield instance
                if process.poll() is not None:
                    raise PassingFaultError(f"Dagster's daemon ended; its log is {log}")
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
