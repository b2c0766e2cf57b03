from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import (
    KIND_BY_NAME,
    KINDS,
    Maker,
    Scope,
    Step,
    expected_kinds,
)
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.records.record import Outcome
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names, visit_names
from roman_assets_tests.support.small_products import VISIT, exposure
from roman_assets_tests.support.timelines import Visit, visits

EXPOSURE = exposure()


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return Facts(DataRoot(tmp_path / "data"))


def ledger(facts: Facts, hour: float, **conditions: object) -> pd.DataFrame:
    facts.fold()
    with Registry(facts.root) as registry:
        return registry.deadlines.ledger(now=at(hour), **conditions)


def states(facts: Facts, hour: float, **conditions: object) -> set[str]:
    return set(ledger(facts, hour, **conditions)["state"])


def spent(frame: pd.DataFrame) -> dict[str, float]:
    """Give the hours put to each blame, which all rows must share."""
    hours = frame[[f"{blame}_hours" for blame in Blame]].round(6).drop_duplicates()
    (row,) = hours.to_dict("records")
    return {name.removesuffix("_hours"): value for name, value in row.items() if value}


def calibrated(facts: Facts, partition: str = EXPOSURE, *, end: float = 5, **receipt) -> None:
    """An exposure that was received, formatted and calibrated without any fault."""
    facts.receipt(partition, **receipt)
    facts.published(
        Step.FORMATTING, partition, exposure_names(partition, L1), start=2, end=3, queued=1
    )
    facts.published(Step.EXPOSURE, partition, exposure_names(partition, L2), start=4, end=end)


def test_an_exposure_without_faults_is_made_in_time(facts: Facts) -> None:
    calibrated(facts)
    found = ledger(facts, 6, partition=EXPOSURE)
    assert len(found) == 5 + 8
    assert set(found["state"]) == {ProductState.MADE_IN_TIME}
    due = found.groupby("kind")["due"].unique()
    assert {kind: [time.to_pydatetime() for time in times] for kind, times in due.items()} == {
        "uncal": [at(1 + 24)], "guide_window": [at(1 + 24)], "face": [at(1 + 24)],
        "cal": [at(1 + 48)], "supplement": [at(1 + 48)],
        "exposure_catalog": [at(7 * 24)], "exposure_segmentation": [at(7 * 24)],
    }  # fmt: skip


def test_the_supplement_is_due_when_the_l2_is_that_it_is_made_with(facts: Facts) -> None:
    calibrated(facts, end=40)
    found = ledger(facts, 41, kind="supplement")
    assert set(found["level"]) == {"L1"}
    assert set(found["state"]) == {ProductState.MADE_IN_TIME}
    assert set(found["margin_hours"]) == {1 + 48 - 40}


def test_hours_from_the_clocks_start_to_publication_are_put_to_something(facts: Facts) -> None:
    calibrated(facts)
    found = ledger(facts, 6)
    l2 = found[found["kind"] == "cal"]
    assert spent(l2) == {"queue": 2, "computation": 2}
    l4 = found[found["kind"] == "exposure_catalog"]
    assert spent(l4) == {"downlink": 1, "queue": 2, "computation": 2}


def test_late_packets_are_blamed_on_the_downlink(facts: Facts) -> None:
    facts.receipt(packets=None, ancillary=1)
    assert states(facts, 20, level="L1") == {ProductState.WAITING_FOR_DOWNLINK}
    facts.receipt(packets=170, ancillary=1)
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=171, end=172)
    facts.published(Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, L2), start=172, end=173)
    found = ledger(facts, 200, partition=EXPOSURE)
    late = found[found["level"] == "L4"]
    assert set(late["state"]) == {ProductState.MADE_LATE}
    assert set(late["blame"]) == {Blame.DOWNLINK}
    assert spent(late) == {"downlink": 170, "queue": 1, "computation": 2}
    assert set(found[found["level"] != "L4"]["state"]) == {ProductState.MADE_IN_TIME}


def test_a_late_ma_table_is_blamed_on_ancillary_data(facts: Facts) -> None:
    facts.receipt(packets=None, ancillary=None, lacks_packets=False)
    assert states(facts, 20, level="L1") == {ProductState.WAITING_FOR_ANCILLARY}
    facts.receipt(packets=1, ancillary=180)
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=181, end=182)
    facts.published(Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, L2), start=182, end=183)
    late = ledger(facts, 200, level="L4", partition=EXPOSURE)
    assert set(late["blame"]) == {Blame.ANCILLARY}
    assert spent(late) == {"downlink": 1, "ancillary": 179, "queue": 1, "computation": 2}


def test_a_slow_run_is_blamed_on_computation(facts: Facts) -> None:
    calibrated(facts, end=60)
    late = ledger(facts, 70, state=ProductState.MADE_LATE, level="L2")
    assert set(late["kind"]) == {"cal"}
    assert set(late["blame"]) == {Blame.COMPUTATION}
    assert set(late["margin_hours"]) == {49 - 60}


def test_a_long_queue_is_blamed_on_the_queue(facts: Facts) -> None:
    facts.receipt()
    assert states(facts, 20, partition=EXPOSURE) == {ProductState.QUEUED}
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=40, end=41)
    late = ledger(facts, 42, kind="uncal")
    assert set(late["blame"]) == {Blame.QUEUE}
    assert spent(late) == {"queue": 39, "computation": 1}


def test_attempts_that_fail_and_waits_between_are_blamed_on_retries(facts: Facts) -> None:
    facts.receipt()
    for start in (2, 10, 20):
        facts.attempt(Step.FORMATTING, start=start, end=start + 1, outcome=Outcome.PASSING_FAULT)
        assert states(facts, start + 2, kind="uncal") == {ProductState.QUEUED}
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=30, end=31)
    assert spent(ledger(facts, 42, kind="uncal")) == {"queue": 1, "retries": 28, "computation": 1}


def test_what_waits_for_a_repair_of_its_input_is_blamed_on_the_input(facts: Facts) -> None:
    facts.receipt()
    facts.attempt(Step.FORMATTING, start=2, end=3, outcome=Outcome.PASSING_FAULT)
    facts.attempt(Step.FORMATTING, start=4, end=5, outcome=Outcome.BAD_INPUT)
    broken = ledger(facts, 30, kind="uncal")
    assert set(broken["state"]) == {ProductState.FAILED}
    assert set(broken["blame"]) == {Blame.INPUT}
    assert spent(broken) == {"queue": 1, "retries": 2, "input": 26}
    facts.attempt(Step.FORMATTING, start=40, end=41, outcome=Outcome.PASSING_FAULT)
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=44, end=45)
    assert spent(ledger(facts, 50, kind="uncal")) == {
        "queue": 1, "retries": 2 + 4, "input": 36, "computation": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "blame"), [("BadInputError", "input"), ("PassingFaultError", "retries")]
)
def test_a_detector_made_later_than_the_others_is_blamed_on_what_it_failed_for(
    facts: Facts, error: str, blame: str
) -> None:
    facts.receipt()
    facts.published(
        Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1, ["WFI01"]), start=2, end=3,
        failed=[f"{EXPOSURE}_wfi02_f158"], error=error,
    )  # fmt: skip
    late = exposure_names(EXPOSURE, ["uncal"], ["WFI02"])
    facts.published(Step.FORMATTING, EXPOSURE, late, start=30, end=31)
    found = ledger(facts, 42, kind="uncal").set_index("detector")
    assert spent(found.loc[["WFI01"]]) == {"queue": 1, "computation": 1}
    assert spent(found.loc[["WFI02"]]) == {"queue": 1, blame: 28, "computation": 1}


def test_a_step_that_will_try_again_has_not_failed(facts: Facts) -> None:
    lost = {"names": [], "failed": [f"{EXPOSURE}_{d}_f158" for d in ("wfi01", "wfi02")]}
    facts.receipt()
    for start, state in ((2, ProductState.QUEUED), (12, ProductState.FAILED)):
        facts.attempt(
            Step.FORMATTING, start=start, end=start + 1, outcome=Outcome.FINISHED,
            error="PassingFaultError", last_try=state is ProductState.FAILED, **lost,
        )  # fmt: skip
        assert states(facts, start + 2, kind="uncal") == {state}


def test_bad_input_and_exhausted_retries_are_failures_with_their_reason(facts: Facts) -> None:
    facts.receipt()
    facts.attempt(Step.FORMATTING, start=2, end=3, outcome=Outcome.BAD_INPUT)
    found = ledger(facts, 4, partition=EXPOSURE)
    assert set(found["state"]) == {ProductState.FAILED}
    assert all("SomeError" in reason for reason in found["reason"])
    facts.attempt(Step.FORMATTING, start=5)
    assert states(facts, 6, kind="uncal") == {ProductState.RUNNING}
    facts.attempt(Step.FORMATTING, start=7, end=8, outcome=Outcome.PASSING_FAULT, last_try=True)
    assert states(facts, 9, kind=("uncal", "cal")) == {ProductState.FAILED}


def test_what_failed_for_a_passing_fault_says_when_it_is_tried_again(facts: Facts) -> None:
    facts.receipt()
    said = []
    for start in (2, 3, 5):
        facts.attempt(Step.FORMATTING, start=start, end=start + 0.5, outcome=Outcome.PASSING_FAULT)
        (reason,) = set(ledger(facts, start + 0.6, kind=("uncal", "cal"))["reason"])
        said.append(reason)
        assert states(facts, start + 0.6, kind="uncal") == {ProductState.QUEUED}
    assert said == [
        f"waits for retry {number} at 2027-06-01 {time} UTC after SomeError: "
        for number, time in ((1, "02:32"), (2, "03:34"), (3, "05:38"))
    ]
    facts.attempt(Step.FORMATTING, start=6)
    assert ledger(facts, 6.1, kind="uncal")["reason"].isna().all()
    facts.root.path.joinpath("retries.toml").write_text("version = 1\nfirst_minutes = 30\n")
    facts.attempt(Step.FORMATTING, start=7, end=8, outcome=Outcome.PASSING_FAULT)
    assert "retry 4 at 2027-06-01 09:00 UTC" in ledger(facts, 8.1, kind="uncal")["reason"].iloc[0]


def test_a_detector_that_failed_for_a_passing_fault_waits_for_a_retry(facts: Facts) -> None:
    facts.receipt()
    facts.published(
        Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=2, end=3,
    )  # fmt: skip
    facts.published(
        Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, L2, ["WFI01"]), start=3, end=4,
        failed=[f"{EXPOSURE}_wfi02_f158"], error="PassingFaultError",
    )  # fmt: skip
    found = ledger(facts, 5, kind="cal").set_index("detector").loc["WFI02"]
    assert found["state"] == ProductState.QUEUED
    assert "retry 1 at 2027-06-01 04:02 UTC after PassingFaultError: no stars" in found["reason"]


def test_a_run_that_vanished_counts_as_running_until_another_begins(facts: Facts) -> None:
    facts.receipt()
    facts.attempt(Step.FORMATTING, start=2)
    assert states(facts, 3, partition=EXPOSURE) == {ProductState.RUNNING}
    facts.published(Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1), start=10, end=11)
    assert spent(ledger(facts, 12, kind="uncal")) == {"queue": 1, "retries": 8, "computation": 1}


def test_one_failing_detector_fails_alone_and_takes_its_followers_along(facts: Facts) -> None:
    facts.receipt()
    facts.published(
        Step.FORMATTING, EXPOSURE, exposure_names(EXPOSURE, L1, ["WFI01"]), start=2, end=3,
        failed=[f"{EXPOSURE}_wfi02_f158"],
    )  # fmt: skip
    found = ledger(facts, 4, partition=EXPOSURE)
    by_detector = found[found["detector"].notna()].groupby(["detector", "step"])["state"].unique()
    assert {key: set(value) for key, value in by_detector.items()} == {
        ("WFI01", "formatting"): {"made in time"},
        ("WFI01", "exposure"): {"queued"},
        ("WFI02", "formatting"): {"failed"},
        ("WFI02", "exposure"): {"failed"},
    }
    facts.published(
        Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, L2, ["WFI01"]), start=4, end=5
    )
    visit = ledger(facts, 6, visit=VISIT, level="L3")
    assert set(visit["state"]) == {ProductState.QUEUED}


def test_what_is_not_made_when_due_is_overdue_and_says_what_it_waits_for(facts: Facts) -> None:
    facts.receipt()
    found = ledger(facts, 30, partition=EXPOSURE, kind=list(L1))
    assert set(found["state"]) == {ProductState.OVERDUE}
    assert set(found["stage"]) == {ProductState.QUEUED}
    assert set(found["margin_hours"]) == {-5}
    assert spent(found[found["kind"] == "uncal"]) == {"queue": 29}


def test_a_product_with_little_time_left_is_at_risk(facts: Facts) -> None:
    facts.receipt()
    assert not ledger(facts, 18, kind=list(L1))["at_risk"].any()
    assert ledger(facts, 20, kind=list(L1))["at_risk"].all()


def test_names_of_products_that_are_not_made_are_the_official_ones(facts: Facts) -> None:
    facts.receipt()
    found = ledger(facts, 2, partition=EXPOSURE)
    assert sorted(found["name"]) == sorted(exposure_names(EXPOSURE, (*L1, *L2)))


def test_an_exposure_known_by_packets_alone_waits_for_its_executed_visit(facts: Facts) -> None:
    facts.receipt(
        packets=None, ancillary=None, lacks_packets=False, survey=None, exposure_type=None,
        optical_element=None, detectors=(), nexposures=None,
    )  # fmt: skip
    found = ledger(facts, 2, partition=EXPOSURE)
    assert set(found["kind"]) == {"uncal", "guide_window", "face", "cal", "supplement"}
    assert set(found["state"]) == {ProductState.WAITING_FOR_ANCILLARY}


@pytest.mark.parametrize(
    ("survey", "exposure_type"),
    [(Survey.GBTDS, ExposureType.WFI_IMAGE), (Survey.HLWAS, ExposureType.WFI_SPECTRAL)],
)
def test_l3_and_l4_of_the_soc_are_not_expected_where_the_ssc_makes_them(
    facts: Facts, survey: Survey, exposure_type: ExposureType
) -> None:
    facts.receipt(survey=survey, exposure_type=exposure_type)
    found = ledger(facts, 900)
    by_soc = found["kind"].isin([kind.name for kind in KINDS if kind.maker is Maker.SOC])
    derived = found["level"].isin(["L3", "L4"])
    assert set(found[derived & by_soc]["state"]) == {ProductState.NOT_EXPECTED}
    assert set(found[~derived]["state"]) == {ProductState.OVERDUE}
    expected = {
        kind.name for kind in expected_kinds(survey, exposure_type) if kind.maker is Maker.SSC
    }
    assert set(found[~by_soc]["kind"]) == expected
    assert set(found[~by_soc]["state"]) == {ProductState.OVERDUE}


SPECTRAL = {"exposure_type": ExposureType.WFI_SPECTRAL, "optical_element": OpticalElement.F158}
SPECTRA = ("spec_location_table", "spec_individual_1d")
BULGE = {"survey": Survey.GBTDS}


def bulge_names(*kinds: str) -> list[str]:
    """Names of products that the SSC makes of the visit."""
    stems = {Scope.GROUP: "f158", Scope.GROUP_DETECTOR: "wfi01_f158"}
    found = (KIND_BY_NAME[f"microlensing_{kind}"] for kind in kinds)
    group = f"r{VISIT[1:6]}_p_v{VISIT[6:]}"
    return [f"{group}_{stems[kind.scope]}_{kind.suffix}.{kind.extension}" for kind in found]


def test_what_is_handed_over_waits_for_the_ssc_and_its_hours_are_counted_apart(
    facts: Facts,
) -> None:
    calibrated(facts, **SPECTRAL)
    delivered = {"kind": "spec_individual_1d"}
    assert states(facts, 6, **delivered) == {ProductState.QUEUED}
    facts.handed_over(EXPOSURE, 7)
    found = ledger(facts, 10, **delivered)
    assert set(found["state"]) == {ProductState.WAITING_FOR_SSC}
    assert sorted(found["detector"]) == ["WFI01", "WFI02"]
    assert spent(found) == {"downlink": 1, "queue": 1 + 1 + 2, "computation": 2, "ssc": 3}
    late = ledger(facts, 7 * 24 + 1, **delivered)
    assert set(late["state"]) == {ProductState.OVERDUE}
    assert set(late["stage"]) == {ProductState.WAITING_FOR_SSC}
    assert set(late["blame"]) == {Blame.SSC}


def test_a_delivery_in_time_keeps_the_deadline_and_the_time_it_took_is_the_ssc_s(
    facts: Facts,
) -> None:
    calibrated(facts, **SPECTRAL)
    facts.handed_over(EXPOSURE, 7)
    facts.published(
        Step.SPECTRA, EXPOSURE, exposure_names(EXPOSURE, SPECTRA), start=40, end=42, queued=39
    )
    found = ledger(facts, 50, kind="spec_individual_1d")
    assert set(found["state"]) == {ProductState.MADE_IN_TIME}
    assert spent(found) == {"downlink": 1, "queue": 4 + 1, "computation": 2 + 2, "ssc": 32}
    assert states(facts, 50, kind="spec_decontam_2d") == {ProductState.WAITING_FOR_SSC}


def test_a_rejected_delivery_is_the_ssc_s_to_correct(facts: Facts) -> None:
    calibrated(facts, **SPECTRAL)
    facts.handed_over(EXPOSURE, 7)
    facts.attempt(Step.SPECTRA, EXPOSURE, queued=20, start=21, end=22, outcome=Outcome.BAD_INPUT)
    waiting = ledger(facts, 30, kind="spec_individual_1d")
    assert set(waiting["state"]) == {ProductState.WAITING_FOR_SSC}
    assert waiting["reason"].str.contains("SomeError").all()
    facts.published(
        Step.SPECTRA, EXPOSURE, exposure_names(EXPOSURE, SPECTRA), start=60, end=61, queued=60
    )
    assert spent(ledger(facts, 70, kind="spec_individual_1d"))["ssc"] == 53


def test_a_visit_of_the_bulge_waits_for_the_ssc_until_it_delivers(facts: Facts) -> None:
    calibrated(facts, **BULGE)
    facts.handed_over(VISIT, 6)
    assert states(facts, 8, partition=VISIT, kind="microlensing_event_catalog") == {
        ProductState.WAITING_FOR_SSC
    }
    assert states(facts, 8, partition=VISIT, kind="coadd") == {ProductState.NOT_EXPECTED}
    names = bulge_names("reference_frame", "event_catalog")
    facts.published(Step.MICROLENSING, VISIT, names, start=130, end=131, queued=130)
    late = ledger(facts, 140, kind="microlensing_reference_frame")
    assert set(late["state"]) == {ProductState.MADE_LATE}
    assert set(late["blame"]) == {Blame.SSC}
    assert states(facts, 140, kind="microlensing_event_catalog") == {ProductState.MADE_IN_TIME}


def test_what_is_delivered_again_has_a_clock_of_its_own_from_the_hand_over(facts: Facts) -> None:
    calibrated(facts, **BULGE)
    names = bulge_names("event_catalog")
    facts.handed_over(VISIT, 6)
    facts.published(Step.MICROLENSING, VISIT, names, start=20, end=21, queued=20)
    facts.handed_over(VISIT, 500)
    facts.published(Step.MICROLENSING, VISIT, names, start=600, end=601, queued=600)
    found = ledger(facts, 700, kind="microlensing_event_catalog")
    again = found[found["generation"] == 2]
    assert spent(again) == {"ssc": 100, "computation": 1}
    assert set(again["state"]) == {ProductState.MADE_IN_TIME}
    assert [time.to_pydatetime() for time in again["due"]] == [at(500 + 7 * 24)]


def test_a_visit_whose_images_all_failed_fails_for_the_ssc_too(facts: Facts) -> None:
    facts.receipt(**BULGE)
    facts.attempt(Step.FORMATTING, EXPOSURE, start=2, end=3, outcome=Outcome.BAD_INPUT)
    assert states(facts, 8, kind="microlensing_event_catalog") == {ProductState.FAILED}


def two_exposures(facts: Facts, **second) -> None:
    calibrated(facts, exposure(1), nexposures=2)
    facts.receipt(exposure(2), nexposures=2, **second)


def test_a_visit_has_one_row_for_each_kind_until_it_is_made(facts: Facts) -> None:
    calibrated(facts)
    found = ledger(facts, 6, partition=VISIT)
    assert list(found["kind"].sort_values()) == [
        "association", "coadd", "visit_catalog", "visit_segmentation",
    ]  # fmt: skip
    names = [*visit_names(cell="270p65x49y70"), *visit_names(cell="270p65x49y71")]
    facts.published(Step.VISIT, VISIT, names, start=6, end=8, queued=5)
    found = ledger(facts, 9, partition=VISIT)
    assert sorted(found["name"]) == sorted(names)
    assert set(found["state"]) == {ProductState.MADE_IN_TIME}
    assert spent(found) == {"downlink": 1, "queue": 3, "computation": 4}


def test_a_visit_waits_for_its_last_exposure(facts: Facts) -> None:
    two_exposures(facts, packets=None)
    assert states(facts, 20, level="L3") == {ProductState.WAITING_FOR_DOWNLINK}
    found = ledger(facts, 130, level="L3")
    assert set(found["state"]) == {ProductState.OVERDUE}
    assert set(found["blame"]) == {Blame.DOWNLINK}


def test_waiting_for_a_lost_exposure_is_blamed_on_the_downlink(facts: Facts) -> None:
    two_exposures(facts, packets=None)
    facts.published(Step.VISIT, VISIT, visit_names(), start=125, end=127)
    late = ledger(facts, 130, level="L3")
    assert set(late["state"]) == {ProductState.MADE_LATE}
    assert spent(late) == {"downlink": 125, "computation": 2}


def test_a_visit_is_counted_along_its_critical_exposure(facts: Facts) -> None:
    two_exposures(facts, packets=20, executed=2)
    facts.published(Step.FORMATTING, exposure(2), exposure_names(exposure(2), L1), start=25, end=26)
    facts.attempt(Step.EXPOSURE, exposure(2), start=30, end=31, outcome=Outcome.PASSING_FAULT)
    facts.published(Step.EXPOSURE, exposure(2), exposure_names(exposure(2), L2), start=40, end=44)
    facts.published(Step.VISIT, VISIT, visit_names(), start=50, end=53)
    assert spent(ledger(facts, 60, level="L3")) == {
        "downlink": 18, "queue": 5 + 4 + 6, "retries": 10, "computation": 1 + 4 + 3,
    }  # fmt: skip


def test_a_visit_that_was_cut_short_waits_for_nothing_more(facts: Facts) -> None:
    calibrated(facts, nexposures=3)
    assert states(facts, 6, level="L3") == {ProductState.WAITING_FOR_DOWNLINK}
    facts.receipt(nexposures=3, truncated=True, recorded=7)
    assert states(facts, 8, level="L3") == {ProductState.QUEUED}


def test_a_skycell_that_failed_is_a_failure_by_name(facts: Facts) -> None:
    calibrated(facts)
    lost = visit_names(cell="270p65x49y71")
    facts.published(
        Step.VISIT, VISIT, visit_names(), start=6, end=8, failed=[lost[0].rpartition("_")[0]]
    )
    found = ledger(facts, 9, visit=VISIT, state=ProductState.FAILED)
    assert sorted(found["name"]) == sorted(lost)


def test_a_product_made_again_has_a_verdict_of_its_own_and_keeps_the_first(facts: Facts) -> None:
    calibrated(facts)
    facts.published(
        Step.EXPOSURE, EXPOSURE, exposure_names(EXPOSURE, ["cal"]), queued=500, start=540, end=560
    )
    found = ledger(facts, 600, kind="cal", partition=EXPOSURE).set_index(["detector", "generation"])
    assert found["state"].to_dict() == {
        ("WFI01", 1): "made in time", ("WFI02", 1): "made in time",
        ("WFI01", 2): "made late", ("WFI02", 2): "made late",
    }  # fmt: skip
    assert spent(found.xs(2, level="generation")) == {"queue": 40, "computation": 20}


def test_the_clocks_origin_is_a_setting(facts: Facts) -> None:
    facts.receipt(packets=None)
    facts.root.path.joinpath("deadlines.toml").write_text(
        'version = 1\n[L1]\norigin = "execution"\nlatency_hours = 12\n'
    )
    found = ledger(facts, 13, kind=list(L1))
    assert set(found["state"]) == {ProductState.OVERDUE}
    assert set(found["blame"]) == {Blame.DOWNLINK}
    assert set(found["due"]) == {pd.Timestamp(at(12))}


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(timelines=visits())
def test_the_ledger_says_what_a_recount_hour_by_hour_says(
    tmp_path_factory: pytest.TempPathFactory, timelines: list[Visit]
) -> None:
    facts = Facts(DataRoot(tmp_path_factory.mktemp("timelines") / "data"))
    for visit in timelines:
        visit.write(facts)
    found = ledger(facts, timelines[0].now)
    names = found["name"].fillna(found["partition"] + " " + found["kind"])
    assert names.is_unique, "a product has two verdicts"
    rows = dict(zip(names, found.to_dict("records"), strict=True))
    recounts = [recount for visit in timelines for recount in visit.recount()]
    assert rows.keys() == {name for name, _, _ in recounts}
    for name, state, hours in recounts:
        assert (name, rows[name]["state"]) == (name, state)
        if hours is not None:
            counted = {blame: rows[name][f"{blame}_hours"] for blame in Blame}
            assert (name, {b: h for b, h in counted.items() if h}) == (name, pytest.approx(hours))
