"""What Prometheus is told is what the registry holds, whoever asks and however often."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.core import Metric

from roman_assets.data_root import DataRoot
from roman_assets.metrics.families import registry_families, work_families
from roman_assets.products.deadline import utc_now
from roman_assets.products.kind import Step
from roman_assets.records.record import Outcome
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.merging import merge_due_tiers
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names
from roman_assets_tests.support.small_products import exposure

FIRST, SECOND, THIRD = exposure(1), exposure(2), exposure(3)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return Facts(DataRoot(tmp_path / "data"))


def figures(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("roman_assets_"), *map(str, sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def told(facts: Facts, hour: float) -> dict[tuple[str, ...], float]:
    facts.fold()
    with Registry(facts.root) as registry:
        return figures(list(work_families(facts.root, registry, at(hour))))


def test_an_empty_installation_has_figures(facts: Facts) -> None:
    with Registry(facts.root) as registry:
        assert not figures(list(work_families(facts.root, registry, at(0))))
    assert figures(list(registry_families(facts.root, at(0)))) == {
        ("registry_pending_records",): 0,
        ("registry_tiers",): 0,
        ("registry_bytes",): 0,
    }


def test_the_backlog_counts_exposures_and_names_the_least_margin(facts: Facts) -> None:
    facts.receipt(FIRST, nexposures=3)
    facts.receipt(SECOND, packets=3, nexposures=3)
    facts.receipt(THIRD, packets=None, nexposures=3)
    facts.attempt(Step.FORMATTING, SECOND, start=4)
    found = told(facts, 5)
    assert found["backlog", "formatting"] == 2
    assert found["backlog_queued", "formatting"] == 1
    assert found["backlog_running", "formatting"] == 1
    # the packets of the first were in at hour 1: L1 is due at hour 25
    assert found["backlog_least_margin_seconds", "formatting"] == 20 * 3600
    assert found["products", "HLWAS", "L1", "waiting for downlink"] > 0
    assert found["products_at_risk", "HLWAS", "L1", "queued"] == 0
    late = told(facts, 26)
    assert late["backlog_least_margin_seconds", "formatting"] == -3600
    assert late["products", "HLWAS", "L1", "overdue"] > 0
    assert told(facts, 20)["products_at_risk", "HLWAS", "L1", "queued"] > 0


def test_the_latency_counts_each_product_once_from_the_start_of_its_clock(facts: Facts) -> None:
    names = exposure_names(FIRST, L1)
    facts.receipt(FIRST)
    facts.published(Step.FORMATTING, FIRST, names, start=2, end=4)
    bucket = "publication_latency_seconds_bucket"
    for hour in (5, 500):  # time makes no difference to what is made
        found = told(facts, hour)
        assert found[bucket, "L1", "HLWAS", "7200.0"] == 0
        assert found[bucket, "L1", "HLWAS", "14400.0"] == len(names)
        assert found[bucket, "L1", "HLWAS", "+Inf"] == len(names)
        assert found["publication_latency_seconds_sum", "L1", "HLWAS"] == 3 * 3600 * len(names)
    facts.published(Step.FORMATTING, FIRST, names, start=30, end=40)
    assert told(facts, 41)[bucket, "L1", "HLWAS", "+Inf"] == len(names)


def test_failures_are_counted_by_class(facts: Facts) -> None:
    facts.receipt(FIRST)
    facts.attempt(Step.FORMATTING, FIRST, start=2, end=3, outcome=Outcome.PASSING_FAULT)
    facts.attempt(Step.FORMATTING, FIRST, start=4, end=5, outcome=Outcome.PASSING_FAULT)
    facts.published(
        Step.EXPOSURE, FIRST, exposure_names(FIRST, L2), start=6, end=7,
        failed=[f"{FIRST}_wfi02_f158"], error="LostPacketsError",
    )  # fmt: skip
    found = told(facts, 8)
    assert found["attempts_total", "formatting", "passing fault", "SomeError"] == 2
    assert found["attempts_total", "exposure", "finished", ""] == 1
    assert found["failed_file_sets_total", "exposure", "LostPacketsError"] == 1
    assert found["publications_total", "exposure"] == 1


def test_folds_and_merges_tell_how_long_they_took(facts: Facts) -> None:
    facts.receipt(FIRST)
    waiting = figures(list(registry_families(facts.root, utc_now())))
    assert waiting["registry_pending_records",] == 1
    assert ("registry_work_seconds", "fold", "1.0") not in waiting
    facts.fold()
    merge_due_tiers(facts.root)
    found = figures(list(registry_families(facts.root, utc_now())))
    assert found["registry_pending_records",] == 0
    assert found["registry_tiers",] == 1
    assert found["registry_bytes",] > 0
    assert 0 < found["registry_work_seconds", "fold", "1.0"] < 60
    assert found["registry_work_last_timestamp_seconds", "fold"] <= utc_now().timestamp()
