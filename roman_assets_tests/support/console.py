"""The console blocks of all pages, as the commands that a reader would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = sorted(
    [
        PROJECT / "README.md",
        PROJECT / "CONTRIBUTING.md",
        *PROJECT.glob("*/README.md"),
        *(PROJECT / "docs").rglob("*.md"),
    ]
)
GENERATED = PROJECT / "docs" / "reference" / "generated"

_BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True)
class Line:
    """A line after the prompt: one command, or several joined by ``|`` or ``&&``.

    Parameters
    ----------
    page
        The page, relative to the repository.
    section
        The heading above it.
    text
        The line without its comment's meaning: continuations joined.
    """

    page: str
    section: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of each command, without assignments, ``export`` and the path of .venv."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        found: list[list[str]] = [[]]
        for token in lexer:
            if set(token) <= set("|&;"):
                found.append([])
            else:
                found[-1].append(token)
        return [arguments for command in found if (arguments := _without_setting(command))]

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def _without_setting(command: list[str]) -> list[str]:
    words = command[1:] if command[:1] == ["export"] else command
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def lines() -> Iterator[Line]:
    """Yield every line of every console block, in the order of pages."""
    for page in PAGES:
        if page.is_relative_to(GENERATED):
            continue
        text = page.read_text()
        for block in _BLOCK.finditer(text):
            heading = [*_HEADING.finditer(text, 0, block.start())][-1][1]
            joined = block[2].replace("\\\n", " ")
            for line in joined.splitlines():
                command = line.removeprefix(block[1])
                if command.startswith("$ "):
                    yield Line(str(page.relative_to(PROJECT)), heading, command[2:])
