"""Dagster's daemon for the time a command needs it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import (
    dagster_environment,
    prepare_dagster_home,
    workspace_file,
)
from roman_assets.errors import PassingFaultError

if TYPE_CHECKING:
    from dagster import DagsterInstance

DEFINITIONS = "roman_assets.definitions"
CODE_LOCATION = "roman_assets"

_STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_LOCK = "daemon.lock"
_LOG = "daemon.log"


def dagster_program(name: str) -> str:
    """Return the path of one of Dagster's programs, from the environment of this interpreter."""
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


@contextmanager
def services(
    webserver: Sequence[str], archive: Sequence[str] | None = None
) -> Iterator[tuple[list[list[str]], Path]]:
    """Prepare the programs of an installation: code server, daemon, web server.

    Daemon and web server share the code server, which listens on a socket in a directory that
    others cannot enter: it executes any request.

    Parameters
    ----------
    webserver
        Options of ``roman-assets webserver``.
    archive
        Options of ``roman-assets serve``; None does not serve the archive.

    Yields
    ------
    list
        The commands; the code server's comes first.
    pathlib.Path
        File that the code server creates when it is ready.
    """
    with TemporaryDirectory(prefix="roman-assets-") as directory:
        socket, workspace = Path(directory) / "code", Path(directory) / "workspace.yaml"
        origin = {"socket": str(socket), "location_name": CODE_LOCATION}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": origin}]}))
        commands = [
            [dagster_program("dagster"), "code-server", "start", "--socket", str(socket),
             "--module-name", DEFINITIONS, "--location-name", CODE_LOCATION,
             "--log-level", "warning", "--inject-env-vars-from-instance"],
            [dagster_program("dagster-daemon"), "run", "--workspace", str(workspace)],
            [dagster_program("roman-assets"), "webserver", "--workspace", str(workspace),
             *webserver],
        ]  # fmt: skip
        if archive is not None:
            # It is for the public, whatever role this process has.
            commands.append(
                [dagster_program("roman-assets"), "--role", Role.PUBLIC, "serve", *archive]
            )
        yield commands, socket


def run_until_stopped(
    commands: Sequence[Sequence[str]], root: DataRoot, claim: int, ready: Path | None = None
) -> int:
    """Run programs side by side with the claim; an interrupt or SIGTERM stops all they started.

    Parameters
    ----------
    commands
        The programs, started in this order.
    root
        The installation.
    claim
        Of `sole_daemon`.
    ready
        File that the first program creates when the others may start; None does not wait.

    Returns
    -------
    int
        0 if they were stopped, else the exit status of the first that ended by itself.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    command, env=dagster_environment(root), start_new_session=True,
                    pass_fds=(claim,),
                )
            )  # fmt: skip
            while ready is not None and not ready.exists() and not _ended(processes):
                time.sleep(_LOOK_SECONDS)
        while not (ended := _ended(processes)):
            time.sleep(_LOOK_SECONDS)
        print(f"{ended[0].args!r} ended by itself", file=sys.stderr)  # noqa: T201
        return ended[0].returncode or 1
    except KeyboardInterrupt:
        return 0
    finally:
        for process in reversed(processes):
            _stop(process)
        signal.signal(signal.SIGTERM, before)


def _ended(processes: Iterable[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    return [process for process in processes if process.poll() is not None]


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
