"""What could not be used: kept apart, each case with its reason, for a person to act on."""

from __future__ import annotations

import json
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
from roman_assets.errors import BadInputError

_CASE = "case.json"
_DAMAGED_CASE = "damaged_case.json"
_REASON = ("source", "field", "reason", "remedy")
_WHEN = "%Y%m%dT%H%M%S.%fZ"
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
        file where it was.

        Parameters
        ----------
        content
            A file or directory, or bytes that never were one.
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
        """Give all cases, oldest first, those whose statement is damaged or lost as well."""
        if not self.root.set_aside.is_dir():
            return ()
        found = sorted(path for path in self.root.set_aside.glob("[!.]*") if path.is_dir())
        return tuple(_read_case(path) for path in found)

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


def _place(content: Path | bytes, target: Path, *, move: bool) -> None:
    if isinstance(content, bytes):
        write_durably(target, content)
        return
    if move:
        with suppress(OSError):  # another file system: copied below
            content.rename(target)
            fsync_directory(target.parent)
            return
    if content.is_dir():
        shutil.copytree(content, target)
        if move:
            shutil.rmtree(content)
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
    """Tell of a case what its directory tells."""
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
