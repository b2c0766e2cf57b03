"""The reference says what the code says, and the pages build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from roman_assets.deadlines.alerts import DamageAlert
from roman_assets.definitions import defs
from roman_assets.defs.lib.in_time_check import AT_RISK
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import KINDS
from roman_assets.registry.catalog.schema import TABLES
from roman_assets_tests.support.console import PROJECT

_VARIABLE = re.compile(r"ROMAN_ASSETS_[A-Z_]*[A-Z]")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", PROJECT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_environment_variable_is_described(generate: ModuleType) -> None:
    described = generate.variables()
    assert all(described.values()), described
    for path in (PROJECT / "roman_assets").rglob("*.py"):
        for name in _VARIABLE.findall(path.read_text()):
            assert name in described, f"{path}: {name}"


def test_every_variable_and_settings_file_of_the_pages_exists(generate: ModuleType) -> None:
    known = {*generate.variables(), *generate.settings_files()}
    for page in (PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")):
        found = set(_VARIABLE.findall(page.read_text()))
        assert {name for name in found if not name.endswith("_ALERT")} <= known, page


def test_the_reference_has_every_setting_command_kind_and_column(generate: ModuleType) -> None:
    settings = generate.settings_page()
    for name in generate.settings_files():
        assert f"### `{name}`" in settings
    assert "`first_minutes`" in settings
    kinds = generate.product_kinds_page()
    assert all(f"`{kind.name}`" in kinds for kind in KINDS)
    columns = generate.registry_columns_page()
    for table in TABLES:
        assert all(f"| `{column.name}` |" in columns for column in table.columns), table.name
    commands = generate.command_line_page()
    for command in ("query", "release publish", "fsck"):
        assert f"## `roman-assets {command}`" in commands
    assert "[bold]" not in commands


def test_the_runbook_says_what_to_do_about_every_check_and_alert() -> None:
    runbook = (PROJECT / "docs" / "how-to" / "runbook.md").read_text()
    checks = defs.get_repository_def().asset_graph.asset_check_keys
    for name in {check.name for check in checks}:
        assert f"`{name}`" in runbook, name
    for state in (AT_RISK, ProductState.OVERDUE, ProductState.FAILED, DamageAlert.state):
        assert f"*{state}*" in runbook, state
    for blame in Blame:
        assert f"\n| {blame} |" in runbook, blame


def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "-W", "--keep-going", "-c", "docs",
               "-d", str(tmp_path / "doctrees"), ".", str(tmp_path / "html")]  # fmt: skip
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "docs" / "index.html").is_file()
