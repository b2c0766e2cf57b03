"""Every command line in the docs is run, or at least understood by the parser of its program."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.store.fold import fold
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.console import PROJECT, Line, lines
from roman_assets_tests.support.small_products import (
    commit,
    product_bytes,
    public_content,
    registry_content,
)

LINES = list(lines())

VISIT = "r0000101001001001001"
EXPOSURE = f"{VISIT}_0001"
SKYCELL = "r00001_p_v01001001001001_270p65x66y48_f158"
FILES_NAMED = ("hlwas_r0.toml", "survey_plan.sim.ecsv")
"""Files that a reader has by the time a page names them."""

RUN = frozenset(
    {
        "ls", "query", "get", "history", "provenance", "status", "deadlines", "proposals",
        "retention", "fsck", "rebuild", "merge", "release status",
    }
)  # fmt: skip
"""Commands that are run here; the others compute, serve, or need a CRDS or a decision."""

FINDS = frozenset({"fsck"})
"""Commands whose exit status says whether something was found."""

OTHER_PROGRAMS = frozenset({"git", "mv", "tar", "curl", "aws", "export", "jupyter"})


def parsed(arguments: Sequence[str]) -> str:
    """Let the parser of roman-assets read arguments; return the name of the command."""
    command: Any = typer.main.get_command(app)
    try:
        context = command.make_context("roman-assets", list(arguments))
    except typer.Exit:  # of --version
        return ""
    names = []
    while context._protected_args or context.args:
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            break
    return " ".join(names)


def roman_assets_commands(line: Line) -> list[list[str]]:
    return [command[1:] for command in line.commands if command[0] == "roman-assets"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a reader's working directory, with the files that the pages name."""
    for name in FILES_NAMED:
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ROLE_VARIABLE, Role.OPERATIONS)
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    return tmp_path


def publish_first_night(root: DataRoot) -> None:
    """Publish small products under the names that the pages use."""
    about = {
        "survey": "HLWAS", "exposure_type": "WFI_IMAGE", "ra": 270.0, "dec": 65.8, "radius": 0.1,
        "start_time": "2027-06-01T00:00:00Z", "end_time": "2027-06-01T00:03:00Z",
        "footprint": "POLYGON ICRS 269.9 65.75 270.1 65.75 270.1 65.85 269.9 65.85",
    }  # fmt: skip
    made = {
        (Step.FORMATTING, EXPOSURE): ["uncal.asdf"],
        (Step.EXPOSURE, EXPOSURE): ["cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf"],
    }
    for (step, partition), ends in made.items():
        names = [f"{EXPOSURE}_wfi{sca:02d}_f158_{end}" for sca in (1, 2) for end in ends]
        contents = {name: product_bytes(name, name) for name in names}
        commit(root, contents, step=step, partition=partition, metadata=about)
    ends = ("asn.json", "coadd.asdf", "cat.parquet", "segm.asdf")
    contents = {f"{SKYCELL}_{end}": product_bytes(end, end) for end in ends}
    commit(root, contents, step=Step.VISIT, partition=VISIT, metadata=about)
    fold(root)


def test_every_page_is_read() -> None:
    assert {line.page for line in LINES} >= {"README.md", "docs/reading.md", "CONTRIBUTING.md"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_command_line_of_the_docs_is_understood(line: Line, desk: Path) -> None:
    for program, *arguments in line.commands:
        if program == "roman-assets":
            parsed(arguments)
        elif program == "make":
            makefile = (PROJECT / "Makefile").read_text()
            for target in (word for word in arguments if "=" not in word):
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
        elif program == "python":
            assert (PROJECT / arguments[0]).is_file()
        elif (script := Path(sys.executable).parent / program).exists():
            command = [sys.executable, str(script), *arguments, "--help"]
            subprocess.run(command, check=True, capture_output=True)
        else:
            assert program in OTHER_PROGRAMS, f"no parser of {program} is known"


def test_commands_that_read_do_what_the_docs_say(desk: Path) -> None:
    publish_first_night(DataRoot(desk / "data"))
    run = []
    for line in {line.text: line for line in LINES}.values():
        if "--data" in line.text:
            continue
        stream = None
        for arguments in roman_assets_commands(line):
            name = parsed(arguments)
            if name not in RUN:
                break
            result = CliRunner().invoke(app, arguments, input=stream, catch_exceptions=False)
            assert result.exit_code in ({0, 1} if name in FINDS else {0}), (line, result.output)
            stream = result.stdout
            run.append(name)
    assert RUN - set(run) <= {"merge", "rebuild"}
    assert (desk / "catalogues").is_dir()
    assert (desk / "found.ecsv").read_text()


def test_a_backup_as_described_can_be_restored(desk: Path) -> None:
    root = DataRoot(desk / "data")
    publish_first_night(root)
    (root.path / "deadlines.toml").write_text("version = 1\n")
    script = "\n".join(
        line.text
        for line in LINES
        if line.page == "docs/how-to/upgrade.md" and line.section in {"Back up", "Restore"}
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        ["bash", "-x", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    restored = DataRoot(desk / "restored")
    assert "backup.tar" in shlex.split(script), done.stderr
    assert registry_content(restored) == registry_content(root), done.stdout + done.stderr
    assert public_content(restored) == public_content(root)
    assert (restored.path / "deadlines.toml").is_file()
    assert [one.kind for one in fsck(restored)] == [one.kind for one in fsck(root)]
