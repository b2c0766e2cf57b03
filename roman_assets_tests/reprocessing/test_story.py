"""How products are made again, as operators and scientists see it, over the real pipeline.

``roman-assets dev`` runs on an installation; the simulated telescope observes a visit of two
surveys each, and romancal makes their products. A new calibration of one detector arrives. What it
changes is shown, proposed, rejected, proposed again and approved; Dagster makes it again, and all
is killed half-way. Then the definitive ephemeris of one survey is in and its L1 is made again,
while the other survey gets its data release r0; prompt L3 are superseded, and swept when their time
is over; r1 follows.

The tests follow each other. What is asserted of products is asked of the archive's public side.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus

import roman_assets
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.partition_work import PROPOSAL_TAG, RELEASE_TAG
from roman_assets.defs.reprocessing.assets import REPROCESSING_PROPOSALS
from roman_assets.products.priority import PRIORITY_TAG
from roman_assets_tests.support.dagster_privates import SCHEDULE_NAME_TAG
from roman_assets_tests.support.platform import (
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
START = f"{datetime.now(UTC) - timedelta(hours=6):%Y-%m-%dT%H:%M:%S}"
L1_KINDS = ("uncal", "guide_window", "face")
L3_KINDS = (
    "association", "coadd", "coadd_preview", "coadd_thumbnail", "visit_catalog",
    "visit_segmentation",
)  # fmt: skip
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


def observe(
    root: DataRoot, survey: str, program: int, element: str, detectors: str, *more: str
) -> None:
    command(
        root, "simulate", "--survey", survey, "--program", str(program), "--filter", element,
        "--detectors", detectors, "--dither", "SUB2",
        "--position", "269.8288", "65.8622", "0", "--start", START, *more,
    )  # fmt: skip


def find(root: DataRoot, **search: Any) -> list[dict[str, Any]]:
    """Ask the archive's public side."""
    with roman_assets.open_archive(root.path) as archive:
        found = archive.find(**search)
    return list(found.to_dict("records"))


def generations(root: DataRoot, **search: Any) -> dict[str, int]:
    return {row["name"]: row["generation"] for row in find(root, **search)}


def runs(root: DataRoot, **tags: str) -> list[Any]:
    """Give the runs with such tags; what runs by the clock, like reports, makes no products."""
    with DagsterInstance.from_config(str(root.dagster_home)) as instance:
        found = [run for run in instance.get_runs() if SCHEDULE_NAME_TAG not in run.tags]
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


def declare(root: DataRoot, release: str, context: str) -> Path:
    path = root.path / f"hlwas_{release}.toml"
    path.write_text(
        f"""
version = 1
release = "{release}"
survey = "HLWAS"
after = 2020-01-01T00:00:00Z
before = 2120-01-01T00:00:00Z
context = "{context}"
romancal = "{version("romancal")}"
groupings = ["visit", "pass"]
"""
    )
    return path


def contents(root: DataRoot, **search: Any) -> dict[str, str]:
    return {row["name"]: row["sha256"] for row in find(root, **search)}


def ephemeris_of_l1(root: DataRoot, visit: str) -> set[str]:
    with roman_assets.open_archive(root.path) as archive:
        found = archive.find(visit=visit, kind="uncal")
        return {str(archive.open(row).meta.ephemeris.type) for _, row in found.iterrows()}


def release_status(root: DataRoot, declaration: Path) -> dict[str, Any]:
    (status,) = json.loads(command(root, "release", "status", str(declaration), "--json"))
    return dict(status)


def images_of(root: DataRoot, release: str) -> list[str]:
    """Give the L2 images that are marked as made for a release."""
    images = find(root, kind="cal")
    return [row["name"] for row in images if row["data_release"] == release]


def is_made(root: DataRoot, declaration: Path) -> bool:
    status = release_status(root, declaration)
    return not (status["exposures_left"] or status["units_left"] or status["failed"])


def test_a_release_says_beforehand_what_it_would_do(root: DataRoot) -> None:
    declaration = declare(root, "r0", NEW)
    plan = json.loads(command(root, "release", "plan", str(declaration), "--json"))
    of_other = {row["file_set"] for row in find(root, kind="cal", detector=OTHER, visit=HLWAS)}
    assert set(plan["images_made_again"]) == of_other, "the others are made with its context"
    assert set(plan["superseded"]) == set(contents(root, visit=HLWAS, level="L3")) | set(
        contents(root, kind=["visit_catalog", "visit_segmentation"], visit=HLWAS)
    )
    assert not find(root, release="r0")


def test_a_release_is_made_although_all_is_killed_while_l1_of_another_survey_is_made_again(
    root: DataRoot,
) -> None:
    declaration = root.path / "hlwas_r0.toml"
    assert ephemeris_of_l1(root, HLTDS) == ephemeris_of_l1(root, HLWAS) == {"PREDICTED"}
    before = contents(root, visit=HLWAS, level="L1", kind=list(L1_KINDS))
    prompt = contents(root, visit=HLWAS, kind="coadd", release="p")
    observe(root, "HLTDS", 12, "F106", OTHER, "--definitive-ephemeris")
    exposures = [f"{HLTDS}_0001", f"{HLTDS}_0002"]
    assert "the definitive ephemeris" in command(root, "formatting", *exposures)
    chosen = [word for exposure in exposures for word in ("--exposure", exposure)]
    command(root, "propose", *chosen, "--by", "ana", "--reason", "the definitive orbit is in")
    proposal = proposals(root)[-1]["proposal_id"]
    command(root, "approve", proposal, "--by", "ben", "--reason", "for the archive")
    command(root, "release", "run", str(declaration))
    with running_dev(root) as platform:
        platform.wait_for(lambda: images_of(root, "r0"), "a first image of the release", 1800)
        kill(platform)
    assert not is_made(root, declaration)
    with running_dev(root) as platform:
        platform.wait_for(lambda: is_made(root, declaration), "the release", 1800)
        platform.wait_for(
            lambda: proposals(root)[-1]["state"] == "done", "the end of the proposal", 600
        )
        platform.wait_for(
            lambda: not [run for run in runs(root) if not run.is_finished], "the end of runs"
        )
        time.sleep(LOOKS)
        platform.wait_for(
            lambda: not [run for run in runs(root) if not run.is_finished], "the end of runs"
        )
    assert not find(root, release="r0"), "nobody sees it before it is published"
    images = find(root, visit=HLWAS, kind="cal")
    assert {row["context"] for row in images} == {NEW}
    assert {row["generation"] for row in images} == {2}
    of_other = {row["name"] for row in images if row["detector"] == OTHER}
    assert set(images_of(root, "r0")) >= of_other
    assert contents(root, visit=HLWAS, level="L1", kind=list(L1_KINDS)) == before
    assert contents(root, visit=HLWAS, kind="coadd", release="p") == prompt, "they wait for r0"
    assert ephemeris_of_l1(root, HLTDS) == {"DEFINITIVE"}
    of_hltds = find(root, visit=HLTDS, kind="cal")
    assert {row["generation"] for row in of_hltds} == {2}, "L2 follow their L1"
    assert "r0" not in {row["data_release"] for row in of_hltds}
    again = runs(root, **{RELEASE_TAG: "HLWAS_r0"})
    assert again
    assert all(int(run.tags[PRIORITY_TAG]) < 0 for run in again)


def test_a_release_appears_at_once_and_supersedes_prompt_l3(root: DataRoot) -> None:
    declaration = root.path / "hlwas_r0.toml"
    others = contents(root, visit=HLTDS)
    command(root, "release", "publish", str(declaration))
    assert not find(root, release="r0"), "it is shown only when somebody applies it"
    command(root, "release", "publish", str(declaration), "--apply")
    shown = find(root, release="r0")
    assert {row["context"] for row in shown} == {NEW}
    assert {row["kind"] for row in shown} == set(L3_KINDS)
    assert {row["name"].split("_")[2] for row in shown} == {"v01001001001001", "p01001"}
    assert {row["state"] for row in find(root, visit=HLWAS, kind="coadd", release="p")} == {
        "superseded"
    }
    assert {row["state"] for row in find(root, visit=HLTDS)} == {"current"}
    assert contents(root, visit=HLTDS) == others
    images = {row["name"]: row for row in find(root, kind="cal")}
    with roman_assets.open_archive(root.path) as archive:
        for row in shown:
            if row["kind"] == "coadd":
                made_from = archive.history(row["name"]).iloc[-1]["inputs"]
                assert {images[item["name"]]["context"] for item in made_from} == {NEW}
                assert len(made_from) <= 4


def test_superseded_products_go_together_when_their_time_is_over(root: DataRoot) -> None:
    released, others = contents(root, release="r0"), contents(root, visit=HLTDS)
    prompt = contents(root, visit=HLWAS, release="p", kind=list(L3_KINDS))
    assert "0 products are due" in command(root, "retention", "--apply")
    assert contents(root, visit=HLWAS, release="p", kind=list(L3_KINDS)) == prompt
    (root.path / "retention.toml").write_text("version = 1\ndays = 0\n")
    command(root, "retention", "--apply")
    assert not find(root, visit=HLWAS, release="p", kind=list(L3_KINDS))
    assert contents(root, release="r0") == released
    assert contents(root, visit=HLTDS) == others
    gone = find(root, visit=HLWAS, release="p", kind=list(L3_KINDS), overwritten=True)
    assert {row["name"] for row in gone if row["state"] == "removed"} == set(prompt)


def test_a_second_release_makes_l2_again_and_leaves_the_first_in_place(root: DataRoot) -> None:
    first, others = contents(root, release="r0"), contents(root, visit=HLTDS)
    declaration = declare(root, "r1", OLD)
    command(root, "release", "run", str(declaration), "--here")
    command(root, "release", "publish", str(declaration), "--apply")
    assert contents(root, release="r0") == first
    second = find(root, release="r1")
    assert len(second) == len(first)
    assert {row["context"] for row in second} == {OLD}
    images = find(root, visit=HLWAS, kind="cal")
    assert {(row["context"], row["data_release"], row["generation"]) for row in images} == {
        (OLD, "r1", 3)
    }
    assert {row["generation"] for row in find(root, visit=HLWAS, kind="exposure_catalog")} == {3}
    assert contents(root, visit=HLTDS) == others


def test_nothing_is_made_again_after_a_release_and_all_is_on_record(root: DataRoot) -> None:
    before, made = len(runs(root)), contents(root)
    with running_dev(root) as platform:
        platform.wait_for(lambda: platform.process.poll() is None, "its start")
        time.sleep(2 * LOOKS)
    assert len(runs(root)) == before
    assert contents(root) == made
    assert "0 findings" in command(root, "fsck")
    every = generations(root, overwritten=True)
    command(root, "rebuild")
    assert generations(root, overwritten=True) == every
    assert contents(root) == made
    counts = json.loads(command(root, "deadlines", "--json"))["counts"]
    states = {row["state"] for row in counts if row["products"]}
    assert states <= {"made in time", "not expected"}
