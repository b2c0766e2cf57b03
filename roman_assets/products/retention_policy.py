"""How long prompt L3 and their L4 stay after a data release has superseded them (R13, R14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from roman_assets.products.observation import Survey

STANDARD_PERIOD = timedelta(days=90)
"""The specification leaves it to be decided."""


@dataclass(frozen=True)
class RetentionPeriods:
    """The time from being superseded to being removed.

    Parameters
    ----------
    standard
        Where nothing else is said.
    surveys
        What replaces it, by survey.
    """

    standard: timedelta = STANDARD_PERIOD
    surveys: Mapping[Survey, timedelta] = field(default_factory=dict)

    def of(self, survey: str | None) -> timedelta:
        """Return the period of a survey; of an unknown one the longest there is."""
        if survey in list(Survey):
            return self.surveys.get(Survey(survey), self.standard)
        return max([self.standard, *self.surveys.values()])
