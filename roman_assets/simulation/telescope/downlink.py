"""How the simulated telescope's data reach the ground: in order, late, twice, with gaps.

Everything is reproducible: the same telemetry, delivery and seed land the same bytes, and landing
them again changes nothing.
"""

from __future__ import annotations

import filecmp
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Self
from zlib import crc32

import numpy as np

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    private_directory,
    temporary_name,
)
from roman_assets.data_root import DataRoot
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.file_reading import DOCUMENT_SUFFIX, EPHEMERIS_SUFFIX, PACKET_SUFFIX
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.packet import (
    MAX_PACKET_SIZE,
    Packet,
    PacketReader,
    SequenceCounters,
    encode,
)
from roman_assets.formatting.telemetry import Telemetry
from roman_assets.products.observation import DETECTORS
from roman_assets.products.packet_policy import FACE

_HELD_BACK = "held_back"


@dataclass(frozen=True)
class Loss:
    """Packets that do not come down with the others.

    Parameters
    ----------
    sender
        A detector, or FACE.
    resultant
        Only one packet in the middle of this resultant, from 1; None for all that the sender sends.
    """

    sender: str
    resultant: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a loss: ``FACE``, ``WFI02``, or ``WFI02:3`` for a packet of its third resultant.

        Raises
        ------
        ValueError
            If the text is invalid.
        """
        sender, colon, number = text.upper().partition(":")
        if sender not in (*DETECTORS, FACE) or (colon and sender == FACE):
            raise ValueError(f"{text!r}: expected FACE, WFI01 to WFI18, or WFI01:3 for a resultant")
        return cls(sender, int(number) if colon else None)

    def takes(self, packet: Packet) -> bool:
        """Return whether a packet is lost."""
        unit = packet.header.unit
        if (unit.detector or FACE) != self.sender:
            return False
        return self.resultant is None or (
            (unit.stream, unit.index) == (Stream.SCIENCE, self.resultant - 1)
            and packet.chunk == packet.header.nchunks // 2
        )


@dataclass(frozen=True)
class DownlinkDelivery:
    """How data arrive.

    Parameters
    ----------
    seed
        Decides which packets are concerned.
    shuffled
        Packets come out of order.
    nfiles
        Files that the packets of one call of `Downlink.send` are spread over.
    repeated
        Fraction of the packets that comes twice.
    dropped
        Fraction of the packets that is lost at first, and held back.
    damaged
        Fraction of the packets that comes with a flipped bit; good copies are held back.
    losses
        Packets of each exposure that are lost at first, and held back.
    late_packets, late_documents, late_ma_tables
        Whether the last file of packets, all documents and ephemerides, and MA tables are held
        back.
    """

    seed: int = 0
    shuffled: bool = False
    nfiles: int = 1
    repeated: float = 0.0
    dropped: float = 0.0
    damaged: float = 0.0
    losses: tuple[Loss, ...] = ()
    late_packets: bool = False
    late_documents: bool = False
    late_ma_tables: bool = False


DELIVERIES: Mapping[str, DownlinkDelivery] = {
    "in_order": DownlinkDelivery(),
    "shuffled": DownlinkDelivery(shuffled=True, nfiles=3),
    "twice": DownlinkDelivery(repeated=1.0, nfiles=2),
    "gaps": DownlinkDelivery(dropped=0.05, damaged=0.05),
    "late": DownlinkDelivery(nfiles=2, late_packets=True, late_documents=True),
    "late_packets": DownlinkDelivery(nfiles=2, late_packets=True),
    "late_ma_table": DownlinkDelivery(late_ma_tables=True),
}
"""Deliveries by name; those after ``twice`` hold back what `Downlink.release` lands."""


class Downlink:
    """Lands what the telescope sends.

    Parameters
    ----------
    root
        The installation whose landing area is fed.
    delivery
        How the data arrive.
    packet_size
        Largest size of a packet, bytes.
    """

    def __init__(
        self,
        root: DataRoot,
        delivery: DownlinkDelivery | None = None,
        *,
        packet_size: int = MAX_PACKET_SIZE,
    ) -> None:
        self._landing = LandingArea(root).path
        self._held_back = root.observatory / _HELD_BACK
        self._delivery = delivery or DownlinkDelivery()
        self._packet_size = packet_size
        self._counters = SequenceCounters()

    def send(self, name: str, telemetry: Iterable[Telemetry]) -> None:
        """Send telemetry as files of packets.

        Parameters
        ----------
        name
            Begins the names of the files; the same name again replaces them.
        telemetry
            What to send. Delivered in order it is packetized piece by piece; otherwise its
            packets are held in memory.
        """
        packets = chain.from_iterable(
            encode(piece, self._counters, packet_size=self._packet_size) for piece in telemetry
        )
        if self._delivery == DownlinkDelivery(seed=self._delivery.seed):
            self._land(f"{name}{PACKET_SUFFIX}", packets)
            return
        sent, repairs = self._disturbed(list(packets), name)
        nfiles = min(self._delivery.nfiles, len(sent)) or 1
        parts = np.array_split(np.arange(len(sent)), nfiles) if sent else []
        for number, part in enumerate(parts, start=1):
            late = self._delivery.late_packets and number == len(parts)
            self._land(f"{name}_{number}{PACKET_SUFFIX}", (sent[i] for i in part), held=late)
        if repairs:
            self._land(f"{name}_repair{PACKET_SUFFIX}", repairs, held=True)

    def send_document(self, document: ExecutedVisit | MATable) -> None:
        """Send an executed visit or an MA table."""
        content = json.dumps(document.model_dump(mode="json"), indent=1).encode()
        name = f"{document.kind}_{document.key}_{document.revision}{DOCUMENT_SUFFIX}"
        late_table = isinstance(document, MATable) and self._delivery.late_ma_tables
        self._land(name, [content], held=self._delivery.late_documents or late_table)

    def send_ephemeris(self, name: str, message: str) -> None:
        """Send an ephemeris.

        Parameters
        ----------
        name
            Of the file, without its ending.
        message
            A CCSDS Orbit Ephemeris Message.
        """
        held = self._delivery.late_documents
        self._land(f"{name}{EPHEMERIS_SUFFIX}", [message.encode()], held=held)

    def release(self) -> tuple[str, ...]:
        """Land everything held back, also by an earlier run; give the names of the files."""
        if not self._held_back.is_dir():
            return ()
        files = sorted(path for path in self._held_back.iterdir() if path.name[0] != ".")
        for path in files:
            _arrive(path)
            path.rename(self._landing / path.name)
        fsync_directory(self._landing)
        return tuple(path.name for path in files)

    def _disturbed(self, packets: list[bytes], name: str) -> tuple[list[bytes], list[bytes]]:
        """Return the packets as they arrive, and the good ones that are held back."""
        delivery = self._delivery
        rng = np.random.default_rng([delivery.seed, crc32(name.encode())])
        order = rng.permutation(len(packets)).tolist()
        ndropped = _share(delivery.dropped, packets)
        lost = frozenset(order[:ndropped]).union(self._losses(packets))
        hurt = frozenset(order[ndropped : ndropped + _share(delivery.damaged, packets)]) - lost
        again = rng.permutation(len(packets))[: _share(delivery.repeated, packets)].tolist()
        sent = [
            _flip(packet, rng) if number in hurt else packet
            for number, packet in enumerate(packets)
            if number not in lost
        ]
        sent += [packets[number] for number in sorted(again)]
        if delivery.shuffled:
            sent = [sent[number] for number in rng.permutation(len(sent))]
        return sent, [packets[number] for number in sorted(lost | hurt)]

    def _losses(self, packets: list[bytes]) -> Iterator[int]:
        if not self._delivery.losses:
            return
        for number, packet in enumerate(packets):
            (read,) = PacketReader(BytesIO(packet), "downlink")
            if any(loss.takes(read) for loss in self._delivery.losses):
                yield number

    def _land(self, name: str, content: Iterable[bytes], *, held: bool = False) -> None:
        target = (private_directory(self._held_back) if held else self._landing) / name
        draft = temporary_name(target)
        with disk_space(target.parent):
            try:
                with draft.open("xb") as file:
                    file.writelines(content)
                    file.flush()
                    os.fsync(file.fileno())
                _arrive(draft)
                if not _is_there(self._landing / name, draft):
                    draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)
            fsync_directory(target.parent)


def _arrive(path: Path) -> None:
    """Set a file's arrival to now, by the clock of this process rather than the file system's."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _is_there(path: Path, draft: Path) -> bool:
    return path.is_file() and filecmp.cmp(path, draft, shallow=False)


def _share(fraction: float, packets: Sequence[bytes]) -> int:
    """Return a fraction of the packets as a number, at least one unless the fraction is 0."""
    return min(len(packets), max(1, round(fraction * len(packets)))) if fraction else 0


def _flip(packet: bytes, rng: np.random.Generator) -> bytes:
    bit = int(rng.integers(8 * len(packet)))
    damaged = bytearray(packet)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
