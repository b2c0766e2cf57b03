from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from roman_assets.products.deadline import DEADLINES, ClockOrigin
from roman_assets.products.kind import Level


@pytest.mark.parametrize(
    ("level", "origin", "hours"),
    [
        (Level.L1, ClockOrigin.RECEIPT, 24),
        (Level.L2, ClockOrigin.RECEIPT, 48),
        (Level.L3, ClockOrigin.EXECUTION, 5 * 24),
        (Level.L4, ClockOrigin.EXECUTION, 7 * 24),
    ],
)
def test_each_level_is_due_when_the_specification_says(
    level: Level, origin: ClockOrigin, hours: int
) -> None:
    start = datetime(2027, 2, 28, 23, tzinfo=UTC)
    assert DEADLINES[level].origin is origin
    assert DEADLINES[level].due(start) == start + timedelta(hours=hours)
