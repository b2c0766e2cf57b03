"""A run launcher for one host that notices runs whose process is gone.

Dagster's own launcher leaves a run that died together with its code server (a power cut, a
SIGKILL of the whole process group) in status STARTED for ever, where it holds a slot of the run
queue. This one lets run monitoring see that the process is gone, fail the run and, by
``run_retries``, start it again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

if TYPE_CHECKING:
    from dagster import EventLogEntry

_CLOCK_TOLERANCE_S = 5.0


class HostRunLauncher(DefaultRunLauncher):
    """Launch runs through the code server and watch their processes on this host."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask; it may."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether the process that executes a run is alive.

        A run that has not yet said which process executes it counts as running: the time limit
        on starting runs deals with those that never will.
        """
        started = self._last_process(run)
        if started is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process named yet")
        pid, since = started
        if process_is_alive(pid, since):
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(pid))
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"process {pid} is gone", run_worker_id=str(pid)
        )

    def _last_process(self, run: DagsterRun) -> tuple[int, float] | None:
        events = self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        named = [found for event in events if (found := _process_named_by(event)) is not None]
        return named[-1] if named else None


def _process_named_by(entry: EventLogEntry) -> tuple[int, float] | None:
    event = entry.dagster_event
    pid = event.engine_event_data.metadata.get("pid") if event is not None else None
    return None if pid is None else (int(str(pid.value)), entry.timestamp)


def process_is_alive(pid: int, since: float) -> bool:
    """Tell whether a process of this host runs and is the one that ran at a given time.

    Parameters
    ----------
    pid
        Process number.
    since
        A moment (seconds since the epoch) at which the process meant was running; a process that
        started later only inherited the number.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # a run belongs to the user of its daemon
    fields = _kernel_fields(pid)
    if fields is None:
        return True
    state, started = fields
    return state != "Z" and started <= since + _CLOCK_TOLERANCE_S


def _kernel_fields(pid: int) -> tuple[str, float] | None:
    """Read a process's state letter and start time (s since the epoch), None without /proc."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            float(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
    except FileNotFoundError:
        return None
    return after_name[0], boot + float(after_name[19]) / os.sysconf("SC_CLK_TCK")
