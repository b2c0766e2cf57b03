"""Time the ticks of the sensors with many exposures known and some new, against looking at all.

An installation knows many exposures whose products are all made. At each round 100 new exposures
of 25 visits arrive, are calibrated, and their visits become ready; the ticks of the landing, visit
and deadline sensors are timed in between. The alternative compares everything at every tick, as the
same sensors do after a restart.

The landing directory with one for each day, its index, the registry and Dagster's storage (SQLite)
are real. Packet files are empty and known to the index, so that the time to read new packets is not
in the figures, while what is in of the new exposures is evaluated: one detector with 125
resultants, as many data units as 18 detectors with 6 resultants have.

    python benchmarks/sensors.py                       # 100,000 exposures, and 10,000 to compare
    python benchmarks/sensors.py --exposures 20000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pydantic import TypeAdapter
from usage.ratios import print_ratio

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.defs.deadlines import sensors as deadlines
from roman_assets.defs.deadlines.check_reports import report
from roman_assets.defs.exposure import sensors as landing
from roman_assets.defs.lib.dagster_internals import SqliteEventLogStorage
from roman_assets.defs.lib.in_time_check import evaluation, ledger_rows, standings
from roman_assets.defs.lib.memory import SensorMemory
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.visit import sensors as visits
from roman_assets.formatting.data_unit import Compression, Stream, UnitHeader, UnitId
from roman_assets.formatting.executed_visit import (
    DetectorAperture,
    ExecutedExposure,
    ExecutedVisit,
    GuideMode,
    GuideStar,
    GuideWindowTable,
    Guiding,
    Pointing,
    Program,
)
from roman_assets.formatting.file_content import (
    EphemerisContent,
    FileContent,
    FileVersion,
    PacketContent,
)
from roman_assets.formatting.inventory import Inventory
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.receipt import Receipt
from roman_assets.formatting.receipt_record import statement_of
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Scope, Step, expected_kinds
from roman_assets.products.name import level0_name
from roman_assets.products.observation import (
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.records.journal import Journal, PendingRecord
from roman_assets.records.record import (
    Attempt,
    CommitRecord,
    Outcome,
    ProductEntry,
    ProductInput,
    Statement,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets_tests.support.dagster_privates import INDEX_SHARD_NAME

EXPOSURES_PER_VISIT = 4
DETECTORS = ("WFI01",)
CELL = "270p65x49y70"
NEW_PER_ROUND = 100
ROUNDS = 5
VISITS_A_DAY = 215
"""As many as a day of the plan of 30 days has."""
EXPOSURE_TIME = timedelta(seconds=395)
NOW = datetime.now(UTC)
SENSORS = {
    "landing": (landing.landing_sensor, landing),
    "visit": (visits.visit_sensor, visits),
    "deadline": (deadlines.deadline_sensor, deadlines),
}

RECEIPT = TypeAdapter(Receipt)
MA_TABLE = MATable(
    number=4, name="C2A_IMG", id="MA0004", frame_time=3.16,
    read_pattern=tuple((n,) for n in range(1, 126)),
)  # fmt: skip


def visit_number(number: int) -> VisitId:
    return VisitId(1 + number // 900_000, 1, 1, 1, 1 + number // 900 % 900, 1 + number % 900)


def exposures_of(visit: VisitId) -> list[ExposureId]:
    return [ExposureId(visit, number + 1) for number in range(EXPOSURES_PER_VISIT)]


def document(visit: VisitId, start: datetime) -> ExecutedVisit:
    table = {"cycles_per_science_read": 18, "pedestal_exposure_time": 0.08}
    star = GuideStar(
        gsc_id="S1", predicted_ra=270, predicted_dec=66, predicted_fgs_mag=14,
        predicted_fgs_bright_mag=13, predicted_fgs_faint_mag=15, predicted_count_rate=1e4,
        predicted_x=10, predicted_y=10,
    )  # fmt: skip
    guiding = Guiding(
        mode=GuideMode.WIM_TRACK,
        acquisition=GuideWindowTable(id="GW0001", signal_exposure_time=0.16, **table),
        tracking=GuideWindowTable(id="GW0002", signal_exposure_time=0.16, **table),
        stars=dict.fromkeys(DETECTORS, star),
    )
    corners = (0.0, 1.0, 1.0, 0.0)
    return ExecutedVisit(
        visit=visit,
        program=Program(title="t", investigator_name="i", category="CCS", subcategory="HLWA"),
        exposure_type=ExposureType.WFI_IMAGE,
        optical_element=OpticalElement.F158,
        nexposures=EXPOSURES_PER_VISIT,
        start_time=start,
        apertures={
            name: DetectorAperture(
                aperture_name=name, nrows=4096, ncolumns=4096, v2_ref=0, v3_ref=0, v3yangle=0,
                vparity=-1, v2_corners=corners, v3_corners=corners,
            )
            for name in DETECTORS
        },
        exposures=tuple(
            ExecutedExposure(
                exposure=one.exposure,
                start_time=start,
                end_time=start + EXPOSURE_TIME,
                ma_table_number=MA_TABLE.number,
                detectors=DETECTORS,
                pointing=Pointing(
                    target_aperture="WFI_CEN", target_ra=270, target_dec=66, ra_v1=269,
                    dec_v1=66, pa_v3=59, pa_aperture=-1,
                ),
                guiding=guiding,
            )
            for one in exposures_of(visit)
        ),
    )  # fmt: skip


def packets(exposure: ExposureId) -> PacketContent:
    """Give the index entry of a file with all packets of an exposure, one a data unit."""
    resultants = MA_TABLE.nresultants
    units = [
        *(UnitId(exposure, Stream.SCIENCE, d, n) for d in DETECTORS for n in range(resultants)),
        *(UnitId(exposure, Stream.GUIDE_WINDOW, detector, 0) for detector in DETECTORS),
        UnitId(exposure, Stream.FACE, None, 0),
    ]
    headers = [
        UnitHeader(
            unit, resultants if unit.stream is Stream.SCIENCE else 1, next(iter(Compression)),
            0, 0, 0, 1, 100, 7,
        )
        for unit in units
    ]  # fmt: skip
    return PacketContent({header: {0: 0} for header in headers}, len(units), 0, 0, 0, 0, 0)


@dataclass
class Observatory:
    """An installation that receives and makes exposures without the work in between."""

    root: DataRoot
    instance: dg.DagsterInstance
    visits: int = 0
    memory: SensorMemory = field(default_factory=SensorMemory)
    cursors: dict[str, str | None] = field(default_factory=dict)
    _inventory: Inventory = field(init=False)

    def __post_init__(self) -> None:
        self.root.landing.mkdir(parents=True)
        self._inventory = Inventory(self.root.landing, SetAside(self.root))
        self._land("table.json", MA_TABLE)
        around = timedelta(days=2000)
        self._land(
            "orbit.oem", EphemerisContent(EphemerisKind.PREDICTED, NOW - around, NOW + around, NOW)
        )

    def _land(self, name: str, content: FileContent) -> None:
        path = self.root.landing / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        status = path.stat()
        self._inventory.add(FileVersion(name, status.st_size, status.st_mtime_ns), content)

    def new_visits(self, number: int) -> list[VisitId]:
        new = [visit_number(self.visits + index) for index in range(number)]
        self.visits += number
        return new

    def receive(self, new: list[VisitId]) -> list[ExposureId]:
        """Let all of some visits arrive."""
        exposures = [one for visit in new for one in exposures_of(visit)]
        with self._inventory.kept_open():
            for visit in new:
                self._land(f"today/{visit}.json", document(visit, NOW - timedelta(hours=3)))
            for one in exposures:
                self._land(f"today/{one}.l0", packets(one))
        return exposures

    def know(self, number: int) -> None:
        """Receive many exposures and make all their products, a day's worth each day until now.

        One visit goes the whole way; the others are written as it was.
        """
        (first, *others) = self.new_visits(number // EXPOSURES_PER_VISIT)
        receipts = self._inventory.receipts(self.receive([first]))
        self._make([first], receipts, NOW - timedelta(hours=2))
        starts = range(0, len(others), VISITS_A_DAY)
        for day, start in enumerate(starts):
            before = timedelta(days=len(starts) - day)
            of_day = [earlier(one, before) for one in receipts]
            chosen = others[start : start + VISITS_A_DAY]
            self._know_received(chosen, f"day_{day:04}", of_day)
            self._make(chosen, of_day, NOW - before)
        rebuild(self.root)
        keys = [str(one) for visit in (first, *others) for one in exposures_of(visit)]
        for start in range(0, len(keys), 10_000):
            self.instance.add_dynamic_partitions("exposure", keys[start : start + 10_000])
        self._report_checks(first, others)

    def _report_checks(self, first: VisitId, others: list[VisitId]) -> None:
        """Store what the checks of deadlines say: of one visit by Dagster, the others like it."""
        with Registry(self.root) as registry:
            found = standings(ledger_rows(registry.deadlines.groups(visit=str(first))))
        report(self.instance, [evaluation(one) for one in found], timedelta(minutes=1))
        columns = "asset_key, check_name, run_id, execution_status, evaluation_event_timestamp, "
        columns += "evaluation_event_storage_id, materialization_event_storage_id"
        storage = self.instance.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        with closing(sqlite3.connect(storage.path_for_shard(INDEX_SHARD_NAME))) as db, db:
            rows = db.execute("SELECT id FROM asset_check_executions").fetchall()
            db.executemany(
                f"INSERT INTO asset_check_executions ({columns}, evaluation_event, partition) "
                f"SELECT {columns}, replace(evaluation_event, ?1, ?2), replace(partition, ?1, ?2) "
                "FROM asset_check_executions WHERE id = ?3",
                ((str(first), str(other), row) for other in others for (row,) in rows),
            )

    def _know_received(self, visits: list[VisitId], day: str, receipts: list[Receipt]) -> None:
        """Write into the index what it would hold of visits with these receipts."""
        (self.root.landing / day).mkdir()
        with self._inventory._transaction(write=True) as db:
            start, stop = db.execute("SELECT start, stop FROM receipt LIMIT 1").fetchone()
            for visit in visits:
                for one, receipt in zip(exposures_of(visit), receipts, strict=True):
                    path = self.root.landing / day / f"{one}.l0"
                    path.touch()
                    status = path.stat()
                    row = db.execute(
                        "INSERT INTO file (name, size, mtime_ns) VALUES (?, ?, ?)",
                        (f"{day}/{path.name}", status.st_size, status.st_mtime_ns),
                    )
                    db.execute("INSERT INTO holding VALUES (?, ?)", (row.lastrowid, str(one)))
                    body = RECEIPT.dump_json(replace(receipt, exposure=one))
                    db.execute(
                        "INSERT INTO receipt VALUES (NULL, ?, ?, '4', ?, ?, ?)",
                        (str(one), str(visit), start, stop, body),
                    )

    def _make(self, visits: list[VisitId], receipts: list[Receipt], when: datetime) -> None:
        """Write the commit records of all that is made of visits."""
        first = receipts[0].exposure.visit
        made = list(_made(first, receipts, when))
        lines = (as_of(record, first, visit) for visit in visits for record in made)
        Journal(self.root).seal(PendingRecord(self.root.path, *line) for line in lines)

    def calibrate(self, new: list[VisitId]) -> None:
        """Publish L1 and L2 of visits."""
        for visit in new:
            for receipt in self._inventory.receipts(exposures_of(visit)):
                self._write(_exposure_records(receipt, datetime.now(UTC)))
        fold(self.root)

    def mosaic(self, new: list[VisitId]) -> None:
        """Publish L3 of visits."""
        for visit in new:
            self._write(_visit_records(visit, datetime.now(UTC)))
        fold(self.root)

    def _write(self, records: list[CommitRecord]) -> None:
        for record in records:
            Journal(self.root).write(record)


def earlier(receipt: Receipt, by: timedelta) -> Receipt:
    """Give the receipt of an exposure that was executed and received before."""
    return replace(receipt, events={event: time - by for event, time in receipt.events.items()})


def _made(visit: VisitId, receipts: list[Receipt], when: datetime) -> Iterator[CommitRecord]:
    for one, receipt in zip(exposures_of(visit), receipts, strict=True):
        yield CommitRecord(
            step=Step.FORMATTING,
            partition=str(one),
            committed_at=when,
            statement=Statement.RECEIPT,
            receipt=statement_of(receipt),
            events=receipt.events,
        )
        yield from _exposure_records(receipt, when, one)
    yield from _visit_records(visit, when)


def _exposure_records(
    receipt: Receipt, when: datetime, exposure: ExposureId | None = None
) -> list[CommitRecord]:
    one = exposure or receipt.exposure
    packets = [
        ProductInput(name=level0_name(one, name), sha256=sender.content_version)
        for name, sender in receipt.senders.items()
    ]
    ramp = f"{one}_wfi01_f158_uncal.asdf"
    l1 = CommitRecord(
        step=Step.FORMATTING,
        partition=str(one),
        committed_at=when,
        products=_entries(Step.FORMATTING, str(one), packets),
        events=receipt.events,
    )
    l2 = CommitRecord(
        step=Step.EXPOSURE,
        partition=str(one),
        committed_at=when,
        products=_entries(Step.EXPOSURE, str(one), [ProductInput(name=ramp, sha256=_sha256(ramp))]),
    )
    return [*_attempted(l1), *_attempted(l2)]


def _visit_records(visit: VisitId, when: datetime) -> list[CommitRecord]:
    images = [f"{one}_wfi01_f158_cal.asdf" for one in exposures_of(visit)]
    l3 = CommitRecord(
        step=Step.VISIT,
        partition=str(visit),
        committed_at=when,
        products=_entries(
            Step.VISIT,
            f"r{visit.digits[:5]}_p_{visit.grouping}_{CELL}",
            [ProductInput(name=name, sha256=_sha256(name)) for name in images],
        ),
    )
    return list(_attempted(l3))


def _attempted(publication: CommitRecord) -> Iterator[CommitRecord]:
    """Give the two records that an attempt leaves: of its beginning, and what it published."""
    attempt = Attempt(attempt_id=uuid.uuid4().hex, outcome=Outcome.RUNNING)
    end = publication.committed_at
    begun = {ClockEvent.STARTED: end - timedelta(minutes=5)}
    yield CommitRecord(
        step=publication.step,
        partition=publication.partition,
        committed_at=begun[ClockEvent.STARTED],
        statement=Statement.ATTEMPT,
        attempt=attempt,
        events=begun,
    )
    yield publication.model_copy(
        update={
            "attempt": attempt.model_copy(update={"outcome": Outcome.FINISHED}),
            "events": {**publication.events, **begun, ClockEvent.FINISHED: end},
        }
    )


def _entries(step: Step, stem: str, inputs: list[ProductInput]) -> tuple[ProductEntry, ...]:
    facts = {"survey": "HLWAS", "exposure_type": "WFI_IMAGE", "nexposures": EXPOSURES_PER_VISIT}
    place = {Scope.DETECTOR: "_wfi01", Scope.EXPOSURE: "", Scope.SKYCELL: ""}
    names = [
        f"{stem}{place[kind.scope]}_f158_{kind.suffix}.{kind.extension}"
        for kind in expected_kinds(Survey.HLWAS, ExposureType.WFI_IMAGE, (step,))
    ]
    return tuple(
        ProductEntry(
            name=name, sha256=_sha256(name), size=1, fingerprint="0" * 64, inputs=tuple(inputs),
            metadata=facts,
        )
        for name in names
    )  # fmt: skip


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def as_of(record: CommitRecord, visit: VisitId, other: VisitId) -> tuple[bytes, CommitRecord]:
    """Give the line of a record of a visit as another visit would have left it."""
    content = record.model_dump_json()
    for mine, its in (
        (str(visit), str(other)),
        (f"r{visit.digits[:5]}_p_{visit.grouping}", f"r{other.digits[:5]}_p_{other.grouping}"),
        (record.record_id, uuid.uuid4().hex),
        *(
            (own, hashlib.md5(f"{own}{other}".encode(), usedforsecurity=False).hexdigest())
            for own in ([record.attempt.attempt_id] if record.attempt else [])
        ),
    ):
        content = content.replace(mine, its)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{{"sha256":"{digest}","record":{content}}}\n'.encode(), record


@dataclass(frozen=True)
class Took:
    """Seconds, and those of them (and of other threads) that the CPU worked."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.3f} s ({self.cpu:.3f} s of CPU)"


def since(wall: float, cpu: float) -> Took:
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: list[Took]) -> Took:
    return Took(
        statistics.median(took.wall for took in times),
        statistics.median(took.cpu for took in times),
    )


def tick(observatory: Observatory, name: str) -> tuple[Took, set[str]]:
    """Let a sensor look; give how long it took and the partitions it asked runs for."""
    sensor, _ = SENSORS[name]
    context = dg.build_sensor_context(
        instance=observatory.instance,
        resources={
            "installation": Installation(data_root=str(observatory.root.path)),
            "memory": observatory.memory,
        },
        sensor_name=sensor.name,
        cursor=observatory.cursors.get(name),
    )
    begun = time.perf_counter(), time.process_time()
    result = sensor(context)
    took = since(*begun)
    observatory.cursors[name] = context.cursor
    requests = result.run_requests or () if isinstance(result, dg.SensorResult) else ()
    return took, {str(request.partition_key) for request in requests}


def look_at_all(observatory: Observatory) -> dict[str, Took]:
    """Let each sensor look at everything in one tick, as it does in several after a restart."""
    exposures = observatory.visits * EXPOSURES_PER_VISIT
    limits = (
        (landing, "RECEIPTS_PER_TICK", exposures),
        (visits, "VISITS_PER_TICK", exposures),
        (deadlines, "VISITS_PER_TICK", exposures),
    )
    times = {}
    with pytest.MonkeyPatch.context() as patch:
        for module, limit, value in limits:
            patch.setattr(module, limit, value)
        for name in SENSORS:
            times[name], asked = tick(observatory, name)
            if asked:
                raise SystemExit(f"the {name} sensor asks for {sorted(asked)[:3]}, all made")
    return times


def rounds(observatory: Observatory) -> dict[str, Took]:
    """Give the median time of the ticks of each sensor over some rounds with new exposures.

    And what the index takes to take in their files.
    """
    times: dict[str, list[Took]] = {name: [] for name in SENSORS}
    times["index"] = []
    for _ in range(ROUNDS):
        new = observatory.new_visits(NEW_PER_ROUND // EXPOSURES_PER_VISIT)
        begun = time.perf_counter(), time.process_time()
        exposures = observatory.receive(new)
        times["index"].append(since(*begun))
        took, asked = tick(observatory, "landing")
        times["landing"].append(took)
        if asked != set(map(str, exposures)):
            raise SystemExit(f"{len(asked)} exposures requested instead of {len(exposures)}")
        observatory.calibrate(new)
        times["visit"].append(tick(observatory, "visit")[0])
        times["deadline"].append(tick(observatory, "deadline")[0])
        observatory.mosaic(new)
    return {name: median(values) for name, values in times.items()}


def measure(exposures: int) -> tuple[dict[str, Took], dict[str, Took]]:
    """Time the sensors' ticks with so many exposures known, and looks at all of them."""
    with tempfile.TemporaryDirectory() as work, dg.DagsterInstance.local_temp(work) as instance:
        observatory = Observatory(DataRoot(Path(work) / "data"), instance)
        begun = time.perf_counter()
        observatory.know(exposures)
        print(f"{exposures} exposures known after {time.perf_counter() - begun:.0f} s", flush=True)
        theirs = look_at_all(observatory)
        print(f"{exposures} known, looking at all: {_told(theirs)}", flush=True)
        for name in SENSORS:
            tick(observatory, name)
        ours = rounds(observatory)
        print(f"{exposures} known, {NEW_PER_ROUND} new: {_told(ours)}", flush=True)
        return ours, theirs


def _told(times: dict[str, Took]) -> str:
    return ", ".join(f"{name} {took}" for name, took in times.items())


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--exposures", type=int, default=100_000)
    options = parser.parse_args()
    os.environ.setdefault("DAGSTER_HOME", tempfile.mkdtemp())
    few, _ = measure(options.exposures // 10)
    many, all_of_them = measure(options.exposures)
    for name, took in many.items():
        growth = took.cpu / few[name].cpu
        print(f"{name}: {growth:.2f} times as much CPU with 10 times as many known")
    for name in SENSORS:
        took = many[name]
        print_ratio(f"{name}_tick_{options.exposures}_known", all_of_them[name].wall / took.wall)


if __name__ == "__main__":
    main()
