"""Each detector has a clock of its own, which starts at the cut-off where packets are lost (R2)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Step
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names, visit_names
from roman_assets_tests.support.small_products import VISIT, exposure

EXPOSURE = exposure()
CUT_OFF = 12
OTHERS = {"WFI01": 1.0, "FACE": 1.0}
"""Who is in when WFI02 is not."""


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return Facts(DataRoot(tmp_path / "data"))


def ledger(facts: Facts, hour: float, **conditions: object) -> pd.DataFrame:
    facts.fold()
    with Registry(facts.root) as registry:
        return registry.deadlines.ledger(now=at(hour), **conditions)


def of_detector(found: pd.DataFrame, detector: str) -> pd.DataFrame:
    return found[found["detector"] == detector]


def states(found: pd.DataFrame) -> dict[str, set[str]]:
    of = found["detector"].fillna("FACE")
    return {name: set(group["state"]) for name, group in found.groupby(of)}


def names(kinds: tuple[str, ...], *detectors: str) -> list[str]:
    return exposure_names(EXPOSURE, kinds, detectors)


def second_detector_is_lost(facts: Facts, packets: float | None = None) -> None:
    facts.receipt(packets=packets, first_packet=0, arrivals=OTHERS, cut_off=CUT_OFF)


def others_are_made(facts: Facts) -> None:
    facts.published(Step.FORMATTING, EXPOSURE, names(L1, "WFI01"), start=2, end=3)
    facts.published(Step.EXPOSURE, EXPOSURE, names(L2, "WFI01"), start=3, end=4)


LOST = f"{EXPOSURE}_wfi02_f158"


def loss_is_recorded(facts: Facts, start: float = 13) -> None:
    facts.published(
        Step.FORMATTING, EXPOSURE, [], start=start, end=start + 0.5, failed=[LOST],
        error="LostPacketsError",
    )  # fmt: skip


def test_a_detector_is_due_by_its_own_packets_while_another_is_awaited(facts: Facts) -> None:
    second_detector_is_lost(facts)
    found = ledger(facts, 2, partition=EXPOSURE, kind=["uncal", "face"])
    assert states(found) == {
        "WFI01": {ProductState.QUEUED},
        "FACE": {ProductState.QUEUED},
        "WFI02": {ProductState.WAITING_FOR_DOWNLINK},
    }
    assert set(of_detector(found, "WFI01")["due"]) == {pd.Timestamp(at(1 + 24))}
    assert of_detector(found, "WFI02")["due"].isna().all()
    late = ledger(facts, 26, partition=EXPOSURE, kind=["uncal", "face"])
    assert states(late)["WFI01"] == states(late)["FACE"] == {ProductState.OVERDUE}
    assert set(of_detector(late, "WFI01")["blame"]) == {Blame.QUEUE}


def test_the_clock_of_lost_packets_starts_at_the_cut_off_and_the_downlink_is_blamed(
    facts: Facts,
) -> None:
    second_detector_is_lost(facts)
    others_are_made(facts)
    found = ledger(facts, 5, partition=EXPOSURE)
    assert states(found)["WFI01"] == states(found)["FACE"] == {ProductState.MADE_IN_TIME}
    assert states(found)["WFI02"] == {ProductState.WAITING_FOR_DOWNLINK}
    loss_is_recorded(facts)
    found = ledger(facts, 40, partition=EXPOSURE)
    assert states(found)["WFI01"] == states(found)["FACE"] == {ProductState.MADE_IN_TIME}
    lost = of_detector(found, "WFI02")
    assert set(lost["state"]) == {ProductState.FAILED}
    assert lost["reason"].str.startswith("LostPacketsError").all()
    uncal = lost[lost["kind"] == "uncal"]
    assert set(uncal["due"]) == {pd.Timestamp(at(CUT_OFF + 24))}
    assert set(uncal["blame"]) == {Blame.DOWNLINK}
    assert set(uncal["downlink_hours"]) == {40 - CUT_OFF}
    late = of_detector(ledger(facts, 70, partition=EXPOSURE, kind="cal"), "WFI02")
    assert set(late["due"]) == {pd.Timestamp(at(CUT_OFF + 48))}
    assert set(late["blame"]) == {Blame.DOWNLINK}


def test_a_lost_detector_that_nobody_has_formatted_is_overdue(facts: Facts) -> None:
    second_detector_is_lost(facts)
    others_are_made(facts)
    found = ledger(facts, CUT_OFF + 25, kind="uncal", partition=EXPOSURE)
    assert states(found)["WFI02"] == {ProductState.OVERDUE}


def test_lost_face_holds_up_no_detector_and_is_blamed_on_the_downlink(facts: Facts) -> None:
    facts.receipt(packets=None, first_packet=0, arrivals={"WFI01": 1, "WFI02": 1}, cut_off=CUT_OFF)
    made = [name for name in exposure_names(EXPOSURE, L1) if "_face" not in name]
    facts.published(Step.FORMATTING, EXPOSURE, made, start=2, end=3)
    facts.published(Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, L2), start=3, end=4)
    facts.published(
        Step.FORMATTING, EXPOSURE, [], start=13, end=13.5, failed=[f"{EXPOSURE}_f158"],
        error="LostPacketsError",
    )  # fmt: skip
    found = ledger(facts, 40, partition=EXPOSURE)
    assert states(found) == {
        "WFI01": {ProductState.MADE_IN_TIME},
        "WFI02": {ProductState.MADE_IN_TIME},
        "FACE": {ProductState.FAILED},
    }
    (face,) = found[found["kind"] == "face"].to_dict("records")
    assert (face["blame"], face["downlink_hours"]) == (Blame.DOWNLINK, 40 - CUT_OFF)


def test_what_arrives_late_is_due_by_its_own_arrival(facts: Facts) -> None:
    second_detector_is_lost(facts)
    others_are_made(facts)
    loss_is_recorded(facts)
    second_detector_is_lost(facts, packets=38)
    found = ledger(facts, 39, partition=EXPOSURE, kind=["uncal", "cal"])
    assert states(found)["WFI02"] == {ProductState.QUEUED}
    facts.published(Step.FORMATTING, EXPOSURE, names(L1, "WFI02"), start=39, end=40)
    facts.published(Step.EXPOSURE, EXPOSURE, names(L2, "WFI02"), start=40, end=41)
    found = ledger(facts, 170, partition=EXPOSURE)
    assert set(found["state"]) == {ProductState.MADE_IN_TIME}
    due = of_detector(found, "WFI02").set_index("kind")["due"]
    assert due["uncal"] == pd.Timestamp(at(38 + 24))
    assert due["cal"] == pd.Timestamp(at(38 + 48))
    (l4,) = of_detector(found, "WFI02").query("kind == 'exposure_catalog'").to_dict("records")
    assert (l4["downlink_hours"], l4["queue_hours"], l4["computation_hours"]) == (38, 1, 2)


def test_an_l1_made_in_part_keeps_its_verdict_when_the_rest_arrives(facts: Facts) -> None:
    second_detector_is_lost(facts)
    others_are_made(facts)
    facts.published(
        Step.FORMATTING, EXPOSURE, names(("uncal", "guide_window"), "WFI02"), start=13, end=14
    )
    before = of_detector(ledger(facts, 20, partition=EXPOSURE, kind="uncal"), "WFI02")
    second_detector_is_lost(facts, packets=60)
    facts.published(
        Step.FORMATTING, EXPOSURE, names(("uncal", "guide_window"), "WFI02"), start=61, end=62,
        queued=60.5,
    )  # fmt: skip
    found = of_detector(ledger(facts, 70, partition=EXPOSURE, kind="uncal"), "WFI02")
    first, second = found.sort_values("generation").to_dict("records")
    (kept,) = before.to_dict("records")
    for column in ("state", "due", "made", "downlink_hours", "queue_hours", "computation_hours"):
        assert first[column] == kept[column]
    assert first["due"] == pd.Timestamp(at(CUT_OFF + 24))
    assert (first["queue_hours"], first["computation_hours"]) == (1, 1)
    assert second["state"] == ProductState.MADE_IN_TIME
    assert second["started_at"] == pd.Timestamp(at(60.5))


def test_a_visit_does_not_wait_for_what_is_recorded_as_lost(facts: Facts) -> None:
    second_detector_is_lost(facts)
    others_are_made(facts)
    waiting = ledger(facts, 5, visit=VISIT, kind="coadd")
    assert set(waiting["state"]) == {ProductState.WAITING_FOR_DOWNLINK}
    loss_is_recorded(facts)
    found = ledger(facts, 14, visit=VISIT, kind="coadd")
    assert set(found["state"]) == {ProductState.QUEUED}
    facts.published(Step.VISIT, VISIT, visit_names(), start=15, end=16)
    (coadd,) = ledger(facts, 17, visit=VISIT, kind="coadd").to_dict("records")
    assert coadd["state"] == ProductState.MADE_IN_TIME
    assert (coadd["downlink_hours"], coadd["queue_hours"]) == (CUT_OFF, 3)
