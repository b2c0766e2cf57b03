"""How long the folds and merges of the last hours took: a short file beside the registry.

It is for operators only, and no part of the truth: a lost file or line loses nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

from roman_assets.archive.durability import private_directory, write_durably
from roman_assets.data_root import DataRoot

TIMINGS = "timings.jsonl"
MOST_BYTES = 1 << 17
"""Size of the file beyond which its older half is dropped: more than a thousand works are kept."""

_log = logging.getLogger(__name__)


class TimedWork(StrEnum):
    """Work on the registry whose duration is kept."""

    FOLD = "fold"
    MERGE = "merge"


@dataclass(frozen=True)
class Timing:
    """One piece of work.

    Parameters
    ----------
    work
        What was done.
    ended
        When, UTC.
    seconds
        How long it took, without waiting for the lock.
    """

    work: TimedWork
    ended: datetime
    seconds: float


@contextmanager
def timed(root: DataRoot, work: TimedWork) -> Iterator[None]:
    """Write down how long the block took, unless it fails.

    A file that cannot be written is reported in the log: the work is done all the same.
    """
    began = time.monotonic()
    yield
    timing = Timing(work, datetime.now(UTC), round(time.monotonic() - began, 6))
    try:
        _append(root, timing)
    except OSError as error:
        _log.warning("how long a %s took could not be written down: %s", work, error)


def recent_timings(root: DataRoot, since: datetime) -> list[Timing]:
    """Return the works that ended since a time, oldest first; damaged lines are left out."""
    try:
        lines = (root.registry / TIMINGS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            fields = json.loads(line)
            timing = Timing(
                TimedWork(fields["work"]),
                datetime.fromisoformat(fields["ended"]),
                float(fields["seconds"]),
            )
            if timing.ended >= since:
                found.append(timing)
    return found


def _append(root: DataRoot, timing: Timing) -> None:
    path = private_directory(root.registry) / TIMINGS
    line = json.dumps(asdict(timing) | {"ended": timing.ended.isoformat()}).encode() + b"\n"
    with path.open("ab") as file:
        # one write, so that lines of several processes do not mix
        os.write(file.fileno(), line)
        size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        lines = path.read_bytes().splitlines(keepends=True)
        write_durably(path, b"".join(lines[len(lines) // 2 :]))
