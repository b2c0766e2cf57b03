"""The real thing: a simulated exposure, landed while daemon and web server run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRunStatus, RunsFilter
from prometheus_client.parser import text_string_to_metric_families

from roman_assets.data_root import DataRoot
from roman_assets.defs.notices.sensors import NoticeFile
from roman_assets.products.observation import ExposureId
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets_tests.support.platform import (
    PLAN,
    Platform,
    command,
    default_places,
    running_platform,
)

MADE_OF_GBTDS = {"uncal", "guide_window", "face", "supplement", "cal"}
PICTURES = {"cal_preview", "cal_thumbnail"}

ASSETS = """
query ($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    freshnessStatusInfo { freshnessStatus }
    assetMaterializations { partition runId metadataEntries {
      label
      ... on MarkdownMetadataEntry { mdStr }
      ... on IntMetadataEntry { intValue }
      ... on FloatMetadataEntry { floatValue }
      ... on BoolMetadataEntry { boolValue }
      ... on TextMetadataEntry { text }
      ... on PathMetadataEntry { path }
    } }
  }
}
"""

BACKFILL = """
mutation ($assets: [AssetKeyInput!], $partitions: [String!]) {
  launchPartitionBackfill(backfillParams: {
    assetSelection: $assets, partitionNames: $partitions, title: "test"
  }) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""

BACKFILL_STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status numPartitions }
  }
}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = DataRoot(tmp_path_factory.mktemp("platform") / "data")
    with default_places(), running_platform(root) as platform:
        yield platform


@pytest.fixture(scope="module")
def landed(platform: Platform) -> tuple[DataRoot, str]:
    """Land one GBTDS exposure of one detector."""
    (exposure,) = observe(PLAN, platform.root, processes=1)
    return platform.root, str(exposure)


def materializations(platform: Platform, *names: str) -> dict[str, list[dict[str, Any]]]:
    """Give the materializations of assets, newest first, with their metadata by label."""
    nodes = platform.ask(ASSETS, keys=[{"path": [name]} for name in names])["assetNodes"]
    return {
        node["assetKey"]["path"][-1]: [
            {
                "partition": event["partition"],
                **{
                    entry["label"]: next(
                        (value for key, value in entry.items() if key != "label"), None
                    )
                    for entry in event["metadataEntries"]
                },
            }
            for event in node["assetMaterializations"]
        ]
        for node in nodes
    }


def test_a_landed_exposure_becomes_products_without_a_touch(
    platform: Platform, landed: tuple[DataRoot, str]
) -> None:
    root, exposure = landed
    made = platform.wait_for(
        lambda: (
            (found := materializations(platform, *MADE_OF_GBTDS)) and all(found.values()) and found
        ),
        "the materialization of L1 and L2",
    )
    assert {events[0]["partition"] for events in made.values()} == {exposure}
    image = made["cal"][0]
    assert image["quick_look"].startswith("![")
    assert image["context"].startswith("roman_")
    assert image["margin_hours"] > 0
    assert image["alignment_rms_mas_worst"] < 10
    assert image["reused"] is False
    with Registry(root) as registry:
        names = registry.products.find(exposure=exposure)["name"]
    assert len(names) == len(MADE_OF_GBTDS | PICTURES)
    assert all(list(root.public.rglob(name)) for name in names)


def test_level_0_is_shown_with_its_receipt(
    platform: Platform, landed: tuple[DataRoot, str]
) -> None:
    (received,) = platform.wait_for(
        lambda: materializations(platform, "level0")["level0"], "the receipt"
    )
    assert received["partition"] == landed[1]
    assert received["survey"] == "GBTDS"


def test_a_consumer_is_told_of_l2(platform: Platform, landed: tuple[DataRoot, str]) -> None:
    root, exposure = landed
    board = NoticeFile.of(root).path
    (line,) = platform.wait_for(lambda: board.is_file() and board.read_text().splitlines(), "news")
    notice = json.loads(line)
    assert (notice["asset"], notice["partition"]) == ("cal", exposure)
    (product,) = notice["products"]
    assert Path(product["path"]).stat().st_size == product["size"]


def test_a_backfill_from_the_ui_finds_everything_made(
    platform: Platform, landed: tuple[DataRoot, str]
) -> None:
    root, exposure = landed
    before = products(root)
    launched = platform.ask(
        BACKFILL,
        assets=[{"path": [name]} for name in sorted(MADE_OF_GBTDS)],
        partitions=[exposure],
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    platform.wait_for(
        lambda: (
            platform.ask(BACKFILL_STATUS, id=launched["backfillId"])["partitionBackfillOrError"][
                "status"
            ]
            == "COMPLETED_SUCCESS"
        ),
        "the end of the backfill",
    )
    made = materializations(platform, *MADE_OF_GBTDS)
    assert {len(events) for events in made.values()} == {2}
    assert all(events[0]["reused"] for events in made.values())
    assert products(root) == before


def test_the_ssc_is_left_its_share(platform: Platform, landed: tuple[DataRoot, str]) -> None:
    _, exposure = landed
    made = materializations(platform, "exposure_catalog", "visit_manifest", "coadd")
    assert not any(made.values())
    with platform.instance() as instance:
        # at most the key under which the SSC is to deliver
        visits = set(instance.get_dynamic_partitions("visit"))
        assert visits <= {str(ExposureId.parse(exposure).visit)}
        assert not instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))


def test_prometheus_is_told_of_what_was_made_and_of_the_sensors(
    platform: Platform, landed: tuple[DataRoot, str]
) -> None:
    text = command(landed[0], "metrics", "--print")
    told = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    failed = [part for (name, *part), value in told.items() if "success" in name and not value]
    assert not failed
    assert told["roman_assets_publications_total", "exposure"] >= 1
    assert told["roman_assets_publication_latency_seconds_bucket", "+Inf", "GBTDS", "L2"] == 1
    ticking = {
        labels[0] for (name, *labels) in told if name.endswith("last_tick_timestamp_seconds")
    }
    assert {"landing_sensor", "registry_fold_sensor"} <= ticking
    assert told["roman_assets_registry_work_seconds", "1.0", "fold"] > 0


def products(root: DataRoot) -> set[tuple[str, str, int]]:
    """Give name, content and generation of all current products."""
    with Registry(root) as registry:
        found = registry.products.find()
    return set(zip(found["name"], found["sha256"], found["generation"], strict=True))
