"""Door: L1 files that were formatted elsewhere."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.level1_file import read_level1
from roman_assets_tests.support.foreign_level1 import NAME, foreign_level1


@cache
def good() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return foreign_level1(Path(directory)).read_bytes()


@given(st.data())
def test_a_damaged_file_is_read_or_refused_with_field_and_remedy(data: st.DataObject) -> None:
    content = bytearray(good())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = min(len(content), start + data.draw(st.integers(0, 40)))
        content[start:stop] = data.draw(st.binary(max_size=40))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / NAME
        path.write_bytes(content)
        try:
            file = read_level1(path)
        except BadInputError as fault:
            assert fault.field
            assert fault.remedy
        else:
            assert file.name == NAME
