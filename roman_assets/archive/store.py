"""The archive: immutable blobs by sha256, and official names that show them.

Two archives keep the same promises: `roman_assets.archive.file_archive` on a file system,
`roman_assets.archive.object_archive` in an S3 bucket. `Archive.of` is the one place that chooses.
"""

from __future__ import annotations

import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import GroupedFileSet, ProductName

BLOB_MISSING = "its blob is missing"
"""The reason why a name cannot show its blob."""


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


@dataclass(frozen=True)
class Blob:
    """A blob as found in the archive.

    Parameters
    ----------
    sha256
        Its name; `Archive.content_hash` reads what is in it.
    size
        Bytes.
    staged_at
        When it was last staged, ns since the epoch.
    """

    sha256: str
    size: int
    staged_at: int


class Archive(ABC):
    """Blobs and public names of one installation.

    Parameters
    ----------
    root
        The installation. Nothing is created before the first file is staged.
    """

    def __init__(self, root: DataRoot) -> None:
        self._root = root

    @staticmethod
    def of(root: DataRoot) -> Archive:
        """Return the archive of an installation, in its object store or on disk."""
        if root.object_store is None:
            from roman_assets.archive.file_archive import FileArchive

            return FileArchive(root)
        from roman_assets.archive.object_archive import ObjectArchive

        return ObjectArchive(root)

    def stage(self, path: Path) -> Staged:
        """Take over a finished file as an immutable blob; not visible until it is shown.

        Idempotent: content that is there already is not written again. `path` is gone afterwards.

        Parameters
        ----------
        path
            A regular file that nobody writes to any more.

        Raises
        ------
        BadInputError
            If `path` is not a regular file.
        PassingFaultError
            If the archive's disk is full or its object store cannot be reached; `path` and the
            archive are as before.
        """
        if path.is_symlink() or not path.is_file():
            raise BadInputError(
                path, "file", "not a regular file", "stage the finished product file itself"
            )
        return self._stage(path)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Protect blobs staged in the block from removal as unneeded, until the block ends.

        A block that stages and commits is one that claims: then no clock decides what it needs.
        """
        yield

    @abstractmethod
    def _stage(self, path: Path) -> Staged:
        """Stage a regular file."""

    @abstractmethod
    def withdraw(self, staged: Staged) -> bool:
        """Remove a blob that this process staged and decided not to publish.

        Returns
        -------
        bool
            False if the blob stays: it was there before, somebody else has staged it since, or
            its archive leaves it to `fsck`.
        """

    @abstractmethod
    def remove_blob_staged_at(self, sha256: str, staged_at: int) -> bool:
        """Remove a blob unless it was staged again since `staged_at`, its time stamp (ns)."""

    @abstractmethod
    def now(self) -> int:
        """Return the time by the clock that stamps blobs, ns since the epoch."""

    @abstractmethod
    def in_use(self) -> set[str]:
        """Return the content that living processes of this machine have staged or laid out.

        It is needed whatever a clock says of its age.
        """

    @abstractmethod
    def has_blob(self, sha256: str, size: int) -> bool:
        """Return whether the content exists, by name and size (`content_hash` reads the bytes)."""

    @abstractmethod
    def blobs(self) -> Iterator[Blob]:
        """Go through all blobs."""

    @abstractmethod
    def content_hash(self, sha256: str) -> str:
        """Read a blob and give the sha256 of what is in it; `FileNotFoundError` without one."""

    @abstractmethod
    def set_aside(self, sha256: str, damage: BadInputError, name: ProductName) -> None:
        """Take a blob that is not what its name says out of the archive, and keep it apart."""

    @abstractmethod
    def local(self, sha256: str) -> Path:
        """Return a local file with this content, to be read and not to be changed.

        The path is good for some minutes; who needs it longer lays it out (`lay_out`).

        Raises
        ------
        FileNotFoundError
            If there is no such blob.
        PassingFaultError
            If it cannot be fetched, or arrives with another content.
        """

    @abstractmethod
    def lay_out(self, sha256: str, path: Path) -> None:
        """Make the content readable at a path of the caller's own, for as long as that is there.

        Raises
        ------
        FileNotFoundError, PassingFaultError
            As `local` does.
        """

    @abstractmethod
    def path(self, name: ProductName) -> Path:
        """Return a local file with what the public name shows at this moment.

        Raises
        ------
        FileNotFoundError
            If there is no product of that name in the archive.
        AccessDeniedError
            If the name leads out of the public tree: something other than the fold put it there.
        """

    @abstractmethod
    def show(
        self, contents: Mapping[ProductName, str], fence: Fence | None = None
    ) -> dict[ProductName, str]:
        """Link public names to blobs, each atomically for every reader.

        Only the holder of the fold lock calls this, so that the names follow the records' order.

        Parameters
        ----------
        contents
            The sha256 of the blob by name.
        fence
            Refuses the change once the lock is lost; None if nobody else changes names.

        Returns
        -------
        dict
            Reasons, by name, for names that cannot show their blob; they keep their former content.
        """

    @abstractmethod
    def shows(self, name: ProductName, sha256: str) -> bool:
        """Return whether the public name shows this blob."""

    def differing(self, contents: Mapping[ProductName, str]) -> dict[ProductName, str]:
        """Return those of the names, with the sha256, that do not show the blob of this sha256."""
        return {name: sha256 for name, sha256 in contents.items() if not self.shows(name, sha256)}

    @abstractmethod
    def is_public(self, name: ProductName) -> bool:
        """Return whether the public name shows anything."""

    @abstractmethod
    def public_keys(self) -> Iterator[PurePosixPath]:
        """Go through all public names there are, as `public_key` gives them."""

    def unlink(self, name: ProductName, fence: Fence | None = None) -> bool:
        """Remove a product's public name, as `unlink_key` does."""
        return self.unlink_key(self.public_key(name), fence)

    @abstractmethod
    def unlink_key(self, key: PurePosixPath, fence: Fence | None = None) -> bool:
        """Remove a public name; its blob, and processes that read it, keep the content.

        Only the holder of the fold lock calls this, with the `fence` that `show` takes.

        Returns
        -------
        bool
            False if there was none.
        """

    @abstractmethod
    def restore_blob(self, name: ProductName, sha256: str, *, mend: bool) -> bool:
        """Restore a lost blob from what the name shows; return whether that worked."""

    @abstractmethod
    def leftovers(self) -> Iterator[Path]:
        """Go through local files of writers that may have died."""

    @property
    @abstractmethod
    def public(self) -> str:
        """Where general users find products: a directory or a URL."""

    @property
    @abstractmethod
    def public_uri(self) -> str:
        """The same as a URI."""

    def uri(self, name: ProductName) -> str:
        """Return the public name as a URI."""
        return f"{self.public_uri}/{self.public_key(name)}"

    def location(self, name: ProductName) -> str:
        """Return the public name for people: a path or a URL."""
        return f"{self.public}/{self.public_key(name)}"

    @staticmethod
    def public_key(name: ProductName) -> PurePosixPath:
        """Return a product's place below the public tree: level, program, visit, official name.

        The level is that of the product's kind, hence the supplement lies with L1 (R4), and there
        is no place for L0 (R1). Coadds of more than a visit lie under their grouping.
        """
        file_set = name.file_set
        if isinstance(file_set, GroupedFileSet):
            program, group = file_set.program, str(file_set.visit or file_set.grouping)
        else:
            program, group = file_set.exposure.visit.program, str(file_set.exposure.visit)
        return PurePosixPath(f"{name.level}/{program:05d}/{group}/{name}")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def not_in_archive(name: ProductName) -> FileNotFoundError:
    """Return the error of who asks for a product that is not available."""
    return FileNotFoundError(errno.ENOENT, "not in the archive", str(name))
