"""The journal: commit records as files, the truth from which the registry is folded.

A record is written once, as one line of JSON under its own checksum: first alone among the pending
records, then, when folded, in an immutable segment with others. Damaged lines are set aside with
their reason and stop nothing else.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from pydantic import ValidationError

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    make_directory,
    temporary_name,
    write_durably,
)
from roman_assets.data_root import DataRoot
from roman_assets.registry.record import CommitRecord

_LINE = re.compile(rb'\{"sha256":"(?P<sha256>[0-9a-f]{64})","record":(?P<record>\{.*\})\}')
_MERGED_AT = 64
_LOOSE, _MERGED = "loose", "merged"


class DamagedRecordError(Exception):
    """A line of the journal that is not what was written."""


@dataclass(frozen=True)
class PreparedRecord:
    """A record that is on disk but not committed yet."""

    temporary: Path
    final: Path


@dataclass(frozen=True)
class PendingRecord:
    """A committed record that waits to be folded."""

    path: Path
    line: bytes
    record: CommitRecord


class Journal:
    """The commit records of one installation.

    Parameters
    ----------
    root
        The installation.
    """

    def __init__(self, root: DataRoot) -> None:
        self._pending = root.registry / "records" / "pending"
        self._segments = root.registry / "records" / "segments"
        self._damaged = root.set_aside / "records"

    def prepare(self, record: CommitRecord) -> PreparedRecord:
        """Write a record so that only a rename is left to do.

        Raises
        ------
        PassingFaultError
            If the disk is full; nothing is left behind.
        ValueError
            If a product's name is not official.
        """
        for product in record.products:
            _ = product.product_name
        with disk_space(self._pending):
            final = make_directory(self._pending) / _file_name(record)
            temporary = temporary_name(final)
            write_durably(temporary, _encoded(record))
        return PreparedRecord(temporary, final)

    def commit(self, prepared: PreparedRecord) -> None:
        """Make a prepared record true: from here on its products exist."""
        prepared.temporary.replace(prepared.final)
        fsync_directory(prepared.final.parent)

    def write(self, record: CommitRecord) -> None:
        """Prepare and commit a record."""
        self.commit(self.prepare(record))

    def pending_paths(self) -> list[Path]:
        """Give the files of committed records that are not folded, in the order of commit."""
        return sorted(self._pending.glob("[!.]*.json"))

    def read_pending(self, paths: Iterable[Path]) -> tuple[list[PendingRecord], list[Path]]:
        """Read pending records.

        Returns
        -------
        records, damaged
            What can be folded, and where the damaged ones have been set aside.
        """
        records, damaged = [], []
        for path in paths:
            line = path.read_bytes()
            try:
                records.append(PendingRecord(path, line, _decoded(line)))
            except DamagedRecordError as error:
                damaged.append(self._set_aside(path.name, line, str(error)))
                path.unlink()
        return records, damaged

    def seal(self, records: Iterable[PendingRecord]) -> Path:
        """Write records into a new immutable segment."""
        lines = b"".join(pending.line.rstrip(b"\n") + b"\n" for pending in records)
        return self._write_segment(_LOOSE, lines)

    def discard(self, records: Iterable[PendingRecord]) -> None:
        """Remove pending records; only after they are in a segment and in the registry."""
        for pending in records:
            pending.path.unlink(missing_ok=True)
        if self._pending.is_dir():
            fsync_directory(self._pending)

    def segments(self) -> list[Path]:
        """Give all segments; a record may be in more than one of them."""
        return sorted(self._segments.glob("*/[!.]*.jsonl"))

    def merge_segments(self) -> None:
        """Join loose segments once there are many, so that their number stays small.

        A crash in between leaves records in two segments, which readers tell by their id.
        """
        loose = sorted((self._segments / _LOOSE).glob("[!.]*.jsonl"))
        if len(loose) < _MERGED_AT:
            return
        self._write_segment(_MERGED, b"".join(path.read_bytes() for path in loose))
        for path in loose:
            path.unlink()

    def damaged_lines(self, segment: Path) -> list[tuple[int, str]]:
        """Give line number and reason of each damaged line of a segment, from 1."""
        found = []
        for number, line in enumerate(segment.read_bytes().splitlines(), start=1):
            try:
                _verified(line)
            except DamagedRecordError as error:
                found.append((number, str(error)))
        return found

    def repair_segment(self, segment: Path) -> list[Path]:
        """Set the damaged lines of a segment aside and replace it by the others.

        Returns
        -------
        list of pathlib.Path
            Where the damaged lines are; empty, and the segment untouched, if there are none.
        """
        damaged = dict(self.damaged_lines(segment))
        if not damaged:
            return []
        lines = dict(enumerate(segment.read_bytes().splitlines(), start=1))
        aside = [
            self._set_aside(f"{segment.stem}.line{number}.json", lines[number], reason)
            for number, reason in damaged.items()
        ]
        kept = b"".join(line + b"\n" for number, line in lines.items() if number not in damaged)
        write_durably(segment, kept)
        return aside

    def records(self) -> Iterator[CommitRecord]:
        """Go through all undamaged records, pending and folded, each once."""
        seen: set[str] = set()
        for path in (*self.segments(), *self.pending_paths()):
            for line in path.read_bytes().splitlines():
                try:
                    record = _decoded(line)
                except DamagedRecordError:
                    continue
                if record.record_id not in seen:
                    seen.add(record.record_id)
                    yield record

    def leftovers(self) -> Iterator[Path]:
        """Go through temporary files of writers that died."""
        yield from self._pending.glob(".*.tmp")
        yield from self._segments.glob("*/.*.tmp")

    def _write_segment(self, shelf: str, lines: bytes) -> Path:
        with disk_space(self._segments):
            path = make_directory(self._segments / shelf) / f"{uuid.uuid4().hex}.jsonl"
            write_durably(path, lines)
        return path

    def _set_aside(self, name: str, content: bytes, reason: str) -> Path:
        with disk_space(self._damaged):
            path = make_directory(self._damaged) / name
            write_durably(path, content)
            write_durably(path.with_name(f"{name}.reason.txt"), f"{reason}\n".encode())
        return path


def _file_name(record: CommitRecord) -> str:
    moment = record.committed_at.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S.%fZ}_{record.record_id}.json"


def _encoded(record: CommitRecord) -> bytes:
    content = record.model_dump_json().encode()
    digest = hashlib.sha256(content).hexdigest().encode()
    return b'{"sha256":"' + digest + b'","record":' + content + b"}\n"


def _verified(line: bytes) -> bytes:
    """Give the record's JSON out of its line.

    Raises
    ------
    DamagedRecordError
        If the line is not one, or its content is not what its checksum says.
    """
    match = _LINE.fullmatch(line.rstrip(b"\n"))
    if match is None:
        raise DamagedRecordError("not a line of the journal: cut short or overwritten")
    if hashlib.sha256(match["record"]).hexdigest().encode() != match["sha256"]:
        raise DamagedRecordError("the content does not match its checksum")
    return match["record"]


def _decoded(line: bytes) -> CommitRecord:
    content = _verified(line)
    try:
        record = CommitRecord.model_validate_json(content)
        for product in record.products:
            _ = product.product_name
    except (ValidationError, ValueError) as error:
        raise DamagedRecordError(f"not a commit record: {error}") from error
    return record
