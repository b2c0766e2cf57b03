from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter import cli

PROJECT = Path(__file__).parents[1]
PATCHES = {"setattr", "delattr", "patch", "object"}
"""Methods of `pytest.MonkeyPatch` and `unittest.mock.patch` that put something in a place."""


def test_imports_keep_the_contracts_of_the_layers() -> None:
    """`lint-imports` prints the chains of imports that break a contract."""
    assert cli.lint_imports(str(PROJECT / "pyproject.toml"), no_cache=True) == 0


def private_patches(source: str) -> Iterator[str]:
    """Yield the private names that a test replaces."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in PATCHES:
            continue
        for argument in node.args[:2]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                name = argument.value.rpartition(".")[2]
                if name.startswith("_") and not name.startswith("__"):
                    yield argument.value


@pytest.mark.parametrize(
    "call",
    [
        'monkeypatch.setattr(module, "_place", crash)',
        'monkeypatch.setattr("roman_assets.archive.set_aside._place", crash)',
        'mock.patch.object(module, "_FULL", 3)',
    ],
)
def test_a_patch_of_a_private_name_is_found(call: str) -> None:
    assert list(private_patches(call))


def test_no_test_patches_a_private_name() -> None:
    found = {
        f"{path.relative_to(PROJECT)}: {name}"
        for path in (PROJECT / "roman_assets_tests").rglob("*.py")
        if path != Path(__file__)
        for name in private_patches(path.read_text())
    }
    assert not found, "give the code a public seam (CONTRIBUTING.md)"
