"""Time the deadline ledger on a registry of a million product rows, against pandas.

The registry is rebuilt from commit records of a night-after-night survey with faults: late packets,
lost exposures, failing runs, failing detectors, a backlog at its end. The question is that of an
operator: how many products are in which state, and which rows are the most urgent? The alternative
reads the same facts from the same snapshot and answers with pandas, the usual tool.

    python benchmarks/deadlines.py                     # a million product rows
    python benchmarks/deadlines.py --exposures 500
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from usage.ratios import print_ratio

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.deadline import DEADLINES, ClockEvent, ClockOrigin, ProductState
from roman_assets.products.kind import Level, Scope, Step, expected_kinds
from roman_assets.products.observation import (
    DETECTORS,
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
    ExposureReceipt,
    Outcome,
    ProductEntry,
    Statement,
    WorkFailure,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import rebuild
from roman_assets.registry.store.snapshot import read_snapshot
from roman_assets.registry.store.tiers import TieredDatabase

START = datetime(2027, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
EXPOSURES_PER_VISIT = 2
CELLS = tuple(f"270p65x{x}y70" for x in range(50, 54))
FINGERPRINT = "0" * 64
PRODUCTS_PER_EXPOSURE = 109
ROUNDS = 7
AIM_SECONDS = 1.0
"""The command is to answer within this: what its ratio is counted against."""


class Night:
    """Makes the commit records of visits, one after the other, with faults at random."""

    def __init__(self, visits: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._visits = visits
        self.end = START + visits * 0.1 * HOUR

    def records(self) -> Iterator[CommitRecord]:
        """Give the records of all visits."""
        for number in range(self._visits):
            visit = VisitId(1 + number // 900_000, 1, 1, 1, 1 + number // 900, 1 + number % 900)
            yield from self._visit(visit, START + number * 0.1 * HOUR)

    def _visit(self, visit: VisitId, executed: datetime) -> Iterator[CommitRecord]:
        ready = []
        for number in range(1, EXPOSURES_PER_VISIT + 1):
            done = yield from self._exposure(ExposureId(visit, number), executed)
            ready.append(done)
        if None in ready or max(ready) > self.end:
            return
        start = max(ready) + self._random.expovariate(1 / 2) * HOUR
        kinds = expected_kinds(Survey.HLWAS, ExposureType.WFI_IMAGE, (Step.VISIT,))
        names = [
            f"r{visit.digits[:5]}_p_{visit.grouping}_{cell}_f158_{kind.suffix}.{kind.extension}"
            for cell in CELLS
            for kind in kinds
        ]
        yield from self._attempts(Step.VISIT, str(visit), start, names, [])

    def _exposure(
        self, exposure: ExposureId, executed: datetime
    ) -> Iterator[CommitRecord]:  # returns when it is calibrated
        chance = self._random.random()
        lost = chance < 0.005
        packets = (
            executed + (1 + (200 if chance > 0.99 else 20) * self._random.random() ** 4) * HOUR
        )
        received = not lost and packets < self.end
        moments = {ClockEvent.EXECUTION_END: executed, ClockEvent.ANCILLARY: executed + HOUR}
        if received:
            moments |= {ClockEvent.LAST_PACKET: packets, ClockEvent.ALL_RECEIVED: packets}
        yield CommitRecord(
            step=Step.FORMATTING,
            partition=str(exposure),
            committed_at=packets if received else executed + HOUR,
            statement=Statement.RECEIPT,
            receipt=ExposureReceipt(
                survey=Survey.HLWAS,
                exposure_type=ExposureType.WFI_IMAGE,
                optical_element=OpticalElement.F158,
                detectors=DETECTORS,
                nexposures=EXPOSURES_PER_VISIT,
                lacks_packets=not received,
            ),
            events=moments,
        )
        done: datetime | None = packets if received else None
        refused = self._random.random() < 0.01
        for step in (Step.FORMATTING, Step.EXPOSURE):
            if done is None:
                return None
            begin = done + self._random.expovariate(1 / 3) * HOUR
            names = [name for name in _names(exposure, step) if not (refused and "_wfi05_" in name)]
            failed = [f"{exposure}_wfi05_f158"] if refused and step is Step.FORMATTING else []
            done = yield from self._attempts(step, str(exposure), begin, names, failed)
        return done

    def _attempts(
        self, step: Step, partition: str, begin: datetime, names: list[str], refused: list[str]
    ) -> Iterator[CommitRecord]:
        while True:
            end = begin + (0.1 + self._random.random()) * HOUR
            if begin > self.end:
                return None
            key = f"{self._random.getrandbits(128):032x}"
            attempt = Attempt(attempt_id=key, outcome=Outcome.RUNNING)
            events = {ClockEvent.QUEUED: begin - 0.1 * HOUR, ClockEvent.STARTED: begin}
            about = {"step": step, "partition": partition, "run_id": key}
            yield CommitRecord(
                **about, committed_at=begin, statement=Statement.ATTEMPT, attempt=attempt,
                events=events,
            )  # fmt: skip
            if end > self.end:
                return None
            events = events | {ClockEvent.FINISHED: end}
            if self._random.random() > 0.03:
                break
            failed = attempt.model_copy(update={"outcome": Outcome.PASSING_FAULT})
            yield CommitRecord(
                **about, committed_at=end, statement=Statement.ATTEMPT, attempt=failed,
                events=events,
            )  # fmt: skip
            begin = end + 0.1 * HOUR
        ended = attempt.model_copy(update={"outcome": Outcome.FINISHED})
        yield CommitRecord(
            **about, committed_at=end, attempt=ended, events=events,
            products=[_entry(name) for name in names],
            failures=[WorkFailure(file_set=f, error="E", message="") for f in refused],
        )  # fmt: skip
        return end


def _names(exposure: ExposureId, step: Step) -> list[str]:
    kinds = expected_kinds(Survey.HLWAS, ExposureType.WFI_IMAGE, (step,))
    return [
        f"{exposure}{place}_f158_{kind.suffix}.{kind.extension}"
        for kind in kinds
        for place in (
            [""] if kind.scope is Scope.EXPOSURE else [f"_{name.lower()}" for name in DETECTORS]
        )
    ]


def _entry(name: str) -> ProductEntry:
    content = hashlib.sha256(name.encode()).hexdigest()
    return ProductEntry(name=name, sha256=content, size=1, fingerprint=FINGERPRINT)


def build(root: DataRoot, visits: int) -> datetime:
    """Fill a registry; gives the present of its operator."""
    night = Night(visits)
    journal = Journal(root)
    lines = []
    for record in night.records():
        content = record.model_dump_json().encode()
        digest = hashlib.sha256(content).hexdigest().encode()
        line = b'{"sha256":"' + digest + b'","record":' + content + b"}\n"
        lines.append(PendingRecord(root.path, line, record))
    journal.seal(lines)
    rebuild(root)
    return night.end


def by_pandas(root: DataRoot, now: datetime) -> dict[str, int]:
    """Answer from the same facts: products by state, and the most urgent rows."""
    with closing(TieredDatabase(root)) as database:
        snapshot = read_snapshot(root.registry)
        database.show(snapshot)
        connection = database.connection
        read = {
            name: connection.sql(f"select {columns} from {name}").to_arrow_table().to_pandas()
            for name, columns in (
                ("products", '"partition", visit, kind, level, step, detector, committed_at'),
                (
                    "receipts",
                    '"partition", committed_at, execution_end, all_received, detectors, '
                    "lacks_packets",
                ),
                ("attempts", 'step, "partition", attempt_id, outcome, started, committed_at'),
                ("failures", 'step, "partition", file_set'),
            )
        }
    made, receipts = read["products"], read["receipts"]
    receipts = receipts.sort_values("committed_at").drop_duplicates("partition", keep="last")
    receipts["visit"] = receipts["partition"].str.split("_").str[0]
    visits = receipts.groupby("visit")["execution_end"].max()
    made = made.merge(
        receipts[["partition", "execution_end", "all_received"]], on="partition", how="left"
    )
    made["execution_end"] = made["execution_end"].fillna(made["visit"].map(visits))
    due = _due(made)
    late = made["committed_at"] > due
    counts = {
        str(ProductState.MADE_LATE): int(late.sum()),
        str(ProductState.MADE_IN_TIME): int((~late).sum()),
    }
    kinds = expected_kinds(Survey.HLWAS, ExposureType.WFI_IMAGE)
    of_exposures = [kind for kind in kinds if kind.step is not Step.VISIT]
    expected = receipts.explode("detectors").merge(
        pd.DataFrame(
            {
                "kind": [kind.name for kind in of_exposures],
                "level": [kind.level.value for kind in of_exposures],
                "step": [kind.step.value for kind in of_exposures],
            }
        ),
        how="cross",
    )
    expected.loc[expected["kind"] == "face", "detectors"] = None
    expected = expected.drop_duplicates(["partition", "kind", "detectors"])
    missing = expected.merge(
        made[["partition", "kind", "detector"]],
        left_on=["partition", "kind", "detectors"],
        right_on=["partition", "kind", "detector"],
        how="left",
        indicator=True,
    )
    missing = missing[missing["_merge"] == "left_only"]
    stage = _stage(missing, read["attempts"])
    failed = set(read["failures"]["file_set"].str.replace("_f158", ""))
    names = missing["partition"] + "_" + missing["detectors"].fillna("").str.lower()
    state = stage.mask(pd.Timestamp(now) > _due(missing), str(ProductState.OVERDUE))
    state = state.mask(names.isin(failed), str(ProductState.FAILED))
    for name, number in state.value_counts().items():
        counts[str(name)] = int(number)
    counts = {name: number for name, number in counts.items() if number}
    missing.assign(state=state, margin=_due(missing) - now).sort_values("margin").head(20)
    return counts


def _due(rows: pd.DataFrame) -> pd.Series:
    due = pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us, UTC]")
    for level in Level:
        deadline = DEADLINES[level]
        origin = "all_received" if deadline.origin is ClockOrigin.RECEIPT else "execution_end"
        of_level = rows["level"] == level.value
        due[of_level] = rows.loc[of_level, origin] + deadline.latency
    return due


def _stage(missing: pd.DataFrame, attempts: pd.DataFrame) -> pd.Series:
    last = attempts.sort_values(["started", "committed_at"])
    last = last.drop_duplicates(["step", "partition"], keep="last")
    running = last[last["outcome"] == "running"]["partition"]
    stage = pd.Series(str(ProductState.QUEUED), index=missing.index)
    stage = stage.mask(missing["partition"].isin(running), str(ProductState.RUNNING))
    return stage.mask(missing["lacks_packets"], str(ProductState.WAITING_FOR_DOWNLINK))


def by_ledger(registry: Registry, now: datetime) -> dict[str, int]:
    """Answer from the ledger: products of exposures by state, and the most urgent rows."""
    overview = registry.deadlines.overview(now=now, limit=20)
    counts: dict[str, int] = {}
    for row in overview.counts:
        if row["step"] != Step.VISIT or row["state"].startswith("made"):
            counts[row["state"]] = counts.get(row["state"], 0) + row["products"]
    return counts


def median_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Give the median time of a piece of work."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def command_seconds(root: DataRoot, now: datetime) -> float:
    """Give how long ``roman-assets deadlines`` takes, the start of Python included."""
    command = [
        str(Path(sys.executable).with_name("roman-assets")),
        "deadlines",
        "--at",
        now.isoformat(),
    ]
    environment = {**os.environ, DATA_ROOT_VARIABLE: str(root.path), ROLE_VARIABLE: Role.OPERATIONS}
    # As at any second use: the package is compiled.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return median_seconds(
        lambda: subprocess.run(command, env=environment, check=True, capture_output=True), 3
    )


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--exposures", type=int, default=10**6 // PRODUCTS_PER_EXPOSURE + 300)
    parser.add_argument("--keep", type=Path, help="make the registry there, or use that one")
    options = parser.parse_args()
    visits = options.exposures // EXPOSURES_PER_VISIT
    with tempfile.TemporaryDirectory() as work:
        root = DataRoot((options.keep or Path(work) / "data").absolute())
        now = Night(visits).end
        if not root.registry.exists():
            begun = time.perf_counter()
            build(root, visits)
            print(f"registry built after {time.perf_counter() - begun:.0f} s", flush=True)
        with Registry(root) as registry:
            ours, theirs = by_ledger(registry, now), by_pandas(root, now)
            print(f"{sum(ours.values())} products of {2 * visits} exposures: {ours}")
            if ours != theirs:
                raise SystemExit(f"the alternative finds {theirs}")
            mine = median_seconds(lambda: by_ledger(registry, now))
            pandas = median_seconds(lambda: by_pandas(root, now), 3)
        command = command_seconds(root, now)
    print(f"ledger {mine:.3f} s, pandas {pandas:.3f} s, roman-assets deadlines {command:.3f} s")
    for name, ratio in (
        ("deadlines_million_rows", pandas / mine),
        ("deadlines_command_million_rows", AIM_SECONDS / command),
    ):
        print_ratio(name, ratio)


if __name__ == "__main__":
    main()
