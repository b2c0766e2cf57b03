"""Plans that are repeated, as the published month of a survey of years is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from roman_assets.errors import BadInputError
from roman_assets_tests.support.plans import night

NIGHT = night([2, 3])


def test_repetitions_have_identities_of_their_own_one_after_the_other() -> None:
    repeated = NIGHT.repeated(3)
    identities = [planned.exposure for planned in repeated.exposures]
    assert len(set(identities)) == 3 * len(NIGHT.exposures)
    assert len(repeated.visits) == 3 * len(NIGHT.visits)
    starts = [planned.start for planned in repeated.exposures]
    assert starts == sorted(starts)
    assert all(
        later.start >= before.end
        for before, later in zip(repeated.exposures[4::5], repeated.exposures[5::5], strict=False)
    )


def test_a_repetition_is_planned_as_the_plan_is() -> None:
    repeated = NIGHT.repeated(2)
    length = NIGHT.exposures[-1].end - NIGHT.epoch
    for number, planned in enumerate(NIGHT.exposures):
        later = repeated.exposures[len(NIGHT.exposures) + number]
        assert later.end - planned.end == length > timedelta()
        assert later.nexposures == planned.nexposures
        assert later.ma_table is planned.ma_table
        assert repeated.skycells[len(NIGHT.exposures) + number] == NIGHT.skycells[number]


@pytest.mark.parametrize("times", [0, 101])
def test_repetitions_without_numbers_are_refused(times: int) -> None:
    with pytest.raises(BadInputError, match="repeat"):
        NIGHT.repeated(times)
