"""The landing area: where packets and ancillary files arrive, private to the operator (R1)."""

from __future__ import annotations

import math
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from roman_assets.archive.durability import private_directory
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import (
    BadInputError,
    LostPacketsError,
    PassingFaultError,
    PlatformError,
    printable,
)
from roman_assets.formatting.ancillary import (
    Ephemeris,
    EphemerisKind,
    ExecutedVisit,
    read_document,
)
from roman_assets.formatting.data_unit import (
    Stream,
    UnitHeader,
    UnitId,
    decode,
    decode_received,
)
from roman_assets.formatting.inventory import (
    EphemerisContent,
    FileContent,
    FileVersion,
    Inventory,
    LocatedUnit,
    PacketContent,
    ReceiptChanges,
    made_of_packets,
)
from roman_assets.formatting.level1_file import Level1File, read_level1
from roman_assets.formatting.listing import (
    NOT_OF_THE_FILE,
    DirectoryListing,
    status_of,
)
from roman_assets.formatting.packet import PacketReader
from roman_assets.formatting.packet_files import REDELIVER, PacketFiles
from roman_assets.formatting.receipt import (
    Ancillary,
    HeldUnit,
    Receipt,
    UnitHistory,
    unit_histories,
)
from roman_assets.formatting.spacecraft import Spacecraft, spacecraft_of
from roman_assets.formatting.telemetry import DetectorReadout, Telemetry
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.products.origin import Origin
from roman_assets.registry.registry import Registry

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


@dataclass(frozen=True)
class ScanResult:
    """What a scan of the landing area found.

    Parameters
    ----------
    taken
        Names of files taken in.
    set_aside
        The case of every file that could not be used.
    left
        Why other files and directories cannot be used, which may not be moved either; each is told
        once. Settings that cannot be used, as long as they cannot: ephemerides wait for them.
    remaining
        New files left for the next scan, as the budget was used up.
    """

    taken: tuple[str, ...] = ()
    set_aside: tuple[Path, ...] = ()
    left: tuple[BadInputError, ...] = ()
    remaining: int = 0


@dataclass
class LandingArea:
    """The landing area of one installation.

    Files arrive in a directory or those below it, by a rename on the same file system, so they are
    whole when seen. Names that begin with a dot are not looked at. The arrival time of a file is
    its modification time. A file that cannot be used, whatever the reason, is set aside; one that
    cannot be moved either is noted and left alone until it changes. An object remembers what it
    has seen, so that its next scan is fast.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    _unfinished: dict[FileVersion, Reading] = field(default_factory=dict, repr=False, compare=False)
    """Files that the last scan had no time to read to their end."""

    @cached_property
    def path(self) -> Path:
        """The directory; it is made, for the operator's eyes only, when first needed."""
        return private_directory(self.root.landing)

    @cached_property
    def _inventory(self) -> Inventory:
        return Inventory(self.path, SetAside(self.root))

    @cached_property
    def _listing(self) -> DirectoryListing:
        return DirectoryListing(self.path)

    def scan(self, budget: timedelta | None = None) -> ScanResult:
        """Take in what has arrived, each file once, in order of arrival.

        Parameters
        ----------
        budget
            Time after which no further file is begun, and a large one of packets is left to the
            next scan of this object to go on with; None for as long as it takes.

        Returns
        -------
        ScanResult
            What was taken in, what could not be used and was set aside, and what is left.

        Raises
        ------
        PassingFaultError
            If the disk is full or the index is not accessible.
        """
        end = math.inf if budget is None else time.monotonic() + budget.total_seconds()
        taken: list[str] = []
        cases: list[Path] = []
        with self._inventory.kept_open():
            new, left = self._arrivals()
            try:
                spacecraft = spacecraft_of(self.root)
            except BadInputError as fault:
                spacecraft = Spacecraft()
                left.append(fault)
                new = [file for file in new if not file.name.endswith(EPHEMERIS_SUFFIX)]
            for gone in self._unfinished.keys() - set(new):
                del self._unfinished[gone]
            unread = 0
            for done, file in enumerate(new):
                if done and time.monotonic() > end:
                    unread = len(new) - done
                    break
                try:
                    if self._take_in(file, end, spacecraft):
                        taken.append(file.name)
                except BadInputError as fault:
                    put = self._put_away(file, fault)
                    if isinstance(put, Path):
                        cases.append(put)
                    elif put is not None:
                        left.append(put)
        remaining = unread + len(self._unfinished)
        return ScanResult(tuple(taken), tuple(cases), tuple(left), remaining)

    def _take_in(self, file: FileVersion, end: float, spacecraft: Spacecraft) -> bool:
        """Read a file into the index; False if it was removed or replaced, or time is over."""
        reading = self._unfinished.pop(file, None)
        try:
            with _explained(self.path / file.name):
                if reading is None:
                    _check_entry(self.path / file.name, file)
                    reading = _read(self.path / file.name, spacecraft)
                content = _read_until(end, reading)
        except FileNotFoundError:
            return False
        if content is None:
            self._unfinished[file] = reading
            return False
        if _version(self.path, file.name) != file:
            return False
        if isinstance(content, Level1File):
            self._require_delivered(file, content)
        self._inventory.add(file, content)
        self._listing.confirm(file.name)
        return True

    def _require_delivered(self, file: FileVersion, content: Level1File) -> None:
        """Raise if the archive has L1 of the exposure that was made from packets."""
        with Registry(self.root) as registry:
            made = registry.find(exposure=str(content.exposure), kind="uncal")
        if not made.empty and (made["origin"] != Origin.DELIVERED).any():
            raise made_of_packets(self.path / file.name, content.exposure)

    def _put_away(self, file: FileVersion, fault: BadInputError) -> Path | BadInputError | None:
        """Return the case of a file, or why it stays; None if it was removed or replaced."""
        if _version(self.path, file.name) != file:
            return None
        try:
            return SetAside(self.root).add(self.path / file.name, fault)
        except FileNotFoundError:  # another process has done so
            return None
        except OSError as error:
            return self._leave(file.name, _not_moved(fault, error))

    def _leave(self, name: str, fault: BadInputError) -> BadInputError:
        self._inventory.leave(name, _stamp(self.path / name), fault)
        return fault

    def _arrivals(self) -> tuple[list[FileVersion], list[BadInputError]]:
        """List new files in the order of arrival, and files newly found to be unreadable.

        The index forgets files that are gone.
        """
        changes = self._listing.look(self._inventory.identity)
        left = self._still_left()
        unreadable = [
            self._leave(name, _not_listed(self.path / name, error))
            for name, error in changes.unreadable.items()
            if name not in left
        ]
        names = None if changes.everything else {*filter(_is_text, changes.present), *changes.gone}
        known = self._inventory.files(names)
        hidden = tuple(f"{name}/" for name in changes.unreadable)
        gone = [
            name
            for name, file in known.items()
            if changes.present.get(name) != file and not name.startswith(hidden)
        ]
        if gone:
            self._inventory.forget(gone)
        new = [file for name, file in changes.present.items() if known.get(name) != file]
        for name in changes.present.keys() - {file.name for file in new}:
            self._listing.confirm(name)
        arrived = [file for file in new if file.name not in left]
        return sorted(arrived, key=lambda file: (file.mtime_ns, file.name)), unreadable

    def _still_left(self) -> set[str]:
        """Return the files that are left alone and have not changed since."""
        left = self._inventory.left()
        changed = [name for name, (stamp, _) in left.items() if _stamp(self.path / name) != stamp]
        if changed:
            self._inventory.leave_no_longer(changed)
        return left.keys() - set(changed)

    def left(self) -> list[BadInputError]:
        """Return why files can neither be used nor be moved, as of the last scan.

        So are ephemerides while the settings are wrong that tell whose they are.
        """
        faults = [fault for _, fault in self._inventory.left().values()]
        try:
            spacecraft_of(self.root)
        except BadInputError as fault:
            faults.append(fault)
        return faults

    def exposures(self) -> list[ExposureId]:
        """Return every exposure that packets or executed visits taken in tell of, in order."""
        return self._inventory.exposures()

    def receipt(self, exposure: ExposureId) -> Receipt:
        """Return what is in of an exposure, as of the last scan."""
        return self.receipts([exposure])[0]

    def receipts(self, exposures: Iterable[ExposureId] | None = None) -> list[Receipt]:
        """Return what is in of several exposures, all by default; faster than one by one."""
        wanted = self.exposures() if exposures is None else exposures
        return self._inventory.receipts(wanted)

    def changes(self, mark: tuple[int, int] | None, most: int) -> ReceiptChanges:
        """Return the receipts that have changed since a mark; see `Inventory.changes`."""
        return self._inventory.changes(mark, most)

    def known_receipts(self, exposures: Iterable[ExposureId]) -> list[Receipt]:
        """Return the receipts of those exposures of which anything is in, as of the last look."""
        return self._inventory.known_receipts(exposures)

    def ancillary(self, exposure: ExposureId) -> Ancillary:
        """Return the ancillary data of an exposure, as far as they are in."""
        return self._inventory.ancillary(exposure)

    def executed_visits(self, visits: Iterable[VisitId]) -> dict[VisitId, ExecutedVisit]:
        """Return what the telescope did in visits; those of which nothing is in are absent."""
        return self._inventory.executed_visits(visits)

    def definitive_ephemerides(self) -> list[str]:
        """Return the names of the definitive ephemerides there are, in order."""
        return self._inventory.ephemerides(EphemerisKind.DEFINITIVE)

    def ephemerides_named(self, name: str) -> list[Path]:
        """Return the ephemerides of a name in any directory, as of the last scan."""
        kinds = (self._inventory.ephemerides(kind) for kind in EphemerisKind)
        found = {Path(one) for names in kinds for one in names if Path(one).name == name}
        return [self.path / one for one in sorted({Path(name), *found})]

    def readout_shape(self, exposure: ExposureId, detector: str) -> tuple[int, int, int]:
        """Return resultants, rows and columns of a readout, without decoding it.

        Raises
        ------
        BadInputError
            If no packets of it are in.
        """
        located = self._inventory.located(exposure, Stream.SCIENCE, detector)
        chosen = _chosen_units(located, exposure, Stream.SCIENCE, detector)
        header = min(chosen, key=lambda header: header.unit.index)
        return header.nunits, header.rows, header.columns

    def telemetry(
        self, exposure: ExposureId, stream: Stream, detector: str | None = None
    ) -> Telemetry:
        """Decode what was sent of one stream and detector.

        The memory needed is that of the result and one compressed resultant.

        Parameters
        ----------
        exposure, stream
            Which exposure, which stream.
        detector
            Which detector; None for FACE.

        Raises
        ------
        LostPacketsError
            If no data unit is whole.
        BadInputError
            If packets are missing, contradict each other or are damaged since they arrived.
        """
        located = self._inventory.located(exposure, stream, detector)
        chosen = _chosen_units(located, exposure, stream, detector)
        with PacketFiles(self.path) as files:
            return decode(
                files.unit(header, [part for part in located if part.header == header])
                for header in sorted(chosen, key=lambda header: header.unit.index)
            )

    def received_readout(self, exposure: ExposureId, detector: str) -> DetectorReadout:
        """Decode what came down of a detector's resultants; see `decode_received`.

        Raises
        ------
        LostPacketsError
            If no resultant is whole.
        BadInputError
            If packets contradict each other or are damaged since they arrived.
        """
        located = self._inventory.located(exposure, Stream.SCIENCE, detector)
        histories = _histories(located).values()
        if not histories:
            raise _nothing_in(exposure, Stream.SCIENCE, detector)
        if not any(history.valid for history in histories):
            raise LostPacketsError(
                exposure, f"{detector} {Stream.SCIENCE.name}", "not one resultant is whole",
                REDELIVER,
            )  # fmt: skip
        chosen = [history.valid or history.fullest for history in histories]
        with PacketFiles(self.path) as files:
            return decode_received(
                files.received(one.header, one.beginning, located)
                for one in chosen
                if one.beginning
            )


def executed_visits(root: DataRoot, visits: Iterable[VisitId]) -> dict[VisitId, ExecutedVisit]:
    """Return what the telescope did in visits, none where nothing ever landed."""
    return LandingArea(root).executed_visits(visits) if root.landing.is_dir() else {}


def definitive_ephemerides(root: DataRoot) -> list[str]:
    """Return the names of the definitive ephemerides that have landed, none where nothing has."""
    return LandingArea(root).definitive_ephemerides() if root.landing.is_dir() else []


def _chosen_units(
    located: Iterable[LocatedUnit], exposure: ExposureId, stream: Stream, detector: str | None
) -> list[UnitHeader]:
    """Return the valid version of each data unit; raise `BadInputError` if one has none."""
    histories = _histories(located).values()
    chosen = [history.valid.header for history in histories if history.valid]
    if not chosen:
        raise _nothing_in(exposure, stream, detector)
    return chosen


def _histories(located: Iterable[LocatedUnit]) -> dict[UnitId, UnitHistory]:
    return unit_histories(
        HeldUnit(part.header, part.file.arrival, sum(1 << chunk for chunk in part.offsets))
        for part in located
    )


def _nothing_in(exposure: ExposureId, stream: Stream, detector: str | None) -> LostPacketsError:
    return LostPacketsError(
        exposure, f"{detector or ''} {stream.name}".strip(), "no packets are in", REDELIVER
    )


def _is_text(name: str) -> bool:
    return printable(name) == name


def _version(directory: Path, name: str) -> FileVersion | None:
    """Return a file as it is now, None if it is gone."""
    try:
        status = status_of(directory / name)
    except OSError:
        return None
    return FileVersion(name, status.st_size, status.st_mtime_ns)


def _stamp(path: Path) -> str:
    """Return what changes when a file is written, replaced, or its permissions are set."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"errno {error.errno}"
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _not_listed(path: Path, error: OSError) -> BadInputError:
    return BadInputError(
        path, "directory", f"it cannot be listed: {error.strerror}",
        "let the user of the platform read and enter it, or remove it",
    )  # fmt: skip


def _not_moved(fault: BadInputError, error: OSError) -> BadInputError:
    return BadInputError(
        fault.source, fault.field, f"{fault.reason} (nor can it be moved: {error.strerror})",
        f"remove it, then: {fault.remedy}",
    )  # fmt: skip


@contextmanager
def _explained(path: Path) -> Iterator[None]:
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


def _check_entry(path: Path, file: FileVersion) -> None:
    """Raise `BadInputError` if a directory's entry is not a file that can be taken in."""
    if not _is_text(file.name):
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


def _read(path: Path, spacecraft: Spacecraft) -> Reading:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise BadInputError(
            path, "file name", f"nothing is known of files ending in {path.suffix!r}",
            f"deliver {', '.join(_READERS)} files only",
        )  # fmt: skip
    return reader(path, spacecraft)


def _read_until(end: float, reading: Reading) -> FileContent | None:
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
