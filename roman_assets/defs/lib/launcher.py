"""A run launcher for one host that notices runs whose process is gone.

Dagster's own launcher leaves a run that died together with its code server (a power cut, a
SIGKILL of the whole process group) in status STARTED for ever, where it holds a slot of the run
queue. This one lets run monitoring see that the process is gone, fail the run and, by
``run_retries``, start it again.

A process is known by its number, the boot of its host, and the clock ticks from that boot to its
start. None of them depends on the time of day, so that setting the clock kills no run. They are
kept as a tag of the run from the first check on.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher

from roman_assets.defs.lib.dagster_internals import (
    GRPC_INFO_TAG,
    CheckRunHealthResult,
    WorkerStatus,
)

if TYPE_CHECKING:
    from dagster import EventLogEntry

PROCESS_TAG = "roman_assets/process"
"""Tag of a run that names the process at work on it, as JSON."""

_PROC = Path("/proc")


class HostRunLauncher(DefaultRunLauncher):
    """Launch runs through the code server and watch their processes on this host.

    Runs of a code server on another host are left alone: nothing here can tell how they are.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask; it may."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Check whether the process that executes a run is alive.

        A run that has not yet said which process executes it counts as running: the time limit
        on starting runs deals with those that never will.
        """
        server = _server_of(run)
        if not _is_this_host(server):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"a run of host {server}")
        pid = self._last_process(run)
        if pid is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process named yet")
        if self._is_alive(run, pid):
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(pid))
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"process {pid} is gone", run_worker_id=str(pid)
        )

    def _last_process(self, run: DagsterRun) -> int | None:
        events = self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        named = [found for event in events if (found := _process_named_by(event)) is not None]
        return named[-1] if named else None

    def _is_alive(self, run: DagsterRun, pid: int) -> bool:
        known = RunProcess.parse(run.tags.get(PROCESS_TAG))
        # a run that is executed again bears the tags of the former one
        if known is not None and (known.run_id, known.pid) == (run.run_id, pid):
            return known.is_alive
        process = RunProcess.of(run.run_id, pid)
        if process is None or not _runs_our_program(pid):
            return False
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: process.to_json()})
        return True


def _process_named_by(entry: EventLogEntry) -> int | None:
    event = entry.dagster_event
    pid = event.engine_event_data.metadata.get("pid") if event is not None else None
    return None if pid is None else int(str(pid.value))


def _server_of(run: DagsterRun) -> str:
    """Return the host name of the code server that a run was launched through."""
    return str(json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host", "localhost"))


def _is_this_host(name: str) -> bool:
    """Return whether a name is of this host: only its own addresses can be bound."""
    with suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            name, 0, type=socket.SOCK_DGRAM
        ):
            with suppress(OSError), socket.socket(family, kind, protocol) as bound:
                bound.bind(address)
                return True
    return False


@dataclass(frozen=True)
class RunProcess:
    """The process that executes a run.

    Parameters
    ----------
    run_id
        The run.
    boot
        The boot of the host that it runs on, as the kernel names it.
    pid
        Process number.
    start_ticks
        Clock ticks from that boot to its start.
    """

    run_id: str
    boot: str
    pid: int
    start_ticks: int

    @classmethod
    def of(cls, run_id: str, pid: int) -> Self | None:
        """Return the process of this host with a number, None if no such process runs."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(run_id, _boot(), pid, ticks)

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read what `to_json` wrote, None without it."""
        return None if text is None else cls(**json.loads(text))

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @property
    def is_alive(self) -> bool:
        """Whether it is running; a later process with its number is another one."""
        return self == self.of(self.run_id, self.pid)


def _start_ticks(pid: int) -> int | None:
    """Return the ticks from boot to a process's start, None if it has ended."""
    if not _PROC.is_dir():  # no Linux: only the number is known
        return 0 if _may_be_signalled(pid) else None
    try:
        after_name = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def _boot() -> str:
    boot = _PROC / "sys/kernel/random/boot_id"
    return boot.read_text().strip() if boot.is_file() else ""


def _runs_our_program(pid: int) -> bool:
    """Return whether a process is Python and ours: else it only inherited a number."""
    place = _PROC / str(pid)
    if not _PROC.is_dir():
        return True
    try:
        return place.stat().st_uid == os.getuid() and (place / "exe").samefile(_PROC / "self/exe")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


def _may_be_signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
