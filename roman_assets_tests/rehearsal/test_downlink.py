from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.rehearsal.fault import FaultRates, Faults
from roman_assets.rehearsal.ground import NEVER, Downlink, receipts
from roman_assets_tests.support.plans import night

HOUR_S = 3600.0
SLOW = Downlink(rate=1e6)
"""An exposure of three detectors and six resultants takes 356 s."""


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50), st.sampled_from([0.0, 0.2, 0.6]), st.integers(1, 60))
def test_packets_come_in_order_during_contacts_that_were_not_lost(
    seed: int, rate: float, visits: int
) -> None:
    faults = Faults(night([2] * visits, spacing_s=900), FaultRates(lost_contacts=rate), seed)
    received = receipts(SLOW, faults)
    assert np.all(faults.observations.end <= received.first_packet)
    assert np.all(received.first_packet < received.last_packet)
    assert np.all(received.last_packet[:-1] <= received.first_packet[1:])
    for moment in (*received.first_packet, *received.last_packet):
        assert moment % (12 * HOUR_S) <= 6 * HOUR_S
    lost = set(np.flatnonzero(faults.lost_contacts(400)).tolist())
    assert not lost & {int(moment // (12 * HOUR_S)) for moment in received.first_packet}


def test_what_does_not_fit_a_contact_goes_on_in_the_next() -> None:
    faults = Faults(night([1] * 100, spacing_s=1), FaultRates(), 0)
    received = receipts(SLOW, faults)
    spans = received.last_packet - received.first_packet
    broken = spans > 6 * HOUR_S
    assert broken.sum() == 1
    assert spans[~broken] == pytest.approx(355.5)
    assert received.last_packet.max() == pytest.approx(60 + 100 * 355.5 + 6 * HOUR_S, abs=1e-6)


def test_late_packets_come_with_the_next_contact() -> None:
    faults = Faults(night([1, 1]), FaultRates(late_packets=1.0), 0)
    assert receipts(Downlink(), faults).last_packet.tolist() == [12 * HOUR_S] * 2


def test_late_ancillary_data_hold_up_all_exposures_of_a_visit() -> None:
    observations = night([2] * 200)
    usual = receipts(Downlink(), Faults(observations, FaultRates(), 0)).ancillary
    faults = Faults(observations, FaultRates(late_ancillary=0.5), 0)
    late = receipts(Downlink(), faults).ancillary - usual
    assert np.all(late[::2] == late[1::2])
    assert (late > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert late[late > 0].mean() == pytest.approx(24 * HOUR_S, rel=0.3)
    last = observations.end[1::2]
    assert usual[1::2] == pytest.approx(last + 2 * HOUR_S)


def test_what_is_lost_or_not_executed_is_never_received() -> None:
    faults = Faults(night([4] * 50), FaultRates(lost_exposures=0.2, cut_short=0.5), 0)
    received = receipts(Downlink(), faults)
    assert np.all((received.all_received == NEVER) == (faults.lost | ~faults.executed))
    assert np.all(np.isfinite(received.ancillary) == faults.executed)


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"contact_length": timedelta()}, "contact_length"),
        ({"contact_length": timedelta(hours=13)}, "contact_length"),
        ({"rate": 0.0}, "rate"),
        ({"ancillary_delay": timedelta(hours=-1)}, "ancillary_delay"),
    ],
)
def test_a_downlink_that_cannot_be_is_refused(settings_: dict[str, object], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        Downlink(**settings_)  # type: ignore[arg-type]
