from __future__ import annotations

import numpy as np
import pytest

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.rehearsal.fault import FaultRates, Faults
from roman_assets_tests.support.plans import night

OBSERVATIONS = night([3] * 300)


def happenings(faults: Faults) -> dict[str, np.ndarray]:
    return {
        "lost_contacts": faults.lost_contacts(300),
        "late_packets": faults.late_packets,
        "lost_exposures": faults.lost,
        "cut_short": ~faults.executed,
        "late_ancillary": faults.ancillary_delay > 0,
        "bad_input": faults.bad_input,
        "failed_detectors": faults.failed_detectors,
        "passing_faults": faults.passing(Step.EXPOSURE),
        "lost_workers": faults.lost_workers(Step.VISIT),
    }


@pytest.mark.parametrize("name", FaultRates.names())
def test_a_fault_happens_at_its_rate_and_to_more_at_a_higher_one(name: str) -> None:
    rare, often = (
        happenings(Faults(OBSERVATIONS, FaultRates(**{name: rate}), 1)) for rate in (0.05, 0.3)
    )
    assert not (rare[name] & ~often[name]).any()
    expected = 0.3 / 2 if name == "cut_short" else 0.3  # one or two of three exposures are cut
    assert often[name].mean() == pytest.approx(expected, abs=0.06)
    for other in set(often) - {name}:
        assert not often[other].any()


def test_another_seed_hits_others_and_another_rate_does_not() -> None:
    first, second = (happenings(Faults(OBSERVATIONS, FaultRates.all_at(0.2), s)) for s in (1, 2))
    alone = happenings(Faults(OBSERVATIONS, FaultRates(bad_input=0.2), 1))
    assert (first["bad_input"] != second["bad_input"]).any()
    assert (first["bad_input"] == alone["bad_input"]).all()


def test_a_visit_that_is_cut_short_keeps_its_first_exposures() -> None:
    executed = Faults(OBSERVATIONS, FaultRates(cut_short=1.0), 0).executed.reshape(-1, 3)
    assert executed[:, 0].all()
    assert not executed[:, 2].any()
    assert (executed[:, 1] <= executed[:, 0]).all()


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", FaultRates.names())
def test_a_rate_that_is_no_fraction_is_refused(name: str, rate: float) -> None:
    with pytest.raises(BadInputError, match=name):
        FaultRates(**{name: rate})
