"""Dagster's command `dg` knows the project from its checkout alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from roman_assets.products.kind import KINDS

PROJECT = Path(__file__).parents[1]


def dg(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return subprocess.run(
        [Path(sys.executable).with_name("dg"), *arguments],
        cwd=PROJECT,
        env={
            **os.environ,
            "DAGSTER_HOME": str(home),
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_dg_checks_the_definitions(tmp_path: Path) -> None:
    done = dg(tmp_path, "check", "defs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout + done.stderr


def test_dg_lists_every_product_kind(tmp_path: Path) -> None:
    done = dg(tmp_path, "list", "defs", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {asset["asset_key"] for asset in json.loads(done.stdout)["assets"]}
    assert {kind.name for kind in KINDS} <= listed
