"""What has changed in the landing directory since it was last listed.

Files are renamed into the directory, so another file of a name is another inode, which the listing
of a directory gives away without asking for each file. All files are asked for once in a while: for
those that were changed in place, against the rule, or whose inode was given away twice in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from roman_assets.pipelines.formatting.inventory import FileVersion

ALL_ASKED_EVERY_S = 600.0


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
    """

    present: dict[str, FileVersion]
    gone: frozenset[str]
    everything: bool


@dataclass
class DirectoryListing:
    """A memory of the files of a directory that are in its index.

    Parameters
    ----------
    directory
        The directory.
    """

    directory: Path
    _known: dict[str, int] = field(default_factory=dict)
    _found: dict[str, int] = field(default_factory=dict)
    _index: int | None = None
    _asked: float = 0.0

    def look(self, index: int) -> ListingChanges:
        """List the directory.

        Parameters
        ----------
        index
            Identifies the index: with another one nothing is known.
        """
        now = time.monotonic()
        everything = index != self._index or now - self._asked > ALL_ASKED_EVERY_S
        if everything:
            self._known, self._index, self._asked = {}, index, now
        self._found = {}
        present: dict[str, FileVersion] = {}
        names = set()
        for entry in self._entries():
            names.add(entry.name)
            inode = entry.inode()
            if self._known.get(entry.name) == inode:
                continue
            with suppress(FileNotFoundError):
                if entry.is_file():
                    status = entry.stat()
                    present[entry.name] = FileVersion(
                        entry.name, status.st_size, status.st_mtime_ns
                    )
                    self._found[entry.name] = inode
        gone = frozenset(self._known.keys() - names)
        for name in gone:
            del self._known[name]
        return ListingChanges(present, gone, everything)

    def confirm(self, name: str) -> None:
        """Note that a file is in the index as it was found."""
        self._known[name] = self._found[name]

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.directory) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
