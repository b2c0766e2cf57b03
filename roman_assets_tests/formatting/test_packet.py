from __future__ import annotations

import dataclasses
import json
import random
import struct
import time
import tracemalloc
import zlib
from collections import defaultdict
from datetime import timedelta
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.data_unit import (
    Compression,
    DataUnit,
    Stream,
    UnitHeader,
    UnitId,
    decode,
    join_chunks,
)
from roman_assets.formatting.packet import (
    Packet,
    PacketReader,
    SequenceCounters,
    encode,
    unit_packets,
)
from roman_assets.formatting.telemetry import Telemetry
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    START,
    face,
    guide_window,
    readout,
)

SMALL = 600


def packets_of(sent: Telemetry, size: int = SMALL) -> list[bytes]:
    return list(encode(sent, SequenceCounters(), packet_size=size))


def read(data: bytes) -> tuple[list[Packet], PacketReader]:
    reader = PacketReader(BytesIO(data), "test.l0")
    return list(reader), reader


def received(data: bytes) -> Telemetry:
    chunks: dict[UnitHeader, dict[int, Packet]] = defaultdict(dict)
    for packet in read(data)[0]:
        chunks[packet.header][packet.chunk] = packet
    return decode(
        join_chunks(header, found[0].time, [found[i].payload for i in sorted(found)])
        for header, found in chunks.items()
    )


def assert_same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype.kind == b.dtype.kind
        elif dataclasses.is_dataclass(a) and field.name != "exposure":
            assert_same(a, b)
        else:
            assert a == b


SENT = {
    "readout": readout(),
    "guide_window": guide_window(),
    "spectral_guide_window": guide_window(edge=True),
    "face": face(),
}


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_received(name):
    assert_same(received(b"".join(packets_of(SENT[name]))), SENT[name])


@pytest.mark.parametrize("size", [200, 65542])
def test_packets_of_any_size_carry_the_same(size):
    packets = packets_of(SENT["readout"], size)
    assert max(map(len, packets)) <= size
    assert_same(received(b"".join(packets)), SENT["readout"])


@given(seed=st.integers(0, 2**32), repeated=st.sets(st.integers(0, 20)))
@settings(max_examples=30, deadline=None)
def test_order_and_repetition_do_not_matter(seed, repeated):
    packets = packets_of(SENT["readout"])
    packets += [packets[i % len(packets)] for i in repeated]
    random.Random(seed).shuffle(packets)
    assert_same(received(b"".join(packets)), SENT["readout"])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_costs_its_own_packet_only(data):
    packets = packets_of(SENT["face"], 300)
    position = data.draw(st.integers(0, len(packets) - 1))
    bit = data.draw(st.integers(0, 8 * len(packets[position]) - 1))
    damaged = bytearray(packets[position])
    damaged[bit // 8] ^= 1 << bit % 8
    found, reader = read(b"".join([*packets[:position], bytes(damaged), *packets[position + 1 :]]))
    assert {packet.chunk for packet in found} == set(range(len(packets))) - {position}
    assert reader.crc_failures + reader.foreign == 1 or reader.skipped_bytes


@given(junk=st.binary(max_size=400), where=st.integers(0, 5), cut=st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_bytes_between_packets_do_not_hide_packets(junk, where, cut):
    packets = packets_of(SENT["face"], 300)
    where %= len(packets)
    stream = b"".join(packets[:where]) + junk + b"".join(packets[where:]) + packets[0][:cut]
    found = read(stream)[0]
    assert {packet.chunk for packet in found} == set(range(len(packets)))


def test_idle_packets_and_packets_of_others_are_passed_over():
    idle = bytes.fromhex("07ffc0000003") + b"\x55" * 4
    other = bytes.fromhex("0842c0000007") + b"other..."
    packets = packets_of(SENT["face"], 300)
    found, reader = read(b"".join([idle, packets[0], other, *packets[1:], idle]))
    assert len(found) == len(packets)
    assert (reader.foreign, reader.crc_failures, reader.skipped_bytes) == (3, 0, 0)


def test_sequence_counts_run_on_and_wrap_and_jumps_are_counted():
    counters = SequenceCounters()
    application = 0x101
    for _ in range(2**14 - 2):
        counters.following(application)
    packets = list(encode(SENT["readout"], counters, packet_size=SMALL))
    found, reader = read(b"".join(packets))
    assert [p.sequence_count for p in found[:4]] == [2**14 - 2, 2**14 - 1, 0, 1]
    assert reader.discontinuities == 0
    assert read(b"".join(packets[:3] + packets[5:]))[1].discontinuities == 1


def test_the_headers_are_those_of_the_standard():
    first = packets_of(readout("WFI07"))[0]
    assert first[0] >> 5 == 0, "packet version 1"
    assert first[0] & 0x18 == 0x08, "telemetry with a secondary header"
    assert int.from_bytes(first[:2], "big") & 0x7FF == 0x107
    assert first[2] >> 6 == 0b01, "first segment"
    assert int.from_bytes(first[4:6], "big") == len(first) - 7
    days, milliseconds = int.from_bytes(first[7:9], "big"), int.from_bytes(first[9:13], "big")
    midnight = START.replace(hour=0, minute=0, second=0, microsecond=0)
    assert days == (midnight - midnight.replace(1958, 1, 1)).days
    assert timedelta(milliseconds=milliseconds) == START - midnight


def test_a_packet_that_contradicts_itself_is_refused_with_its_place():
    import binascii

    packets = packets_of(SENT["readout"])
    wrong = bytearray(packets[1][:-2])
    wrong[1] += 1  # the APID of another detector
    wrong += binascii.crc_hqx(bytes(wrong), 0xFFFF).to_bytes(2, "big")
    with pytest.raises(BadInputError, match=f"packet at byte {len(packets[0])}"):
        read(packets[0] + bytes(wrong))


def test_resultants_of_different_shapes_are_refused():
    small, large = readout(size=16), readout(size=24)
    packets = packets_of(small)[:1] + packets_of(large)
    units = {}
    for packet in read(b"".join(packets_of(small, 65542) + packets_of(large, 65542)))[0]:
        units[packet.header.unit.index, packet.header.rows] = join_chunks(
            packet.header, packet.time, [packet.payload]
        )
    assert packets
    with pytest.raises(BadInputError, match="24 x 24"):
        decode([units[0, 16], units[1, 24], units[2, 16]])
    with pytest.raises(BadInputError, match="1 resultants are missing"):
        decode([units[0, 16], units[2, 16]])


def test_readouts_of_another_type_are_not_sent():
    wrong = dataclasses.replace(readout(), resultants=readout().resultants.astype(np.int32))
    with pytest.raises(ValueError, match="uint16"):
        packets_of(wrong)


def test_chunks_that_do_not_make_the_announced_unit_are_refused():
    packets = read(b"".join(packets_of(SENT["face"], 300)))[0]
    header, time = packets[0].header, packets[0].time
    payloads = [bytes(packet.payload) for packet in packets]
    changed = [payloads[0][:-1] + bytes([payloads[0][-1] ^ 1]), *payloads[1:]]
    for chunks in (payloads[:-1], payloads[::-1], changed):
        with pytest.raises(BadInputError, match="announced unit"):
            join_chunks(header, time, map(memoryview, chunks))


def science_header(**changes) -> UnitHeader:
    (packet, *_), _ = read(packets_of(SENT["readout"], 65542)[0])
    return dataclasses.replace(packet.header, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 65535, "columns": 65535},
        {"rows": 0},
        {"reference_columns": 65535},
        {"nunits": 65535},
        {"compression": Compression.ZLIB},
        {"size": 2**32 - 1},
    ],
    ids=str,
)
def test_a_unit_that_cannot_be_is_refused_before_anything_is_allocated_for_it(changes):
    unit = DataUnit(science_header(nchunks=1, **changes), START, b"x")
    data = b"".join(unit_packets(unit, SequenceCounters()))
    with pytest.raises(BadInputError, match="packet at byte 0"):
        read(data)


def record(content: bytes) -> DataUnit:
    unit = UnitId(EXPOSURE, Stream.GUIDE_WINDOW, "WFI01", 0)
    header = UnitHeader(unit, 1, Compression.ZLIB, 0, 0, 0, 1, len(content), zlib.crc32(content))
    return DataUnit(header, START, content)


def index(content: bytes) -> DataUnit:
    return record(zlib.compress(struct.pack(">I", len(content)) + content))


def arrays(*described: object, fields: dict | None = None) -> DataUnit:
    return index(json.dumps({"fields": fields or {}, "arrays": described}).encode())


@pytest.mark.parametrize(
    "unit",
    [
        index(b"[" * 50_000),
        index(b"[" * 200_000),
        index(b"{"),
        record(b"no zlib"),
        record(zlib.compress(b"1234" * 1000)[:-8]),
        arrays(["centroids", "<f8", [-1]]),
        arrays(["centroids", "<f8", [2**62, 4]]),
        arrays(["centroids", "O", [0]]),
        arrays(["centroids", "<f8", "text"]),
        arrays(fields={"start_time": "0001-01-01T00:00:00+14:00"}),
        arrays(fields={"start_time": "2027-06-01T00:00:00"}),
        arrays(fields={"start_time": 7}),
        arrays(["centroid_times", "<f8", [0]]),
    ],
    ids=range(13),
)
def test_a_record_that_holds_anything_else_is_refused_with_its_reason(unit):
    with pytest.raises(BadInputError, match="no record"):
        decode([unit])


def test_a_record_that_unpacks_without_end_is_refused_within_its_limit():
    bomb = zlib.compress(bytes(600 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError, match="more than"):
            decode([record(bomb)])
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()


def test_a_file_full_of_false_headers_takes_no_longer_than_its_size_says():
    claimed = bytes.fromhex("0901c000ffff40") + bytes(6) + b"RW\x01"
    good = packets_of(SENT["face"], 300)
    started = time.process_time()
    _, reader = read(claimed * (2 << 16) + b"".join(good))
    assert time.process_time() - started < 5
    assert reader.crc_failures > 1000
