"""The archive on a file system: blobs are read-only files, public names are hard links of them.

A reader who has a product open keeps the bytes it opened, whatever is published meanwhile (R6).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TextIO

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    fsync_file,
    locked,
    make_directory,
    private_directory,
)
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import (
    BLOB_MISSING,
    Archive,
    Blob,
    Staged,
    not_in_archive,
    sha256_of,
)
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, BadInputError
from roman_assets.products.name import ProductName

_CHUNK = 1 << 20
_BLOB_MODE = 0o444
_OF_THE_SYSTEM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}
)
"""Errors that say nothing of the one name they are met at."""


class FileArchive(Archive):
    """An archive below the data root."""

    def __init__(self, root: DataRoot) -> None:
        super().__init__(root)
        self._claims = root.archive / "claims"
        self._claim: TextIO | None = None

    def withdraw(self, staged: Staged) -> bool:
        """Remove a blob that this process created and nobody has staged since."""
        if staged.staged_at is None:
            return False
        return self.remove_blob_staged_at(staged.sha256, staged.staged_at)

    def remove_blob_staged_at(self, sha256: str, staged_at: int) -> bool:
        """Remove a blob unless it was staged again since `staged_at`, its time stamp (ns).

        Staging renews a blob's time stamp under the same lock, so a blob that is about to be
        published is not removed between the look and the removal.
        """
        blob = self.blob(sha256)
        if not blob.parent.is_dir():
            return False
        with locked(blob.parent):
            try:
                if blob.stat().st_mtime_ns != staged_at:
                    return False
            except FileNotFoundError:
                return False
            blob.unlink()
        return True

    def now(self) -> int:
        """Return the time by the clock of this machine, ns since the epoch."""
        return time.time_ns()

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """List the blobs staged in the block in a file, locked as long as this process lives."""
        claims = private_directory(self._claims)
        path = claims / uuid.uuid4().hex
        with path.open("x") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX)
            self._claim = claim
            try:
                yield
            finally:
                self._claim = None
                path.unlink()

    def in_use(self) -> set[str]:
        """Return the blobs claimed by living processes or linked from scratch directories.

        The lists of dead processes are removed.
        """
        found = set()
        for path in self._claims.glob("*"):
            with suppress(FileNotFoundError), path.open() as claim:
                try:
                    fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    # Locked only after it is created; then it is empty.
                    if claim.read():
                        path.unlink()
                except BlockingIOError:
                    found |= set(claim.read().split())
        for directory, _, files in os.walk(self._root.scratch):
            for path in (Path(directory, name) for name in files):
                with suppress(OSError):
                    found.add(path.readlink().name)
        return found

    def blob(self, sha256: str) -> Path:
        """Return where the content with this hash is, or would be."""
        return self._root.blobs / sha256[:2] / sha256

    def has_blob(self, sha256: str, size: int) -> bool:
        """Return whether the content is there, by name and size."""
        try:
            return self.blob(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def blobs(self) -> Iterator[Blob]:
        """Go through all blobs."""
        for path in self._root.blobs.glob("??/*"):
            if path.is_file():
                status = path.stat()
                yield Blob(path.name, status.st_size, status.st_mtime_ns)

    def content_hash(self, sha256: str) -> str:
        """Read a blob and give the sha256 of what is in it."""
        return sha256_of(self.blob(sha256))

    def set_aside(self, sha256: str, damage: BadInputError, name: ProductName) -> None:
        """Move a blob to what is set aside."""
        SetAside(self._root).add(self.blob(sha256), damage, name=str(name))

    def local(self, sha256: str) -> Path:
        """Return the blob itself."""
        blob = self.blob(sha256)
        if not blob.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such blob", str(blob))
        return blob

    def lay_out(self, sha256: str, path: Path) -> None:
        """Point a symbolic link at the blob."""
        path.symlink_to(self.local(sha256).absolute())

    def public_path(self, name: ProductName) -> Path:
        """Return the public path of a product, whether it is there or not."""
        return self._root.public / self.public_key(name)

    def path(self, name: ProductName) -> Path:
        """Return the public path of an available product."""
        path, tree = self.public_path(name), self._root.public
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:
            regular = False
        if not regular:
            raise not_in_archive(name)
        if path.resolve() != tree.resolve() / path.relative_to(tree):
            raise AccessDeniedError(
                f"{path} is a link out of the public tree. Remedy: `roman-assets fsck --mend` "
                "lets it show its product again"
            )
        return path

    def show(
        self, contents: Mapping[ProductName, str], fence: Fence | None = None
    ) -> dict[ProductName, str]:
        """Hard-link public names to their blobs; copy a blob that can have no more links."""
        unshown = {}
        directories = set()
        with disk_space(self._root.archive), self._fenced(fence) as fenced:
            for name, sha256 in contents.items():
                public, blob = self.public_path(name), self.blob(sha256)
                try:
                    if not _is_link_of(public, blob):
                        make_directory(public.parent)
                        _replace(public, blob, fenced)
                        directories.add(public.parent)
                except FileNotFoundError:
                    unshown[name] = BLOB_MISSING
                except OSError as error:
                    if error.errno in _OF_THE_SYSTEM:
                        raise
                    unshown[name] = f"{public}: {error.strerror}"
        for directory in directories:
            fsync_directory(directory)
        return unshown

    def shows(self, name: ProductName, sha256: str) -> bool:
        """Check whether the public name is a hard link of this blob, or a copy."""
        public, blob = self.public_path(name), self.blob(sha256)
        return _is_link_of(public, blob) or _is_copy_of(public, blob, sha256)

    def is_public(self, name: ProductName) -> bool:
        """Return whether there is a file of that public name."""
        return self.public_path(name).is_file()

    def public_keys(self) -> Iterator[PurePosixPath]:
        """Go through all files of the public tree."""
        for path in self._root.public.rglob("*"):
            if path.is_symlink() or path.is_file():
                yield PurePosixPath(path.relative_to(self._root.public))

    def unlink_key(self, key: PurePosixPath, fence: Fence | None = None) -> bool:
        """Remove a public name."""
        path = self._root.public / key
        with self._fenced(fence) as fenced:
            if not fenced.remove(path):
                return False
        fsync_directory(path.parent)
        return True

    def restore_blob(self, name: ProductName, sha256: str, *, mend: bool) -> bool:
        """Link a lost blob again from the public file, if that has the content."""
        public, blob = self.public_path(name), self.blob(sha256)
        if public.is_symlink() or not public.is_file() or sha256_of(public) != sha256:
            return False
        if mend:
            make_directory(blob.parent)
            blob.hardlink_to(public)
        return True

    def leftovers(self) -> Iterator[Path]:
        """Go through what is on its way into the archive."""
        return self._root.staging.glob("*")

    @property
    def public(self) -> str:
        """The directory of the public tree."""
        return str(self._root.public)

    @property
    def public_uri(self) -> str:
        """The same as a URI."""
        return self._root.public.absolute().as_uri()

    @contextmanager
    def _fenced(self, fence: Fence | None) -> Iterator[Fence]:
        if fence is not None:
            yield fence
            return
        own = Fence(uuid.uuid4().hex, (self._root.archive,), "unlocked")
        own.raise_up()
        try:
            yield own
        finally:
            own.take_down()

    def _stage(self, path: Path) -> Staged:
        """Move the file to its blob; copy it where the file systems differ."""
        with disk_space(self._root.archive):
            staging = private_directory(self._root.staging)
            status = path.stat()
            # Another hard link would be a way to change the blob.
            if status.st_dev == staging.stat().st_dev and status.st_nlink == 1:
                staged = self._move(path)
                if staged is not None:
                    return staged
            return self._copy(path)

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
        if self._claim is not None:
            self._claim.write(f"{sha256}\n")
            self._claim.flush()
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


def _replace(public: Path, blob: Path, fence: Fence) -> None:
    try:
        fence.link(blob, public)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        fence.copy(blob, public, _BLOB_MODE)


def _is_link_of(public: Path, blob: Path) -> bool:
    try:
        return not public.is_symlink() and public.samefile(blob)
    except FileNotFoundError:
        # A missing blob is for the caller to learn from the link itself.
        return False


def _is_copy_of(public: Path, blob: Path, sha256: str) -> bool:
    """Check for the copy of a blob that has all the links that the file system allows."""
    try:
        status = blob.stat()
        is_full = status.st_nlink >= os.pathconf(blob, "PC_LINK_MAX")
        if not is_full or public.is_symlink() or public.stat().st_size != status.st_size:
            return False
        return sha256_of(public) == sha256
    except OSError:
        return False
