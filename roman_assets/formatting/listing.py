"""What has changed in the landing directory since it was last listed.

Files are renamed into a directory, which changes its modification time; another file of a name is
another inode, which a listing gives away without asking for each file. So a look lists the
directories that have changed, and asks for the files that are new. All files are asked for once in
a while: for those that were changed in place, against the rule, or whose inode was given away twice
in between. Links to directories are not followed, as one may lead in a circle: they count as files
that cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from roman_assets.formatting.file_content import FileVersion

ALL_ASKED_EVERY_S = 600.0

SETTLED_AFTER_S = 2.0
"""A directory that changed less long ago may change again within one tick of its clock."""

NOT_OF_THE_FILE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of any file there is, when the process or the machine has no room left."""


@dataclass(frozen=True)
class ListingChanges:
    """What a look at the directory found.

    Parameters
    ----------
    present
        Files that are new, replaced, or not known to be in the index.
    gone
        Names of files that were there.
    everything
        Whether all files there are were asked for, and are in `present`.
    unreadable
        Directories that cannot be listed, with the reason. What was known of them still counts.
    """

    present: dict[str, FileVersion]
    gone: frozenset[str]
    everything: bool
    unreadable: dict[str, OSError]


@dataclass
class _Directory:
    """One directory as it was last listed; names are those below the landing directory."""

    known: dict[str, int] = field(default_factory=dict)
    """Inodes of the files that are in the index."""
    found: dict[str, int] = field(default_factory=dict)
    """Those of the files that are not known to be."""
    directories: list[str] = field(default_factory=list)
    settled: tuple[int, int] | None = None
    """Inode and modification time (ns) with which it has been listed for good."""

    def has_news(self, version: tuple[int, int]) -> bool:
        """Whether it has to be listed."""
        return self.settled != version or bool(self.found)


@dataclass
class DirectoryListing:
    """A memory of the files below a directory that are in its index.

    Parameters
    ----------
    directory
        The directory.
    """

    directory: Path
    _directories: dict[str, _Directory] = field(default_factory=dict)
    _index: int | None = None
    _asked: float = 0.0

    def look(self, index: int) -> ListingChanges:
        """List what has changed.

        Parameters
        ----------
        index
            Identifies the index: with another one nothing is known.
        """
        now = time.monotonic()
        everything = index != self._index or now - self._asked > ALL_ASKED_EVERY_S
        if everything:
            self._directories, self._index, self._asked = {}, index, now
        present: dict[str, FileVersion] = {}
        gone: set[str] = set()
        there: set[str] = set()
        unreadable: dict[str, OSError] = {}
        to_look = [""]
        while to_look:
            place = to_look.pop()
            directory = self._directories.setdefault(place, _Directory())
            try:
                gone |= self._listed(place, directory, present)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if not place or error.errno in NOT_OF_THE_FILE:
                    raise
                unreadable[place] = error
                there |= {
                    known for known in self._directories if f"{known}/".startswith(f"{place}/")
                }
                continue
            there.add(place)
            to_look += directory.directories
        for place in self._directories.keys() - there:
            gone |= self._directories.pop(place).known.keys()
        return ListingChanges(present, frozenset(gone), everything, unreadable)

    def _listed(
        self, place: str, directory: _Directory, present: dict[str, FileVersion]
    ) -> set[str]:
        """List a directory if it has news; give the names of files that were there."""
        status = (self.directory / place).stat()
        version = (status.st_ino, status.st_mtime_ns)
        if not directory.has_news(version):
            return set()
        quiet = time.time() - status.st_mtime > SETTLED_AFTER_S
        directory.settled = version if quiet else None
        directory.found, directory.directories = {}, []
        names = set()
        for name, entry in self._entries(place):
            if directory.known.get(name) == entry.inode():
                names.add(name)
                continue
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    directory.directories.append(name)
                    continue
                found = status_of(entry)
                present[name] = FileVersion(name, found.st_size, found.st_mtime_ns)
                directory.found[name] = entry.inode()
                names.add(name)
        gone = directory.known.keys() - names
        for name in gone:
            del directory.known[name]
        return gone

    def confirm(self, name: str) -> None:
        """Note that a file is in the index as it was found."""
        parent = PurePosixPath(name).parent.as_posix()
        directory = self._directories["" if parent == "." else parent]
        directory.known[name] = directory.found.pop(name)

    def _entries(self, place: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        below = f"{place}/" if place else ""
        with os.scandir(self.directory / place) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield f"{below}{entry.name}", entry


def status_of(file: os.DirEntry[str] | Path) -> os.stat_result:
    """Return the status of a file; that of the link itself if it leads to no file.

    A link to a directory would otherwise seem to change with every entry of that directory.
    """
    try:
        found = file.stat()
    except OSError:
        return file.stat(follow_symlinks=False)
    return file.stat(follow_symlinks=False) if stat.S_ISDIR(found.st_mode) else found
