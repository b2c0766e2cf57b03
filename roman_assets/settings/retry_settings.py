"""The pauses between runs that fail: the default ones, unless a settings file replaces them.

``retries.toml`` below the data root::

    version = 1
    first_minutes = 2
    most_minutes = 60
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from roman_assets.data_root import DataRoot
from roman_assets.products.retry import RetryPauses
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "retries.toml"
_REMEDY = (
    "write version = 1, first_minutes and most_minutes, numbers from 0.1 to 10000 "
    "(docs/operating.md), or remove the file for the default pauses"
)
_Minutes = Annotated[float, Field(ge=0.1, le=10_000, allow_inf_nan=False)]
_MINUTE = timedelta(minutes=1)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    first_minutes: _Minutes = RetryPauses.first / _MINUTE
    most_minutes: _Minutes = RetryPauses.most / _MINUTE

    @model_validator(mode="after")
    def _grow(self) -> Self:
        if self.most_minutes < self.first_minutes:
            raise ValueError("most_minutes is less than first_minutes")
        return self


def retry_pauses_of(root: DataRoot) -> RetryPauses:
    """Read the pauses between runs of an installation that fail.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    if settings is None:
        return RetryPauses()
    return RetryPauses(settings.first_minutes * _MINUTE, settings.most_minutes * _MINUTE)
