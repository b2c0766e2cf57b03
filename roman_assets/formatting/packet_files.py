"""Packets of files that have been taken in, read at the places that the index knows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from roman_assets.errors import BadInputError, LostPacketsError, PassingFaultError
from roman_assets.formatting.data_unit import (
    DataUnit,
    Stream,
    UnitHeader,
    UnitId,
    join_beginning,
    join_chunks,
)
from roman_assets.formatting.file_content import FileVersion, LocatedUnit
from roman_assets.formatting.listing import NOT_OF_THE_FILE
from roman_assets.formatting.packet import (
    PACKET_HEADER_SIZE,
    Packet,
    checksum_is_right,
    packet_size,
    read_packet,
)
from roman_assets.formatting.packet_history import HeldUnit, UnitHistory, unit_histories
from roman_assets.products.observation import ExposureId

REDELIVER = "deliver the packets again"


def chosen_units(
    located: Iterable[LocatedUnit], exposure: ExposureId, stream: Stream, detector: str | None
) -> list[UnitHeader]:
    """Return the valid version of each data unit; raise `BadInputError` if one has none."""
    histories = histories_of(located).values()
    chosen = [history.valid.header for history in histories if history.valid]
    if not chosen:
        raise nothing_in(exposure, stream, detector)
    return chosen


def histories_of(located: Iterable[LocatedUnit]) -> dict[UnitId, UnitHistory]:
    """Sort located data units by unit and version."""
    return unit_histories(
        HeldUnit(part.header, part.file.arrival, sum(1 << chunk for chunk in part.offsets))
        for part in located
    )


def nothing_in(exposure: ExposureId, stream: Stream, detector: str | None) -> LostPacketsError:
    """Return the error for a sender without any packets."""
    return LostPacketsError(
        exposure, f"{detector or ''} {stream.name}".strip(), "no packets are in", REDELIVER
    )


@dataclass
class PacketFiles:
    """Packet files of a directory; a context manager that closes them.

    One packet at a time is read. The files may be changed meanwhile: a packet that is not what
    arrived is bad input.

    Parameters
    ----------
    directory
        Where they are.
    """

    directory: Path
    _streams: dict[str, BinaryIO] = field(default_factory=dict, repr=False)
    _opened: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._streams.clear()
        self._opened.close()

    def unit(
        self, header: UnitHeader, located: Iterable[LocatedUnit], nchunks: int | None = None
    ) -> DataUnit:
        """Read the first chunks of a data unit, all by default; they are in.

        Raises
        ------
        BadInputError
            If a file is gone, or a packet is not what arrived.
        PassingFaultError
            If a file cannot be read at present.
        """
        parts = (part for part in located if part.header == header)
        places = {chunk: (part.file, at) for part in parts for chunk, at in part.offsets.items()}
        count = header.nchunks if nchunks is None else nchunks
        packets = [self._packet(header, chunk, *places[chunk]) for chunk in range(count)]
        join = join_chunks if count == header.nchunks else join_beginning
        return join(header, packets[0].time, (packet.payload for packet in packets))

    def _packet(self, header: UnitHeader, chunk: int, file: FileVersion, offset: int) -> Packet:
        content = self._content(file, offset)
        if checksum_is_right(content):
            packet = read_packet(content, offset, self.directory / file.name)
            if (packet.header, packet.chunk) == (header, chunk):
                return packet
        raise BadInputError(
            self.directory / file.name, f"packet at byte {offset}",
            "it is not what arrived: the file was damaged or changed since", REDELIVER,
        )  # fmt: skip

    def _content(self, file: FileVersion, offset: int) -> memoryview:
        """Return the bytes of a packet as they are in the file now; empty if it ends before."""
        path = self.directory / file.name
        try:
            descriptor = self._open(file).fileno()
            size = packet_size(os.pread(descriptor, PACKET_HEADER_SIZE, offset))
            content = os.pread(descriptor, size, offset)
        except (FileNotFoundError, PermissionError) as error:
            raise BadInputError(
                path, "file", f"it is not there to be read since it arrived: {error.strerror}",
                REDELIVER,
            ) from error  # fmt: skip
        except OSError as error:
            room = error.errno in NOT_OF_THE_FILE
            remedy = "end other processes or raise their limits" if room else "check the disk"
            raise PassingFaultError(f"{path}: {error.strerror}. Remedy: {remedy}") from error
        return memoryview(content if len(content) == size else b"")

    def _open(self, file: FileVersion) -> BinaryIO:
        if file.name not in self._streams:
            stream = (self.directory / file.name).open("rb", buffering=0)
            self._streams[file.name] = self._opened.enter_context(stream)
        return self._streams[file.name]
