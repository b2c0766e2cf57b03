"""What lies in the landing area: an index of its files, so that each is read once.

The index holds nothing that the files do not tell; deleted, the next scan rebuilds it. Several
processes may use it at once.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from roman_assets.archive.durability import locked
from roman_assets.archive.set_aside import SetAside
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.formatting.ancillary import (
    EphemerisKind,
    ExecutedVisit,
    MATable,
    content_hash,
    parse_document,
)
from roman_assets.formatting.data_unit import (
    Compression,
    Stream,
    UnitHeader,
    UnitId,
)
from roman_assets.formatting.delivered import (
    HeldLevel1,
    evaluate_delivered,
    require_agreement,
    span_of,
)
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.receipt import (
    RECEIPT_EVENTS,
    Ancillary,
    HeldEphemeris,
    HeldUnit,
    Receipt,
    evaluate,
)
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId, VisitId

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, npackets INTEGER, crc_failures INTEGER, foreign_packets INTEGER,
    discontinuities INTEGER, duplicates INTEGER, skipped_bytes INTEGER);
CREATE TABLE IF NOT EXISTS unit (
    file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE, exposure TEXT NOT NULL,
    stream INTEGER NOT NULL, detector TEXT, number INTEGER NOT NULL, nunits INTEGER NOT NULL,
    compression INTEGER NOT NULL, nrows INTEGER NOT NULL, ncolumns INTEGER NOT NULL,
    reference_columns INTEGER NOT NULL, nchunks INTEGER NOT NULL, unit_size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, chunks BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS unit_exposure ON unit (exposure, stream, detector);
CREATE INDEX IF NOT EXISTS unit_file ON unit (file_id);
CREATE TABLE IF NOT EXISTS holding (
    file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE, exposure TEXT NOT NULL,
    PRIMARY KEY (exposure, file_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holding_file ON holding (file_id);
CREATE TABLE IF NOT EXISTS document (
    file_id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE, kind TEXT NOT NULL,
    subject TEXT NOT NULL, revision INTEGER NOT NULL, hash TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS document_subject ON document (kind, subject);
CREATE TABLE IF NOT EXISTS ephemeris (
    file_id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE, kind TEXT NOT NULL,
    start TEXT NOT NULL, stop TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS level1 (
    file_id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE, exposure TEXT NOT NULL,
    body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS level1_exposure ON level1 (exposure);
CREATE TABLE IF NOT EXISTS unusable (
    name BLOB PRIMARY KEY, stamp TEXT NOT NULL, source TEXT NOT NULL, field TEXT NOT NULL,
    reason TEXT NOT NULL, remedy TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (exposure TEXT PRIMARY KEY, events TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS receipt (
    serial INTEGER PRIMARY KEY AUTOINCREMENT, exposure TEXT NOT NULL UNIQUE, visit TEXT NOT NULL,
    ma_table TEXT, start TEXT, stop TEXT, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS receipt_visit ON receipt (visit);
CREATE INDEX IF NOT EXISTS receipt_ma_table ON receipt (ma_table);
CREATE INDEX IF NOT EXISTS receipt_start ON receipt (start, stop);
CREATE TABLE IF NOT EXISTS outdated (exposure TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS receipt_dropped AFTER DELETE ON receipt BEGIN
    INSERT OR IGNORE INTO outdated VALUES (old.exposure); END;
CREATE TRIGGER IF NOT EXISTS exposure_mentioned AFTER INSERT ON holding BEGIN
    INSERT OR IGNORE INTO outdated VALUES (new.exposure); END;
CREATE TRIGGER IF NOT EXISTS receipt_evaluated AFTER INSERT ON receipt BEGIN
    DELETE FROM outdated WHERE exposure = new.exposure; END;
"""
_VERSION = 5
_BUSY_TIMEOUT = 60.0
_PRIMARY_CODE = 0xFF
_DAMAGE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Errors of SQLite that tell of damage; a table that is not found is one."""
_BATCH = 200
_EVALUATED_AT_ONCE = 500
_UNIT_COLUMNS = (
    "exposure, stream, detector, number, nunits, compression, nrows, ncolumns, "
    "reference_columns, nchunks, unit_size, checksum"
)
_CHUNK = struct.Struct(">HQ")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECEIPT: TypeAdapter[Receipt] = TypeAdapter(Receipt)
_EVENTS: TypeAdapter[dict[ClockEvent, datetime]] = TypeAdapter(dict[ClockEvent, datetime])


@dataclass(frozen=True)
class FileVersion:
    """A file as listed: another size or time means another content."""

    name: str
    size: int
    mtime_ns: int

    @property
    def arrival(self) -> datetime:
        """When it was written (UTC)."""
        return _time(self.mtime_ns)


@dataclass(frozen=True)
class PacketContent:
    """What a packet file holds.

    Parameters
    ----------
    units
        For every version of every data unit, where its chunks lie in the file: offsets by chunk.
    npackets, crc_failures, foreign, discontinuities, skipped_bytes
        As `packet.PacketReader` counts them.
    duplicates
        Good packets that repeat one before.
    """

    units: Mapping[UnitHeader, Mapping[int, int]]
    npackets: int
    crc_failures: int
    foreign: int
    discontinuities: int
    duplicates: int
    skipped_bytes: int


@dataclass(frozen=True)
class EphemerisContent:
    """What an ephemeris file covers; see `ancillary.Ephemeris`."""

    kind: EphemerisKind
    start: datetime
    stop: datetime
    creation_date: datetime


FileContent = PacketContent | ExecutedVisit | MATable | EphemerisContent | Level1File


@dataclass(frozen=True)
class ReceiptChanges:
    """Receipts that have changed.

    Parameters
    ----------
    receipts
        As they are now, in the order of their change.
    mark
        To be given at the next time. It is of one index: given to one made anew, it counts for
        nothing.
    more
        Whether further ones have changed.
    """

    receipts: tuple[Receipt, ...]
    mark: tuple[int, int]
    more: bool


@dataclass(frozen=True)
class LocatedUnit:
    """A version of a data unit in one file."""

    header: UnitHeader
    file: FileVersion
    offsets: Mapping[int, int]


class _UnreadableRow(sqlite3.DatabaseError):
    """A row of the index differs from the one written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Inventory:
    """The index of one landing area.

    Parameters
    ----------
    landing
        The directory; the index lies in it under a hidden name.
    aside
        Where a damaged index goes; the next scan makes a new one.
    """

    def __init__(self, landing: Path, aside: SetAside) -> None:
        self._landing = landing
        self._aside = aside
        self._path = landing / f".inventory-v{_VERSION}.sqlite"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        opened = self._identity()
        try:
            with closing(
                sqlite3.connect(self._path, _BUSY_TIMEOUT, isolation_level=None)
            ) as connection:
                self._set_up(connection)
                opened = self._identity()
                yield connection
        except sqlite3.Error as fault:
            if getattr(fault, "sqlite_errorcode", 0) & _PRIMARY_CODE not in _DAMAGE:
                raise PassingFaultError(
                    f"{self._path}: {fault}. Remedy: free space or access there and try again; "
                    "the index may be deleted, the next scan rebuilds it"
                ) from fault
            raise self._set_damaged_aside(opened, fault) from fault

    def _identity(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return None

    def _set_damaged_aside(self, opened: int | None, fault: Exception) -> PassingFaultError:
        """Take a damaged index out of the way, unless another process has done so."""
        damage = BadInputError(
            self._path,
            "index",
            f"it is damaged: {fault}",
            "none is needed: the next scan of the landing area rebuilds the index",
        )
        with locked(self._landing):
            if opened is not None and self._identity() == opened:
                self._aside.add(self._path, damage)
                for log in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + log).unlink(missing_ok=True)
        return PassingFaultError(f"{damage}. It has been set aside")

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            with locked(self._landing):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {secrets.randbits(31)}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
            except (ValueError, struct.error) as error:
                connection.rollback()
                # The index holds only what was valid when it was taken in.
                raise _UnreadableRow(str(error)) from error
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Make many transactions cheaper: SQLite tidies up when its last connection closes."""
        with self._connection():
            yield

    @property
    def identity(self) -> int:
        """A number of this index; one that is made anew has another."""
        with self._transaction(write=False) as db:
            number: int = db.execute("PRAGMA application_id").fetchone()[0]
        return number

    def files(self, names: Iterable[str] | None = None) -> dict[str, FileVersion]:
        """Return the files taken in, by name; only these names, if any are given."""
        select = "SELECT name, size, mtime_ns FROM file"
        with self._transaction(write=False) as db:
            if names is None:
                rows = db.execute(select).fetchall()
            else:
                found = (
                    db.execute(f"{select} WHERE name = ?", (name,)).fetchone() for name in names
                )
                rows = [row for row in found if row is not None]
        return {row[0]: FileVersion(*row) for row in rows}

    def add(self, file: FileVersion, content: FileContent) -> None:
        """Take in a file, once.

        Raises
        ------
        BadInputError
            If it contradicts a document that arrived before.
        """
        with self._transaction(write=True) as db:
            try:
                self._add(db, file, content)
            except (ValueError, OverflowError) as error:
                raise BadInputError(
                    self._landing / file.name, "content", f"it cannot be kept: {error!r}",
                    "correct the file and deliver it again",
                ) from error  # fmt: skip

    def _add(self, db: sqlite3.Connection, file: FileVersion, content: FileContent) -> None:
        if db.execute("SELECT 1 FROM file WHERE name = ?", (file.name,)).fetchone():
            return
        if isinstance(content, ExecutedVisit | MATable):
            self._check_conflict(db, file, content)
        if isinstance(content, Level1File):
            self._check_level1(db, file, content)
        counts: tuple[int | None, ...] = (None,) * 6
        if isinstance(content, PacketContent):
            counts = (
                content.npackets, content.crc_failures, content.foreign,
                content.discontinuities, content.duplicates, content.skipped_bytes,
            )  # fmt: skip
        file_id = db.execute(
            "INSERT INTO file VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (file.name, file.size, file.mtime_ns, *counts),
        ).lastrowid
        assert file_id is not None
        _insert(db, file_id, content)
        _invalidate(db, file_id)

    def leave(self, name: str, stamp: str, fault: BadInputError) -> None:
        """Note that a file can neither be used nor be moved, as long as it has this stamp."""
        with self._transaction(write=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO unusable VALUES (?, ?, ?, ?, ?, ?)",
                (os.fsencode(name), stamp, fault.source, fault.field, fault.reason, fault.remedy),
            )

    def left(self) -> dict[str, tuple[str, BadInputError]]:
        """Return stamp and fault of what can neither be used nor be moved, by name."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT * FROM unusable ORDER BY name").fetchall()
        return {os.fsdecode(name): (stamp, BadInputError(*said)) for name, stamp, *said in rows}

    def leave_no_longer(self, names: Iterable[str]) -> None:
        """Forget that files cannot be used: they have changed, or are gone."""
        with self._transaction(write=True) as db:
            db.executemany(
                "DELETE FROM unusable WHERE name = ?", [(os.fsencode(name),) for name in names]
            )

    def forget(self, names: Iterable[str]) -> None:
        """Drop files that are no longer there; what they had completed stays remembered."""
        with self._transaction(write=True) as db:
            for name in names:
                row = db.execute("SELECT id FROM file WHERE name = ?", (name,)).fetchone()
                if row is None:
                    continue
                held = db.execute("SELECT exposure FROM holding WHERE file_id = ?", row).fetchall()
                for (exposure,) in held:
                    self._receipt(db, ExposureId.parse(exposure))
                _invalidate(db, row[0])
                db.execute("DELETE FROM file WHERE id = ?", row)

    def _check_conflict(
        self, db: sqlite3.Connection, file: FileVersion, document: ExecutedVisit | MATable
    ) -> None:
        rows = db.execute(
            "SELECT hash, name FROM document JOIN file ON id = file_id "
            "WHERE kind = ? AND subject = ? AND revision = ?",
            (document.kind, document.key, document.revision),
        )
        for known, name in rows:
            if known != content_hash(document):
                raise BadInputError(
                    self._landing / file.name,
                    "revision",
                    f"another {document.kind} {document.key} of revision {document.revision} "
                    f"has arrived before as {name}",
                    "deliver it with a higher revision if it is to replace that one",
                )

    def _check_level1(self, db: sqlite3.Connection, file: FileVersion, content: Level1File) -> None:
        exposure, path = content.exposure, self._landing / file.name
        sent = db.execute(
            "SELECT EXISTS (SELECT 1 FROM unit WHERE exposure = ?1) "
            "OR EXISTS (SELECT 1 FROM received WHERE exposure = ?1)",
            (str(exposure),),
        ).fetchone()
        if sent == (1,):
            raise made_of_packets(path, exposure)
        held = _held_level1(db, self._landing, exposure)
        span = span_of(held) if held else (content.start, content.stop)
        require_agreement(
            path, content, (one.content for one in held), self._ancillary(db, exposure, span)
        )

    def exposures(self) -> list[ExposureId]:
        """Return every exposure that a packet or an executed visit tells of, in order."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT DISTINCT exposure FROM holding ORDER BY exposure")
            return [ExposureId.parse(text) for (text,) in rows]

    def receipts(self, exposures: Iterable[ExposureId]) -> list[Receipt]:
        """Return what is in of exposures, from memory unless something has changed."""
        found: dict[ExposureId, Receipt] = {}
        for batch in _batches(exposures):
            with self._transaction(write=False) as db:
                known = _cached(db, batch)
            if len(known) < len(batch):
                with self._transaction(write=True) as db:
                    known |= {key: self._receipt(db, key) for key in batch if key not in known}
            found |= {exposure: known[exposure] for exposure in batch}
        return list(found.values())

    def changes(self, mark: tuple[int, int] | None, most: int) -> ReceiptChanges:
        """Return the receipts that have changed since a mark, all there are without one.

        Parameters
        ----------
        mark
            Of the last time.
        most
            Give at most so many.
        """
        self._evaluate_outdated(min(most, _EVALUATED_AT_ONCE))
        with self._transaction(write=False) as db:
            (identity,) = db.execute("PRAGMA application_id").fetchone()
            after = mark[1] if mark is not None and mark[0] == identity else 0
            rows = db.execute(
                "SELECT serial, body FROM receipt WHERE serial > ? ORDER BY serial LIMIT ?",
                (after, most + 1),
            ).fetchall()
            (unread,) = db.execute("SELECT EXISTS (SELECT 1 FROM outdated)").fetchone()
        given = rows[:most]
        last = given[-1][0] if given else after
        return ReceiptChanges(
            tuple(_RECEIPT.validate_json(body) for _, body in given),
            (identity, last),
            bool(unread) or len(rows) > most,
        )

    def _evaluate_outdated(self, most: int) -> None:
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT exposure FROM outdated LIMIT ?", (most,)).fetchall()
        for batch in _batches(ExposureId.parse(exposure) for (exposure,) in rows):
            with self._transaction(write=True) as db:
                for exposure in batch:
                    self._receipt(db, exposure)

    def ephemerides(self, kind: EphemerisKind) -> list[str]:
        """Return the names of the ephemerides of a kind, in order."""
        with self._transaction(write=False) as db:
            rows = db.execute(
                "SELECT name FROM ephemeris JOIN file ON id = file_id WHERE kind = ? ORDER BY name",
                (kind.value,),
            )
            return [name for (name,) in rows]

    def known_receipts(self, exposures: Iterable[ExposureId]) -> list[Receipt]:
        """Return the receipts of those exposures for which there are any, as of the last time."""
        found: list[Receipt] = []
        for batch in _batches(exposures):
            with self._transaction(write=False) as db:
                found += _cached(db, batch).values()
        return found

    def _receipt(self, db: sqlite3.Connection, exposure: ExposureId) -> Receipt:
        return _cached(db, [exposure]).get(exposure) or self._evaluate(db, exposure)

    def _evaluate(self, db: sqlite3.Connection, exposure: ExposureId) -> Receipt:
        exposure = _exposure(str(exposure))  # that of the units, so that they are found fast
        level1 = _held_level1(db, self._landing, exposure)
        ancillary = self._ancillary(db, exposure, span_of(level1) if level1 else None)
        if level1:
            receipt = evaluate_delivered(exposure, level1, ancillary)
        else:
            receipt = evaluate(
                exposure, self._held_units(db, exposure), ancillary, _remembered(db, exposure)
            )
            if receipt.complete:
                _remember(db, receipt)
        executed = ancillary.visit and ancillary.visit.executed(exposure)
        start, stop = _span(receipt)
        db.execute(
            "INSERT OR REPLACE INTO receipt VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            (
                str(exposure),
                str(exposure.visit),
                str(executed.ma_table_number) if executed else None,
                start and _text(start),
                stop and _text(stop),
                _RECEIPT.dump_json(receipt),
            ),
        )
        return receipt

    def _held_units(self, db: sqlite3.Connection, exposure: ExposureId) -> list[HeldUnit]:
        rows = db.execute(
            f"SELECT mtime_ns, chunks, {_UNIT_COLUMNS} FROM unit JOIN file ON id = file_id "  # noqa: S608 constants only
            "WHERE exposure = ? ORDER BY mtime_ns, name",
            (str(exposure),),
        )
        return [
            HeldUnit(_header(*columns), _time(mtime_ns), _bits(_offsets(chunks)))
            for mtime_ns, chunks, *columns in rows
        ]

    def located(
        self, exposure: ExposureId, stream: Stream, detector: str | None
    ) -> list[LocatedUnit]:
        """Find where the chunks of one stream and detector lie, in order of arrival."""
        with self._transaction(write=False) as db:
            rows = db.execute(
                f"SELECT name, size, mtime_ns, chunks, {_UNIT_COLUMNS} "  # noqa: S608
                "FROM unit JOIN file ON id = file_id "
                "WHERE exposure = ? AND stream = ? AND detector IS ? ORDER BY mtime_ns, name",
                (str(exposure), stream, detector),
            )
            return [
                LocatedUnit(_header(*columns), FileVersion(name, size, mtime_ns), _offsets(chunks))
                for name, size, mtime_ns, chunks, *columns in rows
            ]

    def ancillary(self, exposure: ExposureId) -> Ancillary:
        """Return the ancillary data of an exposure, as far as they are in."""
        with self._transaction(write=False) as db:
            held = _held_level1(db, self._landing, exposure)
            return self._ancillary(db, exposure, span_of(held) if held else None)

    def executed_visits(self, visits: Iterable[VisitId]) -> dict[VisitId, ExecutedVisit]:
        """Return the executed visits of the highest revision; those not in are absent."""
        subjects = [str(visit) for visit in visits]
        with self._transaction(write=False) as db:
            found = [_document(db, "executed_visit", subject)[0] for subject in subjects]
            return {one.visit: one for one in found if isinstance(one, ExecutedVisit)}

    def _ancillary(
        self,
        db: sqlite3.Connection,
        exposure: ExposureId,
        span: tuple[datetime, datetime] | None = None,
    ) -> Ancillary:
        """Return the ancillary data of an exposure, whose L1 files may tell its time span."""
        visit, _ = _document(db, "executed_visit", str(exposure.visit))
        if not isinstance(visit, ExecutedVisit):
            return Ancillary(ephemerides=self._ephemerides(db, span) if span else ())
        arrival = _first_mention(db, exposure)
        executed = visit.executed(exposure)
        if executed is None:
            return Ancillary(visit, arrival)
        table, table_arrival = _document(db, "ma_table", str(executed.ma_table_number))
        return Ancillary(
            visit,
            arrival,
            table if isinstance(table, MATable) else None,
            table_arrival,
            self._ephemerides(db, span or (executed.start_time, executed.end_time)),
        )

    def _ephemerides(
        self, db: sqlite3.Connection, span: tuple[datetime, datetime]
    ) -> tuple[HeldEphemeris, ...]:
        held = (
            HeldEphemeris(
                self._landing / name,
                EphemerisKind(kind),
                datetime.fromisoformat(start),
                datetime.fromisoformat(stop),
                datetime.fromisoformat(created),
                _time(mtime_ns),
            )
            for name, mtime_ns, kind, start, stop, created in db.execute(
                "SELECT name, mtime_ns, kind, start, stop, created FROM ephemeris "
                "JOIN file ON id = file_id"
            )
        )
        return tuple(ephemeris for ephemeris in held if ephemeris.covers(*span))


def made_of_packets(path: Path, exposure: ExposureId) -> BadInputError:
    """Return the fault of an L1 file whose exposure packets tell of."""
    return BadInputError(
        path, "exposure",
        f"the L1 of {exposure} is made from its packets, which came first",
        "nothing is needed if that is right; if the delivered L1 is to count, give it an exposure "
        "of its own: another program, visit or exposure number in name and metadata",
    )  # fmt: skip


def _span(receipt: Receipt) -> tuple[datetime | None, datetime | None]:
    events = receipt.events
    return events.get(ClockEvent.EXECUTION_START), events.get(ClockEvent.EXECUTION_END)


def _held_level1(db: sqlite3.Connection, landing: Path, exposure: ExposureId) -> list[HeldLevel1]:
    rows = db.execute(
        "SELECT body, name, mtime_ns FROM level1 JOIN file ON id = file_id "
        "WHERE exposure = ? ORDER BY mtime_ns, name",
        (str(exposure),),
    )
    return [
        HeldLevel1(Level1File.model_validate_json(body), landing / name, _time(mtime_ns))
        for body, name, mtime_ns in rows
    ]


def _batches(exposures: Iterable[ExposureId]) -> Iterator[list[ExposureId]]:
    remaining = iter(exposures)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def _cached(db: sqlite3.Connection, exposures: list[ExposureId]) -> dict[ExposureId, Receipt]:
    rows = db.execute(
        f"SELECT body FROM receipt WHERE exposure IN ({', '.join('?' * len(exposures))})",  # noqa: S608
        [str(exposure) for exposure in exposures],
    )
    receipts = (_RECEIPT.validate_json(body) for (body,) in rows)
    return {receipt.exposure: receipt for receipt in receipts}


def _insert(db: sqlite3.Connection, file_id: int, content: FileContent) -> None:
    if isinstance(content, PacketContent):
        db.executemany(
            f"INSERT INTO unit (file_id, {_UNIT_COLUMNS}, chunks) VALUES ({', '.join('?' * 14)})",  # noqa: S608
            ((file_id, *_columns(h), _pack(offsets)) for h, offsets in content.units.items()),
        )
        _insert_holdings(db, file_id, {header.unit.exposure for header in content.units})
    elif isinstance(content, EphemerisContent):
        moments = (content.start, content.stop, content.creation_date)
        db.execute(
            "INSERT INTO ephemeris VALUES (?, ?, ?, ?, ?)",
            (file_id, content.kind, *map(_text, moments)),
        )
    elif isinstance(content, Level1File):
        db.execute(
            "INSERT INTO level1 VALUES (?, ?, ?)",
            (file_id, str(content.exposure), content.model_dump_json()),
        )
        _insert_holdings(db, file_id, {content.exposure})
    else:
        body = json.dumps(content.model_dump(mode="json"))
        db.execute(
            "INSERT INTO document VALUES (?, ?, ?, ?, ?, ?)",
            (file_id, content.kind, content.key, content.revision, content_hash(content), body),
        )
        if isinstance(content, ExecutedVisit):
            _insert_holdings(db, file_id, set(content.exposure_ids))


def _insert_holdings(db: sqlite3.Connection, file_id: int, exposures: set[ExposureId]) -> None:
    db.executemany(
        "INSERT INTO holding (file_id, exposure) VALUES (?, ?)",
        ((file_id, str(exposure)) for exposure in exposures),
    )


def _invalidate(db: sqlite3.Connection, file_id: int) -> None:
    """Drop the receipts that a file's coming or going may change."""
    for statement in (
        "DELETE FROM receipt WHERE exposure IN (SELECT exposure FROM holding WHERE file_id = ?)",
        "DELETE FROM receipt WHERE visit IN "
        "(SELECT subject FROM document WHERE file_id = ? AND kind = 'executed_visit')",
        "DELETE FROM receipt WHERE ma_table IN "
        "(SELECT subject FROM document WHERE file_id = ? AND kind = 'ma_table')",
        # of most files there is none: then the receipts are not looked at
        "DELETE FROM receipt WHERE serial IN (SELECT serial FROM ephemeris CROSS JOIN receipt "
        "WHERE file_id = ? "
        "AND ephemeris.start <= receipt.start AND receipt.stop <= ephemeris.stop)",
    ):
        db.execute(statement, (file_id,))


def _document(
    db: sqlite3.Connection, kind: str, subject: str
) -> tuple[ExecutedVisit | MATable | None, datetime | None]:
    """Return the document of the highest revision and when the first of any revision arrived."""
    rows = db.execute(
        "SELECT body, mtime_ns FROM document JOIN file ON id = file_id "
        "WHERE kind = ? AND subject = ? ORDER BY revision DESC, mtime_ns",
        (kind, subject),
    ).fetchall()
    if not rows:
        return None, None
    return _parsed(rows[0][0]), _time(min(mtime_ns for _, mtime_ns in rows))


@lru_cache(maxsize=1024)
def _parsed(body: str) -> ExecutedVisit | MATable:
    return parse_document(json.loads(body), "inventory")


def _first_mention(db: sqlite3.Connection, exposure: ExposureId) -> datetime | None:
    (mtime_ns,) = db.execute(
        "SELECT min(mtime_ns) FROM holding JOIN document USING (file_id) "
        "JOIN file ON id = file_id WHERE exposure = ?",
        (str(exposure),),
    ).fetchone()
    return None if mtime_ns is None else _time(mtime_ns)


def _remembered(db: sqlite3.Connection, exposure: ExposureId) -> dict[ClockEvent, datetime]:
    row = db.execute("SELECT events FROM received WHERE exposure = ?", (str(exposure),)).fetchone()
    return {} if row is None else _EVENTS.validate_json(row[0])


def _remember(db: sqlite3.Connection, receipt: Receipt) -> None:
    events = {event: receipt.events[event] for event in RECEIPT_EVENTS}
    db.execute(
        "INSERT OR IGNORE INTO received VALUES (?, ?)",
        (str(receipt.exposure), _EVENTS.dump_json(events)),
    )


def _columns(header: UnitHeader) -> tuple[object, ...]:
    unit = header.unit
    return (
        str(unit.exposure), unit.stream, unit.detector, unit.index, header.nunits,
        header.compression, header.rows, header.columns, header.reference_columns,
        header.nchunks, header.size, header.checksum,
    )  # fmt: skip


def _header(
    exposure: str, stream: int, detector: str | None, number: int, nunits: int, compression: int,
    *sizes: int,
) -> UnitHeader:  # fmt: skip
    unit = UnitId(_exposure(exposure), Stream(stream), detector, number)
    return UnitHeader(unit, nunits, Compression(compression), *sizes)


@lru_cache(maxsize=256)
def _exposure(text: str) -> ExposureId:
    return ExposureId.parse(text)


def _pack(offsets: Mapping[int, int]) -> bytes:
    return b"".join(_CHUNK.pack(chunk, offset) for chunk, offset in sorted(offsets.items()))


def _offsets(packed: bytes) -> dict[int, int]:
    return dict(_CHUNK.iter_unpack(packed))


def _bits(chunks: Iterable[int]) -> int:
    bits = 0
    for chunk in chunks:
        bits |= 1 << chunk
    return bits


def _text(moment: datetime) -> str:
    """Write a moment such that texts sort as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _time(mtime_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=mtime_ns // 1000)
