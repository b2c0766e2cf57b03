from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--delivery", "pigeon"), "pigeon"),
        (("--dither", "ZIGZAG"), "ZIGZAG"),
        (("--detectors", "WFI19"), "WFI19"),
        (("--filter", "F999"), "F999"),
        (("--ma-table", "99999"), "99999"),
        (("--lose", "3"), "exposure 3"),
        (("--lose-packets", "WFI19"), "WFI19"),
        (("--lose-packets", "FACE:1"), "FACE:1"),
        (("--plan", "nowhere.ecsv"), "nowhere.ecsv"),
    ],
)
def test_what_cannot_be_simulated_is_named_and_nothing_lands(
    arguments: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    result = CliRunner().invoke(app, ["simulate", *arguments])
    assert result.exit_code != 0
    assert named in f"{result.output}{result.exception}"
    assert not (tmp_path / "landing").exists()
