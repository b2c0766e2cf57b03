from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus

from roman_assets.automation.launcher import HostRunLauncher, process_is_alive


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_runs_is_alive(sleeper: subprocess.Popen[bytes]) -> None:
    assert process_is_alive(sleeper.pid, time.time())


def test_a_killed_process_is_not(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    assert not process_is_alive(sleeper.pid, time.time())


def test_a_process_that_nobody_buried_is_not(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not process_is_alive(sleeper.pid, time.time())


def test_a_later_process_with_the_same_number_is_another(
    sleeper: subprocess.Popen[bytes],
) -> None:
    assert not process_is_alive(sleeper.pid, time.time() - 3600)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_is_as_healthy_as_its_process(sleeper: subprocess.Popen[bytes], killed: bool) -> None:
    with DagsterInstance.ephemeral() as instance:
        launcher = HostRunLauncher()
        launcher.register_instance(instance)
        run = instance.create_run_for_job(nothing, status=DagsterRunStatus.STARTED)
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        instance.report_engine_event(
            "Started process for run", run, EngineEventData.in_process(sleeper.pid)
        )
        if killed:
            sleeper.kill()
            sleeper.wait()
        expected = WorkerStatus.NOT_FOUND if killed else WorkerStatus.RUNNING
        assert launcher.check_run_worker_health(run).status is expected


@dg.job
def nothing() -> None:
    pass
