"""What an operator may set for the automation, by environment variables of the code server."""

from __future__ import annotations

import os
from datetime import timedelta

from roman_assets.errors import BadInputError
from roman_assets.products.visit_policy import VisitReserve

RESERVE_VARIABLE = "ROMAN_ASSETS_VISIT_RESERVE_HOURS"
"""Reserve of visits before the deadline of L3, hours. Measured by default."""
WINDOW_VARIABLE = "ROMAN_ASSETS_PARTITION_WINDOW_DAYS"
"""Days without change after which partition keys are deleted, 60 by default."""
SSC_RESERVE_VARIABLE = "ROMAN_ASSETS_SSC_RESERVE_HOURS"
"""Hours left to its deadline when the SSC gets a partial visit, 72 by default."""

SSC_RUN_VARIABLE = "ROMAN_ASSETS_SSC_RUN_HOURS"
"""Hours after which a run is ended that takes in deliveries of the SSC, or runs a command in its
place; 6 by default."""
RUN_HISTORY_VARIABLE = "ROMAN_ASSETS_RUN_HISTORY_DAYS"
"""Days after which Dagster's runs of exposures and visits that are put away are deleted, 180 by
default."""

DEFAULT_WINDOW = timedelta(days=60)
DEFAULT_SSC_RESERVE = timedelta(hours=72)
DEFAULT_SSC_RUN = timedelta(hours=6)
DEFAULT_RUN_HISTORY = timedelta(days=180)

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def visit_reserve() -> VisitReserve:
    """Return how the reserve of visits is chosen: measured, or as ``RESERVE_VARIABLE`` says.

    Raises
    ------
    BadInputError
        If the variable is not a positive number.
    """
    hours = _positive(RESERVE_VARIABLE)
    if hours is None:
        return VisitReserve()
    fixed = timedelta(hours=hours)
    return VisitReserve(least=fixed, most=fixed)


def ssc_reserve() -> timedelta:
    """Return how long before its products are due the SSC gets a partial visit.

    Raises
    ------
    BadInputError
        If the variable is not a positive number.
    """
    return _time(SSC_RESERVE_VARIABLE, _HOUR, DEFAULT_SSC_RESERVE)


def longest_ssc_run() -> timedelta:
    """Return after which time run monitoring ends a run that serves the SSC.

    Raises
    ------
    BadInputError
        If the variable is not a positive number.
    """
    return _time(SSC_RUN_VARIABLE, _HOUR, DEFAULT_SSC_RUN)


def partition_window() -> timedelta:
    """Return how long Dagster keeps the keys of exposures and visits that are done.

    Raises
    ------
    BadInputError
        If the variable is not a positive number.
    """
    return _time(WINDOW_VARIABLE, _DAY, DEFAULT_WINDOW)


def run_history() -> timedelta:
    """Return how long Dagster keeps the runs of exposures and visits that are put away.

    Raises
    ------
    BadInputError
        If the variable is not a positive number.
    """
    return _time(RUN_HISTORY_VARIABLE, _DAY, DEFAULT_RUN_HISTORY)


def _time(variable: str, unit: timedelta, default: timedelta) -> timedelta:
    number = _positive(variable)
    return default if number is None else number * unit


def _positive(variable: str) -> float | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise BadInputError(
            "environment", variable, f"{text!r} is not a positive number", "set one, or unset it"
        )
    return number
