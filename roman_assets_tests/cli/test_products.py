from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roman_assets.archive.file_archive import FileArchive
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import cal, record_of, staged_entry

CONTENTS = {cal(1, 1): b"one", cal(1, 2): b"two", cal(2, 1): b"three"}
FACTS = {"survey": "HLWAS", "nexposures": 2}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    root = DataRoot(tmp_path / "data")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
    for name, content in CONTENTS.items():
        partition = str(ProductName.parse(name).exposure)
        record = record_of(root, {name: content}, partition=partition, metadata=FACTS)
        Journal(root).write(record)
    fold(root)
    return root


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=text)


def error_of(result: Result) -> str:
    return f"{result.output}{result.exception or ''}"


def test_ls_prints_the_official_names(root: DataRoot) -> None:
    assert run("ls").output.split() == sorted(CONTENTS)


def test_ls_takes_patterns(root: DataRoot) -> None:
    assert run("ls", "*_wfi02_*").output.split() == [cal(1, 2)]


def test_a_name_that_is_not_there_is_an_error_that_names_it(root: DataRoot) -> None:
    result = run("ls", cal(9))
    assert result.exit_code != 0
    assert cal(9) in error_of(result)


def test_query_finds_by_every_condition_together(root: DataRoot) -> None:
    result = run(
        "query", "--survey", "hlwas", "--filter", "f158", "--level", "l2", "--detector", "wfi01",
        "--exposure", str(ProductName.parse(cal(2, 1)).exposure), "--format", "names",
    )  # fmt: skip
    assert result.output.split() == [cal(2, 1)]
    assert run("query", "--survey", "GBTDS", "--format", "names").output == ""


def test_query_gives_every_column_as_json(root: DataRoot) -> None:
    rows = json.loads(run("query", "--format", "json").output)
    assert {row["name"] for row in rows} == set(CONTENTS)
    assert {"sha256", "generation", "committed_at", "footprint"} <= rows[0].keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--level", "L0"),
        ("query", "--filter", "F999"),
        ("query", "--kind", "raw"),
        ("query", "--detector", "WFI19"),
        ("query", "--position", "270.0"),
        ("get",),
        ("nothing",),
    ],
)
def test_wrong_arguments_are_refused_with_usage(root: DataRoot, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_get_copies_products_under_their_official_names(root: DataRoot, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    assert run("get", "*_wfi01_*", "--to", str(target)).exit_code == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        name: content for name, content in CONTENTS.items() if "_wfi01_" in name
    }


def test_get_reads_names_from_a_query(root: DataRoot, tmp_path: Path) -> None:
    names = run("query", "--detector", "WFI02", "--format", "names").output
    assert run("get", "-", "--to", str(tmp_path / "mine"), text=names).exit_code == 0
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [cal(1, 2)]


def test_a_copy_can_be_changed_without_changing_the_archive(root: DataRoot, tmp_path: Path) -> None:
    run("get", cal(1, 1), "--to", str(tmp_path))
    (tmp_path / cal(1, 1)).write_bytes(b"mine")
    assert FileArchive(root).path(ProductName.parse(cal(1, 1))).read_bytes() == b"one"


def test_an_empty_installation_has_nothing_and_says_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "empty"))
    for command in (("ls",), ("query",), ("status",)):
        assert run(*command).exit_code == 0


def test_fsck_finds_and_mends_a_public_name_that_went(root: DataRoot) -> None:
    public = FileArchive(root).path(ProductName.parse(cal(1, 1)))
    public.unlink()
    found = run("fsck")
    assert found.exit_code == 1
    assert cal(1, 1) in found.output
    assert run("fsck", "--mend").exit_code == 0
    assert public.read_bytes() == b"one"
    assert run("fsck").exit_code == 0


def test_rebuild_gives_the_same_products(root: DataRoot) -> None:
    before = run("query", "--format", "csv").output
    assert run("rebuild").exit_code == 0
    assert run("query", "--format", "csv").output == before


def test_fsck_tells_programs_what_is_wrong_and_what_to_do(root: DataRoot) -> None:
    FileArchive(root).path(ProductName.parse(cal(1, 1))).unlink()
    found = run("fsck", "--json", "--quick")
    assert found.exit_code == 1
    (finding,) = json.loads(found.output)
    assert finding["subject"] == cal(1, 1)
    assert not finding["mended"]
    assert "--mend" in finding["remedy"]


def test_fsck_collects_what_nobody_needs_after_the_grace_period_asked_for(root: DataRoot) -> None:
    staged_entry(root, cal(9), b"never committed")
    assert run("fsck", "--grace", "1h").exit_code == 0
    assert run("fsck", "--grace", "0h").exit_code == 1
    assert run("fsck", "--grace", "0h", "--mend").exit_code == 0
    assert run("fsck", "--grace", "0h").exit_code == 0


@pytest.mark.parametrize("grace", ["soon", "-1h", "10", "NaT"])
def test_fsck_refuses_a_grace_period_that_is_none(root: DataRoot, grace: str) -> None:
    refused = run("fsck", "--grace", grace)
    assert refused.exit_code == 2
    assert "duration" in refused.output
