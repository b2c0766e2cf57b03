"""Private interfaces of Dagster, as they were when they were checked: a change is told by name."""

from __future__ import annotations

import ast
import enum
import inspect
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import roman_assets
from roman_assets.defs.lib import dagster_internals
from roman_assets.defs.lib.dagster_internals import CHECKED_WITH, REASONS

PACKAGE = Path(roman_assets.__file__).parent
DESCRIPTIONS = Path(__file__).with_name("dagster_internals.json")
"""How each looked in the version that they were checked with, by name."""


def describe(found: Any) -> str:
    """Return what code can rely on: members, a signature with fields and methods, or a value."""
    if isinstance(found, type) and issubclass(found, enum.Enum):
        return ", ".join(sorted(member.name for member in found))
    if isinstance(found, type):
        public = sorted(name for name in vars(found) if not name.startswith("_"))
        arguments = "" if issubclass(found, Exception) else str(inspect.signature(found))
        return f"{arguments}: {', '.join(public)}"
    if callable(found):
        return str(inspect.signature(found))
    return str(found)


@pytest.mark.parametrize("name", REASONS)
def test_a_private_interface_is_as_it_was_when_it_was_checked(name: str) -> None:
    known = json.loads(DESCRIPTIONS.read_text())
    assert describe(getattr(dagster_internals, name)) == known[name], (
        f"Dagster {dg.__version__} has changed {name} since {CHECKED_WITH}. It is used because: "
        f"{REASONS[name]}. Check what uses it, then correct {DESCRIPTIONS.name}"
    )


def test_all_were_checked_with_the_installed_version() -> None:
    assert dg.__version__ == CHECKED_WITH, (
        f"read the changes of {', '.join(REASONS)} since Dagster {CHECKED_WITH}, run the tests, "
        "then state the version in dagster_internals.py"
    )


def test_no_other_module_uses_what_dagster_keeps_private() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            private = [name for name in names if name.startswith("dagster") and "._" in name]
            assert not private or path.name == "dagster_internals.py", f"{path}: {private}"


def test_each_private_interface_has_its_reason() -> None:
    tree = ast.parse(Path(dagster_internals.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._")
        for alias in node.names
    }
    assert imported == set(REASONS) - {"serving_context"}
