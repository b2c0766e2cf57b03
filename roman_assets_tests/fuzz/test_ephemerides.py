"""Door: orbit files."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import Ephemeris
from roman_assets.formatting.spacecraft import Spacecraft
from roman_assets.formatting.telemetry import EARLIEST, LATEST
from roman_assets_tests.support.telemetry_samples import write_oem


@pytest.fixture(scope="module")
def path():
    with tempfile.TemporaryDirectory() as directory:
        yield write_oem(Path(directory) / "predicted.oem", days=6)


with tempfile.TemporaryDirectory() as _directory:
    GOOD = write_oem(Path(_directory) / "predicted.oem", days=6).read_text()

ODD = ["", "nan", "inf", "1e400", "-1", "0", "2016-12-31T23:59:60", "0001-01-01T00:00:00", "X Y",
       "9999-12-31T23:59:59", "LAGRANGE", "9" * 400, "META_START", "\0", "ü"]  # fmt: skip


@st.composite
def _orbits(draw: st.DrawFn) -> str:
    """A good file with some words or lines changed, repeated or removed."""
    lines = GOOD.splitlines()
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 4))):
        number = rng.randrange(len(lines))
        what = rng.random()
        if what < 0.2:
            del lines[number]
        elif what < 0.3:
            lines.insert(rng.randrange(len(lines)), lines[number])
        else:
            words = lines[number].split(" ")
            words[rng.randrange(len(words))] = rng.choice(ODD)
            lines[number] = " ".join(words)
    return "\n".join(lines) + "\n"


@example(GOOD.replace("2027-05-20T00:00:00", "2016-12-31T23:59:60"))
@example("<oem/>")
@given(_orbits() | st.text(max_size=300))
def test_an_orbit_file_gives_states_within_its_times_or_is_refused(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        ephemeris = Ephemeris(path)
        Spacecraft().check(ephemeris)
    except BadInputError as error:
        assert error.source == str(path)
        return
    assert EARLIEST <= ephemeris.start <= ephemeris.stop < LATEST
    assert EARLIEST <= ephemeris.creation_date < LATEST
