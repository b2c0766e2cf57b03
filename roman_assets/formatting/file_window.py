"""A file of any size, read one part at a time.

A file that is truncated while it is mapped ends the process that looks at it (SIGBUS). Read, it is
bad input.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import BinaryIO

from roman_assets.errors import BadInputError

HELD = 4 << 20
"""Bytes of a file that are in memory at once."""


@dataclass
class FileWindow:
    """The bytes of a file, by their offset.

    Parameters
    ----------
    stream
        The file, opened for reading. Nobody else moves its position.
    source
        Its name in errors.

    Attributes
    ----------
    size
        Bytes of the file when it was opened; what is appended later does not count.
    """

    stream: BinaryIO
    source: object
    size: int = field(init=False)
    _start: int = field(default=0, init=False, repr=False)
    _held: memoryview = field(default=memoryview(b""), init=False, repr=False)

    def __post_init__(self) -> None:
        self.size = self.stream.seek(0, os.SEEK_END)

    def at(self, offset: int, length: int) -> memoryview:
        """Return bytes of the file, fewer at its end.

        Parameters
        ----------
        offset
            Of the first byte.
        length
            Number of bytes, at most `HELD`.

        Raises
        ------
        BadInputError
            If the file was truncated since it was opened.
        """
        return self._from(offset, length)[:length]

    def search(self, pattern: re.Pattern[bytes], offset: int, width: int) -> int:
        """Return the offset of the first match at or after an offset, or the file's size.

        The time it takes is proportional to the bytes passed over.

        Parameters
        ----------
        pattern
            What to look for.
        offset
            Where to begin.
        width
            Bytes of the longest match, at least 1.

        Raises
        ------
        BadInputError
            If the file was truncated since it was opened.
        """
        while offset < self.size:
            part = self._from(offset, width)
            found = pattern.search(part)
            if found:
                return offset + found.start()
            offset += max(len(part) - width + 1, 1)
        return self.size

    def _from(self, offset: int, least: int) -> memoryview:
        """Return what is in memory from an offset on, and at least so many bytes of the file."""
        end = min(offset + least, self.size)
        if offset < self._start or end > self._start + len(self._held):
            self._read(offset)
        return self._held[offset - self._start :]

    def _read(self, offset: int) -> None:
        self.stream.seek(offset)
        length = min(HELD, self.size - offset)
        content = self.stream.read(length)
        if len(content) < length:
            raise BadInputError(
                self.source, "size",
                f"it became shorter while it was read: {self.stream.seek(0, os.SEEK_END)} bytes "
                f"of {self.size} are left",
                "deliver it again, by a rename once it is whole",
            )  # fmt: skip
        self._start, self._held = offset, memoryview(content)
