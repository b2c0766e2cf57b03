"""Reading of the files that land: what each kind of file holds, and why one cannot be used."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from roman_assets.errors import BadInputError, PassingFaultError, PlatformError, printable
from roman_assets.formatting.ancillary import read_document
from roman_assets.formatting.data_unit import UnitHeader
from roman_assets.formatting.file_content import (
    EphemerisContent,
    FileContent,
    FileVersion,
    PacketContent,
)
from roman_assets.formatting.level1_file import read_level1
from roman_assets.formatting.listing import NOT_OF_THE_FILE
from roman_assets.formatting.orbit_ephemeris import Ephemeris
from roman_assets.formatting.packet import PacketReader
from roman_assets.formatting.packet_files import REDELIVER
from roman_assets.formatting.spacecraft import Spacecraft

PACKET_SUFFIX = ".l0"
DOCUMENT_SUFFIX = ".json"
EPHEMERIS_SUFFIX = ".oem"
LEVEL1_SUFFIX = ".asdf"

Reading = Generator[None, None, FileContent]
"""The reading of a file; it pauses now and then, so that a scan can end."""

_PACKETS_AT_ONCE = 2000
_MOST_UNITS = 500_000
"""In one file: the packets of some 400 exposures."""
_REDELIVER_FILE = "deliver it again"
_LATEST_ARRIVAL_NS = 2**63 - 1
"""The index holds no later one: April 2262."""


def is_text(name: str) -> bool:
    """Return whether a file name is UTF-8 and can be printed."""
    return printable(name) == name


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever reading a file raises into bad input.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    BadInputError
        If it cannot be used, whatever the reason.
    PassingFaultError
        If no file can be read at present.
    """
    try:
        yield
    except (FileNotFoundError, PlatformError):
        raise
    except OSError as error:
        if error.errno in NOT_OF_THE_FILE:
            raise PassingFaultError(
                f"{path}: {error.strerror}. Remedy: end other processes or raise their limits; "
                "the next scan tries again"
            ) from error
        raise BadInputError(
            path, "file", f"it cannot be read: {error.strerror}",
            f"let the user of the platform read it, and {_REDELIVER_FILE}",
        ) from error  # fmt: skip
    except Exception as error:  # whatever a file does, the others go on
        raise BadInputError(
            path, "content", f"it cannot be read: {error!r}",
            f"check how the file was made (docs/l0.md) and {_REDELIVER_FILE}",
        ) from error  # fmt: skip


def check_entry(path: Path, file: FileVersion) -> None:
    """Raise `BadInputError` if a directory's entry is not a file that can be taken in."""
    if not is_text(file.name):
        raise BadInputError(
            path, "file name", "it is not UTF-8", "deliver the file under another name"
        )
    if not 0 <= file.mtime_ns <= _LATEST_ARRIVAL_NS:
        raise BadInputError(
            path, "modification time",
            f"{file.mtime_ns / 1e9:.0f} s since 1970 is not an arrival time",
            f"set the clock of who delivers, and {_REDELIVER_FILE}",
        )  # fmt: skip
    is_link = stat.S_ISLNK(path.lstat().st_mode)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not is_link:
            raise
        mode = 0
    if not stat.S_ISREG(mode):
        what = "a link that leads to no regular file" if is_link else "no regular file"
        raise BadInputError(path, "file", f"it is {what}", "deliver the file itself")


def begin_reading(path: Path, spacecraft: Spacecraft) -> Reading:
    """Begin to read a file of any kind that is known; raises `BadInputError` of others."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise BadInputError(
            path, "file name", f"nothing is known of files ending in {path.suffix!r}",
            f"deliver {', '.join(_READERS)} files only",
        )  # fmt: skip
    return reader(path, spacecraft)


def continue_reading(end: float, reading: Reading) -> FileContent | None:
    """Continue with a file; return None if time is over before its end."""
    try:
        while True:
            next(reading)
            if time.monotonic() > end:
                return None
    except StopIteration as finished:
        content: FileContent = finished.value
        return content


def _read_packets(path: Path, _: Spacecraft) -> Reading:
    units: dict[UnitHeader, dict[int, int]] = {}
    duplicates = 0
    with path.open("rb") as stream:
        reader = PacketReader(stream, path)
        for number, packet in enumerate(reader, 1):
            chunks = units.setdefault(packet.header, {})
            duplicates += packet.chunk in chunks
            chunks.setdefault(packet.chunk, packet.offset)
            if len(units) > _MOST_UNITS:
                raise BadInputError(
                    path, f"packet at byte {packet.offset}", f"more than {_MOST_UNITS} data units",
                    "deliver the packets in smaller files",
                )  # fmt: skip
            if number % _PACKETS_AT_ONCE == 0:
                yield
    if not units:
        raise BadInputError(
            path, "packets",
            f"not one good packet of the instrument in {reader.content.size} bytes "
            f"({reader.crc_failures} with a wrong checksum)",
            f"check how the file was made (docs/l0.md) and {REDELIVER}",
        )  # fmt: skip
    return PacketContent(
        units,
        reader.npackets,
        reader.crc_failures,
        reader.foreign,
        reader.discontinuities,
        duplicates,
        reader.skipped_bytes,
    )


def _read_document(path: Path, _: Spacecraft) -> Reading:
    yield from ()
    return read_document(path)


def _read_ephemeris(path: Path, spacecraft: Spacecraft) -> Reading:
    yield from ()
    ephemeris = Ephemeris(path)
    spacecraft.check(ephemeris)
    return EphemerisContent(
        ephemeris.kind, ephemeris.start, ephemeris.stop, ephemeris.creation_date
    )


def _read_level1(path: Path, _: Spacecraft) -> Reading:
    yield from ()
    return read_level1(path)


_READERS: Mapping[str, Callable[[Path, Spacecraft], Reading]] = {
    PACKET_SUFFIX: _read_packets,
    DOCUMENT_SUFFIX: _read_document,
    EPHEMERIS_SUFFIX: _read_ephemeris,
    LEVEL1_SUFFIX: _read_level1,
}
