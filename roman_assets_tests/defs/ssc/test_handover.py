from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey

from roman_assets.data_root import SSC_VARIABLE, DataRoot
from roman_assets.definitions import defs
from roman_assets.defs.deadlines.sensors import partitions_of
from roman_assets.defs.lib.in_time_check import ledger_rows, standings
from roman_assets.defs.lib.specs import EXPOSURE_HANDOVER, VISIT_HANDOVER
from roman_assets.defs.ssc.handover_sensor import HandoverWatch
from roman_assets.errors import PassingFaultError
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.registry.registry import Registry
from roman_assets.ssc.exchange import TO_SSC, DirectoryExchange, Exchange
from roman_assets.ssc.handover import hand_over
from roman_assets_tests.support.sky import EXECUTED, VISIT, Sky, exposure_key

FIRST, SECOND = (exposure_key(number) for number in (1, 2))
BULGE = {"survey": Survey.GBTDS}
SPECTRAL = {"exposure_type": ExposureType.WFI_SPECTRAL}


def manifests(root: DataRoot) -> list[dict[str, Any]]:
    """What the SSC finds, oldest first."""
    found = (root.path / "ssc" / "to_ssc").glob("*/*.json")
    told = [json.loads(path.read_text()) for path in found]
    return sorted(told, key=lambda one: one["handed_over_at"])


def partitions(root: DataRoot) -> list[str]:
    return [one["partition"] for one in manifests(root)]


def test_a_visit_of_the_bulge_is_handed_over_once_when_all_of_it_is_in(sky: Sky) -> None:
    sky.process(FIRST, **BULGE)
    sky.look_at_handover()
    assert manifests(sky.root) == []
    sky.process(SECOND, **BULGE)
    sky.look_at_handover()
    sky.look_at_handover()
    (told,) = manifests(sky.root)
    assert (told["partition"], told["survey"], told["missing"]) == (VISIT, "GBTDS", [])
    with Registry(sky.root) as registry:
        current = registry.generations.current(image["name"] for image in told["images"])
    assert len(current) == 4
    for image in told["images"]:
        entry = current[image["name"]]
        assert (image["sha256"], image["size"]) == (entry.sha256, entry.size)
        assert Path(image["uri"].removeprefix("file://")).is_file()
    assert "eventcatalog.parquet" in told["products"]
    assert sky.instance.get_latest_materialization_event(VISIT_HANDOVER) is not None


@pytest.mark.parametrize("observed", [BULGE, SPECTRAL], ids=["bulge", "spectra"])
def test_a_visit_whose_l3_or_l4_the_ssc_makes_is_not_missing_for_the_coadds(
    sky: Sky, observed: dict[str, Any]
) -> None:
    for exposure in (FIRST, SECOND):
        sky.process(exposure, **observed)
    sky.look_at_handover()
    assert sky.look_at_visits() == []
    with Registry(sky.root) as registry:
        told = standings(ledger_rows(registry.deadlines.groups()))
    for request in partitions_of(told):
        sky.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    graph = defs.get_repository_def().asset_graph
    keyed = {
        name: graph.get(AssetKey(name)).partitions_def.get_partition_keys(
            dynamic_partitions_store=sky.instance
        )
        for name in ("visit_manifest", "coadd", "visit_catalog", "visit_handover")
    }
    assert keyed == {
        "visit_manifest": [],
        "coadd": [],
        "visit_catalog": [],
        "visit_handover": [VISIT],
    }


def test_a_spectroscopic_exposure_is_handed_over_at_once_and_its_visit_when_it_is_whole(
    sky: Sky,
) -> None:
    sky.process(FIRST, **SPECTRAL)
    sky.look_at_handover()
    assert partitions(sky.root) == [FIRST]
    assert sky.instance.get_latest_materialization_event(EXPOSURE_HANDOVER) is not None
    sky.process(SECOND, **SPECTRAL)
    sky.look_at_handover()
    assert sorted(partitions(sky.root)) == sorted([FIRST, SECOND, VISIT])


def test_what_the_soc_makes_itself_is_not_handed_over(sky: Sky) -> None:
    sky.process(FIRST)
    sky.process(SECOND)
    sky.look_at_handover()
    assert manifests(sky.root) == []


def test_images_that_were_made_again_are_handed_over_again(sky: Sky) -> None:
    sky.process(FIRST, **BULGE)
    sky.process(SECOND, **BULGE)
    sky.look_at_handover()
    sky.process(FIRST, "again", **BULGE)
    sky.look_at_handover()
    first, again = manifests(sky.root)
    assert first["digest"] != again["digest"]
    with Registry(sky.root) as registry:
        assert registry.receipts.handovers([VISIT])[VISIT].digest == again["digest"]


@pytest.mark.slow
def test_an_exposure_at_work_is_not_handed_over_yet(sky: Sky) -> None:
    sky.receive(FIRST)
    sky.look_at_landing()
    sky.process(FIRST, **SPECTRAL)
    sky.look_at_handover()
    assert manifests(sky.root) == []
    sky.end_runs()
    sky.look_at_handover()
    assert partitions(sky.root) == [FIRST]


def test_a_visit_that_lacks_something_is_handed_over_in_part_while_the_ssc_has_time(
    sky: Sky,
) -> None:
    sky.process(FIRST, **BULGE)
    sky.look_at_landing()
    watch = HandoverWatch(sky.root)
    due = EXECUTED[1] + timedelta(days=5)
    assert watch.ready(sky.instance, due - timedelta(hours=73)) == []
    (ready,) = watch.ready(sky.instance, due - timedelta(hours=72))
    assert ready.missing == (SECOND,)


def test_a_hand_over_that_a_crash_interrupted_is_done_by_the_next_look(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    sky.process(FIRST, **SPECTRAL)

    def full(*_: object) -> None:
        raise PassingFaultError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryExchange, "write", full)
        with pytest.raises(PassingFaultError):
            sky.look_at_handover()
    assert manifests(sky.root) == []
    sky.look_at_handover()
    assert partitions(sky.root) == [FIRST]


@pytest.mark.slow
def test_telling_the_same_twice_is_done_once_whoever_does_it(sky: Sky) -> None:
    sky.process(FIRST, **SPECTRAL)
    sky.look_at_landing()
    now = datetime.now(UTC)
    mine, theirs = (HandoverWatch(sky.root).ready(sky.instance, now) for _ in range(2))
    assert len(hand_over(sky.root, mine)) == 1
    assert hand_over(sky.root, theirs) == []


@pytest.mark.slow
def test_a_hand_over_into_an_object_store_says_the_same(
    sky: Sky, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SSC_VARIABLE, object_store)
    sky.process(FIRST, **SPECTRAL)
    sky.look_at_handover()
    exchange = Exchange.of(sky.root)
    (found,) = exchange.files(TO_SSC)
    told = json.loads(exchange.read(found.key, 1 << 20))
    assert told["partition"] == FIRST


def test_a_visit_of_too_many_exposures_keeps_nothing_from_the_ssc(sky: Sky) -> None:
    other = exposure_key(1, f"{VISIT[:-1]}2")
    sky.process(other, **SPECTRAL, nexposures=10_000)
    sky.process(FIRST, **SPECTRAL)
    for _ in range(2):
        sky.look_at_handover()
        assert partitions(sky.root) == [FIRST]
