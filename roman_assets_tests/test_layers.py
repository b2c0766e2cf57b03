from __future__ import annotations

from pathlib import Path

from importlinter import cli

PROJECT = Path(__file__).parents[1]


def test_imports_keep_the_contracts_of_the_layers() -> None:
    """`lint-imports` prints the chains of imports that break a contract."""
    assert cli.lint_imports(str(PROJECT / "pyproject.toml"), no_cache=True) == 0
