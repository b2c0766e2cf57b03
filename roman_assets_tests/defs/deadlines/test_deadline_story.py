"""Late data, slow and failing runs as an operator meets them: command line, checks, report, UI.

Everything is real but the clock: ``roman-assets dev`` runs on an installation, ``roman-assets
simulate`` lands telemetry, some of it late, some never, and romancal works on it. A slow run is one
whose processes are stopped, a passing fault the kill of a worker, bad input a damaged calibration
reference that a person repairs. Deadlines are hours, the work takes minutes, and the tests put the
clock forward; so what is late does not depend on the machine.

The tests follow each other as one night does.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterRun, DagsterRunStatus, RunsFilter

from roman_assets.data_root import DataRoot
from roman_assets.registry.store.fold_lock import fold_lock
from roman_assets.settings.automation_settings import RESERVE_VARIABLE
from roman_assets_tests.support.browser import needs_browser, open_browser
from roman_assets_tests.support.clock import Clock
from roman_assets_tests.support.platform import (
    Platform,
    command,
    default_places,
    process_of,
    running_dev,
    tree_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

DEADLINES = """
version = 1
[L2]
latency_hours = 2           # after receipt
warning_hours = 1
[L3]
latency_hours = 4           # after execution
warning_hours = 1
[L4]
latency_hours = 4
warning_hours = 1
"""
RESERVE_HOURS = "0.003"
"""A visit that lacks something waits until 11 s before it is due, so that it comes out late."""

EXPOSURE_TIME = timedelta(minutes=1)
"""Of MA table 1001."""

CHECK = """
query ($asset: String!, $partition: String!, $name: String!) {
  assetCheckExecutions(
    assetKey: {path: [$asset]}, checkName: $name, partition: $partition, limit: 20
  ) {
    status partition
    evaluation { success severity description metadataEntries {
      label
      ... on TextMetadataEntry { text }
      ... on FloatMetadataEntry { floatValue }
      ... on IntMetadataEntry { intValue }
      ... on JsonMetadataEntry { jsonString }
    } }
  }
}
"""

FRESHNESS = """
query { assetNodes(assetKeys: [{path: ["cal"]}]) { freshnessStatusInfo { freshnessStatus } } }
"""

RE_EXECUTE = """
mutation ($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: ALL_STEPS}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""

MAKE_REPORT = """
mutation {
  launchRun(executionParams: {
    selector: {
      repositoryName: "__repository__", repositoryLocationName: "roman_assets",
      jobName: "deadline_report_job"
    }
    runConfigData: {}
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True)
class Told:
    """What is to be told of a product: where it stands, what is to blame."""

    visit: str
    asset: str
    level: str
    state: str
    blame: str

    @property
    def partition(self) -> str:
        return self.visit if self.asset == "coadd" else f"{self.visit}_0001"


def visit(program: int) -> str:
    return f"r{program:05d}01001001001001"


LATE_PACKETS, LATE_MA_TABLE, LOST_EXPOSURE = visit(11), visit(12), visit(13)
BAD_INPUT, SLOW_RUN, PASSING_FAULT = visit(21), visit(22), visit(23)

LOST = f"{LOST_EXPOSURE}_0002"


@dataclass
class Story:
    """An installation at work, and the clock by which all its programs go."""

    platform: Platform
    clock: Clock
    lights: list[str] = field(default_factory=list)

    @property
    def root(self) -> DataRoot:
        return self.platform.root

    def command(self, *arguments: str) -> str:
        return command(self.root, *arguments, **self.clock.environment)

    def advance(self, **by: float) -> None:
        """Put the clock forward while no run is just starting, which has a time limit."""
        self.platform.wait_for(lambda: not self._starting(), "no run that starts")
        self.clock.advance(timedelta(**by))

    def _starting(self) -> bool:
        starting = RunsFilter(statuses=[DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING])
        with self.platform.instance() as instance:
            return bool(instance.get_runs(starting))

    def light(self) -> str | None:
        """Return the freshness of the asset ``cal`` as the UI shows it."""
        (node,) = self.platform.ask(FRESHNESS)["assetNodes"]
        info = node["freshnessStatusInfo"]
        return info and info["freshnessStatus"]

    def wait_for_light(self, wanted: str) -> None:
        self.platform.wait_for(
            lambda: self.light() == wanted, f"a light that is {wanted} (it was {self.light()})"
        )
        self.lights.append(wanted)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("story")
    root, clock = DataRoot(directory / "data"), Clock(directory / "clock")
    root.path.mkdir()
    (root.path / "deadlines.toml").write_text(DEADLINES)
    environment = {RESERVE_VARIABLE: RESERVE_HOURS} | clock.environment
    with default_places(), running_dev(root, **environment) as platform:
        yield Story(platform, clock)


@pytest.fixture(scope="module")
def platform(story: Story) -> Platform:
    return story.platform


def observe(story: Story, program: int, *options: str, exposures: int = 1) -> None:
    """Let the simulated telescope carry a visit out that ends now, and send its data down."""
    start = story.clock.now() - exposures * EXPOSURE_TIME
    story.command(
        "simulate", "--program", str(program), "--detectors", "WFI01",
        "--ma-table", "1001", "--start", start.isoformat(timespec="seconds")[:-6],
        *options,
    )  # fmt: skip


ONE_EXPOSURE = ("--dither", "NONE")
OF_MICROLENSING = (*ONE_EXPOSURE, "--survey", "GBTDS")
"""One exposure of which the SOC makes L1 and L2 only."""


def said_by(platform: Platform, asset: str, partition: str, name: str = "in_time") -> Any:
    """Give what a check of a partition said last, with its metadata by label."""
    found = platform.ask(CHECK, asset=asset, partition=partition, name=name)["assetCheckExecutions"]
    evaluated = [one["evaluation"] for one in found if one["evaluation"]]
    if not evaluated:
        return None
    shown = {
        entry["label"]: next((value for key, value in entry.items() if key != "label"), None)
        for entry in evaluated[0]["metadataEntries"]
    }
    return {**evaluated[0], **shown, "evaluations": len(found)}


def assert_told(story: Story, told: Told, tmp_path: Path) -> None:
    """Wait until the check says it, then ask the command line and the report."""
    platform = story.platform
    said = platform.wait_for(
        lambda: (
            (found := said_by(platform, told.asset, told.partition))
            and (found["state"], found.get("blame")) == (told.state, told.blame)
            and found
        ),
        f"a check that says {told} (it says {said_by(platform, told.asset, told.partition)})",
    )
    assert (said["success"], said["severity"]) == (False, "ERROR")
    answer = story.command("deadlines", "--json", "--visit", told.visit)
    rows = [
        row
        for row in json.loads(answer)["most_urgent"]
        if (row["partition"], row["level"], row["kind"]) == (told.partition, told.level, told.asset)
    ]
    assert {(row["state"], row["blame"]) for row in rows} == {(told.state, told.blame)}
    text = story.command("deadlines", "--visit", told.visit)
    assert told.state in text
    assert told.partition in text
    story.command("deadlines", "--report", str(tmp_path))
    page = (tmp_path / "deadlines.html").read_text()
    line = next(
        line
        for line in page.split("<tr")
        if all(word in line for word in (told.partition, told.level, told.state))
    )
    assert told.blame in line
    assert (tmp_path / "deadlines.png").stat().st_size > 10_000


def runs_of(platform: Platform, partition: str) -> list[DagsterRun]:
    with platform.instance() as instance:
        runs = instance.get_runs()
    return [run for run in runs if run.tags.get("dagster/partition") == partition]


def events_of(platform: Platform, run: DagsterRun, kind: DagsterEventType) -> int:
    with platform.instance() as instance:
        return len(instance.all_logs(run.run_id, of_type=kind))


def run_in_step(platform: Platform, partition: str, step: str, tries: int = 1) -> DagsterRun:
    """Wait until a run is at the given try of a step."""

    def found() -> DagsterRun | None:
        with platform.instance() as instance:
            for run in runs_of(platform, partition):
                begun = [
                    entry
                    for kind in (DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED)
                    for entry in instance.all_logs(run.run_id, of_type=kind)
                ]
                if sum(entry.step_key == step for entry in begun) >= tries:
                    return run
        return None

    return platform.wait_for(found, f"try {tries} of {step} for {partition}")


def processes_of(platform: Platform, run: DagsterRun) -> list[int]:
    """Give the process of a run and all that it started."""
    with platform.instance() as instance:
        return tree_of(process_of(instance, run))


def flat_of(root: DataRoot, element: str) -> Path:
    """Give the flat-field reference of an optical element in the installation's CRDS cache."""
    import asdf

    for path in sorted(root.crds.rglob("*flat*.asdf")):
        with asdf.open(path) as file:
            if file["roman"]["meta"]["instrument"]["optical_element"] == element:
                return path
    raise AssertionError(f"no flat of {element} below {root.crds}")


@dataclass
class Night:
    """What has landed, and the reference that was damaged."""

    damaged: Path
    intact: bytes

    def repair(self) -> None:
        self.damaged.write_bytes(self.intact)


@pytest.fixture(scope="module", autouse=True)
def night(story: Story) -> Night:
    """Land what comes to grief by itself: data that are damaged, late or lost."""
    root = story.root
    # held back until its references are there, and one of them is damaged
    observe(story, 21, *OF_MICROLENSING, "--filter", "F106", "--delivery", "late")
    flat = flat_of(root, "F106")
    night = Night(flat, flat.read_bytes())
    flat.chmod(0o644)
    flat.write_bytes(night.intact[: len(night.intact) // 3])
    story.command("simulate", "--held-back")
    observe(story, 13, "--dither", "SUB2", "--lose", "2", exposures=2)
    observe(story, 11, *ONE_EXPOSURE, "--delivery", "late_packets")
    # another table, since that of the others is in
    observe(story, 12, *ONE_EXPOSURE, "--delivery", "late_ma_table", "--ma-table", "1010")
    return night


def test_what_cannot_be_used_fails_at_once_and_is_not_tried_again(
    platform: Platform, tmp_path: Path
) -> None:
    partition = f"{BAD_INPUT}_0001"
    said = platform.wait_for(lambda: said_by(platform, "cal", partition), "a check of the failure")
    assert said["state"] == "failed"
    (run,) = runs_of(platform, partition)
    platform.wait_for(lambda: runs_of(platform, partition)[0].is_finished, "the end of the run")
    assert events_of(platform, run, DagsterEventType.STEP_FAILURE) == 1
    assert events_of(platform, run, DagsterEventType.STEP_UP_FOR_RETRY) == 0


def test_a_slow_run_is_shown_while_it_runs_and_after(story: Story, tmp_path: Path) -> None:
    platform = story.platform
    story.wait_for_light("HEALTHY")
    observe(story, 22, *OF_MICROLENSING)
    run = run_in_step(platform, f"{SLOW_RUN}_0001", "calibrate_exposure")
    stopped = processes_of(platform, run)
    try:
        # stopped while it folds it would hold everybody up, not only itself
        with fold_lock(platform.root):
            _signal(stopped, signal.SIGSTOP)
        story.advance(hours=1.5)
        story.wait_for_light("WARNING")
        story.advance(hours=1)
        story.wait_for_light("DEGRADED")
        assert_told(story, Told(SLOW_RUN, "cal", "L2", "overdue", "computation"), tmp_path / "slow")
        assert said_by(platform, "cal", f"{SLOW_RUN}_0001")["stage"] == "running"
    finally:
        _signal(stopped, signal.SIGCONT)
    assert_told(story, Told(SLOW_RUN, "cal", "L2", "made late", "computation"), tmp_path)
    assert [one.status for one in runs_of(platform, f"{SLOW_RUN}_0001")] == [
        DagsterRunStatus.SUCCESS
    ]


def test_the_light_of_an_asset_goes_out_and_on_again(story: Story) -> None:
    """The newest L2 grew old while the slow run held up the stream, and then there was a new."""
    story.wait_for_light("HEALTHY")
    assert story.lights == ["HEALTHY", "WARNING", "DEGRADED", "HEALTHY"]


def test_what_fails_for_a_fault_that_passes_is_tried_again(story: Story, tmp_path: Path) -> None:
    platform = story.platform
    observe(story, 23, *OF_MICROLENSING)
    partition = f"{PASSING_FAULT}_0001"
    for tries in (1, 2, 3):
        run = run_in_step(platform, partition, "calibrate_exposure", tries)
        platform.wait_for(lambda run=run: _kill_a_worker(platform, run), "a worker")
        platform.wait_for(
            lambda run=run, tries=tries: (
                events_of(platform, run, DagsterEventType.STEP_UP_FOR_RETRY) == tries
            ),
            f"failure {tries}",
        )
        if tries == 2:
            told = story.command("deadlines", "--json", "--visit", PASSING_FAULT)
            states = {
                row["state"] for row in json.loads(told)["most_urgent"] if row["kind"] == "cal"
            }
            assert "failed" not in states
    story.advance(hours=2.5)
    assert_told(story, Told(PASSING_FAULT, "cal", "L2", "made late", "retries"), tmp_path)
    assert len(runs_of(platform, partition)) == 1


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _kill_a_worker(platform: Platform, run: DagsterRun) -> bool:
    """Kill what works for a run, which is neither its process nor what that started itself."""
    own, *others = processes_of(platform, run)
    workers = [pid for pid in others if _parent(pid) != own]
    _signal(workers, signal.SIGKILL)
    return bool(workers)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_late_packets_and_a_late_ma_table_are_told_apart(story: Story, tmp_path: Path) -> None:
    platform = story.platform
    late = {LATE_PACKETS: "downlink", LATE_MA_TABLE: "ancillary"}
    stages = {LATE_PACKETS: "waiting for downlink", LATE_MA_TABLE: "waiting for ancillary data"}
    for name, blame in late.items():
        told = Told(name, "exposure_catalog", "L4", "overdue", blame)
        assert_told(story, told, tmp_path / blame)
        assert said_by(platform, told.asset, told.partition)["stage"] == stages[name]
    story.command("simulate", "--held-back")
    for name, blame in late.items():
        told = Told(name, "exposure_catalog", "L4", "made late", blame)
        assert_told(story, told, tmp_path / f"{blame}-made")
        platform.wait_for(
            lambda at=told.partition: said_by(platform, "cal", at)["state"] == "made in time",
            "L2 made in time, as its clock starts when all is in",
        )


def test_a_lost_exposure_makes_its_visit_late_and_partial(story: Story, tmp_path: Path) -> None:
    platform = story.platform
    assert_told(
        story, Told(LOST_EXPOSURE, "coadd", "L3", "made late", "downlink"), tmp_path / "visit"
    )
    assert json.loads(said_by(platform, "coadd", LOST_EXPOSURE, "whole_visit")["missing"]) == [LOST]
    told = json.loads(story.command("deadlines", "--json", "--exposure", LOST))
    states = {(row["level"], row["state"], row["blame"]) for row in told["most_urgent"]}
    assert ("L4", "overdue", "downlink") in states
    assert ("L1", "waiting for downlink", None) in states


def test_input_that_a_person_repaired_is_blamed_after_the_run_was_executed_again(
    story: Story, night: Night, tmp_path: Path
) -> None:
    platform = story.platform
    assert_told(story, Told(BAD_INPUT, "cal", "L2", "failed", "input"), tmp_path / "failed")
    night.repair()
    (run,) = runs_of(platform, f"{BAD_INPUT}_0001")
    answer = platform.ask(RE_EXECUTE, run=run.run_id)["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    assert_told(story, Told(BAD_INPUT, "cal", "L2", "made late", "input"), tmp_path / "made")


def test_no_tick_of_any_sensor_failed(platform: Platform) -> None:
    for sensor in ("landing_sensor", "visit_sensor", "deadline_sensor", "alert_sensor"):
        ticks = platform.ticks(sensor)
        assert ticks
        assert not [tick["error"] for tick in ticks if tick["status"] == "FAILURE"]


def test_a_check_is_reported_once_for_each_change(platform: Platform) -> None:
    places = [("cal", f"{one}_0001") for one in (BAD_INPUT, SLOW_RUN, PASSING_FAULT)]
    before = [said_by(platform, *place)["evaluations"] for place in places]
    time.sleep(65)
    assert [said_by(platform, *place)["evaluations"] for place in places] == before


@needs_browser
def test_an_operator_sees_all_of_it_in_the_browser(story: Story, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    platform = story.platform
    story.command("deadlines", "--report", str(platform.root.path / "seen"))
    answer = platform.ask(MAKE_REPORT)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    report = answer["run"]["runId"]
    with open_browser(tmp_path / "profile") as browser:
        wait = WebDriverWait(browser, 60)

        def sees(url: str, name: str, *words: str) -> None:
            browser.get(url)
            body = (By.TAG_NAME, "body")
            try:
                wait.until(
                    lambda driver: all(word in driver.find_element(*body).text for word in words)
                )
            finally:
                browser.save_screenshot(str(platform.root.path / f"seen_{name}.png"))

        ui = f"http://127.0.0.1:{platform.port}"
        sees(f"{ui}/asset-groups", "graph", "calibration", "l1", "l2", "l3", "l4", "operations")
        for name, told in {
            "slow": Told(SLOW_RUN, "cal", "L2", "made late", "computation"),
            "fault": Told(PASSING_FAULT, "cal", "L2", "made late", "retries"),
            "input": Told(BAD_INPUT, "cal", "L2", "made late", "input"),
            "packets": Told(LATE_PACKETS, "exposure_catalog", "L4", "made late", "downlink"),
            "ma_table": Told(LATE_MA_TABLE, "exposure_catalog", "L4", "made late", "ancillary"),
            "lost": Told(LOST_EXPOSURE, "coadd", "L3", "made late", "downlink"),
        }.items():
            sees(
                f"{ui}/assets/{told.asset}?view=partitions&partition={told.partition}",
                name, told.partition, told.state, "blame", told.blame,
            )  # fmt: skip
        sees(f"{ui}/assets/cal?view=checks&checkDetail=in_time", "check", "in_time", "mostly")
        platform.wait_for(
            lambda: platform.instance().get_run_by_id(report).is_finished, "the report"
        )
        sees(f"{ui}/assets/deadline_report", "report_asset", "deadline_report", "made late")
        page = platform.root.path / "seen" / "deadlines.html"
        sees(page.as_uri(), "page", LATE_PACKETS, "downlink", "ancillary", "retries", "input")
