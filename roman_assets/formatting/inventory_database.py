"""The SQLite file of the landing area's index: its tables, transactions, and damage to it."""

from __future__ import annotations

import secrets
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from roman_assets.archive.durability import locked
from roman_assets.archive.set_aside import SetAside
from roman_assets.errors import BadInputError, PassingFaultError

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


class _UnreadableRow(sqlite3.DatabaseError):
    """A row of the index differs from the one written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class InventoryDatabase:
    """The SQLite file of one landing area's index; a damaged one is replaced by an empty one.

    Parameters
    ----------
    landing
        The directory; the file lies in it under a hidden name.
    aside
        Where a damaged file goes.
    """

    def __init__(self, landing: Path, aside: SetAside) -> None:
        self._landing = landing
        self._aside = aside
        self.path = landing / f".inventory-v{_VERSION}.sqlite"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        opened = self._inode()
        try:
            with closing(
                sqlite3.connect(self.path, _BUSY_TIMEOUT, isolation_level=None)
            ) as connection:
                self._set_up(connection)
                opened = self._inode()
                yield connection
        except sqlite3.Error as fault:
            if getattr(fault, "sqlite_errorcode", 0) & _PRIMARY_CODE not in _DAMAGE:
                raise PassingFaultError(
                    f"{self.path}: {fault}. Remedy: free space or access there and try again; "
                    "the index may be deleted, the next scan rebuilds it"
                ) from fault
            raise self._set_damaged_aside(opened, fault) from fault

    def _inode(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return None

    def _set_damaged_aside(self, opened: int | None, fault: Exception) -> PassingFaultError:
        """Take a damaged index out of the way, unless another process has done so."""
        damage = BadInputError(
            self.path,
            "index",
            f"it is damaged: {fault}",
            "none is needed: the next scan of the landing area rebuilds the index",
        )
        with locked(self._landing):
            if opened is not None and self._inode() == opened:
                self._aside.add(self.path, damage)
                for log in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + log).unlink(missing_ok=True)
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
    def transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """Read or write rows, all or none.

        Raises
        ------
        PassingFaultError
            If the file is not accessible, or was damaged and has been set aside.
        """
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
        with self.transaction(write=False) as db:
            number: int = db.execute("PRAGMA application_id").fetchone()[0]
        return number
