from __future__ import annotations

from roman_assets_tests.support.shards import SHARDS, TABLE, assigned, durations

WORKERS = 2
SHARD_MINUTES = 20
"""The suite takes a dozen minutes, all of `.ci/run` less than 40."""

LONGEST_UNIT_MINUTES = 15
LONGER = {"reprocessing/test_story.py", "defs/ssc/test_ssc_story.py"}
"""One night of the real daemon each, which cannot begin in its middle."""


def test_the_table_names_tests_that_there_are() -> None:
    for unit in durations():
        place, _, name = unit.partition("[")[0].partition("::")
        content = (TABLE.parents[1] / place).read_text()
        first = name.partition("::")[0]
        assert not first or f"def {first}(" in content or f"class {first}(" in content, unit


def test_every_unit_is_in_one_shard_and_no_shard_is_too_long() -> None:
    seconds = durations()
    shards = assigned(seconds)
    assert shards.keys() == seconds.keys()
    assert set(shards.values()) == set(range(SHARDS))
    for shard in range(SHARDS):
        length = sum(seconds[unit] for unit in seconds if shards[unit] == shard)
        assert length / WORKERS < SHARD_MINUTES * 60, shard


def test_no_unit_takes_long_by_itself_but_those_that_are_named() -> None:
    long = {unit for unit, time in durations().items() if time > LONGEST_UNIT_MINUTES * 60}
    assert long <= LONGER
    assert max(durations().values()) < SHARD_MINUTES * 60
