"""A look that fails forgets nothing: wherever it fails, the same is asked for afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from dagster import AssetCheckKey, DagsterInstance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roman_assets.data_root import DataRoot
from roman_assets.defs.deadlines import sensors as deadlines
from roman_assets.defs.deadlines.check_reports import reported_states
from roman_assets.defs.deadlines.sensors import deadline_sensor
from roman_assets.defs.exposure.sensors import landing_sensor
from roman_assets.defs.lib.in_time_check import CHECKS
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.ssc.handover_sensor import handover_sensor
from roman_assets.defs.visit.sensors import visit_sensor
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureType
from roman_assets.records.record import Outcome
from roman_assets_tests.support import small_products as installation
from roman_assets_tests.support.call_faults import InjectedFault, calls_counted
from roman_assets_tests.support.facts import Facts, at
from roman_assets_tests.support.sky import VISIT, Sky, exposure_key
from roman_assets_tests.support.ticks import Ticks

FIRST, SECOND, SPECTRAL = exposure_key(1), exposure_key(2), exposure_key(1, f"{VISIT[:-1]}2")
SENSORS: Mapping[str, Any] = {
    "landing": landing_sensor,
    "visits": visit_sensor,
    "handover": handover_sensor,
}

Calls = Mapping[tuple[int, str], int]
"""How many calls each look makes, by stage and sensor."""


def first_arrives(sky: Sky) -> None:
    sky.receive(FIRST)
    sky.process(SPECTRAL, exposure_type=ExposureType.WFI_SPECTRAL)
    sky.receive(SECOND, complete=False)


def first_is_made_and_second_arrives(sky: Sky) -> None:
    sky.end_runs()
    sky.format(FIRST)
    sky.calibrate(FIRST)
    sky.receive(SECOND)


def second_is_made(sky: Sky) -> None:
    sky.end_runs()
    sky.format(SECOND)
    sky.calibrate(SECOND)


def visit_is_made_and_first_comes_again(sky: Sky) -> None:
    sky.end_runs()
    sky.mosaic(VISIT, FIRST, SECOND)
    sky.receive(FIRST, "again")


STAGES: tuple[Callable[[Sky], None], ...] = (
    first_arrives,
    first_is_made_and_second_arrives,
    second_is_made,
    visit_is_made_and_first_comes_again,
)


@contextmanager
def place() -> Iterator[tuple[DataRoot, DagsterInstance, pytest.MonkeyPatch]]:
    with (
        TemporaryDirectory() as directory,
        DagsterInstance.ephemeral() as instance,
        pytest.MonkeyPatch.context() as patch,
    ):
        yield DataRoot(Path(directory)), instance, patch


def asked_for(sky: Sky) -> tuple[list[str], ...]:
    """What the sensors have asked for, and have told the SSC."""
    told = (sky.root.path / "ssc" / "to_ssc").glob("*/*.json")
    return (
        sorted(run.tags["dagster/run_key"] for run in sky.instance.get_runs()),
        sorted(sky.instance.get_dynamic_partitions("exposure")),
        sorted(sky.instance.get_dynamic_partitions("visit")),
        sorted(json.loads(path.read_text())["digest"] for path in told),
    )


def observed(parts: Sequence[float]) -> tuple[list[tuple[list[str], ...]], Calls]:
    """Play all stages. Before each look that succeeds, one fails after each of the parts.

    Return the requests by the end of each stage, and the calls of each look.
    """
    seen, calls = [], {}
    with place() as (root, instance, patch):
        sky = Sky(root, instance, patch)
        for stage, happens in enumerate(STAGES):
            happens(sky)
            for name, sensor in SENSORS.items():
                for part in parts:
                    fail(sky, sensor, round(part * without_fault()[1][stage, name]))
                with calls_counted() as counted:
                    sky.look(sensor)
                calls[stage, name] = counted.number
            seen.append(asked_for(sky))
        sky.restart()
        for sensor in SENSORS.values():
            sky.look(sensor)
        seen.append(asked_for(sky))
    return seen, calls


def fail(sky: Sky, sensor: Any, call: int) -> None:
    """Fail at a call of the package, or at last by losing the results."""
    with calls_counted(call) as counted:
        try:
            sky.lose(sensor)
        except InjectedFault:
            return
    assert counted.number < call or call == 0 or counted.in_clean_up, "the fault was swallowed"


@cache
def without_fault() -> tuple[list[tuple[list[str], ...]], Calls]:
    return observed(())


def test_a_new_process_asks_for_nothing_more() -> None:
    *_, before, after = without_fault()[0]
    assert before == after
    assert all(before)


def of(number: int) -> settings:
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


@of(1)
@given(st.lists(st.floats(0.05, 1), min_size=5, max_size=5))
def test_wherever_looks_fail_the_same_is_asked_for_afterwards(parts: list[float]) -> None:
    assert observed([*parts, 2.0])[0] == without_fault()[0]


@pytest.mark.slow
@of(40)
@given(st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_wherever_many_looks_fail_the_same_is_asked_for_afterwards(parts: list[float]) -> None:
    assert observed(parts)[0] == without_fault()[0]


class At:
    """A clock that stands."""

    def __init__(self, hour: float) -> None:
        self._hour = hour

    def now(self, zone: tzinfo) -> datetime:
        return at(self._hour).astimezone(zone)


def test_checks_are_reported_wherever_looks_at_the_deadlines_have_failed() -> None:
    keys = [installation.exposure(number) for number in (1, 2)]
    wanted = {(CHECKS[step, level], key) for step, level in CHECKS for key in keys}
    said = []
    for fatal in ((), range(1, 2000, 20)):
        with place() as (root, instance, patch):
            facts, ticks = Facts(root), Ticks(root, instance)
            for key in keys:
                facts.receipt(key)
            facts.attempt(Step.FORMATTING, keys[0], start=2, end=3, outcome=Outcome.BAD_INPUT)
            facts.fold()
            patch.setattr(deadlines, "datetime", At(27))
            for call in fatal:
                try:
                    with calls_counted(call), ticks.look(deadline_sensor):
                        break
                except InjectedFault:
                    continue
            with ticks.look(deadline_sensor):
                said.append(reported_states(instance, wanted))
    assert said[0] == said[1]
    assert (AssetCheckKey.from_user_string("uncal:in_time"), keys[0]) in said[0]


class Counted(Remembered):
    """Remembers a number."""

    def __init__(self, root: DataRoot) -> None:
        self.numbers: dict[str, int] = {}


class Cursor:
    """A tick in which only the cursor matters."""

    cursor: str | None = None

    def update_cursor(self, cursor: str | None) -> None:
        self.cursor = cursor


def looked(memory: SensorMemory, root: DataRoot, tick: Cursor) -> dict[str, int]:
    with memory.look(tick, Counted, root) as counted:
        counted.numbers["n"] = counted.numbers.get("n", 0) + 1
        return counted.numbers


def test_a_look_goes_on_from_the_last_one_whose_results_have_arrived(root: DataRoot) -> None:
    memory, tick, lost = SensorMemory(), Cursor(), Cursor()
    assert looked(memory, root, tick) == {"n": 1}
    lost.cursor = tick.cursor
    assert looked(memory, root, lost) == {"n": 2}
    assert looked(memory, root, tick) == {"n": 2}
    with pytest.raises(InjectedFault), memory.look(tick, Counted, root) as counted:
        counted.numbers["n"] = 99
        raise InjectedFault
    assert looked(memory, root, tick) == {"n": 3}
    assert looked(SensorMemory(), root, tick) == {"n": 1}


def test_a_look_does_not_begin_while_one_is_at_work(root: DataRoot) -> None:
    memory, tick = SensorMemory(), Cursor()
    faults = []

    def another() -> None:
        try:
            looked(memory, root, Cursor())
        except PassingFaultError as fault:
            faults.append(fault)

    with memory.look(tick, Counted, root) as counted:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
        counted.numbers["n"] = 1
    assert len(faults) == 1
    assert looked(memory, root, tick) == {"n": 2}
