from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from roman_assets.defs.lib.dagster_internals import WorkerStatus
from roman_assets.defs.lib.launcher import PROCESS_TAG, HostRunLauncher, RunProcess
from roman_assets_tests.support.dagster_privates import EngineEventData


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def process(sleeper: subprocess.Popen[bytes]) -> RunProcess:
    process = RunProcess.of("a run", sleeper.pid)
    assert process is not None
    return process


def test_a_process_that_runs_is_alive(process: RunProcess) -> None:
    assert process.is_alive
    assert RunProcess.parse(process.to_json()) == process


def test_a_killed_process_is_not(sleeper: subprocess.Popen[bytes], process: RunProcess) -> None:
    sleeper.kill()
    sleeper.wait()
    assert not process.is_alive


def test_a_process_that_nobody_buried_is_not(
    sleeper: subprocess.Popen[bytes], process: RunProcess
) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive


@pytest.mark.parametrize("change", [{"start_ticks": 7}, {"boot": "another"}])
def test_a_later_process_with_the_same_number_is_another(
    process: RunProcess, change: dict[str, object]
) -> None:
    assert not replace(process, **change).is_alive  # type: ignore[arg-type]


@pytest.fixture
def launcher() -> Iterator[HostRunLauncher]:
    with DagsterInstance.ephemeral() as instance:
        launcher = HostRunLauncher()
        launcher.register_instance(instance)
        yield launcher


def started(launcher: HostRunLauncher, pid: int | None, **tags: str) -> DagsterRun:
    instance = launcher._instance
    run = instance.create_run_for_job(nothing, status=DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        instance.report_engine_event(
            "Started process for run", run, EngineEventData.in_process(pid)
        )
    return run


def health(launcher: HostRunLauncher, run: DagsterRun) -> WorkerStatus:
    present = launcher._instance.get_run_by_id(run.run_id)
    assert present is not None
    return launcher.check_run_worker_health(present).status


@pytest.mark.parametrize("checked_before", [False, True])
def test_a_run_is_as_healthy_as_its_process(
    launcher: HostRunLauncher, sleeper: subprocess.Popen[bytes], checked_before: bool
) -> None:
    run = started(launcher, sleeper.pid)
    if checked_before:
        assert health(launcher, run) is WorkerStatus.RUNNING
    sleeper.kill()
    sleeper.wait()
    assert health(launcher, run) is WorkerStatus.NOT_FOUND


def test_a_run_that_names_no_process_yet_counts_as_running(launcher: HostRunLauncher) -> None:
    assert health(launcher, started(launcher, None)) is WorkerStatus.RUNNING


def test_a_clock_that_is_set_kills_no_run(
    launcher: HostRunLauncher, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        an_hour_ago = time.time() - 3600
        patch.setattr(time, "time", lambda: an_hour_ago)
        run = started(launcher, sleeper.pid)
    assert health(launcher, run) is WorkerStatus.RUNNING
    assert health(launcher, run) is WorkerStatus.RUNNING


def test_a_process_of_another_program_only_inherited_the_number(launcher: HostRunLauncher) -> None:
    other = subprocess.Popen(["/bin/sleep", "60"])
    try:
        run = started(launcher, other.pid)
        assert health(launcher, run) is WorkerStatus.NOT_FOUND
    finally:
        other.kill()
        other.wait()


def test_a_run_executed_again_is_not_judged_by_the_process_of_the_former_one(
    launcher: HostRunLauncher, sleeper: subprocess.Popen[bytes]
) -> None:
    former = RunProcess("another run", "another boot", 1, 1)
    run = started(launcher, sleeper.pid, **{PROCESS_TAG: former.to_json()})
    assert health(launcher, run) is WorkerStatus.RUNNING


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", WorkerStatus.NOT_FOUND),
        ("127.0.0.1", WorkerStatus.NOT_FOUND),
        ("192.0.2.1", WorkerStatus.RUNNING),
        ("code-server.invalid", WorkerStatus.RUNNING),
    ],
)
def test_runs_of_another_host_are_left_alone(
    launcher: HostRunLauncher, host: str, expected: WorkerStatus
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    info = json.dumps({"host": host, "port": 4000})
    run = started(launcher, gone.pid, **{".dagster/grpc_info": info})
    assert health(launcher, run) is expected


@dg.job
def nothing() -> None:
    pass
