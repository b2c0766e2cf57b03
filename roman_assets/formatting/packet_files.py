"""Packets of files that have been taken in, read at the places that the index knows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.formatting.data_unit import DataUnit, UnitHeader, join_beginning, join_chunks
from roman_assets.formatting.inventory import FileVersion, LocatedUnit
from roman_assets.formatting.listing import NOT_OF_THE_FILE
from roman_assets.formatting.packet import (
    PACKET_HEADER_SIZE,
    Packet,
    checksum_is_right,
    packet_size,
    read_packet,
)

REDELIVER = "deliver the packets again"


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

    def unit(self, header: UnitHeader, parts: Iterable[LocatedUnit]) -> DataUnit:
        """Read a data unit of which the parts hold all chunks.

        Raises
        ------
        BadInputError
            If a file is gone, or a packet is not what arrived.
        PassingFaultError
            If a file cannot be read at present.
        """
        places = {chunk: (part.file, at) for part in parts for chunk, at in part.offsets.items()}
        packets = [self._packet(header, chunk, *places[chunk]) for chunk in sorted(places)]
        return join_chunks(header, packets[0].time, (packet.payload for packet in packets))

    def received(
        self, header: UnitHeader, nchunks: int, located: Iterable[LocatedUnit]
    ) -> DataUnit:
        """Read the first chunks of a data unit, all of which are in; raises as `unit` does."""
        parts = [part for part in located if part.header == header]
        if nchunks == header.nchunks:
            return self.unit(header, parts)
        places = {chunk: (part.file, at) for part in parts for chunk, at in part.offsets.items()}
        packets = [self._packet(header, chunk, *places[chunk]) for chunk in range(nchunks)]
        return join_beginning(header, packets[0].time, (packet.payload for packet in packets))

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
        """Return a packet as the file has it now, empty if there is none at that place."""
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
