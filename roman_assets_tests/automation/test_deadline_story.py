"""What an operator sees of late products in a running platform: checks, command line, report, UI.

Five visits have come to grief before the daemon starts: what is on record of them is what the steps
record, at hours of the test's choice. The sensors, the web server and the browser are real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roman_assets.dagster_home import dagster_environment
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.record import Outcome
from roman_assets_tests.automation.platform import Platform, default_places, running_platform
from roman_assets_tests.registry import facts as facts_module
from roman_assets_tests.registry.facts import L1, L2, Facts, exposure_names

pytestmark = pytest.mark.slow

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
BROWSER_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1600,1000",
)  # fmt: skip

CHECK = """
query ($asset: String!, $partition: String!) {
  assetCheckExecutions(
    assetKey: {path: [$asset]}, checkName: "in_time", partition: $partition, limit: 5
  ) {
    status partition
    evaluation { success severity description metadataEntries {
      label
      ... on TextMetadataEntry { text }
      ... on FloatMetadataEntry { floatValue }
      ... on IntMetadataEntry { intValue }
    } }
  }
}
"""

TICKS = """
query ($sensor: String!) {
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "roman_assets", sensorName: $sensor
  }) {
    ... on Sensor { sensorState { ticks(limit: 20) { status error { message } } } }
  }
}
"""

FRESHNESS = """
query { assetNodes(assetKeys: [{path: ["cal"]}]) { freshnessStatusInfo { freshnessStatus } } }
"""


@dataclass(frozen=True)
class Grief:
    """A way to be late, and what is to be told of it."""

    visit: str
    asset: str
    level: str
    state: str
    blame: str

    @property
    def exposure(self) -> str:
        return f"{self.visit}_0001"


def visit(number: int) -> str:
    return f"r0001001001001001{number:03d}"


LATE_PACKETS = Grief(visit(1), "exposure_catalog", "L4", "overdue", "downlink")
LATE_MA_TABLE = Grief(visit(2), "exposure_catalog", "L4", "overdue", "ancillary")
SLOW_RUN = Grief(visit(3), "cal", "L2", "overdue", "computation")
FAILING_RUN = Grief(visit(4), "cal", "L2", "failed", "retries")
LOST_EXPOSURE = Grief(visit(5), "coadd", "L3", "overdue", "downlink")
GRIEVES = (LATE_PACKETS, LATE_MA_TABLE, SLOW_RUN, FAILING_RUN, LOST_EXPOSURE)


def record_grief(root: DataRoot) -> None:
    """Record what happened to the five visits; hours count from 200 h ago."""
    facts = Facts(root)
    facts.receipt(LATE_PACKETS.exposure, packets=None, ancillary=1)
    facts.receipt(LATE_MA_TABLE.exposure, packets=1, ancillary=None)
    for grief in (SLOW_RUN, FAILING_RUN):
        facts.receipt(grief.exposure)
        names = exposure_names(grief.exposure, L1)
        facts.published(Step.FORMATTING, grief.exposure, names, start=1.5, end=2)
    facts.attempt(Step.EXPOSURE, SLOW_RUN.exposure, start=2.5)
    facts.attempt(
        Step.EXPOSURE, FAILING_RUN.exposure, start=2.5, end=3, outcome=Outcome.PASSING_FAULT
    )
    facts.attempt(
        Step.EXPOSURE, FAILING_RUN.exposure, start=190, end=191, outcome=Outcome.PASSING_FAULT,
        last_try=True,
    )  # fmt: skip
    facts.receipt(LOST_EXPOSURE.exposure, nexposures=2)
    for step, kinds in ((Step.FORMATTING, L1), (Step.EXPOSURE, L2)):
        names = exposure_names(LOST_EXPOSURE.exposure, kinds)
        facts.published(step, LOST_EXPOSURE.exposure, names, start=2, end=3)
    facts.receipt(f"{LOST_EXPOSURE.visit}_0002", packets=None, first_packet=None, nexposures=2)
    facts.fold()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = DataRoot(tmp_path_factory.mktemp("story") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts_module, "START", datetime.now(UTC) - timedelta(hours=200))
        record_grief(root)
    with default_places(), running_platform(root) as platform:
        yield platform


def place_of(grief: Grief) -> str:
    return grief.visit if grief.asset == "coadd" else grief.exposure


@pytest.mark.parametrize("grief", GRIEVES, ids=lambda grief: f"{grief.state}-{grief.blame}")
def test_each_grief_is_shown_by_its_check(platform: Platform, grief: Grief) -> None:
    (said,) = platform.wait_for(
        lambda: platform.ask(CHECK, asset=grief.asset, partition=place_of(grief))[
            "assetCheckExecutions"
        ],
        f"the check of {grief.asset} for {place_of(grief)}",
    )
    evaluation = said["evaluation"]
    shown = {entry["label"]: _value(entry) for entry in evaluation["metadataEntries"]}
    assert (evaluation["success"], evaluation["severity"]) == (False, "ERROR")
    assert (shown["state"], shown["blame"]) == (grief.state, grief.blame)


def _value(entry: dict[str, Any]) -> Any:
    return next((value for key, value in entry.items() if key != "label"), None)


@pytest.mark.parametrize("grief", GRIEVES, ids=lambda grief: f"{grief.state}-{grief.blame}")
def test_the_command_line_tells_the_same(platform: Platform, grief: Grief) -> None:
    told = command(platform, "deadlines", "--json", "--visit", grief.visit)
    rows = [
        row
        for row in json.loads(told)["most_urgent"]
        if (row["partition"], row["level"]) == (place_of(grief), grief.level)
    ]
    assert {(row["state"], row["blame"]) for row in rows} == {(grief.state, grief.blame)}


def test_the_report_tells_the_same(platform: Platform, tmp_path: Path) -> None:
    command(platform, "deadlines", "--report", str(tmp_path))
    (page,) = tmp_path.glob("*.html")
    text = page.read_text()
    for grief in GRIEVES:
        assert place_of(grief) in text
        assert grief.blame in text


def command(platform: Platform, *arguments: str) -> str:
    """Run ``roman-assets`` as an operator of the platform; give what it prints."""
    program = Path(sys.executable).with_name("roman-assets")
    done = subprocess.run(
        [str(program), *arguments],
        env=dagster_environment(platform.root) | {"COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_tick_of_any_sensor_failed(platform: Platform) -> None:
    for sensor in ("landing_sensor", "visit_sensor", "deadline_sensor", "alert_sensor"):
        ticks = platform.wait_for(
            lambda sensor=sensor: platform.ask(TICKS, sensor=sensor)["sensorOrError"][
                "sensorState"
            ]["ticks"],
            f"a tick of {sensor}",
        )
        assert not [tick["error"] for tick in ticks if tick["status"] == "FAILURE"]


def test_a_check_is_reported_once(platform: Platform) -> None:
    time.sleep(65)
    for grief in GRIEVES:
        found = platform.ask(CHECK, asset=grief.asset, partition=place_of(grief))
        assert len(found["assetCheckExecutions"]) == 1


def test_freshness_is_evaluated_by_the_daemon(platform: Platform) -> None:
    (node,) = platform.wait_for(
        lambda: [
            node
            for node in platform.ask(FRESHNESS)["assetNodes"]
            if node["freshnessStatusInfo"] is not None
        ],
        "a freshness status",
    )
    assert node["freshnessStatusInfo"]["freshnessStatus"] in ("UNKNOWN", "HEALTHY")


@pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
)
def test_an_operator_sees_the_graph_and_the_failed_check(
    platform: Platform, tmp_path: Path
) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    grief = SLOW_RUN
    platform.wait_for(
        lambda: platform.ask(CHECK, asset=grief.asset, partition=grief.exposure)[
            "assetCheckExecutions"
        ],
        "the check",
    )
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*BROWSER_OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        wait = WebDriverWait(browser, 60)

        def sees(path: str, *words: str) -> None:
            browser.get(f"http://127.0.0.1:{platform.port}{path}")
            body = (By.TAG_NAME, "body")
            try:
                wait.until(
                    lambda driver: all(word in driver.find_element(*body).text for word in words)
                )
            finally:
                name = path.strip("/").replace("/", "_").partition("?")[0]
                browser.save_screenshot(str(platform.root.path / f"{name}.png"))

        sees("/asset-groups", "calibration", "l1", "l2", "l3", "l4", "operations")
        sees(
            f"/assets/cal?view=checks&checkDetail=in_time&partition={grief.exposure}",
            "in_time", "Failed",
        )  # fmt: skip
    finally:
        browser.quit()
