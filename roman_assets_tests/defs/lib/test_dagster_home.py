from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dagster import DagsterInstance

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import (
    dagster_environment,
    prepare_dagster_home,
    project_directory,
    workspace_file,
)
from roman_assets.defs.lib.launcher import HostRunLauncher


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return DataRoot(tmp_path / "data")


def test_a_prepared_home_is_an_instance_with_the_projects_settings(root: DataRoot) -> None:
    home = prepare_dagster_home(root)
    assert home == root.dagster_home
    with DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.run_launcher, HostRunLauncher)
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert not instance.telemetry_enabled
        assert instance.global_op_concurrency_default_limit == 1
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2


def test_preparing_again_changes_nothing(root: DataRoot) -> None:
    settings = prepare_dagster_home(root) / "dagster.yaml"
    before = settings.lstat()
    prepare_dagster_home(root)
    assert settings.lstat() == before


def test_a_link_to_another_checkout_is_corrected(root: DataRoot) -> None:
    root.dagster_home.mkdir(parents=True)
    (root.dagster_home / "dagster.yaml").symlink_to("/gone/dagster.yaml")
    home = prepare_dagster_home(root)
    assert (home / "dagster.yaml").resolve() == project_directory() / "dagster.yaml"


def test_the_operators_own_settings_stay(root: DataRoot) -> None:
    root.dagster_home.mkdir(parents=True)
    own = root.dagster_home / "dagster.yaml"
    own.write_text("telemetry: {enabled: false}\n")
    prepare_dagster_home(root)
    assert own.read_text() == "telemetry: {enabled: false}\n"


def test_the_environment_names_home_and_data(root: DataRoot) -> None:
    environment = dagster_environment(root)
    assert environment["DAGSTER_HOME"] == str(root.dagster_home)
    assert environment["ROMAN_ASSETS_DATA"] == str(root.path)


def test_what_the_operator_set_wins(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("DAGSTER_HOME", str(root.path / "elsewhere"))
    environment = dagster_environment(root)
    assert environment["OMP_NUM_THREADS"] == "4"
    assert environment["DAGSTER_HOME"] == str(root.path / "elsewhere")
    assert prepare_dagster_home(root) == root.path / "elsewhere"


def test_the_workspace_is_at_the_projects_top() -> None:
    assert "roman_assets.definitions" in workspace_file().read_text()


def test_many_processes_may_prepare_one_home_at_once(root: DataRoot) -> None:
    code = (
        "import sys; from pathlib import Path; from roman_assets.data_root import DataRoot; "
        "from roman_assets.defs.lib.dagster_home import prepare_dagster_home; "
        "prepare_dagster_home(DataRoot(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(root.path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with DagsterInstance.from_config(str(root.dagster_home)) as instance:
        assert instance.get_runs() == []
