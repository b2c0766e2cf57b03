"""Kills at bad moments: the archive, the registry and the UI end as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import asdf
import numpy as np
import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
)

from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.launcher import RunProcess
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets_tests.support.platform import (
    PLAN,
    Platform,
    default_places,
    kill_group,
    process_of,
    running_platform,
)

pytestmark = pytest.mark.slow

EXPOSURE = PLAN.exposures[0].exposure
STEPS = ("format_exposure", "calibrate_exposure")


@pytest.fixture(scope="module", autouse=True)
def _places() -> Iterator[None]:
    with default_places():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Land an exposure and make it without Dagster."""
    root = DataRoot(tmp_path_factory.mktemp("undisturbed") / "data")
    observe(PLAN, root, processes=1)
    format_exposure(root, EXPOSURE)
    calibrate_exposure(root, EXPOSURE, workers=1)
    return root


@pytest.fixture
def root(undisturbed: DataRoot, tmp_path: Path) -> DataRoot:
    """Give an installation with the same exposure landed and nothing made."""
    fresh = DataRoot(tmp_path / "data")
    for directory in (undisturbed.landing, undisturbed.crds):
        shutil.copytree(directory, fresh.path / directory.name, copy_function=shutil.copy2)
    return fresh


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_starts_again_and_ends_the_same(
    root: DataRoot, undisturbed: DataRoot, step: str
) -> None:
    with running_platform(root, webserver=False) as platform:
        run, pid = run_at(platform, step)
        os.kill(pid, signal.SIGKILL)
        wait_for_success(platform)
        with platform.instance() as instance:
            (again,) = instance.get_runs(RunsFilter(tags={"dagster/parent_run_id": run.run_id}))
            assert again.status is DagsterRunStatus.SUCCESS
        assert_as_if_nothing_had_happened(platform, undisturbed)


@pytest.mark.parametrize("step", STEPS)
def test_after_a_power_cut_the_work_goes_on_and_ends_the_same(
    root: DataRoot, undisturbed: DataRoot, step: str
) -> None:
    with running_platform(root, webserver=False) as platform:
        run, pid = run_at(platform, step)
        kill_group(platform.process)
        with platform.instance() as instance:
            assert RunProcess.of(run.run_id, pid) is None
            status = instance.get_run_by_id(run.run_id)
            assert status is not None
            assert status.status is DagsterRunStatus.STARTED
    with running_platform(root, webserver=False) as platform:
        wait_for_success(platform)
        assert_as_if_nothing_had_happened(platform, undisturbed)


def run_at(platform: Platform, step: str) -> tuple[DagsterRun, int]:
    """Wait until a run is within a step; give it and its process."""

    def found() -> tuple[DagsterRun, int] | None:
        with platform.instance() as instance:
            for run in instance.get_runs():
                started = instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_START)
                if any(entry.step_key == step for entry in started):
                    return run, process_of(instance, run)
        return None

    return platform.wait_for(found, f"the step {step}")


def wait_for_success(platform: Platform) -> None:
    def succeeded() -> bool:
        with platform.instance() as instance:
            return instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.SUCCESS])) > 0

    platform.wait_for(succeeded, "a successful run")


def assert_as_if_nothing_had_happened(platform: Platform, undisturbed: DataRoot) -> None:
    assert products(platform.root) == products(undisturbed)
    assert public_files(platform.root) == public_files(undisturbed)
    assert images(platform.root) == images(undisturbed)
    with platform.instance() as instance:
        for asset in ("uncal", "guide_window", "face", "supplement", "cal"):
            assert instance.get_materialized_partitions(AssetKey(asset)) == {str(EXPOSURE)}, asset


def products(root: DataRoot) -> set[tuple[str, int]]:
    """Give name and generation of all current products."""
    with Registry(root) as registry:
        found = registry.products.find()
    return set(zip(found["name"], found["generation"], strict=True))


def images(root: DataRoot) -> dict[str, str]:
    """Give a hash of the pixels of each public L2 image; its dates and logs differ."""
    found = {}
    for path in root.public.rglob("*_cal.asdf"):
        with asdf.open(path) as file:
            image = file["roman"]
            pixels = b"".join(np.asarray(image[name]).tobytes() for name in ("data", "err", "dq"))
        found[path.name] = hashlib.sha256(pixels).hexdigest()
    return found


def public_files(root: DataRoot) -> set[str]:
    return {path.name for path in root.public.rglob("*") if path.is_file()}
