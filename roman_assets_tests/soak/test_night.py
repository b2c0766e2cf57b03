"""A night under the real daemon in which everything around the platform fails in turn.

A hostile deliverer drops files that cannot be used among the good ones; processes are killed and
stopped; the disk fills up, the object store goes away, the clock steps. At the end everything is as
if nothing had happened, and nobody has touched anything.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pandas as pd
import pytest
from dagster import DagsterInstance

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import ARCHIVE_VARIABLE, DataRoot
from roman_assets.defs.lib.dagster_home import (
    dagster_environment,
    prepare_dagster_home,
    workspace_file,
)
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.clock import Clock
from roman_assets_tests.support.griefs import Road, SmallDisk, small_disk
from roman_assets_tests.support.hostile_files import GoodFiles, drop
from roman_assets_tests.support.platform import command, default_places, kill_group, tree_of
from roman_assets_tests.support.s3_server import BUCKET, environment, running_s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

BAD_FILES_PER_MINUTE = 1000 / 30
DELIVERIES_END = 0.8
"""Part of the night after which nothing arrives and nothing fails any more."""
NIGHTFALL = timedelta(hours=6)
LONG_AGO = timedelta(days=10)
CLOCK_STEP = timedelta(seconds=150)
"""Dagster's sensors pause for as long as the clock was set back."""

RETRIES = "version = 1\nfirst_minutes = 0.5\nmost_minutes = 4\n"
"""Pauses that suit a night of minutes."""

RUN, WORKER = "multiprocessing.spawn", "multiprocessing.forkserver"
"""What the command lines of a run's process and of its romancal workers contain."""

LATE_PROGRAM = 44
FIELD = Pointing(270.0, 66.0, 0.0)
REQUESTS = (
    VisitRequest(Survey.HLWAS, 41, OpticalElement.F158, FIELD, "SUB2", visits=2),
    VisitRequest(Survey.HLWAS, 42, OpticalElement.GRISM, FIELD, visits=2),
)


def bulge_visits(number: int) -> VisitRequest:
    return VisitRequest(Survey.GBTDS, 43, OpticalElement.F146, FIELD, visits=number)


LATE_VISIT = VisitRequest(Survey.HLTDS, LATE_PROGRAM, OpticalElement.F106, FIELD)
"""Executed so long ago that its L3 and L4 are late when its packets come."""


@dataclass(frozen=True)
class Delivery:
    """Files of one visit, ready to be delivered."""

    files: tuple[Path, ...]


@dataclass
class Quarry:
    """Observations made beforehand, and where their calibration references are."""

    root: DataRoot
    plans: list[VisitPlan] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def observe(self, request: VisitRequest, start: datetime) -> None:
        plan = VisitPlan.from_requests([request], start=start, detectors=("WFI01",))
        for visit in plan.visits:
            before = set(self.root.landing.glob("*"))
            observe(plan.select([visit]), self.root, processes=1)
            new = sorted(set(self.root.landing.glob("*")) - before)
            self.deliveries.append(Delivery(tuple(new)))
        self.plans.append(plan)

    @property
    def detectors(self) -> int:
        return sum(len(one.detectors) for plan in self.plans for one in plan.exposures)

    def good_files(self) -> GoodFiles:
        documents = [json.loads(path.read_bytes()) for path in self.root.landing.glob("*.json")]
        visit = next(one for one in documents if one["kind"] == "executed_visit")
        table = next(one for one in documents if one["kind"] == "ma_table")
        packets = next(self.root.landing.glob("*.l0"))
        ephemeris = next(self.root.landing.glob("*.oem"))
        return GoodFiles(
            packets.read_bytes()[:60_000],
            {**visit, "visit": f"r{99:05d}{visit['visit'][6:]}"},
            {**table, "number": 9999},
            ephemeris.read_text(),
        )


class Service:
    """The daemon as a service of the machine: started again whenever it ends."""

    def __init__(self, root: DataRoot, clock: Clock, log: Path) -> None:
        self._root, self._clock, self._log = root, clock, log
        self._wanted = threading.Event()
        self._wanted.set()
        self.starts = 0
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def cut_power(self) -> None:
        """Kill the daemon with everything it started."""
        for pid in reversed(tree_of(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, word: str) -> list[int]:
        """Return the processes of the service whose command line contains a word."""
        found = []
        for pid in tree_of(self._process.pid):
            with suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found

    def stop(self) -> None:
        self._wanted.clear()
        self._keeper.join()
        self.cut_power()
        kill_group(self._process)

    def _keep(self) -> None:
        while self._wanted.is_set():
            if self._process.poll() is not None:
                time.sleep(2)
                self._process = self._start()
            time.sleep(0.5)

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        program = Path(sys.executable).with_name("dagster-daemon")
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [str(program), "run", "-w", str(workspace_file())],
                env=dagster_environment(self._root) | self._clock.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@dataclass
class Night:
    """What goes on, and what was dropped."""

    root: DataRoot
    quarry: Quarry
    disk: SmallDisk
    road: Road
    clock: Clock
    service: Service
    length: float
    dice: random.Random
    bad: list[str] = field(default_factory=list)
    killed: int = 0

    def pass_by(self) -> None:
        """Deliver and disturb until the deliveries end; then everything around is well again."""
        began = time.monotonic()
        deliverer = threading.Thread(target=self._deliver, args=(began,), daemon=True)
        deliverer.start()
        for part, grief in sorted(self._griefs(), key=lambda one: one[0]):
            _sleep_until(began + part * self.length)
            grief()
        deliverer.join()

    def _griefs(self) -> list[tuple[float, Callable[[], None]]]:
        kills = [(0.06 + 0.07 * number, self._kill_a_run) for number in range(10)]
        return [
            *kills,
            (0.15, self.disk.fill), (0.20, self.disk.free),
            (0.27, self.service.cut_power),
            (0.32, self.road.cut), (0.37, self.road.mend),
            (0.40, lambda: self.clock.set_off(CLOCK_STEP)),
            (0.48, lambda: self.clock.set_off(-CLOCK_STEP)),
            (0.56, lambda: self.clock.set_off(timedelta())),
            (0.58, self._kill_a_worker),
            (0.62, self.road.cut), (0.63, self.disk.fill),
            (0.66, self.disk.free), (0.67, self.road.mend),
            (0.72, self._stop_a_run), (0.76, self._continue_all),
            (0.78, self.service.cut_power),
        ]  # fmt: skip

    def _deliver(self, began: float) -> None:
        end = DELIVERIES_END * self.length
        good = self.quarry.good_files()
        nbad = round(BAD_FILES_PER_MINUTE * self.length / 60)
        todo = [(end * number / nbad, number) for number in range(nbad)]
        visits = self.quarry.deliveries
        moments = {round(nbad * (one + 0.5) / len(visits)): one for one in range(len(visits))}
        for moment, number in todo:
            _sleep_until(began + moment)
            if number in moments:
                for file in visits[moments[number]].files:
                    _insist(lambda file=file: self._land(file))
            self.bad.append(
                _insist(lambda one=number: drop(self.root.landing, one, good, self.dice))
            )

    def _land(self, file: Path) -> None:
        draft = self.root.landing / f".{file.name}"
        shutil.copyfile(file, draft)
        draft.rename(self.root.landing / file.name)

    def _kill_a_run(self) -> None:
        for pid in self.service.processes(RUN)[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1

    def _kill_a_worker(self) -> None:
        for pid in self.service.processes(WORKER)[-1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1

    def _stop_a_run(self) -> None:
        for pid in self.service.processes(RUN)[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def _continue_all(self) -> None:
        for pid in self.service.processes(RUN):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def everything_is_made(self) -> bool:
        """Whether every product that the SOC makes of the visits is there."""
        try:
            with Registry(self.root) as registry:
                ledger = registry.deadlines.ledger()
                made = registry.products.find(kind="cal")
        except OSError:
            return False
        return len(made) == self.quarry.detectors and set(ledger["state"]) <= AT_REST

    def open_bad_files(self) -> set[str]:
        """Return the bad files that neither a case nor `status` names."""
        told = [f"{case.source} {case.path.name}" for case in SetAside(self.root).list()]
        told.append(command(self.root, "status"))
        text = "\n".join(told)
        return {name for name in self.bad if name not in text}


Value = TypeVar("Value")

AT_REST = {
    ProductState.MADE_IN_TIME, ProductState.MADE_LATE,
    ProductState.WAITING_FOR_SSC, ProductState.NOT_EXPECTED,
}  # fmt: skip


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _insist(action: Callable[[], Value]) -> Value:
    """Do something as soon as the disk has room for it."""
    while True:
        try:
            return action()
        except OSError:
            time.sleep(1)


@pytest.fixture(scope="module")
def minutes(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("soak_minutes"))


@pytest.fixture(scope="module")
def quarry(tmp_path_factory: pytest.TempPathFactory, minutes: float) -> Quarry:
    quarry = Quarry(DataRoot(tmp_path_factory.mktemp("quarry")))
    now = datetime.now(UTC).replace(microsecond=0)
    for request in (*REQUESTS, bulge_visits(max(4, round(minutes / 2)))):
        quarry.observe(request, now - NIGHTFALL)
    quarry.observe(LATE_VISIT, now - LONG_AGO)
    random.Random(1).shuffle(quarry.deliveries)
    return quarry


@contextmanager
def surroundings(quarry: Quarry, road: Road) -> Iterator[None]:
    """Set the environment of an installation whose archive lies behind the road."""
    with default_places(), pytest.MonkeyPatch.context() as patch:
        for name, value in environment(f"http://127.0.0.1:{road.port}").items():
            patch.setenv(name, value)
        patch.setenv("CRDS_PATH", str(quarry.root.crds))
        patch.setenv(ARCHIVE_VARIABLE, f"s3://{BUCKET}/soak")
        yield


@pytest.fixture(scope="module")
def night(
    tmp_path_factory: pytest.TempPathFactory, quarry: Quarry, minutes: float
) -> Iterator[Night]:
    place = tmp_path_factory.mktemp("night")
    with small_disk(place / "disk") as disk, running_s3_server() as endpoint:
        parts = urlsplit(endpoint)
        road = Road((str(parts.hostname), int(parts.port or 80)))
        with surroundings(quarry, road):
            root = DataRoot(disk.path / "data", f"s3://{BUCKET}/soak")
            root.landing.mkdir(parents=True, mode=0o700)
            (root.path / "retries.toml").write_text(RETRIES)
            prepare_dagster_home(root)
            clock = Clock(place / "clock")
            service = Service(root, clock, place / "daemon.log")
            night = Night(root, quarry, disk, road, clock, service, minutes * 60, random.Random(7))
            try:
                night.pass_by()
                yield night
            finally:
                service.stop()
                road.close()


def test_every_good_product_is_made_once(night: Night) -> None:
    end = time.monotonic() + max(900.0, night.length)
    while not night.everything_is_made() and time.monotonic() < end:
        time.sleep(5)
    with Registry(night.root) as registry:
        ledger = registry.deadlines.ledger()
        products = registry.products.find()
        failures = registry.work.failures()
    open_ones = ledger[~ledger["state"].isin(AT_REST)]
    assert open_ones.empty, open_ones.to_string()
    assert len(products[products["kind"] == "cal"]) == night.quarry.detectors
    assert set(products["generation"]) == {1}
    assert failures.empty


def test_every_bad_file_is_set_aside_once_with_a_reason_or_named(night: Night) -> None:
    end = time.monotonic() + 300
    while night.open_bad_files() and time.monotonic() < end:
        time.sleep(5)
    assert not night.open_bad_files()
    cases = SetAside(night.root).list()
    assert all(case.reason and case.remedy for case in cases)
    names = pd.Series([case.path.name.partition("_bad")[2][:4] for case in cases])
    repeated = names[names.duplicated() & (names != "")]
    assert repeated.empty, sorted(repeated)


def test_deadlines_and_blame_are_right(night: Night) -> None:
    with Registry(night.root) as registry:
        ledger = registry.deadlines.ledger()
    late = ledger[ledger["state"] == ProductState.MADE_LATE]
    assert set(late["visit"].str[1:6].astype(int)) == {LATE_PROGRAM}
    assert set(late["level"]) == {"L3", "L4"}
    assert set(late["blame"]) == {Blame.DOWNLINK}


def test_archive_registry_and_records_agree(night: Night) -> None:
    assert not fsck(night.root)


def test_no_run_is_left_in_the_air(night: Night) -> None:
    with DagsterInstance.from_config(str(night.root.dagster_home)) as instance:
        left = [run.run_id for run in instance.get_runs() if not run.is_finished]
    assert not left


def test_the_night_was_as_bad_as_intended(night: Night) -> None:
    """What was to fail did fail, or the other tests show little."""
    assert night.killed >= 3
    assert night.service.starts >= 3
    assert len(night.bad) == round(BAD_FILES_PER_MINUTE * night.length / 60)
