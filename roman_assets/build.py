"""The running code: its version, its commit, and whether it was modified since.

A source checkout asks git at run time: an editable installation only knows the version of the
moment it was installed. Elsewhere the module ``_build`` answers, which setuptools-scm writes when
it builds the package. Without either, as in a copy of the bare sources, the commit is unknown.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).resolve().parent.parent
"""Holds the package: the top of a checkout, or ``site-packages``."""

_DESCRIBED = re.compile(
    r"(?:v(?P<tag>.+)-(?P<since>\d+)-g)?(?P<commit>[0-9a-f]{40})(?P<dirty>-dirty)?"
)
_SHORT = 9
_TIMEOUT = 30


@dataclass(frozen=True)
class Build:
    """The identity of running code.

    Parameters
    ----------
    version
        The last tag; then, as the local part, the commit (unless it is the tagged one) and
        ``dirty`` if tracked files were modified.
    commit
        40 hexadecimal digits, None if unknown.
    modified
        Whether tracked files differ from the commit, None if unknown.
    """

    version: str
    commit: str | None = None
    modified: bool | None = None

    def __str__(self) -> str:
        if self.commit is None:
            return f"{self.version}, commit unknown"
        return f"{self.version}, commit {self.commit}{', modified' if self.modified else ''}"

    @classmethod
    def of_checkout(cls, source: Path) -> Self | None:
        """Return what git says of a checkout, None if the directory is not a checkout.

        Where git does not answer, the commit is unknown: what was written when the checkout was
        installed may be out of date.
        """
        if not (source / ".git").exists():
            return None
        told = _git(source, "describe", "--tags", "--match", "v[0-9]*", "--long", "--dirty",
                    "--always", "--abbrev=40")  # fmt: skip
        found = _DESCRIBED.fullmatch(told or "")
        if found is None:
            return cls(_untagged_version(source))
        commit, modified = found["commit"], found["dirty"] is not None
        local = [] if found["since"] == "0" else [f"g{commit[:_SHORT]}"]
        local += ["dirty"] if modified else []
        version = found["tag"] or _untagged_version(source)
        return cls(version + ("+" + ".".join(local) if local else ""), commit, modified)

    @classmethod
    def of_package(cls) -> Self | None:
        """Return the sources of the build, None in sources that were never built."""
        try:
            written = importlib.import_module("roman_assets._build")
        except ModuleNotFoundError:
            return None
        if written.COMMIT is None:
            return cls(str(written.VERSION))
        commit = str(written.COMMIT).removeprefix("g")
        # An archive of a commit without a tag before it knows the commit alone.
        version = f"0+g{commit[:_SHORT]}" if written.VERSION == "0.0" else str(written.VERSION)
        return cls(version, commit, bool(written.MODIFIED))


@functools.cache
def build() -> Build:
    """Return the identity of the running code, as it was when a process asked first."""
    return Build.of_checkout(SOURCE) or Build.of_package() or Build("0+unknown")


def _git(source: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(source), *arguments],
            env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _untagged_version(source: Path) -> str:
    settings = tomllib.loads((source / "pyproject.toml").read_text())
    return str(settings["tool"]["setuptools_scm"]["fallback_version"])
