"""Ratios as every benchmark prints them, with what they were before, so that a loss is seen.

``benchmarks/ratios.csv`` has a row for each value that docs/performance.md has stated: the ratio,
the day and the commit of the statement, the value. Add a row when you state another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parents[1] / "ratios.csv"


@dataclass(frozen=True)
class Stated:
    """A value that was stated before."""

    ratio: str
    date: str
    commit: str
    value: float


def history(table: Path = TABLE) -> Iterator[Stated]:
    """Yield the values that were stated before, by ratio and day."""
    with table.open(newline="") as rows:
        for row in csv.DictReader(rows):
            yield Stated(row["ratio"], row["date"], row["commit"], float(row["value"]))


def lines(name: str, value: float, table: Path = TABLE) -> list[str]:
    """Return what is printed of a ratio: its earlier values, whether it fell, and the ratio.

    Parameters
    ----------
    name
        Of the ratio.
    value
        The alternative over ours: higher is better.
    table
        Of earlier values.
    """
    before = [one for one in history(table) if one.ratio == name]
    printed = [f"  {one.date} {one.commit}: {one.value:.3f}" for one in before]
    if before and value < before[-1].value:
        printed.append(f"  lower than {before[-1].value:.3f} of {before[-1].date}")
    return [*printed, f"ratio {name}: {value:.3f} (alternative / ours, higher is better)"]


def print_ratio(name: str, value: float) -> None:
    """Print a ratio below its earlier values."""
    print("\n".join(lines(name, value)), flush=True)
