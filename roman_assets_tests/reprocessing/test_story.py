"""How products are made again, as operators and scientists see it, over the real pipeline.

``roman-assets dev`` runs on an installation; the simulated telescope observes a visit of two
surveys each, and romancal makes their products. A new calibration of one detector arrives. What it
changes is shown, proposed, rejected, proposed again and approved; Dagster makes it again, and all
is killed half-way.

The tests follow each other. What is asserted of products is asked of the archive's public side.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus

import roman_assets
from roman_assets.assets.partition_work import PROPOSAL_TAG
from roman_assets.assets.reprocessing import REPROCESSING_PROPOSALS
from roman_assets.data_root import DataRoot
from roman_assets.products.priority import PRIORITY_TAG
from roman_assets_tests.automation.platform import (
    Platform,
    command,
    default_places,
    running_dev,
    tree_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HLWAS, HLTDS = "r0001101001001001001", "r0001201001001001001"
AFFECTED, OTHER = "WFI01", "WFI02"
OLD, NEW = "roman_0002.pmap", "roman_0003.pmap"
STALE = """
query ($asset: String!, $partition: String!) {
  assetNodeOrError(assetKey: {path: [$asset]}) {
    ... on AssetNode { staleStatus(partition: $partition) }
  }
}
"""
LOOKS = 45
"""Seconds in which every sensor looks at least once."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataRoot]:
    """An installation into which a visit of each survey has landed."""
    root = DataRoot(tmp_path_factory.mktemp("story") / "data")
    with default_places():
        observe(root, "HLWAS", 11, "F158", f"{AFFECTED},{OTHER}")
        observe(root, "HLTDS", 12, "F106", OTHER)
        yield root


def observe(root: DataRoot, survey: str, program: int, element: str, detectors: str) -> None:
    command(
        root, "simulate", "--survey", survey, "--program", str(program), "--filter", element,
        "--detectors", detectors, "--dither", "SUB2",
        "--position", "269.8288", "65.8622", "0",
    )  # fmt: skip


def find(root: DataRoot, **search: Any) -> list[dict[str, Any]]:
    """Ask the archive's public side."""
    with roman_assets.open_archive(root.path) as archive:
        found = archive.find(**search)
    return list(found.to_dict("records"))


def generations(root: DataRoot, **search: Any) -> dict[str, int]:
    return {row["name"]: row["generation"] for row in find(root, **search)}


def runs(root: DataRoot, **tags: str) -> list[Any]:
    with DagsterInstance.from_config(str(root.dagster_home)) as instance:
        found = instance.get_runs()
    return [run for run in found if all(run.tags.get(key) == tags[key] for key in tags)]


def stale(platform: Platform, asset: str, partition: str) -> bool:
    """Tell whether the UI shows a partition as stale."""
    node = platform.ask(STALE, asset=asset, partition=partition)["assetNodeOrError"]
    return bool(node["staleStatus"] == "STALE")


def proposals(root: DataRoot) -> list[dict[str, Any]]:
    return list(json.loads(command(root, "proposals", "--json")))


def all_prompt_products_made(root: DataRoot) -> bool:
    made = {row["visit"] for row in find(root, kind="visit_catalog")}
    return made == {HLWAS, HLTDS}


def kill(platform: Platform) -> None:
    """Kill everything that an operator started, and what that started, as a power cut would."""
    for pid in tree_of(platform.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    platform.process.wait()


def test_prompt_products_are_made_with_the_best_of_the_moment(root: DataRoot) -> None:
    with running_dev(root) as platform:
        platform.wait_for(lambda: all_prompt_products_made(root), "prompt L3 and L4", 1500)
        assert {row["context"] for row in find(root, level="L2")} == {OLD}
        assert set(generations(root).values()) == {1}

        command(root, "new-reference", AFFECTED)
        before = len(runs(root))
        platform.wait_for(lambda: stale(platform, "cal", f"{HLWAS}_0002"), "a stale exposure")
        platform.wait_for(lambda: stale(platform, "coadd", HLWAS), "a stale visit")
        assert not stale(platform, "cal", f"{HLTDS}_0001")
        assert not stale(platform, "coadd", HLTDS)
        time.sleep(LOOKS)
        assert len(runs(root)) == before, "nothing is made again because a context has arrived"


def test_the_impact_names_exactly_the_products_of_the_detector(root: DataRoot) -> None:
    named = set(command(root, "impact", "--context", NEW, "--names").split())
    of_detector = find(root, detector=AFFECTED)
    expected = {row["name"] for row in of_detector if row["kind"] not in ("uncal", "guide_window")}
    assert named == expected
    summary = json.loads(command(root, "impact", "--context", NEW, "--json"))
    assert (summary["exposures"], summary["visits"]) == (2, 1)
    assert [one["visit"] for one in summary["mixed_visits"]["visits"]] == [HLWAS]
    assert summary["computation_s"] > 0
    assert {row["kind"] for row in summary["references"]} == {"photom"}


def test_a_rejected_proposal_changes_nothing(root: DataRoot) -> None:
    command(root, "propose", "--context", NEW, "--by", "ana", "--reason", "2 % of flux")
    (proposal,) = proposals(root)
    command(
        root, "reject", proposal["proposal_id"], "--by", "ben", "--reason", "wait for the others"
    )
    (rejected,) = proposals(root)
    assert rejected["state"] == "rejected"
    assert rejected["decision"]["author"] == "ben"


def test_an_approved_proposal_is_made_again_although_all_is_killed(root: DataRoot) -> None:
    command(root, "propose", "--context", NEW, "--by", "ana", "--reason", "as good as it gets")
    name = proposals(root)[-1]["proposal_id"]
    command(root, "approve", name, "--by", "ben", "--reason", "2 % matter")

    def remade() -> list[str]:
        return [one for one, number in generations(root, kind="cal").items() if number > 1]

    with running_dev(root) as platform:
        platform.wait_for(remade, "a first exposure made again", 600)
        kill(platform)
    assert len(remade()) == 1
    assert proposals(root)[-1]["state"] == "approved"

    with running_dev(root) as platform:
        platform.wait_for(
            lambda: proposals(root)[-1]["state"] == "done", "the end of the proposal", 1800
        )
        platform.wait_for(
            lambda: not [run for run in runs(root) if not run.is_finished], "the end of runs"
        )
        time.sleep(LOOKS)
        assert not stale(platform, "cal", f"{HLWAS}_0001")
        assert not stale(platform, "coadd", HLWAS)
        shown = shown_proposals(root)
        assert "2 of 2" in shown
        assert "wait for the others" in shown
    again = runs(root, **{PROPOSAL_TAG: name})
    assert all(int(run.tags[PRIORITY_TAG]) < 0 for run in again)
    visits = [run for run in again if run.job_name == "visit_products"]
    done = [run.tags["dagster/partition"] for run in visits if run.is_success]
    assert done == [HLWAS], "the visit is made again once, after its exposures"


def shown_proposals(root: DataRoot) -> str:
    with DagsterInstance.from_config(str(root.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(REPROCESSING_PROPOSALS)
    assert event is not None
    assert event.asset_materialization is not None
    return str(event.asset_materialization.metadata["proposals_and_impact"].value)


def test_generations_contexts_and_what_follows_are_right(root: DataRoot) -> None:
    for row in find(root, detector=AFFECTED):
        again = row["kind"] not in ("uncal", "guide_window")
        assert row["generation"] == (2 if again else 1), row["name"]
        assert not again or row["context"] == NEW
    for row in find(root, detector=OTHER):
        assert row["generation"] == 1, row["name"]
    for row in find(root, kind=["association", "coadd", "visit_catalog", "visit_segmentation"]):
        expected = (2, NEW) if row["visit"] == HLWAS else (1, OLD)
        assert (row["generation"], row["context"]) == expected, row["name"]
    with roman_assets.open_archive(root.path) as archive:
        name = find(root, detector=AFFECTED, kind="cal")[0]["name"]
        assert list(archive.history(name)["context"]) == [OLD, NEW]
        coadd = find(root, kind="coadd", visit=HLWAS)[0]["name"]
        made_from = archive.history(coadd).iloc[-1]["inputs"]
    images = {row["name"]: row["sha256"] for row in find(root, kind="cal")}
    assert all(images[item["name"]] == item["sha256"] for item in made_from)


def test_prompt_deadlines_and_records_are_as_before(root: DataRoot) -> None:
    counts = json.loads(command(root, "deadlines", "--json"))["counts"]
    states = {row["state"] for row in counts if row["products"]}
    assert states <= {"made in time", "not expected"}
    assert "0 findings" in command(root, "fsck", "--quick")
    before = generations(root, overwritten=True)
    command(root, "rebuild")
    assert generations(root, overwritten=True) == before
    assert [one["state"] for one in proposals(root)] == ["rejected", "done"]
    assert not [
        run
        for run in runs(root)
        if run.status is DagsterRunStatus.FAILURE and run.tags.get("dagster/will_retry") != "true"
    ]
