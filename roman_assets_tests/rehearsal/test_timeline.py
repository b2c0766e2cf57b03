from __future__ import annotations

import numpy as np
import pytest

from roman_assets.products.kind import Step
from roman_assets.rehearsal.rehearsal import Scenario
from roman_assets.rehearsal.timeline import Timeline, longest_wait
from roman_assets_tests.support.plans import machines, night, times


def test_the_hours_of_work_add_up_to_what_the_attempts_took() -> None:
    rehearsal = Scenario(night([2] * 20), times=times(1, 3600, 1800)).rehearse(machines(3))
    timeline = Timeline.of(rehearsal.log, rehearsal.platform)
    spent = sum(
        one.ended - one.started for one in rehearsal.log.attempts if one.step is not Step.FORMATTING
    )
    assert timeline.busy.sum() * 3600 == pytest.approx(spent)
    assert 2.9 < timeline.busiest_day <= timeline.busy.max() <= 3 + 1e-9


def test_the_queue_is_counted_and_empties() -> None:
    rehearsal = Scenario(night([1] * 20), times=times(1, 3600, 1800)).rehearse(machines(1))
    timeline = Timeline.of(rehearsal.log, rehearsal.platform)
    assert timeline.queued[0] == 0
    assert 10 < timeline.longest_queue <= 20
    assert timeline.queued[-1] == 0
    waits = np.array([run.started - run.queued for run in rehearsal.log.runs])
    assert longest_wait(rehearsal.log) == pytest.approx(waits.max() / 3600)
