from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting import file_window
from roman_assets.formatting.file_window import FileWindow

PATTERN = re.compile(rb"R.W", re.DOTALL)


@given(
    content=st.binary(max_size=60) | st.text("RxW", max_size=60).map(str.encode),
    looks=st.lists(st.tuples(st.booleans(), st.integers(0, 65), st.integers(0, 8)), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_a_window_shows_the_bytes_of_the_whole_file_wherever_one_looks(content, looks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_window, "HELD", 8)
        window = FileWindow(BytesIO(content), "file")
        assert window.size == len(content)
        for searches, offset, length in looks:
            if searches:
                found = PATTERN.search(content, offset)
                expected = found.start() if found else len(content)
                assert window.search(PATTERN, offset, 3) == expected
            else:
                assert window.at(offset, length) == content[offset : offset + length]


def test_a_file_that_is_truncated_while_it_is_read_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "contact.l0"
    path.write_bytes(bytes(3 * file_window.HELD))
    with path.open("rb") as stream:
        window = FileWindow(stream, path)
        assert window.at(0, 4) == bytes(4)
        path.write_bytes(b"short")
        with pytest.raises(BadInputError, match=r"contact.l0: size: it became shorter .* 5 bytes"):
            window.at(file_window.HELD, 4)


def test_what_is_appended_later_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "contact.l0"
    path.write_bytes(b"1234")
    with path.open("rb") as stream:
        window = FileWindow(stream, path)
        with path.open("ab") as more:
            more.write(b"RxW")
        assert window.at(0, 8) == b"1234"
        assert window.search(PATTERN, 0, 3) == 4
