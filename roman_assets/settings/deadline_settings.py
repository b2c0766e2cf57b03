"""The deadlines of an installation: the specification's, unless a settings file replaces them.

``deadlines.toml`` below the data root holds what differs, row by row::

    version = 1

    [L1]
    origin = "execution"     # or "receipt"
    latency_hours = 36
    warning_hours = 6
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import DEADLINES, ClockOrigin, Deadline
from roman_assets.products.kind import Level
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "deadlines.toml"
VERSION = 1
_LONGEST = 100_000
_REMEDY = (
    f"write version = {VERSION} and tables [L1] to [L4] with origin, latency_hours and "
    "warning_hours (docs/deadlines.md), or remove the file for the specification's deadlines"
)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    origin: ClockOrigin | None = None
    latency_hours: float | None = Field(default=None, gt=0, le=_LONGEST, allow_inf_nan=False)
    warning_hours: float | None = Field(default=None, ge=0, le=_LONGEST, allow_inf_nan=False)

    def applied_to(self, default: Deadline) -> Deadline:
        """Return the deadline with what this row replaces."""
        return Deadline(
            self.origin or default.origin,
            _hours(self.latency_hours, default.latency),
            _hours(self.warning_hours, default.warning),
        )


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    L1: _Row = _Row()
    L2: _Row = _Row()
    L3: _Row = _Row()
    L4: _Row = _Row()


def deadlines_of(root: DataRoot) -> Mapping[Level, Deadline]:
    """Return the table of deadlines of an installation.

    Parameters
    ----------
    root
        The installation.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    if settings is None:
        return DEADLINES
    return {
        level: getattr(settings, level.value).applied_to(default)
        for level, default in DEADLINES.items()
    }


def _hours(hours: float | None, default: timedelta) -> timedelta:
    return default if hours is None else timedelta(hours=hours)
