"""The retention of an installation: the standard period, unless a settings file replaces it.

``retention.toml`` below the data root says how many days prompt L3 and their L4 stay after they
were superseded::

    version = 1
    days = 180

    [surveys]
    HLTDS = 30
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from roman_assets.data_root import DataRoot
from roman_assets.products.observation import Survey
from roman_assets.products.retention_policy import STANDARD_PERIOD, RetentionPeriods
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "retention.toml"
_LONGEST = 100_000
_REMEDY = (
    "write version = 1, days = a number, and in a table [surveys] the number of days of each "
    "survey that differs (docs/reprocessing.md), or remove the file for the standard period"
)
_Days = Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    days: _Days = STANDARD_PERIOD / timedelta(days=1)
    surveys: dict[Survey, _Days] = Field(default_factory=dict)


def retention_periods_of(root: DataRoot) -> RetentionPeriods:
    """Return how long superseded products of an installation stay.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    if settings is None:
        return RetentionPeriods()
    return RetentionPeriods(
        timedelta(days=settings.days),
        {survey: timedelta(days=days) for survey, days in settings.surveys.items()},
    )
