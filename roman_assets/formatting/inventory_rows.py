"""Rows of the landing area's index: what files hold, and what follows from it, by exposure."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from roman_assets.formatting.ancillary import content_hash, parse_document
from roman_assets.formatting.data_unit import Compression, Stream, UnitHeader, UnitId
from roman_assets.formatting.delivered import HeldLevel1
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.file_content import (
    EphemerisContent,
    FileContent,
    FileVersion,
    LocatedUnit,
    PacketContent,
    moment_of,
)
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.packet_history import HeldUnit
from roman_assets.formatting.receipt import HeldEphemeris, Receipt
from roman_assets.formatting.receipt_evaluation import RECEIPT_EVENTS
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId

_UNIT_COLUMNS = (
    "exposure, stream, detector, number, nunits, compression, nrows, ncolumns, "
    "reference_columns, nchunks, unit_size, checksum"
)
_CHUNK = struct.Struct(">HQ")
RECEIPT_JSON: TypeAdapter[Receipt] = TypeAdapter(Receipt)
_EVENTS: TypeAdapter[dict[ClockEvent, datetime]] = TypeAdapter(dict[ClockEvent, datetime])


def held_units(db: sqlite3.Connection, exposure: ExposureId) -> list[HeldUnit]:
    """Return what files hold of the data units of an exposure, in order of arrival."""
    rows = db.execute(
        f"SELECT mtime_ns, chunks, {_UNIT_COLUMNS} FROM unit JOIN file ON id = file_id "  # noqa: S608 constants only
        "WHERE exposure = ? ORDER BY mtime_ns, name",
        (str(exposure),),
    )
    return [
        HeldUnit(_header(*columns), moment_of(mtime_ns), _bits(_offsets(chunks)))
        for mtime_ns, chunks, *columns in rows
    ]


def located_units(
    db: sqlite3.Connection, exposure: ExposureId, stream: Stream, detector: str | None
) -> list[LocatedUnit]:
    """Find where the chunks of one stream and detector lie, in order of arrival."""
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


def covering_ephemerides(
    db: sqlite3.Connection, landing: Path, span: tuple[datetime, datetime]
) -> tuple[HeldEphemeris, ...]:
    """Return the ephemerides that cover a span of time."""
    rows = db.execute(
        "SELECT name, mtime_ns, kind, start, stop, created FROM ephemeris JOIN file ON id = file_id"
    )
    held = (
        HeldEphemeris(
            landing / name,
            EphemerisKind(kind),
            datetime.fromisoformat(start),
            datetime.fromisoformat(stop),
            datetime.fromisoformat(created),
            moment_of(mtime_ns),
        )
        for name, mtime_ns, kind, start, stop, created in rows
    )
    return tuple(ephemeris for ephemeris in held if ephemeris.covers(*span))


def held_level1(db: sqlite3.Connection, landing: Path, exposure: ExposureId) -> list[HeldLevel1]:
    """Return the delivered L1 files of an exposure, in order of arrival."""
    rows = db.execute(
        "SELECT body, name, mtime_ns FROM level1 JOIN file ON id = file_id "
        "WHERE exposure = ? ORDER BY mtime_ns, name",
        (str(exposure),),
    )
    return [
        HeldLevel1(Level1File.model_validate_json(body), landing / name, moment_of(mtime_ns))
        for body, name, mtime_ns in rows
    ]


def cached_receipts(
    db: sqlite3.Connection, exposures: list[ExposureId]
) -> dict[ExposureId, Receipt]:
    """Return the receipts that are up to date, by exposure."""
    rows = db.execute(
        f"SELECT body FROM receipt WHERE exposure IN ({', '.join('?' * len(exposures))})",  # noqa: S608
        [str(exposure) for exposure in exposures],
    )
    receipts = (RECEIPT_JSON.validate_json(body) for (body,) in rows)
    return {receipt.exposure: receipt for receipt in receipts}


def insert_content(db: sqlite3.Connection, file_id: int, content: FileContent) -> None:
    """Insert the rows of what a file holds."""
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
            (file_id, content.kind, *map(sortable_text, moments)),
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


def invalidate_receipts(db: sqlite3.Connection, file_id: int) -> None:
    """Drop the receipts that a file's coming or going may change."""
    for statement in (
        "DELETE FROM receipt WHERE exposure IN (SELECT exposure FROM holding WHERE file_id = ?)",
        "DELETE FROM receipt WHERE visit IN "
        "(SELECT subject FROM document WHERE file_id = ? AND kind = 'executed_visit')",
        "DELETE FROM receipt WHERE ma_table IN "
        "(SELECT subject FROM document WHERE file_id = ? AND kind = 'ma_table')",
        # most files hold no ephemeris; the receipts are then left unread
        "DELETE FROM receipt WHERE serial IN (SELECT serial FROM ephemeris CROSS JOIN receipt "
        "WHERE file_id = ? "
        "AND ephemeris.start <= receipt.start AND receipt.stop <= ephemeris.stop)",
    ):
        db.execute(statement, (file_id,))


def newest_document(
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
    return _parsed(rows[0][0]), moment_of(min(mtime_ns for _, mtime_ns in rows))


@lru_cache(maxsize=1024)
def _parsed(body: str) -> ExecutedVisit | MATable:
    return parse_document(json.loads(body), "inventory")


def first_mention(db: sqlite3.Connection, exposure: ExposureId) -> datetime | None:
    """Return when the first document arrived that tells of an exposure."""
    (mtime_ns,) = db.execute(
        "SELECT min(mtime_ns) FROM holding JOIN document USING (file_id) "
        "JOIN file ON id = file_id WHERE exposure = ?",
        (str(exposure),),
    ).fetchone()
    return None if mtime_ns is None else moment_of(mtime_ns)


def remembered_events(db: sqlite3.Connection, exposure: ExposureId) -> dict[ClockEvent, datetime]:
    """Return the moments of a receipt that was complete once."""
    row = db.execute("SELECT events FROM received WHERE exposure = ?", (str(exposure),)).fetchone()
    return {} if row is None else _EVENTS.validate_json(row[0])


def remember_events(db: sqlite3.Connection, receipt: Receipt) -> None:
    """Keep the moments of a complete receipt, if they are not kept yet."""
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
    unit = UnitId(shared_exposure(exposure), Stream(stream), detector, number)
    return UnitHeader(unit, nunits, Compression(compression), *sizes)


@lru_cache(maxsize=256)
def shared_exposure(text: str) -> ExposureId:
    """Parse an exposure; the same object for the same text, so that it is found fast."""
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


def sortable_text(moment: datetime) -> str:
    """Write a moment such that texts sort as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
