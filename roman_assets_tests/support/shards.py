"""The slow tests in eight shards of about one length: `.ci/run` takes another each time.

`slow_durations.json` says how long the units take that take more than a minute. A unit is what runs
in one process, test after test: a module with only slow tests (a story that goes on from
test to test), or else one test; with one value of its parameters, if the table names it so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

SHARDS = 8
USUAL_S = 30.0
"""Assumed duration, s, of units missing from the table."""

TABLE = Path(__file__).with_name("slow_durations.json")


def durations() -> dict[str, float]:
    """Return the seconds that units take alone on two idle cores, roughly."""
    found: dict[str, float] = json.loads(TABLE.read_text())
    return found


def unit_of(item: pytest.Item, known: Mapping[str, float]) -> str | None:
    """Return the unit of a slow test, None of another one."""
    if item.get_closest_marker("slow") is None:
        return None
    module = item.getparent(pytest.Module)
    whole = module is not None and module.get_closest_marker("slow") is not None
    place = item.path.relative_to(Path(__file__).parents[1]).as_posix()
    name, bracket, values = item.nodeid.partition("::")[2].partition("[")
    unit = place if whole else f"{place}::{name}"
    with_values = f"{unit}{bracket}{values}"
    return with_values if with_values in known else unit


def assigned(seconds: Mapping[str, float]) -> dict[str, int]:
    """Assign each unit to a shard: the longest first, each to the shortest shard so far."""
    lengths = [0.0] * SHARDS
    shards = {}
    for unit in sorted(seconds, key=lambda unit: (-seconds[unit], unit)):
        shard = lengths.index(min(lengths))
        shards[unit] = shard
        lengths[shard] += seconds[unit]
    return shards


def keep_shard(items: list[pytest.Item], shard: int) -> list[pytest.Item]:
    """Leave the slow tests of a shard in the list.

    Returns
    -------
    list
        The tests that were taken out.
    """
    known = durations()
    units = {item: unit for item in items if (unit := unit_of(item, known)) is not None}
    shards = assigned(dict.fromkeys(units.values(), USUAL_S) | known)
    kept, out = [], []
    for item in items:
        (kept if item in units and shards[units[item]] == shard else out).append(item)
    items[:] = kept
    return out


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Order slow tests so that two workers end at about one time; units keep their order."""
    known = durations()
    return sorted(items, key=lambda item: -known.get(unit_of(item, known) or "", USUAL_S))
