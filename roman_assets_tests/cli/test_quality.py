from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.lifecycle import Quality, State
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import cal, commit_names, public_content


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "data"))
    root = DataRoot(tmp_path / "data")
    commit_names(root, [cal(1), cal(2)])
    fold(root)
    return root


def command(*arguments: str, given: str | None = None) -> str:
    result = CliRunner().invoke(app, arguments, input=given)
    assert result.exit_code == 0, result.output
    return result.output


def test_names_from_a_query_are_graded_and_shown_with_the_reason(root: DataRoot) -> None:
    names = command("query", "--kind", "cal", "--format", "names")
    arguments = ("--reason", "noisy bias", "--by", "A. Person", "--from", "2023-01-01")
    assert cal(1) in command("grade", "suspect", "-", *arguments, "--dry-run", given=names)
    assert Registry(root).products.find(quality="SUSPECT").empty
    assert "2 products graded SUSPECT" in command("grade", "suspect", "-", *arguments, given=names)
    assert "noisy bias" in command("history", cal(1))
    assert command("query", "--quality", "suspect", "--format", "names").split() == [cal(1), cal(2)]


def test_a_withdrawn_product_is_gone_and_its_history_says_why(root: DataRoot) -> None:
    told = command("withdraw", cal(1), "--reason", "wrong target", "--by", "A. Person")
    assert "1 product withdrawn" in told
    assert set(public_content(root)) == {cal(2)}
    (one,) = Registry(root).generations.of([cal(1)])[cal(1)]
    assert (one.state, one.quality) == (State.WITHDRAWN, Quality.BAD)
    assert "wrong target" in command("history", cal(1))
