"""What lies in the landing area: an index of its files, so that each is read once.

The index holds nothing that the files do not tell; deleted, the next scan rebuilds it. Several
processes may use it at once.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from roman_assets.archive.set_aside import SetAside
from roman_assets.errors import BadInputError
from roman_assets.formatting.ancillary import content_hash
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.delivered import evaluate_delivered, require_agreement, span_of
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.file_content import (
    FileContent,
    FileVersion,
    LocatedUnit,
    PacketContent,
)
from roman_assets.formatting.inventory_database import InventoryDatabase
from roman_assets.formatting.inventory_rows import (
    RECEIPT_JSON,
    cached_receipts,
    covering_ephemerides,
    first_mention,
    held_level1,
    held_units,
    insert_content,
    invalidate_receipts,
    located_units,
    newest_document,
    remember_events,
    remembered_events,
    shared_exposure,
    sortable_text,
)
from roman_assets.formatting.level1_file import Level1File
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.receipt import Ancillary, Receipt
from roman_assets.formatting.receipt_evaluation import evaluate
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId, VisitId

_BATCH = 200
_EVALUATED_AT_ONCE = 500


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
        self.database = InventoryDatabase(landing, aside)

    def files(self, names: Iterable[str] | None = None) -> dict[str, FileVersion]:
        """Return the files taken in, by name; only these names, if any are given."""
        select = "SELECT name, size, mtime_ns FROM file"
        with self.database.transaction(write=False) as db:
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
        with self.database.transaction(write=True) as db:
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
        insert_content(db, file_id, content)
        invalidate_receipts(db, file_id)

    def leave(self, name: str, stamp: str, fault: BadInputError) -> None:
        """Note that a file can neither be used nor be moved, as long as it has this stamp."""
        with self.database.transaction(write=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO unusable VALUES (?, ?, ?, ?, ?, ?)",
                (os.fsencode(name), stamp, fault.source, fault.field, fault.reason, fault.remedy),
            )

    def left(self) -> dict[str, tuple[str, BadInputError]]:
        """Return stamp and fault of what can neither be used nor be moved, by name."""
        with self.database.transaction(write=False) as db:
            rows = db.execute("SELECT * FROM unusable ORDER BY name").fetchall()
        return {os.fsdecode(name): (stamp, BadInputError(*said)) for name, stamp, *said in rows}

    def leave_no_longer(self, names: Iterable[str]) -> None:
        """Forget that files cannot be used: they have changed, or are gone."""
        with self.database.transaction(write=True) as db:
            db.executemany(
                "DELETE FROM unusable WHERE name = ?", [(os.fsencode(name),) for name in names]
            )

    def forget(self, names: Iterable[str]) -> None:
        """Drop files that are no longer there; what they had completed stays remembered."""
        with self.database.transaction(write=True) as db:
            for name in names:
                row = db.execute("SELECT id FROM file WHERE name = ?", (name,)).fetchone()
                if row is None:
                    continue
                held = db.execute("SELECT exposure FROM holding WHERE file_id = ?", row).fetchall()
                for (exposure,) in held:
                    self._receipt(db, ExposureId.parse(exposure))
                invalidate_receipts(db, row[0])
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
        held = held_level1(db, self._landing, exposure)
        span = span_of(held) if held else (content.start, content.stop)
        require_agreement(
            path, content, (one.content for one in held), self._ancillary(db, exposure, span)
        )

    def exposures(self) -> list[ExposureId]:
        """Return every exposure that a packet or an executed visit tells of, in order."""
        with self.database.transaction(write=False) as db:
            rows = db.execute("SELECT DISTINCT exposure FROM holding ORDER BY exposure")
            return [ExposureId.parse(text) for (text,) in rows]

    def receipts(self, exposures: Iterable[ExposureId]) -> list[Receipt]:
        """Return what is in of exposures, from memory unless something has changed."""
        found: dict[ExposureId, Receipt] = {}
        for batch in _batches(exposures):
            with self.database.transaction(write=False) as db:
                known = cached_receipts(db, batch)
            if len(known) < len(batch):
                with self.database.transaction(write=True) as db:
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
        with self.database.transaction(write=False) as db:
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
            tuple(RECEIPT_JSON.validate_json(body) for _, body in given),
            (identity, last),
            bool(unread) or len(rows) > most,
        )

    def _evaluate_outdated(self, most: int) -> None:
        with self.database.transaction(write=False) as db:
            rows = db.execute("SELECT exposure FROM outdated LIMIT ?", (most,)).fetchall()
        for batch in _batches(ExposureId.parse(exposure) for (exposure,) in rows):
            with self.database.transaction(write=True) as db:
                for exposure in batch:
                    self._receipt(db, exposure)

    def ephemerides(self, kind: EphemerisKind) -> list[str]:
        """Return the names of the ephemerides of a kind, in order."""
        with self.database.transaction(write=False) as db:
            rows = db.execute(
                "SELECT name FROM ephemeris JOIN file ON id = file_id WHERE kind = ? ORDER BY name",
                (kind.value,),
            )
            return [name for (name,) in rows]

    def known_receipts(self, exposures: Iterable[ExposureId]) -> list[Receipt]:
        """Return the receipts of those exposures for which there are any, as of the last time."""
        found: list[Receipt] = []
        for batch in _batches(exposures):
            with self.database.transaction(write=False) as db:
                found += cached_receipts(db, batch).values()
        return found

    def _receipt(self, db: sqlite3.Connection, exposure: ExposureId) -> Receipt:
        return cached_receipts(db, [exposure]).get(exposure) or self._evaluate(db, exposure)

    def _evaluate(self, db: sqlite3.Connection, exposure: ExposureId) -> Receipt:
        exposure = shared_exposure(str(exposure))  # that of the units, so that they are found fast
        level1 = held_level1(db, self._landing, exposure)
        ancillary = self._ancillary(db, exposure, span_of(level1) if level1 else None)
        if level1:
            receipt = evaluate_delivered(exposure, level1, ancillary)
        else:
            receipt = evaluate(
                exposure, held_units(db, exposure), ancillary, remembered_events(db, exposure)
            )
            if receipt.complete:
                remember_events(db, receipt)
        executed = ancillary.visit and ancillary.visit.executed(exposure)
        start, stop = _span(receipt)
        db.execute(
            "INSERT OR REPLACE INTO receipt VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            (
                str(exposure),
                str(exposure.visit),
                str(executed.ma_table_number) if executed else None,
                start and sortable_text(start),
                stop and sortable_text(stop),
                RECEIPT_JSON.dump_json(receipt),
            ),
        )
        return receipt

    def located(
        self, exposure: ExposureId, stream: Stream, detector: str | None
    ) -> list[LocatedUnit]:
        """Find where the chunks of one stream and detector lie, in order of arrival."""
        with self.database.transaction(write=False) as db:
            return located_units(db, exposure, stream, detector)

    def ancillary(self, exposure: ExposureId) -> Ancillary:
        """Return the ancillary data of an exposure, as far as they are in."""
        with self.database.transaction(write=False) as db:
            held = held_level1(db, self._landing, exposure)
            return self._ancillary(db, exposure, span_of(held) if held else None)

    def executed_visits(self, visits: Iterable[VisitId]) -> dict[VisitId, ExecutedVisit]:
        """Return the executed visits of the highest revision; those not in are absent."""
        subjects = [str(visit) for visit in visits]
        with self.database.transaction(write=False) as db:
            found = [newest_document(db, "executed_visit", subject)[0] for subject in subjects]
            return {one.visit: one for one in found if isinstance(one, ExecutedVisit)}

    def _ancillary(
        self,
        db: sqlite3.Connection,
        exposure: ExposureId,
        span: tuple[datetime, datetime] | None = None,
    ) -> Ancillary:
        """Return the ancillary data of an exposure, whose L1 files may tell its time span."""
        visit, _ = newest_document(db, "executed_visit", str(exposure.visit))
        if not isinstance(visit, ExecutedVisit):
            return Ancillary(
                ephemerides=covering_ephemerides(db, self._landing, span) if span else ()
            )
        arrival = first_mention(db, exposure)
        executed = visit.executed(exposure)
        if executed is None:
            return Ancillary(visit, arrival)
        table, table_arrival = newest_document(db, "ma_table", str(executed.ma_table_number))
        return Ancillary(
            visit,
            arrival,
            table if isinstance(table, MATable) else None,
            table_arrival,
            covering_ephemerides(
                db, self._landing, span or (executed.start_time, executed.end_time)
            ),
        )


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


def _batches(exposures: Iterable[ExposureId]) -> Iterator[list[ExposureId]]:
    remaining = iter(exposures)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch
