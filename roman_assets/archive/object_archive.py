"""The archive in an S3 bucket: blobs are immutable objects, public names are copies of them.

A public name is made by a copy within the store, which readers see whole or not at all, under the
official name that plain S3 tools fetch. It happens only if the name is still what it was when the
fold lock was known to be held, so that a stalled process never rolls a name back. A reader who is
in the middle of a request keeps the bytes it began with (R6).
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

from roman_assets.archive.blob_cache import BlobCache, WrongContentError
from roman_assets.archive.durability import private_directory
from roman_assets.archive.object_store import ConflictError, ObjectStore
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
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.name import ProductName

_Result = TypeVar("_Result")
_AT_ONCE = 16
_RENEWED_AFTER = 3600 * 10**9
"""Age (ns) beyond which a blob that is staged again is written again: its time stamp is renewed."""


class ObjectArchive(Archive):
    """An archive in the object store of the installation."""

    def __init__(self, root: DataRoot) -> None:
        super().__init__(root)
        assert root.object_store is not None
        self._objects = ObjectStore(root.object_store)
        self._cache = BlobCache(root.blob_cache)

    def withdraw(self, staged: Staged) -> bool:
        """Leave the blob to `fsck`.

        An object cannot be removed on condition of its age, and somebody else may be staging the
        same content just now.
        """
        return False

    def remove_blob_staged_at(self, sha256: str, staged_at: int) -> bool:
        """Remove a blob unless it was staged again since; looks right before it does."""
        meta = self._objects.meta(self._blob_key(sha256))
        if meta is None or _ns(meta["last_modified"]) != staged_at:
            return False
        self._objects.delete([self._blob_key(sha256)])
        self._cache.drop(sha256)
        return True

    def now(self) -> int:
        """Return the time by the clock of the store, which stamps the blobs."""
        key = self._root.key(self._root.blobs.parent / "clock")
        self._objects.put(key, b"")
        meta = self._objects.meta(key)
        return _ns(meta["last_modified"]) if meta else 0

    def in_use(self) -> set[str]:
        """Return nothing: processes use copies; what they stage is young by the store's clock."""
        return set()

    def has_blob(self, sha256: str, size: int) -> bool:
        """Return whether the content is there, by name and size."""
        return self._objects.size(self._blob_key(sha256)) == size

    def blobs(self) -> Iterator[Blob]:
        """Go through all blobs."""
        for meta in self._objects.list(self._root.key(self._root.blobs)):
            name = PurePosixPath(meta["path"]).name
            yield Blob(name, int(meta["size"]), _ns(meta["last_modified"]))

    def content_hash(self, sha256: str) -> str:
        """Read a blob, past the local cache."""
        return self._objects.content_hash(self._blob_key(sha256))

    def set_aside(self, sha256: str, damage: BadInputError, name: ProductName) -> None:
        """Keep a local copy of the blob apart, then remove it from the store."""
        draft = private_directory(self._root.staging) / uuid.uuid4().hex
        self._objects.download(self._blob_key(sha256), draft)
        SetAside(self._root).add(draft, damage, name=str(name))
        self._objects.delete([self._blob_key(sha256)])
        self._cache.drop(sha256)

    def local(self, sha256: str) -> Path:
        """Return a copy in the cache below the data root."""
        return self._cache.get(
            sha256, lambda path: self._objects.download(self._blob_key(sha256), path)
        )

    def lay_out(self, sha256: str, path: Path) -> None:
        """Link the cached copy, which then may leave the cache."""
        copy = self.local(sha256)
        try:
            path.hardlink_to(copy)
        except OSError:  # another file system
            shutil.copyfile(copy, path)

    def path(self, name: ProductName) -> Path:
        """Return a copy in the cache of what the name shows: the public may read nothing else.

        It bears the official name, which data models compare with what they say themselves.
        """
        key = self._public_key(name)
        last = None
        while True:
            found = self._objects.sha256(key)
            if found is None or found[0] is None:
                raise not_in_archive(name)
            try:
                copy = self._cache.get(found[0], lambda path: self._objects.download(key, path))
                return self._cache.named(copy, str(name))
            except (FileNotFoundError, WrongContentError):
                # Overwritten between the look and the download, unless it still is the same.
                if found == last:
                    raise
                last = found

    def show(
        self, contents: Mapping[ProductName, str], fence: Fence | None = None
    ) -> dict[ProductName, str]:
        """Copy blobs to their public names, where these show something else.

        The lock is confirmed between the look at the names and their replacement. A process that
        takes the lock over later changes a name later, and then it is not what this process saw.
        """
        looks = _at_once(self._shown, contents)
        changes = [name for name, (shown, _) in looks.items() if shown != contents[name]]
        if not changes:
            return {}
        if fence is not None:
            fence.confirm()
        copied = _at_once(lambda name: self._copy(contents[name], name, looks[name][1]), changes)
        return {name: BLOB_MISSING for name, there in copied.items() if not there}

    def shows(self, name: ProductName, sha256: str) -> bool:
        """Return whether the public object is a copy of this blob, by the sha256 beside it."""
        return self._shown(name)[0] == sha256

    def differing(self, contents: Mapping[ProductName, str]) -> dict[ProductName, str]:
        """Return those of the names that do not show the blob of this sha256."""
        looks = _at_once(self._shown, contents)
        return {
            name: contents[name] for name, (shown, _) in looks.items() if shown != contents[name]
        }

    def is_public(self, name: ProductName) -> bool:
        """Return whether there is a public object of that name."""
        return self._objects.size(self._public_key(name)) is not None

    def public_keys(self) -> Iterator[PurePosixPath]:
        """Go through all public objects."""
        tree = self._root.key(self._root.public)
        for meta in self._objects.list(tree):
            yield PurePosixPath(meta["path"]).relative_to(tree)

    def unlink_key(self, key: PurePosixPath, fence: Fence | None = None) -> bool:
        """Remove a public object."""
        if fence is not None:
            fence.confirm()
        place = self._root.key(self._root.public / key)
        if self._objects.size(place) is None:
            return False
        self._objects.delete([place])
        return True

    def restore_blob(self, name: ProductName, sha256: str, *, mend: bool) -> bool:
        """Copy a lost blob back from the public object, if that has the content."""
        try:
            if self._objects.content_hash(self._public_key(name)) != sha256:
                return False
        except FileNotFoundError:
            return False
        if mend:
            with suppress(ConflictError):
                self._objects.copy(self._public_key(name), self._blob_key(sha256), None)
        return True

    def leftovers(self) -> Iterator[Path]:
        """Go through what was on its way to what is set aside."""
        return self._root.staging.glob("*")

    @property
    def public(self) -> str:
        """The URL below which the public objects are."""
        return f"{self._objects.url}/{self._root.key(self._root.public)}"

    @property
    def public_uri(self) -> str:
        """The same: it is a URL."""
        return self.public

    def _stage(self, path: Path) -> Staged:
        """Upload the file under its hash and keep it in the cache, where the next step reads it."""
        sha256, size = sha256_of(path), path.stat().st_size
        key = self._blob_key(sha256)
        there = self._objects.meta(key)
        created = there is None or int(there["size"]) != size
        staged_at = time.time_ns()
        if created or staged_at - _ns(there["last_modified"]) > _RENEWED_AFTER:
            self._objects.upload(path, key, sha256)
        self._cache.adopt(path, sha256)
        return Staged(sha256, size, staged_at if created else None)

    def _shown(self, name: ProductName) -> tuple[str | None, str | None]:
        """Return the sha256 of what a public name shows and its e-tag."""
        return self._objects.sha256(self._public_key(name)) or (None, None)

    def _copy(self, sha256: str, name: ProductName, e_tag: str | None) -> bool:
        """Copy a blob to a public name; False if there is no such blob."""
        try:
            self._objects.copy(self._blob_key(sha256), self._public_key(name), e_tag)
        except FileNotFoundError:
            return False
        except ConflictError as error:
            if self._shown(name)[0] == sha256:
                return True
            raise PassingFaultError(
                f"{self.location(name)} was changed by another process while this one folded. "
                "Remedy: none is needed; the records are safe, and the next fold sets the names"
            ) from error
        return True

    def _blob_key(self, sha256: str) -> str:
        return self._root.key(self._root.blobs / sha256[:2] / sha256)

    def _public_key(self, name: ProductName) -> str:
        return self._root.key(self._root.public / self.public_key(name))


def _at_once(
    work: Callable[[ProductName], _Result], names: Iterable[ProductName]
) -> dict[ProductName, _Result]:
    """Do something for many names side by side: it is the store that is waited for."""
    wanted = list(names)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(wanted, threads.map(work, wanted), strict=True))


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
