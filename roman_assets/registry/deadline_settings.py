"""The deadlines of an installation: the specification's, unless a settings file replaces them.

``deadlines.toml`` below the data root holds what differs, row by row::

    version = 1

    [L1]
    origin = "execution"     # or "receipt"
    latency_hours = 36
    warning_hours = 6
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import DEADLINES, ClockOrigin, Deadline
from roman_assets.products.kind import Level

FILE_NAME = "deadlines.toml"
VERSION = 1


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    origin: ClockOrigin | None = None
    latency_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    warning_hours: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def applied_to(self, default: Deadline) -> Deadline:
        """Give the deadline with what this row replaces."""
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
    """Give the table of deadlines of an installation.

    Parameters
    ----------
    root
        The installation.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    path = root.path / FILE_NAME
    try:
        text = path.read_text()
    except FileNotFoundError:
        return DEADLINES
    settings = _parsed(path, text)
    return {
        level: getattr(settings, level.value).applied_to(default)
        for level, default in DEADLINES.items()
    }


def _parsed(path: Path, text: str) -> _Settings:
    try:
        return _Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _unusable(path, "file", f"no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _unusable(path, field, f"{first['msg']} (found {first['input']!r})") from error


def _unusable(path: Path, field: str, reason: str) -> BadInputError:
    return BadInputError(
        path, field, reason,
        f"write version = {VERSION} and tables [L1] to [L4] with origin, latency_hours and "
        "warning_hours (docs/deadlines.md), or remove the file for the specification's deadlines",
    )  # fmt: skip


def _hours(hours: float | None, default: timedelta) -> timedelta:
    return default if hours is None else timedelta(hours=hours)
