"""Door: packet files."""

from __future__ import annotations

import binascii
import random
from collections.abc import Iterator
from io import BytesIO

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.packet import (
    Packet,
    PacketReader,
    SequenceCounters,
    encode,
)
from roman_assets_tests.support.telemetry_samples import EXPOSURE, telemetry_of

PACKETS = [
    packet
    for telemetry in telemetry_of(EXPOSURE, ("WFI01",), size=16)
    for packet in encode(telemetry, SequenceCounters(), packet_size=300)
]
FALSE_HEADER = bytes.fromhex("0901c000ffff40") + bytes(6) + b"RW\x01"


def _checked(packet: bytes) -> bytes:
    """Return a packet with a valid checksum."""
    return packet[:-2] + binascii.crc_hqx(packet[:-2], 0xFFFF).to_bytes(2, "big")


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """Packets with noise between, some changed, with a right or a wrong checksum."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    pieces = []
    for _ in range(draw(st.integers(0, 12))):
        packet = bytearray(rng.choice(PACKETS))
        for _ in range(rng.choice((0, 0, 1, 1, 5))):
            packet[rng.randrange(min(len(packet), 60))] = rng.choice(
                (0, 1, 255, rng.randrange(256))
            )
        pieces.append(_checked(packet) if rng.random() < 0.5 else bytes(packet))
        pieces.append(rng.choice((b"", b"", rng.randbytes(rng.randrange(40)), FALSE_HEADER)))
    return b"".join(pieces) + draw(st.binary(max_size=100))


@example(FALSE_HEADER * 5000)
@given(st.binary(max_size=2000) | _streams())
def test_a_packet_file_gives_packets_that_can_be_or_is_refused(content: bytes) -> None:
    reader = PacketReader(BytesIO(content), "fuzz.l0")
    end = 0
    for packet in _packets(reader):
        packet.header.check()
        assert packet.offset >= end
        end = packet.offset + packet.size
        assert content[:end].endswith(bytes(packet.payload) + content[end - 2 : end])
    assert reader.skipped_bytes <= len(content)


def _packets(reader: PacketReader) -> Iterator[Packet]:
    try:
        yield from reader
    except BadInputError as error:
        assert error.field.startswith("packet at byte")
