"""An installation without the simulator serves operators and scientists."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from roman_assets.cli import EXTRAS

PROJECT = Path(__file__).parents[2]
WITHOUT = """
import sys
from importlib.machinery import PathFinder

absent = sys.argv.pop(1).split(",")
sys.argv[0] = "roman-assets"

class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = name.partition(".")[0] not in absent
        return PathFinder.find_spec(name, path, target) if found else None

sys.meta_path[sys.meta_path.index(PathFinder)] = Others
"""
COMMAND = WITHOUT + "from roman_assets.cli import main; main()"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    absent = ",".join(EXTRAS)
    return subprocess.run(
        [sys.executable, "-c", program, absent, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["status"], ["ls"], ["query"], ["--role", "operations", "fsck"]],
    ids=" ".join,
)
def test_operators_and_scientists_need_no_simulator(tmp_path: Path, arguments: list[str]) -> None:
    done = run(COMMAND, "--data", str(tmp_path / "data"), *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module",
    ["roman_assets", "roman_assets.definitions", "roman_assets.service.serve",
     "roman_assets.preload"],
)  # fmt: skip
def test_the_platform_loads_without_the_simulator(module: str) -> None:
    done = run(f"{WITHOUT}import {module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["demo"], ["simulate"]], ids=" ".join)
def test_what_needs_the_simulator_names_the_extra(tmp_path: Path, arguments: list[str]) -> None:
    done = run(COMMAND, "--data", str(tmp_path / "data"), "--role", "operations", *arguments)
    assert done.returncode == 1
    assert "roman-assets[simulation]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extras_are_those_of_the_package() -> None:
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) == set(package["optional-dependencies"])
