"""Door: the compressed content of packets, whose checksums say nothing of what it means."""

from __future__ import annotations

import json
import random
import struct
import zlib

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.data_unit import (
    Compression,
    DataUnit,
    Stream,
    UnitHeader,
    UnitId,
    data_units,
    decode,
)
from roman_assets.formatting.telemetry import FaceTelemetry, GuideWindowReadout
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    START,
    face,
    guide_window,
    readout,
)

_RECORDS = {
    unit.header.unit.stream: zlib.decompress(unit.content)
    for telemetry in (face(), guide_window())
    for unit in data_units(telemetry, 60_000)
}
(_RESULTANT, *_) = data_units(readout(size=16, nresultants=1), 60_000)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
DTYPES = st.sampled_from(["<f4", ">u2", ">i8", "|S3", "<U2", "O", "|V4", "<M8[ms]", "<c16", "|b1"])


def _record(stream: Stream, content: bytes) -> DataUnit:
    detector = None if stream is Stream.FACE else "WFI01"
    unit = UnitId(EXPOSURE, stream, detector, 0)
    header = UnitHeader(unit, 1, Compression.ZLIB, 0, 0, 0, 1, len(content), zlib.crc32(content))
    return DataUnit(header, START, content)


@st.composite
def _records(draw: st.DrawFn) -> DataUnit:
    """A good record with a wrong index entry or some changed bytes."""
    stream = draw(st.sampled_from(list(_RECORDS)))
    data = _RECORDS[stream]
    (length,) = struct.unpack_from(">I", data)
    index, body = json.loads(data[4 : 4 + length]), bytearray(data[4 + length :])
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 3))):
        if rng.random() < 0.5:
            array = rng.choice(index["arrays"])
            array[rng.randrange(3)] = draw(DTYPES | JSON | st.lists(st.integers(-1, 5), max_size=3))
        else:
            index["fields"][rng.choice(list(index["fields"]))] = draw(JSON)
    for _ in range(draw(st.integers(0, 5))):
        body[rng.randrange(len(body))] = rng.randrange(256)
    text = json.dumps(index).encode()
    return _record(stream, zlib.compress(struct.pack(">I", len(text)) + text + body))


@st.composite
def _resultants(draw: st.DrawFn) -> DataUnit:
    content = bytearray(_RESULTANT.content)
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 5))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    del content[draw(st.integers(0, len(content))) :]
    return DataUnit(_RESULTANT.header, START, bytes(content))


@example(_record(Stream.FACE, zlib.compress(struct.pack(">I", 200_000) + b"[" * 200_000)))
@given(
    _records()
    | _resultants()
    | st.binary(max_size=200).map(lambda content: _record(Stream.GUIDE_WINDOW, content))
)
def test_a_data_unit_becomes_telemetry_of_its_shape_or_is_refused(unit: DataUnit) -> None:
    try:
        telemetry = decode([unit])
    except BadInputError as error:
        assert error.field == str(unit.header.unit)
        return
    if isinstance(telemetry, GuideWindowReadout | FaceTelemetry):
        assert telemetry.start_time.tzinfo is not None
    else:
        assert telemetry.resultants.shape == (1, 16, 16)
        assert telemetry.resultants.dtype == np.uint16
