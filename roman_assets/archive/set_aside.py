"""What could not be used: kept apart, each case with its reason, for a person to act on."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    fsync_file,
    private_directory,
    temporary_name,
    write_durably,
)
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError

_CASE = "case.json"
_OWNER_ONLY = 0o700


@dataclass(frozen=True)
class SetAsideCase:
    """One case.

    Parameters
    ----------
    path
        Directory of the case.
    content
        The file within it, None if it is not there (any more).
    source, field, reason, remedy
        As in `BadInputError`.
    when
        When it was set aside (UTC).
    """

    path: Path
    content: Path | None
    source: str
    field: str
    reason: str
    remedy: str
    when: datetime


@dataclass(frozen=True)
class SetAside:
    """The directory of what is set aside; it can hold L0, so only the operator may read it (R1).

    Parameters
    ----------
    root
        Of the installation.
    """

    root: DataRoot

    def add(
        self,
        content: Path | bytes,
        error: BadInputError,
        *,
        move: bool = True,
        name: str | None = None,
    ) -> Path:
        """Put something aside; an earlier case is never overwritten.

        The reason is there before the file is taken away, so a crash between the two leaves the
        file where it was.

        Parameters
        ----------
        content
            A file, or bytes that never were one.
        error
            Why.
        move
            Take the file away; otherwise it is copied.
        name
            Name of the file within the case, by default the last part of the file's name or of
            the error's source.

        Returns
        -------
        Path
            The directory of the case.

        Raises
        ------
        FileNotFoundError
            If the file is gone; no case is made.
        PassingFaultError
            If the disk is full.
        """
        if isinstance(content, Path) and not content.exists():
            raise FileNotFoundError(content)
        own = content.name if isinstance(content, Path) else Path(error.source).name
        name = name or own or "content"
        with disk_space(self.root.set_aside):
            case = self._open_case(name, error)
            _place(content, case / name, move=move)
        return case

    def list(self) -> tuple[SetAsideCase, ...]:
        """Give all cases, oldest first."""
        if not self.root.set_aside.is_dir():
            return ()
        found = sorted(self.root.set_aside.glob(f"[!.]*/{_CASE}"))
        return tuple(_read_case(path) for path in found)

    def _open_case(self, name: str, error: BadInputError) -> Path:
        directory = private_directory(self.root.set_aside)
        when = datetime.now(UTC)
        statement = {
            "source": error.source,
            "field": error.field,
            "reason": error.reason,
            "remedy": error.remedy,
            "when": when.isoformat(),
            "content": name,
        }
        stem = f"{when:%Y%m%dT%H%M%S.%fZ}_{uuid.uuid4().hex[:8]}_{name}"
        draft = directory / f".{stem}"
        draft.mkdir(mode=_OWNER_ONLY)
        write_durably(draft / _CASE, json.dumps(statement, indent=2).encode())
        case = directory / stem
        draft.rename(case)
        fsync_directory(directory)
        return case


def _place(content: Path | bytes, target: Path, *, move: bool) -> None:
    if isinstance(content, bytes):
        write_durably(target, content)
        return
    if move:
        with suppress(OSError):  # another file system: copied below
            content.rename(target)
            fsync_directory(target.parent)
            return
    draft = temporary_name(target)
    try:
        shutil.copyfile(content, draft)
        fsync_file(draft)
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(target.parent)
    if move:
        content.unlink(missing_ok=True)


def _read_case(path: Path) -> SetAsideCase:
    statement = json.loads(path.read_bytes())
    content = path.parent / statement.pop("content")
    when = datetime.fromisoformat(statement.pop("when"))
    return SetAsideCase(path.parent, content if content.exists() else None, **statement, when=when)
