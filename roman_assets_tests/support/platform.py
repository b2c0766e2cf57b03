"""The platform as an operator runs it: daemon and web server, spoken to over GraphQL."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRun

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import (
    dagster_environment,
    prepare_dagster_home,
    workspace_file,
)
from roman_assets.products.observation import Survey
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan

Value = TypeVar("Value")

_PR_SET_PDEATHSIG = 1

TICKS = """
query ($sensor: String!) {
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "roman_assets", sensorName: $sensor
  }) {
    ... on Sensor { sensorState { ticks(limit: 200) { status error { message } } } }
  }
}
"""

PLAN = VisitPlan.from_requests(
    [request for request in DEMO_REQUESTS if request.survey is Survey.GBTDS], detectors=("WFI01",)
)
"""One exposure of one detector, of which the SOC makes L1 and L2 only."""


@dataclass
class Platform:
    """Daemon and web server on one installation."""

    root: DataRoot
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """Put a question to the web server."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait_for(self, value: Callable[[], Value], what: str, seconds: float = 300) -> Value:
        """Wait until a value is truthy, and give it."""
        try:
            return wait_until(value, what, self.process, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self._tail()}") from None

    def instance(self) -> DagsterInstance:
        """Open the installation's Dagster instance."""
        return DagsterInstance.from_config(str(self.root.dagster_home))

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """Give the newest ticks of a sensor as the web server shows them."""
        state = self.ask(TICKS, sensor=sensor)["sensorOrError"]["sensorState"]
        found: list[dict[str, Any]] = state["ticks"]
        return found

    def _tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-60:])


@contextmanager
def default_places() -> Iterator[None]:
    """Let an installation keep all below its data root, whatever the operator's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("DAGSTER_HOME", "CRDS_PATH", "CRDS_CONTEXT", "ROMAN_ASSETS_WORKERS"):
            patch.delenv(variable, raising=False)
        yield


@contextmanager
def running_platform(root: DataRoot, *, webserver: bool = True) -> Iterator[Platform]:
    """Run daemon and web server; at the end everything they started is killed."""
    prepare_dagster_home(root)
    log = root.path / "platform.log"
    port = free_port()
    programs = [["dagster-daemon", "run", "-w", str(workspace_file())]]
    if webserver:
        programs.append(
            ["dagster-webserver", "-w", str(workspace_file()), "-h", "127.0.0.1", "-p", str(port)]
        )
    with log.open("ab") as output:
        processes = [start_program(program, root, output) for program in programs]
    try:
        yield Platform(root, port, processes[0], log)
    finally:
        for process in processes:
            kill_group(process)


@contextmanager
def running_dev(root: DataRoot, **environment: str) -> Iterator[Platform]:
    """Run ``roman-assets dev`` as an operator does, until its UI answers; at the end stop it."""
    log = root.path / "platform.log"
    port = free_port()
    with log.open("ab") as output:
        process = start_program(
            ["roman-assets", "--data", str(root.path), "dev", "--port", str(port),
             "--archive-port", "0"],
            root, output, **environment,
        )  # fmt: skip
    platform = Platform(root, port, process, log)
    try:
        platform.wait_for(lambda: platform.ask("{ version }"), "an answer of the UI")
        yield platform
    finally:
        process.terminate()
        process.wait(60)


def wait_until(
    value: Callable[[], Value], what: str, process: subprocess.Popen[bytes], seconds: float = 300
) -> Value:
    """Wait until a value is truthy, and give it; fail when a program ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            if found := value():
                return found
        assert process.poll() is None, f"{process.args!r} ended"
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def command(root: DataRoot, *arguments: str, **environment: str) -> str:
    """Run ``roman-assets`` as an operator of an installation; give what it prints."""
    program = Path(sys.executable).with_name("roman-assets")
    done = subprocess.run(
        [str(program), *arguments],
        env=dagster_environment(root) | {"COLUMNS": "300"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def process_of(instance: DagsterInstance, run: DagsterRun) -> int:
    """Give the process that executes a run."""
    entries = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    events = [entry.dagster_event for entry in entries]
    pids = [
        event.engine_event_data.metadata["pid"].value
        for event in events
        if event is not None and "pid" in event.engine_event_data.metadata
    ]
    return int(str(pids[-1]))


def tree_of(pid: int) -> list[int]:
    """Give a process and all that it and they started, the first first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program with all that it started, as a power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_program(
    program: list[str], root: DataRoot, output: Any, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a program of this environment on an installation; it dies with the tests."""
    path = Path(sys.executable).with_name(program[0])
    return subprocess.Popen(
        [str(path), *program[1:]],
        env=dagster_environment(root) | environment,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    # a killed test session must not leave a daemon at work; what that started ends without it
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """Give a port of this host that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
