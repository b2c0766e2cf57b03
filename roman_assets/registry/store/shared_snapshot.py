"""The published registry in an object store: a small snapshot and the immutable files it names.

Every machine reads local copies of it. A snapshot is replaced only if it still is what it was when
the fold lock was known to be held, so that of two machines that fold only one publishes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from roman_assets.archive.durability import (
    disk_space,
    locked,
    make_directory,
    private_directory,
    write_durably,
)
from roman_assets.archive.object_store import ConflictError, ObjectStore
from roman_assets.archive.store import sha256_of
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError

_READ_ONLY = 0o444
_LOCK = "fetch.lock"
_LINGERS = 3600.0
"""How long files stay that the newest snapshot does not name, s: somebody may come late."""
_AT_ONCE = 8


class SharedSnapshot:
    """The snapshot of one registry in the object store, and its copy here.

    Parameters
    ----------
    root
        An installation with an object store.
    snapshot
        Path of the local copy of the snapshot.
    files
        Directory of the local copies of the files it names.
    """

    def __init__(self, root: DataRoot, snapshot: Path, files: Path) -> None:
        assert root.object_store is not None
        self._root = root
        self._objects = ObjectStore(root.object_store)
        self._snapshot = snapshot
        self._files = files

    def fetch(self, named: Callable[[bytes], Collection[str]]) -> None:
        """Bring the copy up to the newest snapshot, with the files that it names.

        A file that is lost or damaged in the store is then missing here.

        Parameters
        ----------
        named
            Gives the names of the files that a snapshot names.
        """
        content = self._read()
        if content == _content(self._snapshot) and not self._lacking(content, named):
            return
        # Only who has the lock looks and writes, so that the copy never goes back.
        with locked(private_directory(self._snapshot.parent) / _LOCK):
            self._fetch_newest(named)

    def upload(self, path: Path, name: str) -> None:
        """Bring a file to the object store, before a snapshot names it.

        Parameters
        ----------
        path
            The file; it is whole and durable.
        name
            Its name there.
        """
        self._objects.upload(path, self._root.key(self._files / name), sha256_of(path))

    def publish(self, content: bytes, named: Collection[str], fence: Fence) -> None:
        """Publish a new snapshot to readers on all machines at once; the fold lock is held.

        Parameters
        ----------
        content
            The snapshot.
        named
            The files that it names; they are here, whole and durable.
        fence
            Of the fold lock.

        Raises
        ------
        PassingFaultError
            If another machine has taken the fold lock over; nothing is published.
        """
        key = self._root.key(self._snapshot)
        there = {_name(meta): meta["last_modified"].timestamp() for meta in self._listed()}
        for name in set(named) - there.keys():
            self.upload(self._files / name, name)
        before = self._objects.meta(key)
        fence.confirm()
        try:
            if before is None:
                self._objects.put_new(key, content)
            else:
                self._objects.replace(key, content, str(before["e_tag"]))
        except ConflictError as error:
            raise PassingFaultError(
                f"another machine has published the registry of {self._objects.url} while this "
                "one folded. Remedy: none is needed; the committed records are safe, and the next "
                "fold finishes"
            ) from error
        # By the clock of the store, in which nobody's clock can be wrong.
        horizon = self._published_at(key) - _LINGERS
        self._objects.delete(
            self._root.key(self._files / name)
            for name, written_at in there.items()
            if name not in named and written_at < horizon
        )

    def _published_at(self, key: str) -> float:
        meta = self._objects.meta(key)
        return 0.0 if meta is None else float(meta["last_modified"].timestamp())

    def _fetch_newest(self, named: Callable[[bytes], Collection[str]]) -> None:
        incomplete = None
        while (content := self._read()) is not None:
            complete = self._fetch(self._lacking(content, named))
            if complete or content == incomplete:
                with disk_space(self._snapshot):
                    write_durably(self._snapshot, content, mode=_READ_ONLY)
                self._remove_copies(named(content))
                return
            # The files of a snapshot go some time after a later one is published.
            incomplete = content
        self._snapshot.unlink(missing_ok=True)

    def _lacking(
        self, content: bytes | None, named: Callable[[bytes], Collection[str]]
    ) -> list[str]:
        names = () if content is None else named(content)
        return [name for name in names if not (self._files / name).exists()]

    def _read(self) -> bytes | None:
        try:
            return self._objects.read(self._root.key(self._snapshot))[0]
        except FileNotFoundError:
            return None

    def _listed(self) -> list[Any]:
        return list(self._objects.list(self._root.key(self._files)))

    def _fetch(self, names: Collection[str]) -> bool:
        """Fetch files; False if one of them is lost or damaged."""
        with disk_space(self._files), ThreadPoolExecutor(_AT_ONCE) as threads:
            make_directory(self._files)
            return all(threads.map(self._fetch_one, names))

    def _fetch_one(self, name: str) -> bool:
        path = self._files / name
        draft = path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            found = self._objects.download(self._root.key(path), draft)
            stored = self._objects.sha256(self._root.key(path))
            if stored is None or stored[0] != found:
                return False
            draft.chmod(_READ_ONLY)
            draft.replace(path)
        except FileNotFoundError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _remove_copies(self, named: Collection[str]) -> None:
        horizon = time.time() - _LINGERS
        for path in self._files.glob("*"):
            with suppress(FileNotFoundError):
                if path.name not in named and path.stat().st_mtime < horizon:
                    path.unlink()


def _name(meta: Any) -> str:
    return Path(meta["path"]).name


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
