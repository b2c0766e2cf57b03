from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.retry import FailedRuns, RetryPauses
from roman_assets.settings.retry_settings import retry_pauses_of

ENDED = datetime(2027, 6, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_pauses_double_up_to_the_longest() -> None:
    pauses = RetryPauses()
    minutes = [pauses.after(number) / MINUTE for number in (1, 2, 3, 4, 5, 6, 7, 10_000)]
    assert minutes == [2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("after", "paused"), [(-60, False), (0, True), (1.9, True), (2, False)])
def test_a_clock_that_is_set_back_makes_no_pause_longer(after: float, paused: bool) -> None:
    failed = FailedRuns(total=3, in_a_row=1, ended=ENDED, reason="a full disk")
    until = failed.paused_until(RetryPauses(), ENDED + after * MINUTE)
    assert until == (ENDED + 2 * MINUTE if paused else None)


def test_after_a_run_that_did_not_fail_there_is_no_pause() -> None:
    failed = FailedRuns(total=3, in_a_row=0, ended=ENDED, reason="")
    assert failed.paused_until(RetryPauses(), ENDED) is None


@pytest.mark.parametrize(
    "text", ["version = 1\nfirst_minutes = 0", "version = 1\nfirst_minutes = 70", "first = 1"]
)
def test_pauses_that_cannot_be_used_are_named(tmp_path, text: str) -> None:
    root = DataRoot(tmp_path)
    (tmp_path / "retries.toml").write_text(text)
    with pytest.raises(BadInputError, match=r"retries\.toml"):
        retry_pauses_of(root)
