"""Door: settings files of an installation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting import spacecraft
from roman_assets.formatting.spacecraft import spacecraft_of
from roman_assets.settings import (
    coadd_settings,
    deadline_settings,
    retention_settings,
    retry_settings,
)
from roman_assets.settings.coadd_settings import prompt_pixel_scale
from roman_assets.settings.deadline_settings import deadlines_of
from roman_assets.settings.retention_settings import retention_periods_of
from roman_assets.settings.retry_settings import retry_pauses_of

READERS: dict[str, Callable[[DataRoot], object]] = {
    coadd_settings.FILE_NAME: prompt_pixel_scale,
    deadline_settings.FILE_NAME: deadlines_of,
    retention_settings.FILE_NAME: retention_periods_of,
    retry_settings.FILE_NAME: retry_pauses_of,
    spacecraft.FILE_NAME: spacecraft_of,
}

KEYS = st.sampled_from(
    ["version", "L1", "L2.latency_hours", "L3.origin", "L4.warning_hours", "days", "surveys.HLTDS",
     "surveys", "names", "ids", "farthest_from_l2_km", "odd", "names.x", "first_minutes",
     "most_minutes", "prompt_visit"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["1", "0", "-1", "1e300", "-0.0", "nan", "inf", "true", '"execution"', "[]", '["x"]', "{}",
     "{a=1}", "1979-05-27T07:32:00Z", "9" * 5000, "[" * 2000, '"""', "{ latency_hours = 1e9 }",
     '["\\ud800"]']
) | st.floats().map(repr)  # fmt: skip
FILES = st.lists(st.tuples(KEYS, VALUES), max_size=4).map(
    lambda lines: "\n".join(["version = 1", *(f"{key} = {value}" for key, value in lines)])
)


@pytest.fixture(scope="module")
def root():
    with tempfile.TemporaryDirectory() as directory:
        yield DataRoot(Path(directory))


@example(b"version = 1\nL1.latency_hours = 1e300")
@example(b"\xff")
@given(st.binary(max_size=100) | FILES.map(str.encode) | st.text(max_size=100).map(str.encode))
def test_settings_are_used_or_file_field_and_remedy_are_named(root: DataRoot, text: bytes) -> None:
    for name, read in READERS.items():
        path = root.path / name
        path.write_bytes(text)
        try:
            assert read(root)
        except BadInputError as error:
            assert error.source == str(path)
            assert error.field
            assert "version = 1" in error.remedy
            assert len(str(error)) < 2000
