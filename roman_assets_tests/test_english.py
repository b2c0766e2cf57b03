"""The phrases that docs, help texts, descriptions, errors and docstrings avoid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

DOCSTRINGS = {
    "begins with Return, Compute, Read, Write or Check": r"(?:Give|Tell|Say|Let)s?\b",
    "states a limit in words: Largest number of ...": r"So (?:many|much|far)\b",
}
"""What the beginning of a docstring does instead, and what it must not match."""

PROSE = {
    "missing, not 'lacks'": r"\black(?:s|ed)?\b(?! of\b)",
    "reprocess, reproduce or repeat, not 'make again'": (
        r"\b(?:make|makes|made|making)(?:\s+[\w-]+){0,5}?\s+again\b"
    ),
    "idempotent, or 'repeat it', not 'done again'": r"\b[Dd]one again\b",
    "invalid, not 'is none'": r"(?<![Tt]here )\b(?:is|are|was|were) none\b",
    "is not a, or invalid, not 'is no'": (
        r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b|such\b)\w+"
    ),
    "too few, not 'stars enough'": r"\b(?:stars|sources|images|values|pixels|times) enough\b",
    "a process that ..., not 'Who ...' as a subject": (
        r"(?:^|(?<=[.:;] ))(?:Who|Whoever)\s[^?.]*[.]|\bwhoever\b|\bto who\b"
    ),
    "subject first: the record says which, not 'Which ... says the record'": (
        r"(?:^|(?<=[.:;] ))(?:Which|How|Where|When)\s[^.?;:]*\b(?:says|tells)\b"
    ),
    "match no exposure, not 'of which nobody can tell what for'": r"\bof which nobody|what for\b",
    "has changed, not 'is another than'": r"\banother than\b|\botherwise now\b",
    "oldest first, not 'first first'": r"\bfirst first\b",
    "notified, not 'be told'": r"\b[Bb]e told\b",
    "close, keep or delete, not 'let go'": r"\b[Ll]et(?:ting)? go\b",
}
"""What to write instead, and the pattern to avoid."""


@dataclass(frozen=True)
class Text:
    """A docstring, a text in the code, or a paragraph of a page."""

    path: str
    line: int
    words: str
    is_docstring: bool = False


def texts_of_page(path: Path, name: str) -> Iterator[Text]:
    """Yield the paragraphs of a page without code, quotations and literals."""
    page = path.read_text()
    without_code = re.sub(
        r"^ *```.*?^ *```$|^> .*$",
        lambda block: "\n" * block[0].count("\n"),
        page,
        flags=re.M | re.S,
    )
    for paragraph in re.finditer(r"(?:^.+\n?)+", without_code, re.MULTILINE):
        line = without_code[: paragraph.start()].count("\n") + 1
        yield Text(name, line, re.sub(r"`[^`]*`", "x", paragraph[0]))


def texts_of_module(path: Path, name: str) -> Iterator[Text]:
    """Yield the docstrings of a module and its texts of several words: help, metadata, errors."""
    seen = set()
    nodes = list(ast.walk(ast.parse(path.read_text())))
    for node in nodes:
        for statement in (
            getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ()
        ):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text)) as constant):
                    seen.add(constant)
                    yield Text(name, constant.lineno, text, is_docstring=True)
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            seen.update(node.values)
            parts = (part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield Text(name, node.lineno, "".join(map(str, parts)))
    for node in nodes:
        match node:
            case ast.Constant(value=str(text)) if node not in seen and " " in text:
                yield Text(name, node.lineno, text)


def texts() -> Iterator[Text]:
    pages = [*PROJECT.glob("*.md"), *PROJECT.glob("*/README.md"), *PROJECT.glob("docs/**/*.md")]
    for path in sorted([*pages, *PROJECT.glob("roman_assets/**/*.py")]):
        name = str(path.relative_to(PROJECT))
        if "generated" not in name:
            yield from (texts_of_module if path.suffix == ".py" else texts_of_page)(path, name)


def faults(text: Text) -> Iterator[str]:
    """Yield what is wrong with a text, and what to write instead."""
    words = " ".join(text.words.split())
    if text.is_docstring:
        for remedy, pattern in DOCSTRINGS.items():
            if re.match(pattern, words):
                yield f"{text.path}:{text.line}: {words[:60]!r}. Write: {remedy}"
    for remedy, pattern in PROSE.items():
        for found in re.finditer(pattern, words):
            yield f"{text.path}:{text.line}: {found[0]!r}. Write: {remedy}"


def test_what_users_read_is_plain_english() -> None:
    found = [fault for text in texts() for fault in faults(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "words",
    [
        "Give the files.",
        "Tell whether it is open.",
        "So many visits are compared in one tick.",
        "If a time or the footprint is none.",
        "'x' is no number",
        "Images without stars enough have no fit.",
        "It makes nothing again.",
        "Done again, it does nothing.",
        "What lacks is awaited.",
        "Which L2 belong to a unit of a release says its record, as does the context.",
        "Who comes late for one reads the snapshot again.",
        "requests those that came first first",
        "reject those of which nobody can tell what for",
        "Approve although the situation is another than when it was proposed.",
    ],
)
def test_every_phrase_to_avoid_is_found(words: str) -> None:
    assert list(faults(Text("x.py", 1, words, is_docstring=True)))


@pytest.mark.parametrize(
    "words",
    [
        "There is no such file.",
        "It is no longer open.",
        "Return the files, for lack of a name.",
        "Close the file; a later call opens it again.",
        "Who may use the UI",
    ],
)
def test_plain_phrases_pass(words: str) -> None:
    assert not list(faults(Text("x.py", 1, words, is_docstring=True)))
