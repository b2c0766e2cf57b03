"""Door: the landing area, with files of any name, time and content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.formatting.landing import LandingArea, ScanResult
from roman_assets_tests.formatting.test_landing import PACKETS
from roman_assets_tests.support.telemetry_samples import MA_TABLE

GOOD = b"".join(PACKETS)
NAMES = st.builds(
    lambda name, suffix: name[: 255 - len(suffix)] + suffix,
    st.binary(min_size=1, max_size=255).filter(lambda name: not {*b"/\0"} & {*name}),
    st.sampled_from([b".l0", b".json", b".oem", b"", b".x"]),
).filter(lambda name: not name.startswith(b".") and name not in (b"good.l0", b"ma.json"))
CONTENTS = st.binary(max_size=50) | st.sampled_from([GOOD, MA_TABLE.model_dump_json().encode()])
TIMES = st.sampled_from([0, -1, 1, 1_800_000_000, 2**33, 2**34 - 1]) | st.integers(0, 2**33)


@example({b"case.json": (b"", 0), b"\xff.l0": (GOOD, 1), b"x" * 252 + b".l0": (b"", 1)})
@given(st.dictionaries(NAMES, st.tuples(CONTENTS, TIMES), max_size=4))
def test_every_file_is_taken_in_or_set_aside_and_then_left(
    files: dict[bytes, tuple[bytes, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        area = LandingArea(DataRoot(Path(directory)))
        for name, (content, time) in ({b"good.l0": (GOOD, 2**33)} | files).items():
            path = area.path / os.fsdecode(name)
            path.write_bytes(content)
            os.utime(path, (time, time))
        found = area.scan()
        assert "good.l0" in found.taken
        assert len(found.taken) + len(found.set_aside) == len(files) + 1
        assert {case.path for case in SetAside(area.root).list()} == set(found.set_aside)
        assert LandingArea(area.root).scan() == area.scan() == ScanResult()
