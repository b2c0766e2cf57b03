"""The SSC's half under the real daemon: from packets to its products, by a command of each kind.

``roman-assets dev`` runs, the simulated telescope sends visits of the Galactic Bulge survey down,
``ssc.toml`` names a command. Everything after that happens by itself. The tests follow each other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import DagsterRunStatus, RunsFilter

import roman_assets
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KINDS, Step
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets_tests.support.platform import (
    Platform,
    command,
    default_places,
    running_dev,
)
from roman_assets_tests.support.small_products import VISIT
from roman_assets_tests.support.ssc_center import bulge, contents, metadata

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SCRIPT = Path(__file__).parents[2] / "support" / "foreign_pipeline.sh"
VISITS = 9
FIELD = Pointing(269.7718, 66.16, 0.0)
SEASON = VisitPlan.from_requests(
    [
        VisitRequest(
            Survey.GBTDS, 3, OpticalElement.F146, FIELD, "NONE", 3, visits=VISITS,
            cadence=timedelta(days=1),
        )
    ],
    detectors=("WFI01",),
)  # fmt: skip
*EARLIER, LAST = SEASON.visits
FOREIGN = VisitPlan.from_requests(
    [VisitRequest(Survey.GBTDS, 10, OpticalElement.F146, FIELD, "NONE", 3)], detectors=("WFI01",)
)
SPECTRA = VisitPlan.from_requests(
    [
        VisitRequest(survey, program, element, FIELD, "NONE", 4)
        for survey, program, element in (
            (Survey.HLWAS, 11, OpticalElement.GRISM),
            (Survey.HLTDS, 12, OpticalElement.PRISM),
            (Survey.GAS, 13, OpticalElement.GRISM),
        )
    ],
    detectors=("WFI01",),
)
OF_SSC = sorted(kind.name for kind in KINDS if kind.step is Step.MICROLENSING)
OF_SOC = (
    "visit_manifest", "association", "coadd", "visit_catalog", "visit_segmentation",
    "exposure_catalog", "exposure_segmentation",
)  # fmt: skip

MADE = """
query ($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetMaterializations { partition metadataEntries {
      label
      ... on MarkdownMetadataEntry { mdStr }
      ... on IntMetadataEntry { intValue }
      ... on JsonMetadataEntry { jsonString }
    } }
  }
}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = DataRoot(tmp_path_factory.mktemp("ssc_story") / "data")
    root.path.mkdir()
    configure(root, [sys.executable, "-m", "roman_assets.simulation.ssc"])
    with default_places(), running_dev(root) as platform:
        yield platform


def configure(root: DataRoot, run: list[str]) -> None:
    (root.path / "ssc.toml").write_text(
        'version = 1\n[[command]]\nsurveys = ["GBTDS"]\nmode = "imaging"\n'
        f"run = {json.dumps(run)}\n"
    )


def made(platform: Platform, *names: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Give what the web server shows of assets: by name and partition, metadata by label."""
    nodes = platform.ask(MADE, keys=[{"path": [name]} for name in names])["assetNodes"]
    return {
        node["assetKey"]["path"][-1]: {
            event["partition"]: {
                entry["label"]: next((v for k, v in entry.items() if k != "label"), None)
                for entry in event["metadataEntries"]
            }
            for event in reversed(node["assetMaterializations"])
        }
        for node in nodes
    }


def wait_for(platform: Platform, partitions: list[str], kinds: list[str]) -> None:
    platform.wait_for(
        lambda: all(set(partitions) <= set(shown) for shown in made(platform, *kinds).values()),
        f"{kinds} of {partitions} in the UI",
        seconds=1200,
    )


def table(root: DataRoot, kind: str, visit: str) -> pd.DataFrame:
    archive = roman_assets.open_archive(root.path)
    (name,) = archive.find(kind=kind, visit=visit)["name"]
    return pd.read_parquet(archive.path(name, verify=True))


def test_packets_of_a_season_become_the_products_of_the_ssc_by_themselves(
    platform: Platform,
) -> None:
    observe(SEASON.select(EARLIER), platform.root, processes=1)
    wait_for(platform, list(map(str, EARLIER)), OF_SSC)
    observe(SEASON.select([LAST]), platform.root, processes=1)
    wait_for(platform, [str(LAST)], OF_SSC)
    curves = table(platform.root, "microlensing_light_curve_catalog", str(LAST))
    assert curves["mjd"].nunique() == VISITS
    assert curves.groupby("object_id").size().max() == VISITS
    assert len(table(platform.root, "microlensing_variability_catalog", str(LAST))) >= 10


def test_the_ui_shows_each_with_its_picture_and_the_check(platform: Platform) -> None:
    shown = made(platform, "microlensing_light_curve_catalog", "microlensing_event_catalog")
    curves = shown["microlensing_light_curve_catalog"][str(LAST)]
    assert "data:image/png;base64," in curves["quick_look"]
    rows = len(table(platform.root, "microlensing_event_catalog", str(LAST)))
    assert shown["microlensing_event_catalog"][str(LAST)]["dagster/row_count"] == rows
    assert set(map(str, SEASON.visits)) <= set(made(platform, "visit_handover")["visit_handover"])


def test_the_ledger_says_that_they_came_in_time(platform: Platform) -> None:
    told = json.loads(command(platform.root, "deadlines", "--json", "--visit", str(LAST)))
    with Registry(platform.root) as registry:
        states = registry.deadlines.groups(kind="microlensing_event_catalog")["state"]
    assert set(states) <= {"made in time", "made late"}
    assert len(states) == VISITS
    assert told["most_urgent"] is not None


def test_a_shell_script_takes_the_place_of_the_command(platform: Platform, tmp_path: Path) -> None:
    directory = tmp_path / "made"
    directory.mkdir()
    names = [bulge(kind) for kind in ("event_catalog", "variability_catalog")]
    for name in names:
        (directory / name).write_bytes(contents(name, "of the script"))
        (directory / f"{name}.metadata").write_text(json.dumps(metadata(name)))
    configure(platform.root, ["sh", str(SCRIPT), str(directory)])
    observe(FOREIGN, platform.root, processes=1)
    kinds = ["microlensing_event_catalog", "microlensing_variability_catalog"]
    wait_for(platform, [VISIT], kinds)
    archive = roman_assets.open_archive(platform.root.path)
    for name in names:
        assert archive.path(name, verify=True).read_bytes() == (directory / name).read_bytes()
    with Registry(platform.root) as registry:
        assert registry.generations.current(names)[names[0]].software == {"sh": "1"}


def test_spectra_are_handed_over_and_wait_where_no_command_is_for_them(
    platform: Platform,
) -> None:
    observe(SPECTRA, platform.root, processes=1)
    exposures = [str(one.exposure) for one in SPECTRA.exposures]
    platform.wait_for(
        lambda: set(exposures) <= set(made(platform, "exposure_handover")["exposure_handover"]),
        "the hand-over of the spectra",
        seconds=600,
    )
    with Registry(platform.root) as registry:
        assert set(exposures) <= set(registry.receipts.unanswered_handovers())


def test_the_soc_made_no_l3_or_l4_of_any_of_them(platform: Platform) -> None:
    assert not any(made(platform, *OF_SOC).values())
    with platform.instance() as instance:
        runs = instance.get_runs()
    assert "visit_products" not in {run.job_name for run in runs}
    assert {run.job_name for run in runs} >= {"exposure_products", "microlensing_command"}
    archive = roman_assets.open_archive(platform.root.path)
    kinds = set(archive.find(level=["L3", "L4"])["kind"])
    assert kinds == set(OF_SSC)


def test_no_run_and_no_tick_failed(platform: Platform) -> None:
    with platform.instance() as instance:
        assert not instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
    for sensor in ("handover_sensor", "delivery_sensor", "visit_sensor", "landing_sensor"):
        ticks = platform.ticks(sensor)
        assert ticks
        assert not [tick["error"] for tick in ticks if tick["status"] == "FAILURE"]
