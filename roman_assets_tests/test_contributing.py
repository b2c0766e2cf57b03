"""CONTRIBUTING.md and the habits it describes, followed to the letter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
GUIDE = (PROJECT / "CONTRIBUTING.md").read_text()
RECIPE = re.compile(r"^### (Add .*)$", re.MULTILINE)
BLOCK = re.compile(
    r"^(?:New file `(?P<path>[^`]+)`:\n\n```python|```diff)\n(?P<text>.*?)^```$", re.M | re.S
)
RECIPES = {
    title.strip(): text for title, text in zip(*(iter(RECIPE.split(GUIDE)[1:]),) * 2, strict=True)
}
COPIED = ("roman_assets", "roman_assets_tests", "docs", "README.md", "pyproject.toml")
_GENERATED = shutil.ignore_patterns("__pycache__", "_build.py")
"""What an installation writes beside the sources; the copy is no repository that ignores it."""
AFFECTED = ("test_definitions.py", "test_layers.py", "products/test_kind.py")
"""Tests of the tables that recipes add to; they run beside those that recipes bring."""


@dataclass(frozen=True)
class Copy:
    """A copy of the repository that recipes are applied to."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Copy:
        for name in COPIED:
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, path / name, ignore=_GENERATED)
            else:
                shutil.copy(source, path / name)
        return cls(path)

    def apply(self, recipe: str) -> list[str]:
        """Do what a recipe says; return the paths of its tests."""
        tests = []
        for block in BLOCK.finditer(RECIPES[recipe]):
            if block["path"] is None:
                self._patch(block["text"])
                continue
            path = self.path / block["path"]
            assert not path.exists(), f"{recipe}: {block['path']} exists"
            path.write_text(block["text"])
            if path.name.startswith("test_"):
                tests.append(block["path"])
        return tests

    def _patch(self, diff: str) -> None:
        command = ["git", "apply", "--recount", "-C1", "-"]
        done = subprocess.run(
            command, input=diff, cwd=self.path, text=True, capture_output=True, check=False,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(self.path.parent)},
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr}\n{diff}"

    def run(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self.path)}
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=self.path, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    yield Copy.at(tmp_path)
    shutil.rmtree(tmp_path)


def test_following_the_recipes_gives_a_platform_that_works(copy: Copy) -> None:
    assert len(RECIPES) == 4
    tests = [test for recipe in RECIPES for test in copy.apply(recipe)]
    assert len(tests) == len(RECIPES)
    copy.run("ruff", "check", "roman_assets", *tests)
    copy.run("ruff", "format", "--check", "roman_assets", *tests)
    affected = [f"roman_assets_tests/{name}" for name in AFFECTED]
    copy.run("pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, *affected)


def test_a_commit_is_checked_by_the_linters_of_make_lint() -> None:
    recipe = (PROJECT / "Makefile").read_text().partition("\nlint: $(READY)\n")[2].split("\n\n")[0]
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [f"\t{hook['entry']}".replace(".venv", "$(VENV)") for hook in hooks] == (
        recipe.splitlines()
    )


def test_every_owned_path_exists() -> None:
    lines = (PROJECT / ".github" / "CODEOWNERS").read_text().splitlines()
    patterns = [line.split() for line in lines if line and not line.startswith("#")]
    assert patterns[0][0] == "*"
    for pattern, *owners in patterns:
        assert owners, pattern
        assert list(PROJECT.glob(pattern.strip("/"))), f"CODEOWNERS: {pattern} matches no file"


def test_a_pull_request_runs_what_must_pass_before_a_change_lands() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    assert {"pull_request", "push"} <= workflow[True].keys()  # YAML reads `on` as true
    commands = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    run = [word for command in commands for word in shlex.split(command) if word.endswith("/run")]
    assert run == [".ci/run"]
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_the_fragments_of_the_changelog_can_be_published() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "99.0"]
    draft = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    fragments = [path for path in (PROJECT / "changes").glob("*.md") if path.name != "README.md"]
    for path in fragments:
        assert " ".join(path.read_text().split()) in " ".join(draft.split()), path
