from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from roman_assets.errors import BadInputError
from roman_assets.settings import settings_file
from roman_assets.settings.settings_file import read_settings


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: int


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def settings(path: Path) -> Settings | None:
    return read_settings(path, Settings, "write days")


def test_a_settings_file_is_read(path: Path) -> None:
    assert settings(path) is None
    path.write_text("days = 3\n# " + "Ω" * 1000)
    assert settings(path) == Settings(days=3)


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_refused(path: Path) -> None:
    path.write_text("days = 3\n".ljust(settings_file.LARGEST, "\n"))
    assert settings(path) == Settings(days=3)
    path.write_text("days = 3\n".ljust(settings_file.LARGEST + 1, "\n"))
    with pytest.raises(BadInputError, match=r"some\.toml: file: it has more than 1048576 bytes"):
        settings(path)


def test_a_huge_file_is_refused_before_it_is_in_memory(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError, match="it has more than 1048576 bytes"):
            settings(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(BadInputError, match="it is not a regular file"):
        settings(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInputError, match="it is not a regular file"):
        settings(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"days = 'x'", r"days: .* \(found 'x'\)"),
        (b"days = 3\nhours = 1", "hours: Extra inputs"),
        (b"days = ", "file: no TOML"),
        (b"days = 3 # \xff", "file: it cannot be read: .*utf-8"),
        (b"days = " + b"[" * 100_000, "file: no TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_field_and_remedy(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"some\.toml: {message}[^$]*Remedy: write days"):
        settings(path)
