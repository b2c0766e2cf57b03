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
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.records.record import CommitRecord
from roman_assets.records.record_files import LOOSE, MERGED, PreparedRecord, RecordFiles

_LINE = re.compile(rb'\{"sha256":"(?P<sha256>[0-9a-f]{64})","record":(?P<record>\{.*\})\}')
_ID = re.compile(rb'\{"record_id":"([0-9a-zA-Z_.-]+)",')
MERGED_AT = 64
"""Number of segments from which on they are merged into one."""


LONGEST_LINE = 1 << 29
"""Bytes of the longest record that is read back: it speaks of some two million products."""

_REMEDY = "restore the file from a backup, or run the step of its partition again"


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
        self._files = RecordFiles.of(root)
        self._aside = SetAside(root)

    def prepare(self, record: CommitRecord) -> PreparedRecord:
        """Write a record so that only a rename is left to do.

        Raises
        ------
        PassingFaultError
            If the disk is full; nothing is left behind.
        ValueError
            If a name is not official, a transition not possible, or the record too long.
        """
        record.require_lawful()
        path, line = self._files.pending_path(_file_name(record)), _encoded(record)
        if len(line) >= LONGEST_LINE:
            raise ValueError(f"a record of {len(line)} bytes: at most {LONGEST_LINE} are read back")
        return self._files.prepare(path, line)

    def commit(self, prepared: PreparedRecord) -> None:
        """Make a prepared record true: from here on its products exist."""
        self._files.commit([prepared])

    def write(self, record: CommitRecord) -> None:
        """Prepare and commit a record."""
        self.commit(self.prepare(record))

    def write_all(self, records: Iterable[CommitRecord]) -> None:
        """Prepare and commit records that do not belong together; faster than one by one."""
        self._files.commit([self.prepare(record) for record in records])

    def pending_paths(self) -> list[Path]:
        """Return the names of committed records that are not folded, in the order of commit.

        On a file system they are its files.
        """
        return self._files.pending()

    def read_pending(
        self, paths: Iterable[Path]
    ) -> tuple[list[PendingRecord], list[BadInputError]]:
        """Read pending records.

        Returns
        -------
        records, damage
            What can be folded, and what is wrong with the others.
        """
        records, damage = [], []
        wanted = list(paths)
        for path, line in zip(wanted, self._files.read(wanted), strict=True):
            try:
                records.append(PendingRecord(path, line, _decoded(line, path)))
            except BadInputError as error:
                damage.append(error)
        return records, damage

    def is_retimed(self, pending: PendingRecord) -> bool:
        """Return whether `retime` has set the time of a pending record."""
        return pending.path.name != _file_name(pending.record)

    def retime(self, pending: PendingRecord, committed_at: datetime, fence: Fence) -> PendingRecord:
        """Change the commit time of a pending record, durably, and return the new record.

        Parameters
        ----------
        pending
            As it was read.
        committed_at
            When it counts as committed, UTC.
        fence
            Of the fold lock.

        Raises
        ------
        PassingFaultError
            If another process has taken the fold lock over.
        """
        record = pending.record.model_copy(update={"committed_at": committed_at})
        line = _encoded(record)
        self._files.replace(pending.path, pending.line, line, fence)
        return PendingRecord(pending.path, line, record)

    def set_aside(self, damage: BadInputError) -> Path:
        """Take a damaged pending record out of the way; gives its case."""
        path = Path(damage.source)
        case = self._aside.add(self._files.read([path])[0], damage, name=path.name)
        self._files.discard([path])
        return case

    def seal(self, records: Iterable[PendingRecord]) -> Path:
        """Write records into a new immutable segment."""
        lines = b"".join(pending.line.rstrip(b"\n") + b"\n" for pending in records)
        return self._write_segment(LOOSE, lines)

    def discard(self, records: Iterable[PendingRecord]) -> None:
        """Remove pending records; only after they are in a segment and in the registry."""
        self._files.discard(pending.path for pending in records)

    def segments(self) -> list[Path]:
        """Return all segments; a record may be in more than one of them."""
        return self._files.segments()

    def size(self) -> int:
        """Return how much is on record, bytes."""
        return self._files.size()

    def merge_segments(self) -> None:
        """Join loose segments once there are many, so that their number stays small.

        A crash in between leaves records in two segments, which readers tell by their id.
        """
        loose = self._files.loose_segments()
        if len(loose) < MERGED_AT:
            return
        self._write_segment(MERGED, b"".join(self._files.read(loose)))
        self._files.remove_segments(loose)

    def damage(self, segment: Path) -> dict[int, BadInputError]:
        """Return what is wrong with the lines of a segment, by line number from 1."""
        (content,) = self._files.read([segment])
        return _damage(segment, content)

    def repair_segment(self, segment: Path) -> list[Path]:
        """Set the damaged lines of a segment aside and replace it by the others.

        Returns
        -------
        list of pathlib.Path
            Their cases; empty, and the segment untouched, if nothing is damaged.
        """
        (content,) = self._files.read([segment])
        damage = _damage(segment, content)
        if not damage:
            return []
        lines = dict(enumerate(content.splitlines(), start=1))
        cases = [
            self._aside.add(lines[number], error, name=f"{segment.stem}.line{number}.json")
            for number, error in damage.items()
        ]
        kept = b"".join(line + b"\n" for number, line in lines.items() if number not in damage)
        self._files.write_segment(segment, kept)
        return cases

    def records(self) -> Iterator[CommitRecord]:
        """Go through all undamaged records, pending and folded, each once."""
        seen: set[str] = set()
        for path in (*self.segments(), *self.pending_paths()):
            for line in self._files.read([path])[0].splitlines():
                try:
                    record = _decoded(line, path)
                except BadInputError:
                    continue
                if record.record_id not in seen:
                    seen.add(record.record_id)
                    yield record

    def sealed_ids(self) -> Iterator[str]:
        """Yield the ids of undamaged folded records, some of them several times.

        Segments that a fold joins meanwhile are read in their new place.
        """
        done: set[Path] = set()
        while left := [path for path in self.segments() if path not in done]:
            for path in left:
                done.add(path)
                with suppress(FileNotFoundError):
                    for line in self._files.read([path])[0].splitlines():
                        with suppress(BadInputError):
                            yield _record_id(_verified(line, path), path)

    def leftovers(self) -> Iterator[Path]:
        """Go through temporary files of writers that died."""
        return self._files.leftovers()

    def _write_segment(self, shelf: str, lines: bytes) -> Path:
        path = self._files.segment_path(shelf, f"{uuid.uuid4().hex}.jsonl")
        self._files.write_segment(path, lines)
        return path


def _damage(segment: Path, content: bytes) -> dict[int, BadInputError]:
    found = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            _verified(line, segment, f"line {number}")
        except BadInputError as error:
            found[number] = error
    return found


def _file_name(record: CommitRecord) -> str:
    moment = record.committed_at.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S.%fZ}_{record.record_id}.json"


def _encoded(record: CommitRecord) -> bytes:
    content = record.model_dump_json().encode()
    digest = hashlib.sha256(content).hexdigest().encode()
    return b'{"sha256":"' + digest + b'","record":' + content + b"}\n"


def _verified(line: bytes, source: Path, field: str = "record") -> bytes:
    """Return the record's JSON out of its line; `BadInputError` if it is not what was written."""
    match = _LINE.fullmatch(line.rstrip(b"\n"))
    if match is None:
        raise BadInputError(source, field, "cut short or overwritten", _REMEDY)
    if hashlib.sha256(match["record"]).hexdigest().encode() != match["sha256"]:
        raise BadInputError(source, field, "the content does not match its checksum", _REMEDY)
    return match["record"]


def _record_id(content: bytes, source: Path) -> str:
    match = _ID.match(content)
    return match[1].decode() if match else _decode(content, source).record_id


def _decoded(line: bytes, source: Path) -> CommitRecord:
    return _decode(_verified(line, source), source)


def _decode(content: bytes, source: Path) -> CommitRecord:
    try:
        record = CommitRecord.model_validate_json(content)
        record.require_lawful()
    except ValueError as error:
        raise BadInputError(source, "record", f"no commit record: {error}", _REMEDY) from error
    return record
