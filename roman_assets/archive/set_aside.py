"""What could not be used: kept apart, each case with its reason, for a person to act on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
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
from roman_assets.errors import BadInputError, printable

_CASE = "case.json"
_DAMAGED_CASE = "damaged_case.json"
_REASON = ("source", "field", "reason", "remedy")
_WHEN = "%Y%m%dT%H%M%S.%fZ"
_OWNER_ONLY = 0o700
_LONGEST_NAME = 160
"""Bytes of a name within a case, so that the names made from it fit a file system as well."""


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
    is_damaged
        Its statement could not be read: the reason says why, and the rest is what is left.
    """

    path: Path
    content: Path | None
    source: str
    field: str
    reason: str
    remedy: str
    when: datetime
    is_damaged: bool = False


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
        file where it was. What cannot be taken away leaves no case and no copy behind.

        Parameters
        ----------
        content
            A file, link or directory, or bytes that never were one.
        error
            Why.
        move
            Take the file away; otherwise it is copied.
        name
            Name of the file within the case, by default the last part of the file's name or of
            the error's source. It is shortened if it is long, and escaped if it is not printable.

        Returns
        -------
        Path
            The directory of the case.

        Raises
        ------
        FileNotFoundError
            If the file is gone; no case is made.
        OSError
            If it cannot be taken away or read; no case is made.
        PassingFaultError
            If the disk is full.
        """
        if isinstance(content, Path):
            _require_removable(content, move=move)
        own = content.name if isinstance(content, Path) else Path(error.source).name
        name = _usable(name or own or "content")
        with disk_space(self.root.set_aside):
            case = self._open_case(name, error)
            try:
                copied = _place(content, case / name, move=move)
            except OSError:
                shutil.rmtree(case)
                raise
        if copied and move:
            shutil.rmtree(copied)
        return case

    def list(self) -> tuple[SetAsideCase, ...]:
        """Return all cases, oldest first, those whose statement is damaged or lost as well."""
        if not self.root.set_aside.is_dir():
            return ()
        found = sorted(path for path in self.root.set_aside.glob("[!.]*") if path.is_dir())
        cases = []
        for path in found:
            with suppress(FileNotFoundError):  # withdrawn, as its file could not be taken away
                cases.append(_read_case(path))
        return tuple(cases)

    def mend(self, case: SetAsideCase) -> None:
        """Write the statement of a damaged case anew, and keep the damaged one beside it."""
        statement = case.path / _CASE
        if statement.exists():
            statement.replace(case.path / _DAMAGED_CASE)
        write_durably(statement, _statement(case))

    def leftovers(self) -> Iterator[Path]:
        """Go through cases that were not finished; what they were for is where it was."""
        yield from self.root.set_aside.glob(".*")

    def _open_case(self, name: str, error: BadInputError) -> Path:
        directory = private_directory(self.root.set_aside)
        when = datetime.now(UTC)
        stem = f"{when:{_WHEN}}_{uuid.uuid4().hex[:8]}_{name}"
        draft = directory / f".{stem}"
        draft.mkdir(mode=_OWNER_ONLY)
        case = directory / stem
        stated = SetAsideCase(
            case, case / name, error.source, error.field, error.reason, error.remedy, when
        )
        write_durably(draft / _CASE, _statement(stated))
        draft.rename(case)
        fsync_directory(directory)
        return case


def _require_removable(content: Path, *, move: bool) -> None:
    """Raise before anything is copied if it is gone or may not be taken away."""
    if not os.path.lexists(content):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(content))
    if move and not os.access(content.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(content.parent))


def _usable(name: str) -> str:
    """Return a name that fits a case: printable, short, not that of the statement."""
    name = printable(name)
    if name in (_CASE, _DAMAGED_CASE):
        name = f"content_{name}"
    suffix = Path(name).suffix[:20]
    room = _LONGEST_NAME - len(suffix.encode())
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    return name.encode()[:room].decode(errors="ignore") + suffix


def _place(content: Path | bytes, target: Path, *, move: bool) -> Path | None:
    """Put the content into its case; return the directory that is still to be removed, if any."""
    if isinstance(content, bytes):
        write_durably(target, content)
    elif not move or not _renamed(content, target):
        _copy(content, target)
        if content.is_dir() and not content.is_symlink():
            return content
        if move:
            content.unlink(missing_ok=True)
    return None


def _renamed(content: Path, target: Path) -> bool:
    """Rename; False if that cannot be, as the target is on another file system."""
    try:
        content.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    fsync_directory(target.parent)
    return True


def _copy(content: Path, target: Path) -> None:
    if content.is_symlink():
        target.symlink_to(content.readlink())
    elif content.is_dir():
        shutil.copytree(content, target, symlinks=True)
    else:
        draft = temporary_name(target)
        shutil.copyfile(content, draft)
        fsync_file(draft)
        draft.rename(target)
    fsync_directory(target.parent)


def _statement(case: SetAsideCase) -> bytes:
    content = None if case.content is None else case.content.name
    fields = {"when": case.when.isoformat(), "content": content}
    return json.dumps({name: getattr(case, name) for name in _REASON} | fields, indent=2).encode()


def _read_case(path: Path) -> SetAsideCase:
    try:
        statement = json.loads((path / _CASE).read_bytes())
        reason = {name: statement[name] for name in _REASON}
        if not all(isinstance(text, str) for text in reason.values()):
            raise TypeError(f"{', '.join(_REASON)} are texts")
        when = datetime.fromisoformat(statement["when"])
        content = path / statement["content"] if statement["content"] else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _damaged_case(path, error)
    return SetAsideCase(
        path, content if content and content.exists() else None, **reason, when=when
    )


def _damaged_case(path: Path, error: Exception) -> SetAsideCase:
    """Read what the directory of a case states."""
    files = [file for file in sorted(path.iterdir()) if file.name not in (_CASE, _DAMAGED_CASE)]
    try:
        when = datetime.strptime(path.name.partition("_")[0], _WHEN).replace(tzinfo=UTC)
    except ValueError:
        when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return SetAsideCase(
        path=path,
        content=files[0] if files else None,
        source=str(path / _CASE),
        field="statement",
        reason=f"the statement of this case cannot be read: {error!r}",
        remedy="judge by the file itself; deliver it again if it was an input",
        when=when,
        is_damaged=True,
    )
