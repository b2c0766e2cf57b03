"""Data units: telemetry cut and compressed as it travels, and put together again.

A data unit is one resultant of a detector, the guide windows of a detector, or the FACE telemetry
of an exposure. It is compressed without loss, and a CRC-32 of the compressed bytes tells one
*version* of it from another.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.formatting.telemetry import (
    MOST_COLUMNS,
    MOST_RESULTANTS,
    MOST_ROWS,
    REFERENCE_OUTPUT_COLUMNS,
    DetectorReadout,
    FaceTelemetry,
    GuideWindowReadout,
    Telemetry,
)
from roman_assets.formatting.telemetry_record import pack_record, read_record, rounded
from roman_assets.products.observation import ExposureId


class Stream(IntEnum):
    """What a data unit carries."""

    SCIENCE = 1
    GUIDE_WINDOW = 2
    FACE = 3


class Compression(IntEnum):
    """How a data unit is compressed."""

    AEC = 1
    """CCSDS 121.0-B: 16-bit samples, blocks of 16, reference interval 128, preprocessed."""
    ZLIB = 2
    """RFC 1950."""


@dataclass(frozen=True)
class UnitId:
    """One data unit.

    Parameters
    ----------
    exposure, stream
        Which exposure, which stream.
    detector
        None for FACE.
    index
        Number of the resultant, from 0; 0 for other streams.
    """

    exposure: ExposureId
    stream: Stream
    detector: str | None
    index: int

    _hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: units are looked up again and again."""

    def __post_init__(self) -> None:
        key = (self.exposure, int(self.stream), self.detector, self.index)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        who = f"{self.detector} " if self.detector else ""
        if self.stream is Stream.SCIENCE:
            return f"{who}resultant {self.index + 1}"
        return f"{who}{self.stream.name.lower().replace('_', ' ')}"


@dataclass(frozen=True)
class UnitHeader:
    """What every packet of a data unit repeats.

    Parameters
    ----------
    unit
        The data unit.
    nunits
        Data units of this stream and detector: resultants of the exposure, else 1.
    compression
        How the unit is compressed.
    rows, columns, reference_columns
        Shape of a resultant and columns of its reference output; 0 for other streams.
    nchunks
        Chunks the compressed unit is cut into.
    size, checksum
        Bytes of the compressed unit and their CRC-32: they tell one version of it from another.
    """

    unit: UnitId
    nunits: int
    compression: Compression
    rows: int
    columns: int
    reference_columns: int
    nchunks: int
    size: int
    checksum: int

    def __hash__(self) -> int:
        return hash((self.unit, self.size, self.checksum))

    def check(self) -> None:
        """Raise `ValueError` if no such unit can be: nothing is allocated for it then."""
        shape = (self.rows, self.columns, self.reference_columns)
        if self.unit.stream is Stream.SCIENCE:
            compression, most = Compression.AEC, MOST_RESULTANTS
            possible = (
                1 <= self.rows <= MOST_ROWS
                and 1 <= self.columns <= MOST_COLUMNS
                and self.reference_columns <= REFERENCE_OUTPUT_COLUMNS
            )
        else:
            compression, most, possible = Compression.ZLIB, 1, shape == (0, 0, 0)
        if not possible:
            raise ValueError(f"shape {shape} is impossible in stream {self.unit.stream.name}")
        if self.compression is not compression:
            raise ValueError(f"{self.unit.stream.name} compressed by {self.compression.name}")
        if not self.unit.index < self.nunits <= most:
            raise ValueError(f"unit {self.unit.index} of {self.nunits}, at most {most} can be")
        if not 1 <= self.nchunks <= self.size <= MOST_COMPRESSED_BYTES:
            raise ValueError(f"{self.size} B in {self.nchunks} chunks")


@dataclass(frozen=True)
class DataUnit:
    """A compressed data unit.

    Parameters
    ----------
    header
        What it is.
    time
        Time in its packets (UTC).
    content
        The compressed bytes; its beginning, where packets of a resultant are lost.
    """

    header: UnitHeader
    time: datetime
    content: bytes

    @property
    def is_whole(self) -> bool:
        """Whether all of it came down."""
        return len(self.content) == self.header.size


MOST_COMPRESSED_BYTES = 1 << 27
"""Of a data unit: more than those of a whole detector in which nothing can be compressed."""


def data_units(telemetry: Telemetry, chunk_size: int) -> Iterator[DataUnit]:
    """Cut telemetry into compressed data units, times rounded to milliseconds.

    Parameters
    ----------
    telemetry
        What the instrument sends.
    chunk_size
        Bytes of a data unit that one packet carries at most.

    Raises
    ------
    ValueError
        If the arrays of a readout have other shapes or types than `DetectorReadout` promises.
    """
    if isinstance(telemetry, DetectorReadout):
        yield from _resultant_units(telemetry, chunk_size)
        return
    stream, detector = (
        (Stream.FACE, None)
        if isinstance(telemetry, FaceTelemetry)
        else (Stream.GUIDE_WINDOW, telemetry.detector)
    )
    content = zlib.compress(pack_record(telemetry))
    unit = UnitId(telemetry.exposure, stream, detector, 0)
    header = _header(unit, 1, Compression.ZLIB, (0, 0, 0), content, chunk_size)
    yield DataUnit(header, rounded(telemetry.start_time), content)


def _resultant_units(readout: DetectorReadout, chunk_size: int) -> Iterator[DataUnit]:
    nresultants, rows, columns = readout.resultants.shape
    reference_columns = readout.reference_output.shape[2]
    expected = (nresultants, rows, REFERENCE_OUTPUT_COLUMNS)
    if readout.reference_output.shape != expected:
        raise ValueError(f"reference output {readout.reference_output.shape} is not {expected}")
    if {readout.resultants.dtype, readout.reference_output.dtype} != {np.dtype(np.uint16)}:
        raise ValueError("resultants and reference output must be uint16")
    for index in range(nresultants):
        samples = np.hstack((readout.resultants[index], readout.reference_output[index]))
        content = _aec_encode(samples)
        unit = UnitId(readout.exposure, Stream.SCIENCE, readout.detector, index)
        shape = (rows, columns, reference_columns)
        header = _header(unit, nresultants, Compression.AEC, shape, content, chunk_size)
        yield DataUnit(header, rounded(readout.start_time), content)


def _header(
    unit: UnitId,
    nunits: int,
    compression: Compression,
    shape: tuple[int, int, int],
    content: bytes,
    chunk_size: int,
) -> UnitHeader:
    nchunks = -(-len(content) // chunk_size)
    return UnitHeader(unit, nunits, compression, *shape, nchunks, len(content), zlib.crc32(content))


_AEC_SETTINGS: dict[str, Any] = {
    "bitspersample": 16,
    "blocksize": 16,
    "rsi": 128,
    "flags": imagecodecs.AEC.FLAG.DATA_PREPROCESS,
}


def _aec_encode(samples: NDArray[np.uint16]) -> bytes:
    return bytes(imagecodecs.aec_encode(samples.astype("<u2", copy=False), **_AEC_SETTINGS))


def join_chunks(header: UnitHeader, time: datetime, chunks: Iterable[memoryview]) -> DataUnit:
    """Put a data unit together from its chunks, in order.

    Raises
    ------
    BadInputError
        If the whole is not what the header announces.
    """
    content = b"".join(chunks)
    if len(content) != header.size or zlib.crc32(content) != header.checksum:
        raise BadInputError(
            header.unit.exposure, str(header.unit), "its chunks do not make the announced unit",
            "deliver its packets again",
        )  # fmt: skip
    return DataUnit(header, time, content)


def join_beginning(header: UnitHeader, time: datetime, chunks: Iterable[memoryview]) -> DataUnit:
    """Put together what is in of a data unit before its first missing chunk.

    No checksum covers it but those of its packets, which have been tested.
    """
    return DataUnit(header, time, b"".join(chunks)[: header.size - 1])


def decode_received(units: Iterable[DataUnit]) -> DetectorReadout:
    """Turn what came down of a readout into telemetry, with zeros for what is lost.

    A resultant is compressed as one stream of bits, in the order of its rows: what comes before the
    first lost packet can be decompressed, what comes after it cannot.

    Parameters
    ----------
    units
        Resultants, each whole or its beginning; in any order. One is whole.

    Raises
    ------
    BadInputError
        If they have different shapes, or one cannot be decompressed.
    """
    first, *others = sorted(units, key=lambda unit: not unit.is_whole)
    return _decode_readout(first, iter(others), partial=True)


def decode(units: Iterable[DataUnit]) -> Telemetry:
    """Turn the data units of one stream and detector of an exposure into telemetry.

    Parameters
    ----------
    units
        All of them, in any order; they are consumed one by one.

    Raises
    ------
    BadInputError
        If one is missing, they have different shapes, or one cannot be decompressed.
    """
    iterator = iter(units)
    first = next(iterator)
    if first.header.unit.stream is not Stream.SCIENCE:
        return _decode_record(first)
    return _decode_readout(first, iterator)


def _decode_readout(
    first: DataUnit, others: Iterator[DataUnit], *, partial: bool = False
) -> DetectorReadout:
    header, unit = first.header, first.header.unit
    assert unit.detector is not None
    shape = (header.nunits, header.rows, header.columns)
    resultants = np.zeros(shape, np.uint16)
    reference_output = np.zeros((*shape[:2], header.reference_columns), np.uint16)
    received: dict[int, int] = {}
    for data_unit in itertools.chain((first,), others):
        found = data_unit.header
        if (found.nunits, found.rows, found.columns, found.reference_columns) != (
            *shape,
            header.reference_columns,
        ):
            raise BadInputError(
                unit.exposure, str(found.unit),
                f"shape {found.rows} x {found.columns} in {found.nunits} resultants, "
                f"{header.unit} has {header.rows} x {header.columns} in {header.nunits}",
                "deliver the detector's packets again, all from one readout",
            )  # fmt: skip
        samples = _aec_decode(data_unit)
        rows = len(samples)
        resultants[found.unit.index, :rows] = samples[:, : header.columns]
        reference_output[found.unit.index, :rows] = samples[:, header.columns :]
        received[found.unit.index] = rows
    if len(received) != header.nunits and not partial:
        raise BadInputError(
            unit.exposure, unit.detector, f"{header.nunits - len(received)} resultants are missing",
            "deliver their packets",
        )  # fmt: skip
    rows_received = tuple(received.get(index, 0) for index in range(header.nunits))
    return DetectorReadout(
        unit.exposure,
        unit.detector,
        resultants,
        reference_output,
        first.time,
        None if set(rows_received) == {header.rows} else rows_received,
    )


def _aec_decode(unit: DataUnit) -> NDArray[np.uint16]:
    """Decompress a resultant; of one that is not whole, the rows that are."""
    header = unit.header
    columns = header.columns + header.reference_columns
    size = 2 * header.rows * columns
    try:
        samples = np.frombuffer(
            imagecodecs.aec_decode(unit.content, out=size, **_AEC_SETTINGS), "<u2"
        )
        rows = header.rows if unit.is_whole else len(samples) // columns
        return samples[: None if unit.is_whole else rows * columns].reshape(rows, columns)
    except (RuntimeError, ValueError) as error:
        raise BadInputError(
            header.unit.exposure, str(header.unit), f"cannot be decompressed: {error}",
            "deliver its packets again",
        ) from error  # fmt: skip


def _decode_record(unit: DataUnit) -> GuideWindowReadout | FaceTelemetry:
    identity = unit.header.unit
    try:
        if identity.stream is Stream.FACE:
            return read_record(FaceTelemetry, unit.content, exposure=identity.exposure)
        return read_record(
            GuideWindowReadout,
            unit.content,
            exposure=identity.exposure,
            detector=identity.detector,
        )
    except Exception as error:  # a record may hold anything
        raise BadInputError(
            identity.exposure, str(identity), f"no record: {error!r}",
            "make the record as docs/l0.md says",
        ) from error  # fmt: skip
