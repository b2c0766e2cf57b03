"""CCSDS Space Packets (133.0-B-2): data units to packets and back.

A data unit is cut into *chunks*, one a packet. Every packet says of which unit and which version of
it it carries which chunk, so packets may arrive in any order, more than once and over any files.
The byte tables are in ``docs/l0.md``.
"""

from __future__ import annotations

import binascii
import itertools
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import BinaryIO

from spacepackets.ccsds.spacepacket import (
    CCSDS_HEADER_LEN,
    MAX_SEQ_COUNT,
    PacketType,
    SequenceFlags,
    SpacePacketHeader,
)
from spacepackets.ccsds.time import CdsShortTimestamp

from roman_assets.errors import BadInputError
from roman_assets.formatting.data_unit import (
    Compression,
    DataUnit,
    Stream,
    UnitHeader,
    UnitId,
    data_units,
)
from roman_assets.formatting.file_window import FileWindow
from roman_assets.formatting.telemetry import Telemetry
from roman_assets.products.observation import DETECTORS, ExposureId, VisitId

FIRST_APID: Mapping[Stream, int] = {
    Stream.SCIENCE: 0x100,
    Stream.GUIDE_WINDOW: 0x120,
    Stream.FACE: 0x140,
}
"""APID of each stream; the detector's number (WFI01 is 1, none is 0) is added to it."""


def apid(unit: UnitId) -> int:
    """Return the application process identifier of a data unit's packets."""
    number = 0 if unit.detector is None else DETECTORS.index(unit.detector) + 1
    return FIRST_APID[unit.stream] + number


_MAGIC = b"RW"
_FORMAT_VERSION = 1
_TIME = struct.Struct(">BHI")
_CDS_SHORT = 0x40
_UNIT = struct.Struct(">2sBBBBIBHHHHHHHHHHHII")
_CHUNK = struct.Struct(">H")
_CRC = struct.Struct(">H")
_UNIT_OFFSET = CCSDS_HEADER_LEN + _TIME.size
_CHUNK_OFFSET = _UNIT_OFFSET + _UNIT.size
_PAYLOAD_OFFSET = _CHUNK_OFFSET + _CHUNK.size
_OVERHEAD = _PAYLOAD_OFFSET + _CRC.size
_CDS_EPOCH = datetime(1958, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)

PACKET_HEADER_SIZE = CCSDS_HEADER_LEN
"""Bytes of a primary header, which says how long the packet is."""

MAX_PACKET_SIZE = CCSDS_HEADER_LEN + 65536
"""Bytes of the largest packet the standard allows."""

_READ_AGAIN = 64
"""Bytes looked at for each byte of a file that is full of damaged lengths."""

_OURS = re.compile(rb"\x09[\x00-\x5f].{4}\x40.{6}RW\x01", re.DOTALL)
_OURS_OR_IDLE = re.compile(rb"\x07\xff|" + _OURS.pattern, re.DOTALL)
_OURS_WIDTH = 16
"""Bytes that `_OURS` matches."""


@dataclass(frozen=True)
class Packet:
    """One good packet as found in a file.

    Parameters
    ----------
    header
        Of its data unit.
    chunk
        Which chunk it carries, from 0.
    time
        Start of the exposure or of the guiding cycle (UTC).
    sequence_count
        14-bit count of its APID.
    payload
        The chunk; a view into the bytes that were read.
    offset, size
        Where the packet lies in the file.
    """

    header: UnitHeader
    chunk: int
    time: datetime
    sequence_count: int
    payload: memoryview
    offset: int
    size: int


@dataclass
class PacketReader:
    """Good packets of a file, with a count of everything else.

    A packet with a wrong checksum counts as missing. After damage to a length the next packet is
    searched for, so one bad packet costs itself only. Idle packets and those of other
    applications are passed over.

    Parameters
    ----------
    stream
        The file, opened for reading; a part of it at a time is in memory.
    source
        Its name in errors.

    Attributes
    ----------
    content
        The bytes of the file.
    npackets, crc_failures, foreign
        Packets that were good, bad, of others.
    discontinuities
        Good packets whose sequence count does not follow the one before of the same APID: a sign of
        gaps, repetition or another order.
    skipped_bytes
        Bytes that belong to no packet.

    Raises
    ------
    BadInputError
        While it is iterated over, if headers of a packet contradict each other, or the file is
        truncated.
    """

    stream: BinaryIO
    source: object
    content: FileWindow = field(init=False)
    npackets: int = 0
    crc_failures: int = 0
    foreign: int = 0
    discontinuities: int = 0
    skipped_bytes: int = 0
    _counts: dict[int, int] = field(default_factory=dict, repr=False)
    _read_in_vain: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self.content = FileWindow(self.stream, self.source)

    def __iter__(self) -> Iterator[Packet]:
        offset, end = 0, self.content.size
        while offset < end:
            size = self._packet_size(offset)
            if size is None:
                offset = self._resume(offset)
                continue
            packet = self.content.at(offset, size)
            if not _OURS.match(packet):
                self.foreign += 1
                offset += size
            elif not checksum_is_right(packet):
                self.crc_failures += 1
                follows = self._packet_size(offset + size) or offset + size == end
                offset = offset + size if follows else self._beyond_damage(offset, size)
            else:
                found = read_packet(packet, offset, self.source)
                self._count(found)
                yield found
                offset += size

    def _packet_size(self, offset: int) -> int | None:
        """Return the size of the packet at an offset, None if none can be there."""
        head = self.content.at(offset, _OURS_WIDTH)
        size = packet_size(head)
        after = offset + size
        if not size or head[0] >> 5 or after > self.content.size:
            return None
        if _OURS.match(head):
            return size if size > _OVERHEAD else None
        # A packet of others is believed only if a packet, or the end, follows it.
        believed = after == self.content.size or _OURS_OR_IDLE.match(
            self.content.at(after, _OURS_WIDTH)
        )
        return size if believed else None

    def _beyond_damage(self, offset: int, size: int) -> int:
        """Find the next packet behind one whose length may be damaged.

        Looking for it within that length reads its bytes again. What costs more than several times
        the file is not damage: then whole lengths are passed over.
        """
        self._read_in_vain += size
        if self._read_in_vain > _READ_AGAIN * (offset + MAX_PACKET_SIZE):
            return offset + size
        return self._resume(offset)

    def _resume(self, offset: int) -> int:
        """Find the next packet behind damage."""
        after = self.content.search(_OURS, offset + 1, _OURS_WIDTH)
        self.skipped_bytes += after - offset
        return after

    def _count(self, packet: Packet) -> None:
        self.npackets += 1
        application = apid(packet.header.unit)
        last = self._counts.get(application)
        if last is not None and packet.sequence_count != (last + 1) & MAX_SEQ_COUNT:
            self.discontinuities += 1
        self._counts[application] = packet.sequence_count


def packet_size(beginning: bytes | memoryview) -> int:
    """Return the size that a packet claims by its first bytes, 0 if a header is longer."""
    head = bytes(beginning[:PACKET_HEADER_SIZE])
    if len(head) < PACKET_HEADER_SIZE:
        return 0
    return int(SpacePacketHeader.unpack(head).packet_len)


def checksum_is_right(packet: memoryview) -> bool:
    """Return whether a whole packet has the checksum (CRC-16-CCITT, 0xFFFF first) it ends with."""
    return binascii.crc_hqx(packet, 0xFFFF) == 0


def read_packet(content: memoryview, offset: int, source: object) -> Packet:
    """Read a packet whose checksum has been tested.

    Parameters
    ----------
    content
        The whole packet.
    offset, source
        Where it lies in which file.

    Raises
    ------
    BadInputError
        If its headers contradict each other.
    """
    try:
        primary = SpacePacketHeader.unpack(bytes(content[:PACKET_HEADER_SIZE]))
        header = _unpack_header(bytes(content[_UNIT_OFFSET:_CHUNK_OFFSET]))
        (chunk,) = _CHUNK.unpack_from(content, _CHUNK_OFFSET)
        _check_against_primary(primary, header, chunk)
        time = _unpack_time(bytes(content[PACKET_HEADER_SIZE:_UNIT_OFFSET]))
    except (ValueError, OverflowError, struct.error) as error:
        raise BadInputError(
            source, f"packet at byte {offset}", str(error), "make the packets as docs/l0.md says"
        ) from error
    payload = content[_PAYLOAD_OFFSET : -_CRC.size]
    return Packet(header, chunk, time, primary.seq_count, payload, offset, len(content))


def _pack_header(header: UnitHeader) -> bytes:
    unit = header.unit
    visit = unit.exposure.visit
    return _UNIT.pack(
        _MAGIC, _FORMAT_VERSION, unit.stream, apid(unit) - FIRST_APID[unit.stream],
        header.compression, visit.program, visit.execution_plan, visit.pass_, visit.segment,
        visit.observation, visit.visit, unit.exposure.exposure, unit.index, header.nunits,
        header.nchunks, header.rows, header.columns, header.reference_columns, header.size,
        header.checksum,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _unpack_header(data: bytes) -> UnitHeader:
    """Read an application header; raises `ValueError` if it contradicts itself."""
    (
        _, version, stream, number, compression, program, plan, pass_, segment, observation,
        visit, exposure, index, nunits, nchunks, rows, columns, reference_columns, size,
        checksum,
    ) = _UNIT.unpack(data)  # fmt: skip
    if version != _FORMAT_VERSION:
        raise ValueError(f"format version {version} is not known")
    if number > len(DETECTORS) or (number == 0) != (stream == Stream.FACE):
        raise ValueError(f"detector number {number} is impossible in stream {stream}")
    header = UnitHeader(
        UnitId(
            ExposureId(VisitId(program, plan, pass_, segment, observation, visit), exposure),
            Stream(stream), DETECTORS[number - 1] if number else None, index,
        ),
        nunits, Compression(compression), rows, columns, reference_columns, nchunks, size,
        checksum,
    )  # fmt: skip
    header.check()
    return header


def _check_against_primary(primary: SpacePacketHeader, header: UnitHeader, chunk: int) -> None:
    if primary.apid != apid(header.unit):
        raise ValueError(f"APID {primary.apid:#x} is not that of {header.unit}")
    if chunk >= header.nchunks or primary.seq_flags != _sequence_flags(chunk, header.nchunks):
        raise ValueError(
            f"chunk {chunk} of {header.nchunks} has sequence flags {primary.seq_flags:#04b}"
        )


def _sequence_flags(chunk: int, nchunks: int) -> SequenceFlags:
    if nchunks == 1:
        return SequenceFlags.UNSEGMENTED
    if chunk == 0:
        return SequenceFlags.FIRST_SEGMENT
    if chunk == nchunks - 1:
        return SequenceFlags.LAST_SEGMENT
    return SequenceFlags.CONTINUATION_SEGMENT


def _pack_time(time: datetime) -> bytes:
    elapsed = time - _CDS_EPOCH
    return bytes(CdsShortTimestamp(elapsed // _DAY, elapsed % _DAY // _MILLISECOND).pack())


def _unpack_time(data: bytes) -> datetime:
    days, milliseconds = CdsShortTimestamp.unpack_from_raw(data)
    return _CDS_EPOCH + timedelta(days=days, milliseconds=milliseconds)


class SequenceCounters:
    """The 14-bit counters of all APIDs, as one instrument keeps them."""

    def __init__(self) -> None:
        self._counters: dict[int, Iterator[int]] = defaultdict(
            lambda: itertools.cycle(range(MAX_SEQ_COUNT + 1))
        )

    def following(self, application: int) -> int:
        """Return the count of the next packet of an APID."""
        return next(self._counters[application])


def encode(
    telemetry: Telemetry,
    counters: SequenceCounters,
    *,
    packet_size: int = MAX_PACKET_SIZE,
) -> Iterator[bytes]:
    """Turn telemetry into packets, in order.

    Parameters
    ----------
    telemetry
        What the instrument sends.
    counters
        Sequence counters, carried on from one call to the next.
    packet_size
        Largest size of a packet, bytes.

    Yields
    ------
    bytes
        Whole packets.
    """
    if not _OVERHEAD < packet_size <= MAX_PACKET_SIZE:
        raise ValueError(f"a packet of {packet_size} B: expected {_OVERHEAD + 1} to 65542")
    for unit in data_units(telemetry, packet_size - _OVERHEAD):
        yield from unit_packets(unit, counters, packet_size)


def unit_packets(
    unit: DataUnit, counters: SequenceCounters, packet_size: int = MAX_PACKET_SIZE
) -> Iterator[bytes]:
    """Turn a data unit into packets, as its header says; see `encode`."""
    nchunks, application = unit.header.nchunks, apid(unit.header.unit)
    middle = _pack_time(unit.time) + _pack_header(unit.header)
    step = packet_size - _OVERHEAD
    for chunk in range(nchunks):
        payload = unit.content[chunk * step : (chunk + 1) * step]
        primary = SpacePacketHeader(
            PacketType.TM,
            application,
            counters.following(application),
            _OVERHEAD + len(payload) - CCSDS_HEADER_LEN - 1,
            sec_header_flag=True,
            seq_flags=_sequence_flags(chunk, nchunks),
        )
        packet = b"".join((primary.pack(), middle, _CHUNK.pack(chunk), payload))
        yield packet + _CRC.pack(binascii.crc_hqx(packet, 0xFFFF))
