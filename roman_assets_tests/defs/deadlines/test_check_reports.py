from __future__ import annotations

from datetime import timedelta

from dagster import AssetCheckEvaluation, AssetCheckKey, AssetKey, DagsterInstance

from roman_assets.defs.deadlines.check_reports import ReportedState, report, reported_states

MORE_THAN_SQLITE_TAKES_AT_ONCE = 130_000
"""Partitions that Dagster would name twice in one statement; the most is 250,000 on Debian."""


def test_what_checks_said_is_found_however_many_partitions_are_asked_for():
    check = AssetCheckKey(AssetKey("cal"), "in_time")
    partitions = [f"r{number:06d}" for number in range(MORE_THAN_SQLITE_TAKES_AT_ONCE)]
    told = [
        AssetCheckEvaluation(
            asset_key=check.asset_key, check_name=check.name, passed=True, metadata={},
            partition=partition,
        )
        for partition in (partitions[0], partitions[-1])
    ]  # fmt: skip
    with DagsterInstance.local_temp() as instance:
        report(instance, told, timedelta(minutes=1))
        found = reported_states(instance, {(check, partition) for partition in partitions})
    assert found == {(check, one.partition): ReportedState(passed=True) for one in told}
