"""Local copies of blobs: bounded, verified, shared by all processes of a machine."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roman_assets.archive.durability import disk_space, make_directory, private_directory
from roman_assets.errors import BadInputError, PassingFaultError

CACHE_VARIABLE = "ROMAN_ASSETS_CACHE_GIB"
"""With an object store: size of the cache of blobs, GiB, 64 by default."""
DEFAULT_CACHE_GIB = 64.0
REST = 15 * 60.0
"""How long a copy stays after its last use, s, also beyond the bound."""

_ABANDONED = 24 * 3600.0
_COPY_MODE = 0o444


class WrongContentError(PassingFaultError):
    """Other content arrived than was asked for."""


class BlobCache:
    """A directory of copies by sha256, from which the least recently used go first.

    Parameters
    ----------
    directory
        Where; may be deleted when nothing runs.
    limit
        Bytes, None for ``ROMAN_ASSETS_CACHE_GIB`` (64 GiB). What was used within the last quarter
        of an hour stays nevertheless.
    """

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        self._directory = directory
        self._limit = _configured_limit() if limit is None else limit

    def get(self, sha256: str, fetch: Callable[[Path], str]) -> Path:
        """Return a copy, fetched if it is not there.

        Parameters
        ----------
        sha256
            Of the content.
        fetch
            Writes the content to a new file and gives its sha256.

        Raises
        ------
        WrongContentError
            If another content is fetched.
        PassingFaultError
            If the disk is full.
        """
        copy = self._place(sha256)
        if self._touched(copy):
            return copy
        with self._draft(copy) as draft:
            found = fetch(draft)
            if found != sha256:
                raise WrongContentError(
                    f"the blob {sha256} arrived with the sha256 {found}. Remedy: run the work "
                    "again; if it fails again, `roman-assets fsck` tells whether the blob is "
                    "damaged"
                )
            draft.chmod(_COPY_MODE)
        self.trim()
        return copy

    def named(self, copy: Path, name: str) -> Path:
        """Return a copy under a name of its own, which goes when the copy goes."""
        path = _names(copy) / name
        make_directory(path.parent)
        draft = path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            draft.hardlink_to(copy)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)  # still there if both were links of the copy already
        return path

    def adopt(self, path: Path, sha256: str) -> None:
        """Move a file of known content into the cache, or remove it where that costs a copy."""
        copy = self._place(sha256)
        make_directory(copy.parent)
        try:
            if path.stat().st_nlink == 1:  # another link would be a way to change the copy
                path.chmod(_COPY_MODE)
                os.utime(path)
                path.replace(copy)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        path.unlink(missing_ok=True)
        self.trim()

    def drop(self, sha256: str) -> None:
        """Forget a copy."""
        _remove(self._place(sha256))

    def trim(self) -> None:
        """Remove copies beyond the bound, unless another process is at it."""
        with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._trim()

    def _trim(self) -> None:
        now = time.time()
        for draft in self._directory.glob("??/.*.tmp"):
            _remove_if_older(draft, now - _ABANDONED)
        copies = sorted(self._copies())
        excess = sum(size for _, size, _ in copies) - self._limit
        for used_at, size, copy in copies:
            if excess <= 0 or used_at > now - REST:
                return
            _remove(copy)
            excess -= size

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for copy in self._directory.glob("??/[!.]*[!s]"):
            with suppress(FileNotFoundError):
                status = copy.stat()
                yield status.st_mtime, status.st_size, copy

    def _touched(self, copy: Path) -> bool:
        """Mark a copy as used now; return False if it is missing."""
        # Not while copies are being chosen for removal: this one might be chosen.
        with self._locked(fcntl.LOCK_SH):
            try:
                os.utime(copy)
            except FileNotFoundError:
                return False
        return True

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        private_directory(self._directory)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _place(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256

    @contextmanager
    def _draft(self, copy: Path) -> Iterator[Path]:
        """Return a path beside the copy; what is written there becomes the copy."""
        with disk_space(self._directory):
            make_directory(copy.parent)
            draft = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}.tmp")
            try:
                yield draft
                draft.replace(copy)
            finally:
                draft.unlink(missing_ok=True)


def _configured_limit() -> int:
    text = os.environ.get(CACHE_VARIABLE) or str(DEFAULT_CACHE_GIB)
    try:
        return int(float(text) * 2**30)
    except ValueError as error:
        raise BadInputError(
            CACHE_VARIABLE,
            "value",
            f"{text!r} is not a number",
            "give the size of the cache in GiB",
        ) from error


def _names(copy: Path) -> Path:
    """Return the directory of the names of a copy; no sha256 ends like it."""
    return copy.with_name(f"{copy.name}.names")


def _remove(copy: Path) -> None:
    shutil.rmtree(_names(copy), ignore_errors=True)
    copy.unlink(missing_ok=True)


def _remove_if_older(path: Path, moment: float) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < moment:
            path.unlink()
