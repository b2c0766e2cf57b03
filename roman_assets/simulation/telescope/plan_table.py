"""The table of a survey plan: one row an exposure, with the columns of the published plans."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureId, OpticalElement, Survey, VisitId
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.planned_exposure import (
    TYPE_OF_ELEMENT,
    PlannedExposure,
    Pointing,
)

PLAN_COLUMNS: tuple[str, ...] = (
    "RA", "DEC", "PA", "BANDPASS", "MA_TABLE_NUMBER", "DURATION", "PLAN", "PASS", "SEGMENT",
    "OBSERVATION", "VISIT", "EXPOSURE", "EXPOSURE_TIME", "TARGET_NAME",
)  # fmt: skip
"""Columns of the survey plans that APT exports (``.sim.ecsv``)."""

_INTEGERS = frozenset(
    {"MA_TABLE_NUMBER", "PLAN", "PASS", "SEGMENT", "OBSERVATION", "VISIT", "EXPOSURE"}
)
_NUMBERS = _INTEGERS | {"RA", "DEC", "PA", "DURATION"}


def check_columns(path: Path, table: Table) -> None:
    """Raise `BadInputError` if a column is missing or has a value that cannot be."""
    missing = [name for name in PLAN_COLUMNS if name not in table.colnames]
    if missing:
        raise BadInputError(path, ", ".join(missing), "column is missing", "export the plan again")
    for name in PLAN_COLUMNS:
        if getattr(table[name], "mask", None) is not None and np.any(table[name].mask):
            raise BadInputError(path, name, "a value is missing", "fill every row")
        _check_type(path, name, np.asarray(table[name]))
    elements = set(table["BANDPASS"].tolist())
    unknown = sorted(elements - set(OpticalElement))
    if unknown:
        raise BadInputError(
            path, "BANDPASS", f"unknown optical elements {unknown}",
            f"use {', '.join(OpticalElement)}",
        )  # fmt: skip
    for number in set(table["MA_TABLE_NUMBER"].tolist()):
        ma_table(number)
    if np.any(np.abs(table["DEC"]) > 90) or np.any(table["DURATION"] <= 0):
        raise BadInputError(path, "DEC, DURATION", "a value is out of range", "correct the plan")


def _check_type(path: Path, name: str, values: NDArray[Any]) -> None:
    if name in _INTEGERS and values.dtype.kind not in "iu":
        raise BadInputError(path, name, f"{values.dtype} values", "give integers")
    if name in _NUMBERS and (values.dtype.kind not in "iuf" or not np.all(np.isfinite(values))):
        raise BadInputError(path, name, "a value is not a number", "give finite numbers")


def planned_rows(
    path: Path,
    table: Table,
    program: int,
    survey: Survey,
    start: datetime,
    detectors: tuple[str, ...],
) -> list[PlannedExposure]:
    """Return the exposures of a table, in its order."""
    columns = {name: table[name].tolist() for name in PLAN_COLUMNS}
    starts = np.concatenate([[0.0], np.cumsum(table["DURATION"])]).tolist()
    keys = list(
        zip(*(columns[n] for n in ("PLAN", "PASS", "SEGMENT", "OBSERVATION", "VISIT")), strict=True)
    )
    counts: dict[tuple[int, ...], int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    try:
        visits = {key: VisitId(program, *key) for key in counts}
        ids = [ExposureId(visits[k], n) for k, n in zip(keys, columns["EXPOSURE"], strict=True)]
    except ValueError as error:
        raise BadInputError(path, "PLAN to EXPOSURE", str(error), "correct the plan") from error
    if len(set(ids)) != len(ids):
        raise BadInputError(path, "EXPOSURE", "an exposure appears twice", "number them anew")
    elements = {name: OpticalElement(name) for name in set(columns["BANDPASS"])}
    return [
        PlannedExposure(
            ids[row],
            survey,
            TYPE_OF_ELEMENT[elements[columns["BANDPASS"][row]]],
            elements[columns["BANDPASS"][row]],
            Pointing(columns["RA"][row], columns["DEC"][row], columns["PA"][row]),
            columns["MA_TABLE_NUMBER"][row],
            start + timedelta(seconds=starts[row]),
            timedelta(seconds=columns["DURATION"][row]),
            columns["TARGET_NAME"][row],
            counts[keys[row]],
            detectors,
        )
        for row in range(len(table))
    ]
