from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from roman_assets.errors import BadInputError
from roman_assets.formatting.data_unit import UnitHeader, decode
from roman_assets.formatting.file_content import FileVersion, LocatedUnit
from roman_assets.formatting.packet import PacketReader, SequenceCounters, encode
from roman_assets.formatting.packet_files import PacketFiles
from roman_assets_tests.support.telemetry_samples import readout

NAME = "contact.l0"


def landed(directory: Path) -> dict[UnitHeader, LocatedUnit]:
    """Write a file of packets, and return where the index has them."""
    path = directory / NAME
    path.write_bytes(b"".join(encode(readout(), SequenceCounters(), packet_size=600)))
    version = FileVersion(NAME, path.stat().st_size, path.stat().st_mtime_ns)
    places: dict[UnitHeader, dict[int, int]] = {}
    with path.open("rb") as stream:
        for packet in PacketReader(stream, path):
            places.setdefault(packet.header, {})[packet.chunk] = packet.offset
    return {header: LocatedUnit(header, version, offsets) for header, offsets in places.items()}


def test_units_are_read_from_the_places_that_the_index_knows(tmp_path: Path) -> None:
    located = landed(tmp_path)
    with PacketFiles(tmp_path) as files:
        sent = decode(files.unit(header, [part]) for header, part in located.items())
    np.testing.assert_array_equal(sent.resultants, readout().resultants)


@pytest.mark.parametrize("left", [0, 3, 700])
def test_a_file_that_is_truncated_while_it_is_read_is_bad_input(tmp_path: Path, left: int) -> None:
    first, *_, last = landed(tmp_path).items()
    with PacketFiles(tmp_path) as files:
        files.unit(first[0], [first[1]])
        os.truncate(tmp_path / NAME, left)
        with pytest.raises(BadInputError, match=r"contact.l0: packet at byte \d+: .*not what arr"):
            files.unit(last[0], [last[1]])


def test_a_file_that_is_gone_is_bad_input(tmp_path: Path) -> None:
    ((header, part), *_) = landed(tmp_path).items()
    (tmp_path / NAME).unlink()
    with PacketFiles(tmp_path) as files, pytest.raises(BadInputError, match="not there"):
        files.unit(header, [part])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed_when_all_is_read(tmp_path: Path) -> None:
    ((header, part), *_) = landed(tmp_path).items()
    before = open_files()
    with PacketFiles(tmp_path) as files:
        files.unit(header, [part])
        assert open_files() == before + 1
    assert open_files() == before
