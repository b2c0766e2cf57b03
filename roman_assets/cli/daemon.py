"""Dagster's daemon for the time a command needs it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from roman_assets.dagster_home import dagster_environment, prepare_dagster_home, workspace_file
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

if TYPE_CHECKING:
    from dagster import DagsterInstance

_STOP_SECONDS = 30.0
_LOCK = "daemon.lock"
_LOG = "daemon.log"


def dagster_program(name: str) -> str:
    """Give the path of one of Dagster's programs, from the environment of this interpreter."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def sole_daemon(root: DataRoot) -> Iterator[int | None]:
    """Claim the right to run the daemon of an installation; two daemons would double its work.

    Yields
    ------
    int or None
        The claim: a file descriptor that a process started or executed with it keeps alive, until
        the last of them ends. None if another process has it.
    """
    home = prepare_dagster_home(root)
    with (home / _LOCK).open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock.fileno()


@contextmanager
def running_daemon(root: DataRoot) -> Iterator[DagsterInstance]:
    """Run Dagster's daemon and code server, unless they run already, and stop them.

    A daemon that outlived the program that started it is found and used.

    Yields
    ------
    DagsterInstance
        The installation's Dagster instance.

    Raises
    ------
    PassingFaultError
        If the daemon ended meanwhile; the message names its log.
    """
    from dagster import DagsterInstance

    with sole_daemon(root) as claim:
        home = prepare_dagster_home(root)
        with DagsterInstance.from_config(str(home)) as instance:
            if claim is None:
                yield instance
                return
            process = _start(root, home / _LOG, claim)
            try:
                yield instance
                if process.poll() is not None:
                    raise PassingFaultError(f"Dagster's daemon ended; its log is {home / _LOG}")
            finally:
                _stop(process)


def run_until_stopped(command: list[str], root: DataRoot, claim: int) -> int:
    """Run a program of Dagster's with the claim; an interrupt or SIGTERM stops all it started.

    Returns
    -------
    int
        Its exit status, 0 if it was stopped.
    """
    process = subprocess.Popen(
        command, env=dagster_environment(root), start_new_session=True, pass_fds=(claim,)
    )

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(process)
        signal.signal(signal.SIGTERM, before)


def _start(root: DataRoot, log: Path, claim: int) -> subprocess.Popen[bytes]:
    command = [dagster_program("dagster-daemon"), "run", "-w", str(workspace_file())]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dagster_environment(root),
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(claim,),
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a program and all it started, and end by force what does not stop."""
    _signal_group(process, signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    _signal_group(process, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
