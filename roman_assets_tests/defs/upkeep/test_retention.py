from __future__ import annotations

import dagster as dg
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.upkeep.schedules import retention_schedule, retention_sweep
from roman_assets.errors import PlatformError
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.small_products import (
    damage,
    installed_with_release,
    public_content,
    skycell_set,
)


def run(root, **options) -> dg.ExecuteInProcessResult:
    return retention_sweep.execute_in_process(
        resources={"installation": Installation(data_root=str(root.path))}, **options
    )


def test_the_daily_sweep_removes_what_is_due_and_says_so(tmp_path):
    root = installed_with_release(DataRoot(tmp_path))
    result = run(root)
    assert not set(skycell_set(1)) & set(public_content(root))
    (row,) = Registry(root).generations.of([skycell_set(1)[1]])[skycell_set(1)[1]]
    assert row.state == "removed"
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    told = output.step_output_data.metadata
    assert told["removed"].value == 4
    assert told["removed_bytes"].value > 0


def test_the_sweep_fails_aloud_when_damage_keeps_it_from_freeing_bytes(tmp_path):
    root = installed_with_release(DataRoot(tmp_path))
    (segment, *_) = Journal(root).segments()
    damage(segment, b"rubbish\n")
    with pytest.raises(PlatformError, match=r"no bytes were freed.*fsck --mend"):
        run(root)


def test_the_sweep_is_scheduled_without_a_touch():
    assert retention_schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert retention_schedule.job.name == retention_sweep.name
