"""The landing area: where packets and ancillary files arrive, private to the operator (R1)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from roman_assets.archive.durability import private_directory
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, LostPacketsError
from roman_assets.formatting.data_unit import Stream, decode, decode_received
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.file_content import FileVersion
from roman_assets.formatting.file_reading import (
    EPHEMERIS_SUFFIX,
    Reading,
    begin_reading,
    check_entry,
    continue_reading,
    explained,
    is_text,
)
from roman_assets.formatting.inventory import Inventory, ReceiptChanges, made_of_packets
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.listing import DirectoryListing, status_of
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.packet_files import (
    REDELIVER,
    PacketFiles,
    chosen_units,
    histories_of,
    nothing_in,
)
from roman_assets.formatting.receipt import Ancillary, Receipt
from roman_assets.formatting.spacecraft import Spacecraft, spacecraft_of
from roman_assets.formatting.telemetry import DetectorReadout, Telemetry
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.products.origin import Origin
from roman_assets.registry.registry import Registry


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
        with self._inventory.database.kept_open():
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
            with explained(self.path / file.name):
                if reading is None:
                    check_entry(self.path / file.name, file)
                    reading = begin_reading(self.path / file.name, spacecraft)
                content = continue_reading(end, reading)
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
            made = registry.products.find(exposure=str(content.exposure), kind="uncal")
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
        changes = self._listing.look(self._inventory.database.identity)
        left = self._still_left()
        unreadable = [
            self._leave(name, _not_listed(self.path / name, error))
            for name, error in changes.unreadable.items()
            if name not in left
        ]
        names = None if changes.everything else {*filter(is_text, changes.present), *changes.gone}
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
        chosen = chosen_units(located, exposure, Stream.SCIENCE, detector)
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
        chosen = chosen_units(located, exposure, stream, detector)
        with PacketFiles(self.path) as files:
            return decode(
                files.unit(header, located)
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
        histories = histories_of(located).values()
        if not histories:
            raise nothing_in(exposure, Stream.SCIENCE, detector)
        if not any(history.valid for history in histories):
            raise LostPacketsError(
                exposure, f"{detector} {Stream.SCIENCE.name}", "not one resultant is whole",
                REDELIVER,
            )  # fmt: skip
        chosen = [history.valid or history.fullest for history in histories]
        with PacketFiles(self.path) as files:
            return decode_received(
                files.unit(one.header, located, one.beginning) for one in chosen if one.beginning
            )


def executed_visits(root: DataRoot, visits: Iterable[VisitId]) -> dict[VisitId, ExecutedVisit]:
    """Return what the telescope did in visits, none where nothing ever landed."""
    return LandingArea(root).executed_visits(visits) if root.landing.is_dir() else {}


def definitive_ephemerides(root: DataRoot) -> list[str]:
    """Return the names of the definitive ephemerides that have landed, none where nothing has."""
    return LandingArea(root).definitive_ephemerides() if root.landing.is_dir() else []


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
