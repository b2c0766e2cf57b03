"""docs/specification.md: every sentence of the specification has its place and its test."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "specification.md"
SPECIFICATION_VARIABLE = "ROMAN_ASSETS_SPECIFICATION"
SHARED = PROJECT.parent / "shared"
ROW = re.compile(r"^\| (\d+) \| “(.*)” \| (.*?) \| (.*?) ?\|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Sentence:
    """A row of the page."""

    number: int
    opening: str
    kept_in: tuple[str, ...]
    shown_by: tuple[str, ...]
    reason: str

    @classmethod
    def rows(cls) -> list[Sentence]:
        found = ROW.findall(PAGE.read_text())
        return [
            cls(
                int(number),
                opening.removesuffix(" …"),
                tuple(CODE.findall(kept_in)),
                tuple(CODE.findall(shown_by)),
                kept_in if kept_in.startswith("*") else "",
            )
            for number, opening, kept_in, shown_by in found
        ]


SENTENCES = Sentence.rows()


def test_the_sentences_are_numbered_without_a_gap() -> None:
    assert [sentence.number for sentence in SENTENCES] == list(range(1, len(SENTENCES) + 1))
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    assert len(SENTENCES) == len(lines) > 60


def test_every_sentence_has_a_module_that_keeps_it_and_a_test_that_shows_it() -> None:
    bare = [
        sentence.number
        for sentence in SENTENCES
        if not sentence.reason and not (sentence.kept_in and sentence.shown_by)
    ]
    assert not bare


def test_the_modules_exist() -> None:
    named = {module for sentence in SENTENCES for module in sentence.kept_in}
    assert not {module for module in named if not (PROJECT / "roman_assets" / module).is_file()}


def test_the_tests_exist() -> None:
    for test in sorted({test for sentence in SENTENCES for test in sentence.shown_by}):
        path, _, function = test.partition("::")
        source = (PROJECT / "roman_assets_tests" / path).read_text()
        assert f"\ndef {function}(" in source, test


def sentences_of(text: str) -> Iterator[str]:
    """Return the sentences of the article, without headings and table headers."""
    for line in text.splitlines():
        for part in line.split("|"):
            whole = part.strip()
            if whole.startswith("- "):
                yield whole.removeprefix("- ")
                continue
            for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z])", whole):
                if sentence.endswith((".", ":")):
                    yield re.sub(r"\s+", " ", sentence)


def specification() -> str:
    """Return the article's text; where this project's shared directory is, it must be there."""
    given = os.environ.get(SPECIFICATION_VARIABLE)
    path = Path(given) if given else SHARED / "reference" / "prompt-products.txt"
    if path.is_file():
        return path.read_text()
    remedy = f"save the article “Prompt Products” and set {SPECIFICATION_VARIABLE} to its path"
    if given or SHARED.is_dir() or os.environ.get("CI"):
        pytest.fail(f"{path} is missing, so a sentence could be left out unseen: {remedy}")
    pytest.skip(f"the specification's text is not beside this checkout: {remedy}")


def test_no_sentence_of_the_specification_is_left_out() -> None:
    expected = list(sentences_of(specification()))
    found = [sentence.opening for sentence in SENTENCES]
    left_out = [one for one in expected if not any(one.startswith(begun) for begun in found)]
    assert not left_out
    for sentence, begun in zip(expected, found, strict=True):
        assert sentence.startswith(begun)


def test_an_article_with_one_more_sentence_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "article.txt"
    path.write_text("This article describes how. Products shall be blue.\n")
    monkeypatch.setenv(SPECIFICATION_VARIABLE, str(path))
    with pytest.raises(AssertionError, match="Products shall be blue"):
        test_no_sentence_of_the_specification_is_left_out()
