"""The archive: immutable blobs by sha256, and official names that point at them.

A public name is a hard link of a blob. A reader who has a product open keeps the bytes it opened,
whatever is published meanwhile (R6).
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    fsync_file,
    locked,
    make_directory,
    private_directory,
)
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName, SkycellFileSet

_CHUNK = 1 << 20
_BLOB_MODE = 0o444


@dataclass(frozen=True)
class Staged:
    """A file whose content is now a blob.

    Parameters
    ----------
    sha256, size
        Of the content; bytes.
    staged_at
        The blob's time stamp, ns, if this staging created it, None if the blob was there.
    """

    sha256: str
    size: int
    staged_at: int | None = field(default=None, compare=False)


class Archive:
    """Blobs and public names of one installation.

    Parameters
    ----------
    root
        The installation. Nothing is created before the first file is staged.
    """

    def __init__(self, root: DataRoot) -> None:
        self._root = root

    def stage(self, path: Path) -> Staged:
        """Take over a finished file as an immutable blob; not visible until it is linked.

        Idempotent: content that is there already is not written again. The file is moved (copied
        where the file systems differ) and `path` is gone afterwards.

        Parameters
        ----------
        path
            A regular file that nobody writes to any more.

        Raises
        ------
        BadInputError
            If `path` is not a regular file.
        PassingFaultError
            If the archive's disk is full; `path` and the archive are as before.
        """
        if path.is_symlink() or not path.is_file():
            raise BadInputError(
                path, "file", "not a regular file", "stage the finished product file itself"
            )
        with disk_space(self._root.archive):
            staging = private_directory(self._root.staging)
            status = path.stat()
            # Another hard link would be a way to change the blob.
            if status.st_dev == staging.stat().st_dev and status.st_nlink == 1:
                staged = self._move(path)
                if staged is not None:
                    return staged
            return self._copy(path)

    def withdraw(self, staged: Staged) -> bool:
        """Remove a blob that this process staged and decided not to publish.

        Returns
        -------
        bool
            False if the blob was there before or somebody else has staged it since.
        """
        if staged.staged_at is None:
            return False
        return self.remove_blob_older_than(staged.sha256, staged.staged_at)

    def remove_blob_older_than(self, sha256: str, staged_at: int) -> bool:
        """Remove a blob unless it was staged after `staged_at` (ns since the epoch).

        Staging renews a blob's time stamp under the same lock, so a blob that is about to be
        published is not removed between the look and the removal.
        """
        blob = self.blob(sha256)
        if not blob.parent.is_dir():
            return False
        with locked(blob.parent):
            try:
                if blob.stat().st_mtime_ns > staged_at:
                    return False
            except FileNotFoundError:
                return False
            blob.unlink()
        return True

    def blob(self, sha256: str) -> Path:
        """Give where the content with this hash is, or would be."""
        return self._root.blobs / sha256[:2] / sha256

    def has_blob(self, sha256: str, size: int) -> bool:
        """Tell whether the content is there, by name and size (`fsck` reads the bytes)."""
        try:
            return self.blob(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def blobs(self) -> Iterator[Path]:
        """Go through all blobs."""
        return (path for path in self._root.blobs.glob("??/*") if path.is_file())

    def public_path(self, name: ProductName) -> Path:
        """Give the public path of a product: level, program, visit, official file name.

        The level is that of the product's kind, hence the supplement lies with L1 (R4), and there
        is no place for L0 (R1). Coadds of more than a visit lie under their grouping.
        """
        file_set = name.file_set
        if isinstance(file_set, SkycellFileSet):
            program, group = file_set.program, str(file_set.visit or file_set.grouping)
        else:
            program, group = file_set.exposure.visit.program, str(file_set.exposure.visit)
        return self._root.public / name.level / f"{program:05d}" / group / str(name)

    def path(self, name: ProductName) -> Path:
        """Give the public path of an available product.

        Raises
        ------
        FileNotFoundError
            If there is no product of that name in the archive.
        """
        path = self.public_path(name)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "not in the archive", str(name))
        return path

    def public_files(self) -> Iterator[Path]:
        """Go through all files of the public tree."""
        return (
            path for path in self._root.public.rglob("*") if path.is_symlink() or path.is_file()
        )

    def link(self, name: ProductName, sha256: str) -> bool:
        """Make the public name show a blob, in one step for every reader.

        Only the fold calls this, under its lock, so that the names follow the records' order.

        Returns
        -------
        bool
            False if the name showed that blob already.

        Raises
        ------
        FileNotFoundError
            If there is no such blob.
        """
        blob, public = self.blob(sha256), self.public_path(name)
        if _is_link_of(public, blob):
            return False
        with disk_space(self._root.archive):
            make_directory(public.parent)
            temporary = private_directory(self._root.staging) / f"{uuid.uuid4().hex}.link"
            try:
                temporary.hardlink_to(blob)
                temporary.replace(public)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _move(self, path: Path) -> Staged | None:
        sha256 = sha256_of(path)
        size = path.stat().st_size
        fsync_file(path)
        try:
            return self._adopt(path, sha256, size)
        except OSError as error:
            # Bind mounts share a device number and still refuse a rename between them.
            if error.errno != errno.EXDEV:
                raise
            return None

    def _copy(self, path: Path) -> Staged:
        temporary = self._root.staging / uuid.uuid4().hex
        digest = hashlib.sha256()
        size = 0
        try:
            with path.open("rb") as source, temporary.open("xb") as target:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            staged = self._adopt(temporary, digest.hexdigest(), size)
        finally:
            temporary.unlink(missing_ok=True)
        path.unlink()
        return staged

    def _adopt(self, path: Path, sha256: str, size: int) -> Staged:
        blob = self.blob(sha256)
        private_directory(self._root.blobs)
        make_directory(blob.parent)
        staged_at = time.time_ns()
        with locked(blob.parent):
            if self.has_blob(sha256, size):
                os.utime(blob, ns=(staged_at, staged_at))
                path.unlink()
                created = False
            else:
                path.chmod(_BLOB_MODE)
                os.utime(path, ns=(staged_at, staged_at))
                path.replace(blob)
                created = True
            staged_at = blob.stat().st_mtime_ns
        fsync_directory(blob.parent)
        return Staged(sha256, size, staged_at if created else None)


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_link_of(public: Path, blob: Path) -> bool:
    try:
        return not public.is_symlink() and public.samefile(blob)
    except FileNotFoundError:
        # A missing blob is for the caller to learn from the link itself.
        return False
