from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import Attempt, Outcome
from roman_assets.registry.store.fold import fold
from roman_assets.rehearsal.processing import WHOLE_DETECTORS, StepTime, measured_times
from roman_assets_tests.support.small_products import VISIT, association, cal, exposure, record_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def publish(root: DataRoot, step: Step, names: list[str], seconds: float, number: int) -> None:
    record = record_of(
        root,
        {name: name.encode() for name in names},
        step=step,
        partition=VISIT if step is Step.VISIT else exposure(number),
        attempt=Attempt(attempt_id=f"{step}{number}", outcome=Outcome.FINISHED),
        events={
            ClockEvent.STARTED: START,
            ClockEvent.FINISHED: START + timedelta(seconds=seconds),
        },
    )
    Journal(root).write(record)
    fold(root)


def test_measured_times_are_those_of_one_worker_on_one_unit(tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    assert measured_times(root, 2) is None
    ramps = [cal(1, detector).replace("_cal", "_uncal") for detector in (1, 2, 3)]
    publish(root, Step.FORMATTING, [*ramps, f"{exposure()}_f158_face.asdf"], 6, 1)
    publish(root, Step.EXPOSURE, [cal(1, 1), cal(1, 1).replace("_cal", "_segm"), cal(1, 2)], 50, 1)
    publish(root, Step.EXPOSURE, [cal(2, 1)], 40, 2)
    assert measured_times(root, 2) is None
    publish(root, Step.VISIT, [association(cell) for cell in range(5)], 100, 1)
    found = measured_times(root, 2)
    assert found is not None
    assert found[Step.FORMATTING].worker_seconds == (2.0,)  # one detector after the other
    assert sorted(found[Step.EXPOSURE].worker_seconds) == [40.0, 50.0]
    assert found[Step.VISIT].worker_seconds == (40.0,)
    assert str(tmp_path) in found[Step.EXPOSURE].source


def test_workers_share_the_units_of_a_step_and_one_unit_is_not_shared() -> None:
    time = StepTime((100.0, 200.0), "test")
    assert [time.duration(18, workers, 0.0) for workers in (1, 2, 18, 36)] == [
        1800, 900, 100, 100,
    ]  # fmt: skip
    assert time.duration(18, 2, 0.5) == 1800
    assert time.median == 150
    assert StepTime((5.0,), "test", parallel=False).duration(18, 2, 0.9) == 90


@pytest.mark.parametrize("seconds", [(), (0.0,), (5.0, -1.0)])
def test_times_that_are_none_are_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(BadInputError, match="worker_seconds"):
        StepTime(seconds, "test")


def test_the_documented_times_name_their_source() -> None:
    documents = Path(__file__).parents[2]
    for step, time in WHOLE_DETECTORS.items():
        page = documents / time.source.partition(":")[0]
        text = page.read_text()
        assert all(f"{seconds:g} s" in text for seconds in time.worker_seconds), step
