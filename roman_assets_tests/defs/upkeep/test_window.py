from __future__ import annotations

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from roman_assets.data_root import DataRoot
from roman_assets.defs.upkeep import partition_window as window
from roman_assets.defs.upkeep.partition_window import keys_to_put_away
from roman_assets.products.kind import Step
from roman_assets.products.observation import Survey
from roman_assets_tests.support.facts import L1, L2, Facts, at, exposure_names, visit_names
from roman_assets_tests.support.small_products import VISIT, exposure

OTHER = "r0001001001001001002"


@pytest.fixture
def facts(root: DataRoot) -> Facts:
    return Facts(root)


def done(facts: Facts, instance: DagsterInstance, visit: str = VISIT, hours: float = 0) -> set[str]:
    """A visit of one exposure of which everything is made."""
    partition = f"{visit}_0001"
    start = hours + 2
    facts.receipt(partition)
    facts.published(
        Step.FORMATTING, partition, exposure_names(partition, L1), start=start, end=start + 1
    )
    facts.published(
        Step.EXPOSURE, partition, exposure_names(partition, L2), start=start + 1, end=start + 2
    )
    facts.published(Step.VISIT, visit, visit_names(visit), start=start + 2, end=start + 3)
    facts.fold()
    instance.add_dynamic_partitions("exposure", [partition])
    instance.add_dynamic_partitions("visit", [visit])
    return {partition, visit}


def test_what_is_done_is_put_away_after_the_window(facts: Facts, instance: DagsterInstance) -> None:
    old = done(facts, instance)
    done(facts, instance, OTHER, hours=48)
    assert keys_to_put_away(instance, facts.root, before=at(4)) == frozenset()
    assert keys_to_put_away(instance, facts.root, before=at(24)) == old


def test_what_is_not_done_is_kept_however_old(facts: Facts, instance: DagsterInstance) -> None:
    facts.receipt()
    facts.fold()
    instance.add_dynamic_partitions("exposure", [exposure()])
    assert keys_to_put_away(instance, facts.root, before=at(24 * 365)) == frozenset()


def test_what_only_the_ssc_still_has_to_deliver_keeps_no_key(
    facts: Facts, instance: DagsterInstance
) -> None:
    partition = exposure()
    facts.receipt(survey=Survey.GBTDS)
    facts.published(Step.FORMATTING, partition, exposure_names(partition, L1), start=2, end=3)
    images = exposure_names(partition, ("cal", "supplement"))
    facts.published(Step.EXPOSURE, partition, images, start=3, end=4)
    facts.fold()
    instance.add_dynamic_partitions("exposure", [partition])
    instance.add_dynamic_partitions("visit", [VISIT])
    assert keys_to_put_away(instance, facts.root, before=at(24 * 365)) == frozenset()
    facts.handed_over(VISIT, 5)
    facts.fold()
    assert keys_to_put_away(instance, facts.root, before=at(24 * 365)) == {partition, VISIT}


def test_nothing_is_put_away_while_a_run_is_at_work_on_it(
    facts: Facts, instance: DagsterInstance
) -> None:
    done(facts, instance)
    instance.add_run(
        DagsterRun(
            job_name="any",
            status=DagsterRunStatus.STARTED,
            tags={"dagster/partition": exposure()},
        )
    )
    assert keys_to_put_away(instance, facts.root, before=at(24)) == frozenset()


def test_many_are_put_away_bit_by_bit(facts: Facts, instance: DagsterInstance, monkeypatch) -> None:
    monkeypatch.setattr(window, "VISITS_PER_TICK", 1)
    monkeypatch.setattr(window, "VISITS_AT_ONCE", 1)
    known = done(facts, instance) | done(facts, instance, OTHER)
    for _ in range(2):
        keys = keys_to_put_away(instance, facts.root, before=at(24))
        assert len(keys) == 2
        known -= keys
        for key in keys:
            instance.delete_dynamic_partition("exposure" if "_" in key else "visit", key)
    assert not known
    assert keys_to_put_away(instance, facts.root, before=at(24)) == frozenset()
