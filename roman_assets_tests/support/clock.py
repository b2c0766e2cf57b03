"""A clock for real programs that a test sets forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path


class Clock:
    """How far the clock of the programs that are started with it is off; they look each second.

    Durations (`time.monotonic`, time limits) and the times of files stay those of the machine.

    Parameters
    ----------
    file
        Where libfaketime reads it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._off = timedelta()
        self.set_off(timedelta())

    def set_off(self, off: timedelta) -> None:
        """Put the clock so far off the true time."""
        self._off = off
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{off.total_seconds():+.0f}\n")
        draft.replace(self._file)

    def advance(self, by: timedelta) -> None:
        """Put the clock forward."""
        self.set_off(self._off + by)

    def now(self) -> datetime:
        """Return the time that the programs see, UTC."""
        return datetime.now(UTC) + self._off

    @property
    def environment(self) -> dict[str, str]:
        """What a program is started with to go by this clock."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def _library() -> Path:
    return Path(str(files("libfaketime"))) / "vendor/libfaketime/src/libfaketime.so.1"
