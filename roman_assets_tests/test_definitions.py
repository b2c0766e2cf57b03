from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from roman_assets.data_root import DATA_ROOT_VARIABLE
from roman_assets.definitions import build_defs, defs
from roman_assets.defs.lib.freshness import freshness_policy
from roman_assets.defs.lib.partitions import PARTITIONS
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import EXPOSURE_HANDOVER, LEVEL0, VISIT_HANDOVER
from roman_assets.products.deadline import DEADLINES
from roman_assets.products.kind import KIND_BY_NAME, KINDS, VISIT_STEPS, Level, Maker, Step

HEAVY = ("romancal", "roman_datamodels", "asdf", "astropy", "pandas", "duckdb", "numpy")

WITHOUT_RESOURCES = {
    "decide_proposal": {
        "ops": {
            "put_decision_on_record": {
                "config": {"proposal": "p", "verdict": "APPROVED", "by": "b", "reason": "r"}
            }
        }
    }
}
"""Run configuration of the jobs that take some."""

graph = defs.get_repository_def().asset_graph


def test_the_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(defs)


def test_loading_imports_none_of_the_science() -> None:
    code = (
        "import sys, roman_assets.definitions; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_every_product_kind_is_an_asset_and_nothing_else_is_a_product() -> None:
    made = {key.to_user_string() for key in graph.materializable_asset_keys}
    released = {
        f"release_{name}"
        for name in (
            "association", "coadd", "coadd_preview", "coadd_thumbnail", "catalog", "segmentation",
        )
    }  # fmt: skip
    released |= {
        f"release_{kind.name}"
        for kind in KINDS
        if kind.maker is Maker.SSC and kind.step in VISIT_STEPS
    }
    assert made == {kind.name for kind in KINDS} | released | {"visit_manifest", "deadline_report"}


def test_a_release_is_made_from_l2_and_beside_what_is_made_promptly() -> None:
    found = graph.get_ancestor_asset_keys(dg.AssetKey("release_catalog"))
    assert {dg.AssetKey("cal"), dg.AssetKey("release_coadd")} <= found
    assert found.isdisjoint({dg.AssetKey("coadd"), dg.AssetKey("visit_manifest")})
    for name in ("association", "coadd", "catalog", "segmentation"):
        node = graph.get(dg.AssetKey(f"release_{name}"))
        assert node.partitions_def.name == "release_unit"
        for parent in node.parent_keys - {dg.AssetKey("cal")}:
            assert graph.get(parent).partitions_def == node.partitions_def, parent
    assert graph.get(dg.AssetKey("release_coadd")).freshness_policy is None


def test_what_the_ssc_delivers_is_in_the_graph_below_what_it_is_handed() -> None:
    for kind in KINDS:
        if kind.maker is Maker.SSC:
            found = graph.get_ancestor_asset_keys(dg.AssetKey(kind.name))
            assert found & {EXPOSURE_HANDOVER, VISIT_HANDOVER}
            assert dg.AssetKey("coadd") not in found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_asset_says_what_it_is_and_when_it_is_due(kind) -> None:
    node = graph.get(dg.AssetKey(kind.name))
    assert kind.description in (node.description or "")
    assert node.group_name == kind.level.lower()
    assert node.owners
    assert f"dagster/kind/{kind.extension}" in node.tags
    assert node.partitions_def == PARTITIONS[kind.step]
    policy = node.freshness_policy
    assert policy is not None
    latency = DEADLINES[kind.due_level].latency / timedelta(hours=1)
    for told in (
        f"for {latency:g} h",
        "cannot tell whether one exposure or visit is late",
        "in_time",
    ):
        assert told in (node.description or "")
    assert policy.fail_window.to_timedelta() == DEADLINES[kind.due_level].latency
    deadline = DEADLINES[kind.due_level]
    assert policy.warn_window.to_timedelta() == deadline.latency - deadline.warning


@pytest.mark.parametrize(
    ("settings", "fail", "warn"),
    [
        ("latency_hours = 36\nwarning_hours = 6", timedelta(hours=36), timedelta(hours=30)),
        ("latency_hours = 0.01\nwarning_hours = 0", timedelta(minutes=1), None),
    ],
)
def test_the_freshness_windows_are_those_of_the_installation(
    settings: str,
    fail: timedelta,
    warn: timedelta | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    (tmp_path / "deadlines.toml").write_text(f"version = 1\n[L2]\n{settings}\n")
    policy = freshness_policy(Level.L2)
    assert policy.fail_window.to_timedelta() == fail
    assert (policy.warn_window and policy.warn_window.to_timedelta()) == warn


def test_the_lineage_begins_at_packets_that_no_asset_makes() -> None:
    assert graph.get(LEVEL0).is_external
    assert "Never visible to general users" in (graph.get(LEVEL0).description or "")
    keys = graph.get_all_asset_keys()
    roots = {key.to_user_string() for key in keys if not graph.get(key).parent_keys}
    assert roots == {"level0", "ancillary", "calibration_references"}


def test_an_overwritten_image_makes_what_follows_it_downstream() -> None:
    for kind in KINDS:
        if kind.follows is not None and KIND_BY_NAME[kind.follows].step is Step.EXPOSURE:
            assert dg.AssetKey(kind.follows) in graph.get(dg.AssetKey(kind.name)).parent_keys


def test_all_sensors_run_without_a_touch() -> None:
    for sensor in defs.get_repository_def().sensor_defs:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_a_test_may_bring_its_own_installation(tmp_path) -> None:
    mine = Installation(data_root=str(tmp_path))
    own = build_defs({"installation": mine})
    resource = own.get_repository_def().get_top_level_resources()["installation"]
    assert resource(dg.build_init_resource_context()) == mine


@pytest.mark.parametrize("job", [job.name for job in defs.get_repository_def().get_all_jobs()])
def test_no_run_configuration_chooses_a_directory_or_a_command(job: str) -> None:
    definition = defs.get_repository_def().get_job(job)
    dg.validate_run_config(definition, WITHOUT_RESOURCES.get(job))
    for name in sorted(definition.resource_defs):
        for config in ({"data_root": "/elsewhere"}, {"base_dir": "/elsewhere"}, "/elsewhere"):
            given = {"resources": {name: {"config": config}}} | WITHOUT_RESOURCES.get(job, {})
            with pytest.raises(dg.DagsterInvalidConfigError, match=name):
                dg.validate_run_config(definition, given)
