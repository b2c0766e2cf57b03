from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import DEADLINES, ClockOrigin
from roman_assets.products.kind import Level
from roman_assets.settings.deadline_settings import deadlines_of


def write(root: Path, text: str) -> DataRoot:
    (root / "deadlines.toml").write_text(text)
    return DataRoot(root)


def test_without_a_file_the_specification_holds(tmp_path: Path) -> None:
    assert deadlines_of(DataRoot(tmp_path)) == DEADLINES


def test_single_values_can_be_replaced(tmp_path: Path) -> None:
    root = write(tmp_path, 'version = 1\n[L1]\norigin = "execution"\n[L3]\nlatency_hours = 36\n')
    found = deadlines_of(root)
    assert found[Level.L1].origin is ClockOrigin.EXECUTION
    assert found[Level.L1].latency == DEADLINES[Level.L1].latency
    assert found[Level.L3].latency == timedelta(hours=36)
    assert found[Level.L2] == DEADLINES[Level.L2]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("not toml", "file"),
        ("version = 2", "version"),
        ("[L1]\nlatency_hours = 1", "version"),
        ('version = 1\n[L1]\norigin = "launch"', "L1.origin"),
        ("version = 1\n[L2]\nlatency_hours = -3", "L2.latency_hours"),
        ("version = 1\n[L5]", "L5"),
        ("version = 1\n[L1]\nlatency = 3", "L1.latency"),
        ("version = 1\n[L1]\nlatency_hours = 1e300", "L1.latency_hours"),
        ("version = 1\n[L1]\nwarning_hours = 1e300", "L1.warning_hours"),
        ("version = " + "[" * 100_000, "file"),
        ("version = " + "1" * 5_000, "file"),
    ],
)
def test_an_unusable_file_is_an_error_with_file_field_and_remedy(
    tmp_path: Path, text: str, field: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        deadlines_of(write(tmp_path, text))
    assert caught.value.source.endswith("deadlines.toml")
    assert caught.value.field == field
    assert "version = 1" in caught.value.remedy


@pytest.mark.parametrize("content", [b"\xff", b"version = 1 # \xff", None], ids=str)
def test_a_file_that_is_no_text_is_an_error_with_file_and_remedy(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "deadlines.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(BadInputError, match="cannot be read"):
        deadlines_of(DataRoot(tmp_path))
