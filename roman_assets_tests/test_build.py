from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roman_assets.build import SOURCE, Build, build
from roman_assets.cli import app

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
SAY_BUILD = """
from dataclasses import astuple
from roman_assets.build import build
print(*astuple(build()))
"""


def git(place: Path, *arguments: str) -> str:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    return subprocess.run(
        ["git", *identity, "-C", str(place), *arguments],
        check=True, capture_output=True, text=True, env=environment,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with what decides the version, and nothing that takes time to build."""
    place = tmp_path / "checkout"
    package = place / "roman_assets"
    package.mkdir(parents=True)
    for name in ("__init__.py", "build.py"):
        shutil.copy(SOURCE / "roman_assets" / name, package)
    for name in ("pyproject.toml", ".gitignore", ".gitattributes", ".git_archival.txt"):
        shutil.copy(PYPROJECT.parent / name, place)
    for name in ("LICENSE", "dagster.yaml", "workspace.yaml"):
        shutil.copy(PYPROJECT.parent / name, place)
    (place / "README.md").write_text("short")
    git(place, "init", "-q")
    git(place, "add", "--all")
    git(place, "commit", "-q", "-m", "first")
    return place


def built(source: Path, place: Path) -> list[str]:
    """Build and unpack a wheel; give what its code says of itself."""
    target = place / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(target), str(source)],
        check=True,
    )  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-c", SAY_BUILD],
        check=True, capture_output=True, text=True, cwd=place,
        env=os.environ | {"PYTHONPATH": str(target)},
    )  # fmt: skip
    return said.stdout.split()


def test_a_checkout_without_tags_states_its_commit(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert Build.of_checkout(checkout) == Build(f"0.1.0+g{commit[:9]}", commit, modified=False)


def test_a_tag_gives_the_version_and_a_commit_after_it_shows(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.0")
    first = git(checkout, "rev-parse", "HEAD")
    assert Build.of_checkout(checkout) == Build("1.2.0", first, modified=False)
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    second = git(checkout, "rev-parse", "HEAD")
    assert Build.of_checkout(checkout) == Build(f"1.2.0+g{second[:9]}", second, modified=False)


def test_modified_code_is_told_from_its_commit(checkout: Path) -> None:
    clean = Build.of_checkout(checkout)
    with (checkout / "roman_assets" / "build.py").open("a") as file:
        file.write("# modified\n")
    modified = Build.of_checkout(checkout)
    assert clean is not None
    assert modified is not None
    assert (modified.commit, modified.modified) == (clean.commit, True)
    assert modified.version == f"{clean.version}.dirty"


def test_a_package_within_another_repository_does_not_take_its_commit(checkout: Path) -> None:
    inside = checkout / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert Build.of_checkout(inside) is None


def test_the_environment_of_another_repository_changes_nothing(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Build.of_checkout(checkout)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert Build.of_checkout(checkout) == expected


def test_where_git_does_not_answer_no_commit_is_claimed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "roman_assets" / "_build.py").write_text("VERSION = COMMIT = 'old'; MODIFIED = 0")
    monkeypatch.setenv("PATH", str(checkout))
    assert Build.of_checkout(checkout) == Build("0.1.0")


@pytest.mark.parametrize("tag", [None, "v1.2.0"])
def test_an_installed_wheel_states_the_commit_it_was_built_from(
    checkout: Path, tmp_path: Path, tag: str | None
) -> None:
    if tag:
        git(checkout, "tag", tag)
    of_checkout = Build.of_checkout(checkout)
    assert of_checkout is not None
    assert built(checkout, tmp_path) == [of_checkout.version, str(of_checkout.commit), "False"]


def test_a_tarball_of_a_commit_installs_and_knows_it(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "archive", "--prefix=unpacked/", "-o", str(tmp_path / "a.tar"), "HEAD")
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    commit = git(checkout, "rev-parse", "HEAD")
    assert built(tmp_path / "unpacked", tmp_path)[:2] == [f"0+g{commit[:9]}", commit]


def test_a_copy_of_the_sources_without_git_installs(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert built(checkout, tmp_path) == ["0.1.0", "None", "None"]


def test_an_installation_brings_the_settings_of_dagster(checkout: Path, tmp_path: Path) -> None:
    built(checkout, tmp_path)
    settings = {path.name for path in (tmp_path / "installed").glob("share/roman-assets/*")}
    assert settings == {"dagster.yaml", "workspace.yaml"}


def test_the_command_line_states_version_and_commit() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert answer.output.strip() == str(build())
