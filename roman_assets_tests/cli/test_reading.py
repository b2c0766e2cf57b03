"""What scientists do on the command line, and what they cannot reach there (R1)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from astropy.table import Table
from typer.testing import CliRunner, Result

from roman_assets.access import ROLE_VARIABLE
from roman_assets.archive.file_archive import FileArchive
from roman_assets.cli import READING_COMMANDS, app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import AccessDeniedError
from roman_assets.products.name import ProductName
from roman_assets.reader import archive_reader
from roman_assets.registry.search.product_search import ProductSearch
from roman_assets_tests.reader.test_archive_reader import ALL, TRICKS
from roman_assets_tests.support.other_user import another_user, as_root, open_directory
from roman_assets_tests.support.small_archive import (
    CAL,
    CAT,
    COADD,
    COADD_CAT,
    PACKETS,
    UNCAL,
    small_archive,
)
from roman_assets_tests.support.small_products import association, exposure, sha256

SQUARE = "269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"
COMMANDS = {
    command.name or command.callback.__name__.replace("_", "-")
    for command in app.registered_commands
}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    return small_archive(tmp_path_factory.mktemp("installed") / "data")


@pytest.fixture
def root(installed: DataRoot, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    """An installation that is only read."""
    return used(installed, monkeypatch)


@pytest.fixture
def own_root(installed: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    """An installation to be changed at will."""
    shutil.copytree(installed.path, tmp_path / "data")
    return used(DataRoot(tmp_path / "data"), monkeypatch)


def used(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
    monkeypatch.delenv(ROLE_VARIABLE, raising=False)
    monkeypatch.setattr(archive_reader, "PAUSES", (0.0,))
    return root


def run(*arguments: str, text: str | None = None) -> Result:
    # the command leaves its settings in the environment for the processes it starts
    before = dict(os.environ)
    try:
        return CliRunner().invoke(app, arguments, input=text)
    finally:
        os.environ.clear()
        os.environ.update(before)


def error_of(result: Result) -> str:
    return f"{result.output}{result.exception or ''}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--program", "10", "--kind", "COADD"), {COADD}),
        (("--release", "p", "--skycell", "270p65x01y50"), {association(), COADD, COADD_CAT}),
        (("--exposure-type", "wfi_image", "--level", "l2"), {CAL}),
        (("--after", "2023-11-14T22:15:00", "--detector", "wfi01"), {UNCAL, CAL, CAT}),
        (("--before", "2023-11-14"), set()),
        (("--polygon", SQUARE, "--level", "L3"), {association(), COADD}),
        (("--polygon", "280,66,281,66,281,67"), set()),
        (("--limit", "1", "--level", "L1"), {UNCAL}),
    ],
)
@pytest.mark.parametrize("command", ["ls", "query", "get"])
def test_every_command_takes_every_condition(
    root: DataRoot, tmp_path: Path, command: str, options: tuple[str, ...], expected: set[str]
) -> None:
    extra = {"ls": (), "query": ("--format", "names"), "get": ("--to", str(tmp_path / "to"))}
    result = run(command, *options, *extra[command])
    assert result.exit_code == 0, error_of(result)
    found = os.listdir(tmp_path / "to") if command == "get" else result.stdout.split()  # noqa: PTH208
    assert set(found) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--polygon", "1 2 3 4"), ("query", "--polygon", "a b c d e f"),
        ("query", "--after", "yesterday"), ("query", "--exposure", "x"), ("ls", "--visit", "../x"),
        ("query", "--format", "parquet"), ("query", "--output", "found.txt"),
        ("query", "--format", "table", "--output", "found.csv"), ("query", "--limit", "0"),
        ("get", "*", "--overwritten"), ("--role", "admin", "ls"), ("query", "--program", "-1"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_usage(root: DataRoot, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, error_of(result)


def test_past_generations_are_listed_on_demand_and_not_fetched(
    root: DataRoot, tmp_path: Path
) -> None:
    result = run("query", "--overwritten", "--kind", "cal", "--format", "csv")
    assert result.stdout.count(CAL) > 2
    assert "overwritten" in result.stdout
    assert run("get", CAL, "--to", str(tmp_path / "to")).exit_code == 0
    assert (tmp_path / "to" / CAL).read_bytes() == b"image 2"


@pytest.mark.parametrize("output", ["found.ecsv", "found.csv", "found.parquet"])
def test_a_query_is_kept_as_a_manifest(root: DataRoot, tmp_path: Path, output: str) -> None:
    path = tmp_path / output
    assert run("query", "--level", "L4", "--output", str(path)).exit_code == 0
    table = pd.read_parquet(path) if path.suffix == ".parquet" else Table.read(path)
    assert list(table["name"]) == sorted([CAT, COADD_CAT])
    if path.suffix == ".ecsv":
        printed = run("query", "--level", "L4", "--format", "ecsv").stdout
        assert printed == path.read_text()
        assert str(table["ra"].unit) == "deg"


def test_a_manifest_of_another_name_has_the_format_that_is_asked_for(
    root: DataRoot, tmp_path: Path
) -> None:
    path = tmp_path / "found.dat"
    assert run("query", "--format", "ecsv", "--output", str(path)).exit_code == 0
    assert path.read_text().startswith("# %ECSV")


def test_get_refuses_content_that_is_not_the_products(own_root: DataRoot, tmp_path: Path) -> None:
    public = FileArchive(own_root).path(ProductName.parse(COADD))
    public.unlink()
    public.write_bytes(b"planted")
    result = run("get", COADD, "--to", str(tmp_path / "to"))
    assert result.exit_code != 0
    assert sha256(b"planted") in error_of(result)
    assert list((tmp_path / "to").iterdir()) == []


def test_get_explains_what_is_not_available(own_root: DataRoot, tmp_path: Path) -> None:
    FileArchive(own_root).unlink(ProductName.parse(CAT))
    for name, options, reason in (
        (CAT, (), "its file is missing"),
        (CAL.replace("wfi01", "wfi03"), (), "no such product"),
        (CAL, ("--level", "L4"), "does not fulfil the other conditions"),
        ("*_wfi18_*", (), "no such product"),
    ):
        result = run("get", name, *options, "--to", str(tmp_path / "to"))
        assert result.exit_code == 1
        assert name in error_of(result)
        assert reason in error_of(result)


def test_names_with_tricks_are_refused_from_the_command_line_and_from_stdin(
    root: DataRoot, tmp_path: Path
) -> None:
    target = tmp_path / "to"
    tricks = [name for name in TRICKS if name.split() == [name] and not set("*?") & set(name)]
    assert len(tricks) > 20
    for number, name in enumerate(tricks):
        others = [
            run(command, "--", name) for command in ("ls", "history", "provenance")[: 3 - number]
        ]
        for result in (
            run("get", "--to", str(target), "--", name),
            run("get", "-", "--to", str(target), text=f"{CAL}\n{name}\n"),
            *others,
        ):
            assert result.exit_code != 0
            assert "official product name" in error_of(result), name
    assert not target.exists()


def test_patterns_reach_products_only(own_root: DataRoot, tmp_path: Path) -> None:
    own_root.landing.mkdir()
    (own_root.landing / "contact.l0").write_bytes(b"packets")
    for pattern in ("../*", "*l0*", "*.duckdb", "*/*", "[!r]*", "landing/*"):
        assert run("get", pattern, "--to", str(tmp_path / "to")).exit_code == 1
    assert run("ls", "*").stdout.split() == sorted(ALL)


def test_history_prints_what_each_generation_can_be_cited_by(root: DataRoot) -> None:
    printed = run("history", CAL).stdout
    for fact in (
        "overwritten", "current", sha256(b"image 1"), sha256(b"image 2"), "roman_0001.pmap",
        "roman_0002.pmap", f"{UNCAL} {sha256(b'ramp')}",
    ):  # fmt: skip
        assert fact in printed


def test_provenance_prints_the_way_up_to_the_packets_and_down_to_the_last_catalogue(
    root: DataRoot,
) -> None:
    printed = run("provenance", CAL, "--generation", "1").stdout
    above, below = printed.split("what was made from it")
    assert [name for name in (PACKETS.name, UNCAL, CAL) if name in above] == [
        PACKETS.name, UNCAL, CAL,
    ]  # fmt: skip
    assert "overwritten" in above
    assert all(name in below for name in (COADD, COADD_CAT, association(), CAT))
    assert "roman_assets 0.1.0+g1234567" in printed
    assert run("provenance", CAL, "--generation", "9").exit_code == 1


def test_a_pattern_of_names_is_answered_without_loading_what_else_there_is(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(*_: object, **search: object) -> None:
        raise AssertionError(f"asked for {search}")

    monkeypatch.setattr(ProductSearch, "find", everything)
    assert run("ls").stdout.split() == sorted(ALL)
    assert run("ls", "*_cal.asdf", f"{exposure()}_wfi0?_*").exit_code == 0


def test_all_but_reading_needs_the_role_of_operations(own_root: DataRoot) -> None:
    assert COMMANDS | {"ls"} >= READING_COMMANDS
    for command in COMMANDS - READING_COMMANDS:
        result = run("--role", "public", command)
        assert isinstance(result.exception, AccessDeniedError), command
        assert f"roman-assets {command} needs the role operations" in str(result.exception)
    for command in ("status", "rebuild"):
        assert run(command).exit_code == 0
        assert run("--role", "operations", command).exit_code == 0


def test_the_role_is_taken_from_the_environment_and_the_option_wins(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROLE_VARIABLE, "public")
    assert run("status").exit_code == 1
    assert run("--role", "operations", "status").exit_code == 0


def test_only_operations_learn_of_runs(root: DataRoot) -> None:
    for arguments, seen in ((("query",), False), (("--role", "operations", "query"), True)):
        header = run(*arguments, "--format", "csv").stdout.splitlines()[0]
        assert ("run_id" in header.split(",")) is seen


@as_root
def test_a_user_who_does_not_operate_the_installation_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(ROLE_VARIABLE, raising=False)
    with open_directory() as directory:
        root = small_archive(directory / "data")
        monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
        for arguments in (("fsck",), ("--role", "operations", "rebuild"), ("status",)):
            with another_user():
                result = run(*arguments)
            assert isinstance(result.exception, AccessDeniedError)
            assert "is closed to you" in str(result.exception)
        with another_user():
            assert run("ls").stdout.split() == sorted(ALL)
