"""Measure the registry at several sizes, beside Rubin's data butler on SQLite.

A registry of each size is built by the fold's own SQL from synthetic commit records: seasons of up
to a million products, each on its own strip of sky; what is larger holds copies of a season under
other program numbers and at other right ascensions. Then, at each size:

- *ingest*: processes commit records of 18 products one after another, each durable before the next;
  then a fold shows them to readers under their public names. The butler's side: for each exposure a
  transaction with its dimension records and ``Butler.ingest`` of its 18 files, in place.
- *publish*: the same, but every process waits after each record until readers see it; so does the
  butler's side anyway.
- *bulk*: ours is *ingest*; the butler's side is one transaction of each process for all.
- *beside a merge*: p50 and p99 of publishing and waiting in one process, alone and while another
  process merges the oldest tier of the registry, again and again.
- searches by exposure, visit, cone and polygon, each at another place every time; the butler's side
  is ``Butler.query_datasets``. Counts by level and state and percentiles of latency have no
  counterpart there.

At the butler's size both sides are measured in turn, and a ratio is the median over the pairs. On
both sides the files exist before the clock starts, hashing them is not counted, and products can be
searched by their place on the sky. Several processes start together, each with its own exposures.

    python benchmarks/registry.py                              # 10^5 and 10^6 products
    python benchmarks/registry.py --products 1e5 1e6 1e7       # 5 GB of disk
    python benchmarks/registry.py --products 2e4 --records 10 --repeats 1  # short
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
from usage.ratios import print_ratio

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, ProductEntry, fingerprint
from roman_assets.registry.catalog.schema import PLACES, TABLES, Table
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.compaction import merge_tiers
from roman_assets.registry.store.fold import READ_BY_FOLD, fold
from roman_assets.registry.store.fold_lock import fold_lock
from roman_assets.registry.store.incoming import NO_RECORD, apply_incoming
from roman_assets.registry.store.merging import write_merged
from roman_assets.registry.store.new_tier import draft_tier, new_tier
from roman_assets.registry.store.product_rows import HEALPIX_NSIDE
from roman_assets.registry.store.snapshot import (
    Snapshot,
    publish_snapshot,
    read_snapshot,
    tier_path,
)
from roman_assets.registry.store.tiers import NEWEST, TieredDatabase

DETECTORS = range(1, 19)
PRODUCTS_OF_EXPOSURE = 54
"""Of 18 detectors: uncal, cal and catalogue, in three records."""

EXPOSURES_OF_VISIT = 8
EXPOSURES_AT_ONCE = 4_000
SEASON = 1_000_000
SEASONS = 10
PROGRAMS = 400
QUERIES = 15
PROCESSES = (1, 4)
INGEST_FACTOR = 5
PUBLISHED = 200
"""Records whose publication is timed by itself and beside a merge."""
HALF_WIDTH = 0.06
"""Of a detector, deg."""
SEARCHED = 0.02
"""Radius of a cone and half the width of a polygon, deg."""
_processes = multiprocessing.get_context("spawn")

_FOOTPRINT = """'POLYGON ICRS ' || concat_ws(' ',
    ra - 0.06 / cos(radians("dec")), "dec" - 0.06, ra + 0.06 / cos(radians("dec")), "dec" - 0.06,
    ra + 0.06 / cos(radians("dec")), "dec" + 0.06, ra - 0.06 / cos(radians("dec")), "dec" + 0.06)"""

_INCOMING = f"""
create temp table incoming as
{NO_RECORD} union all by name (
with exposures as (
    select i // {EXPOSURES_OF_VISIT} as v, timestamptz '2021-01-01' + to_seconds(i * 140) as begun,
        'r' || lpad((10 + v % {PROGRAMS})::varchar, 5, '0')
            || lpad((v // {PROGRAMS} + 1)::varchar, 2, '0') || '001001001001' as visit,
        visit || '_' || lpad((i % {EXPOSURES_OF_VISIT} + 1)::varchar, 4, '0') as exposure,
        ['HLWAS', 'HLTDS', 'GAS', 'GBTDS'][v % 4 + 1] as survey,
        (v * 0.6180339887 % 1) * {360 / SEASONS} as ra0,
        degrees(asin((v * 0.7548776662 % 1) * 1.6 - 0.8)) as dec0
    from range($low, $high) as numbers(i)
), works as (
    select *, begun + to_seconds(
            (work.hours * 3600 + hash(exposure || work.end) % 36000)::integer) as made
    from (select *, unnest([
        {{'step': 'formatting', 'end': 'uncal.asdf', 'hours': 10}},
        {{'step': 'exposure', 'end': 'cal.asdf', 'hours': 30}},
        {{'step': 'exposure', 'end': 'cat.parquet', 'hours': 31}}]) as work from exposures)
), places as (
    select *, list_transform(range(1, 19), lambda d: {{
        'name': exposure || '_wfi' || lpad(d::varchar, 2, '0') || '_f158_',
        'ra': round(ra0 + ((d - 1) % 6) * 0.13 / cos(radians(dec0)), 6),
        'dec': round(dec0 + ((d - 1) // 6) * 0.13, 6)}}) as detectors
    from works
), entries as (
    select * exclude (detectors), unnest(detectors, recursive := true) from places
)
select md5(exposure || any_value(work.end)) as record_id, any_value(work.step) as step,
    exposure as "partition", any_value(made) as committed_at, 'publication' as statement,
    null::varchar as run_id, list({{
        'name': name || work.end, 'sha256': sha256(name || work.end), 'size': 100000000::bigint,
        'fingerprint': sha256(exposure), 'context': 'roman_0042.pmap',
        'inputs': [{{'name': name || 'uncal.asdf', 'sha256': sha256(name || 'uncal.asdf')}}],
        'software': '{{"romancal":"1.1.0"}}'::json, 'references': '{{}}'::json,
        'metadata': json_object('survey', survey, 'exposure_type', 'WFI_IMAGE',
            'start_time', begun::varchar, 'end_time', (begun + to_seconds(140))::varchar,
            'nexposures', {EXPOSURES_OF_VISIT}, 'ra', ra, 'dec', "dec", 'radius', 0.09,
            'footprint', {_FOOTPRINT}),
        'archived': null::struct(rad_schema varchar, sections integer[]), 'access': 'public'}}
    ) as products,
    map {{'all_received': any_value(begun) + to_hours(8), 'finished': any_value(made)}} as events
from entries group by exposure, work)
"""


def build(root: DataRoot, products: int) -> None:
    """Make a registry of so many products, sorted as a merge leaves it."""
    with fold_lock(root, "building") as fence:
        with new_tier(root, read=READ_BY_FOLD, published=False) as season:
            _fill_season(season.database, min(products, SEASON) // PRODUCTS_OF_EXPOSURE)
        tiers = [season.name]
        for number in range(1, -(-products // SEASON)):
            with new_tier(root, published=False) as copy:
                copy.database.attach(tiers[:1])
                _copy_season(copy.database, tiers[0], number)
            tiers.append(copy.name)
        whole = merge_tiers(root, tiers, is_whole=True)
        publish_snapshot(root, Snapshot.of((whole,)), None, fence)


def _fill_season(database: TieredDatabase, exposures: int) -> None:
    for low in range(0, exposures, EXPOSURES_AT_ONCE):
        high = min(low + EXPOSURES_AT_ONCE, exposures)
        database.connection.execute(_INCOMING, {"low": low, "high": high})
        apply_incoming(database.connection)


def _copy_season(database: TieredDatabase, season: str, number: int) -> None:
    """Copy a season under other program numbers, to another strip of the sky."""
    connection = database.connection
    places = connection.execute(f'select distinct ra, "dec" from "{season}".products').fetchnumpy()
    moved = (places["ra"] + number * 360 / SEASONS) % 360
    pixel = hpgeom.angle_to_pixel(HEALPIX_NSIDE, moved, places["dec"], nest=True)
    columns = {"ra": places["ra"], "dec": places["dec"], "moved": moved, "pixel": pixel}
    connection.register("moves", pa.table(columns))
    for table in TABLES:
        if (
            table is not PLACES
            and connection.execute(f'select 1 from "{season}".{table.name} limit 1').fetchone()
        ):
            changed = ", ".join(f"{sql} as {name}" for name, sql in _changes(table, number))
            joined = 'join moves using (ra, "dec")' if table.name == "products" else ""
            connection.execute(
                f"insert into {NEWEST}.{table.name} by name select * "
                + ("exclude (moved, pixel) " if joined else "")
                + f'replace ({changed}) from "{season}".{table.name} {joined}'
            )
    connection.unregister("moves")
    connection.execute(
        f"insert into {NEWEST}.{PLACES.name} by name select healpix, name_key, access "
        f"from {NEWEST}.products group by record_id, healpix, name_key, access"
    )


def _changes(table: Table, number: int) -> Iterator[tuple[str, str]]:
    """Give what is different in the rows of a copy, by column."""
    shift = PROGRAMS * number
    program = f"lpad(({{0}}[2:6]::integer + {shift})::varchar, 5, '0')"
    for column in table.column_names:
        if column in ("name", "file_set", "exposure", "visit", "partition", "input_name"):
            quoted = f'"{column}"'
            yield quoted, f"'r' || {program.format(quoted)} || {quoted}[7:]"
        elif column == "record_id":
            yield column, f"md5(record_id || '{number}')"
        elif column == "name_key":
            yield column, f"name_key + {shift}::ubigint * 100000000000000"
        elif column == "row_key":
            yield column, f"md5_number_lower(name || record_id || '{number}')"
        elif column == "program":
            yield column, f"program + {shift}"
        elif table.name == "products" and column in ("ra", "healpix"):
            yield column, {"ra": "moved", "healpix": "pixel"}[column]
        elif column == "footprint":
            yield column, _FOOTPRINT.replace("ra ", "moved ")


@dataclass
class Figures:
    """What was measured, in seconds, by side, name and size; of each repeat."""

    values: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)

    def add(self, side: str, name: str, size: int, seconds: float) -> None:
        """Keep what one repeat took."""
        self.values.setdefault((side, name, size), []).append(seconds)

    def show(self, size: int) -> None:
        """Print the medians at a size, with the spread."""
        for (side, name, measured), seconds in self.values.items():
            if measured == size:
                low, middle, high = (each(seconds) * 1e3 for each in (min, statistics.median, max))
                print(
                    f"{size:10,} products {side:6} {name:12} {middle:9.2f} ms "
                    f"(from {low:.2f} to {high:.2f})",
                    flush=True,
                )

    def report(self, sizes: Sequence[int]) -> None:
        """Print the ratios: the butler to ours in pairs, and the smallest size to each."""
        for (side, name, size), theirs in self.values.items():
            if side == "butler":
                pairs = zip(theirs, self.values["ours", name, size], strict=True)
                ratio = statistics.median(other / ours for other, ours in pairs)
                print_ratio(f"{name}_at_{size:.0e}".replace("+", ""), ratio)
        for size in sizes[1:]:
            for name in (f"{work}_{n}" for work in ("publish", "ingest") for n in PROCESSES):
                first, here = (
                    statistics.median(self.values["ours", name, one]) for one in (sizes[0], size)
                )
                flat = f"{name}_flat_{sizes[0]:.0e}_to_{size:.0e}"
                print_ratio(flat.replace("+", ""), first / here)


@contextmanager
def elapsed(into: list[float]) -> Iterator[None]:
    """Add the seconds that a block takes."""
    begun = time.perf_counter()
    yield
    into.append(time.perf_counter() - begun)


def in_processes(
    work: Callable[..., Callable[[], None]], shares: Sequence[tuple[Any, ...]]
) -> float:
    """Do work in processes that start together; gives the seconds until the last is done.

    `work` makes ready what is not counted and returns what is.
    """
    barrier = _processes.Barrier(len(shares) + 1, timeout=3600)
    started = [_processes.Process(target=_between, args=(barrier, work, *one)) for one in shares]
    for process in started:
        process.start()
    barrier.wait()
    begun = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - begun
    for process in started:
        process.join()
    return seconds


def _between(barrier: Barrier, work: Callable[..., Callable[[], None]], *arguments: Any) -> None:
    try:
        counted = work(*arguments)
        barrier.wait()
        counted()
        barrier.wait()
    except BaseException:
        barrier.abort()
        raise


def new_records(root: DataRoot, visit: int, count: int) -> list[CommitRecord]:
    """Stage 18 files an exposure and describe them, for exposures that are not on record."""
    archive = Archive.of(root)
    return [_new_record(root, archive, visit, number) for number in range(1, count + 1)]


def _new_record(root: DataRoot, archive: Archive, visit: int, number: int) -> CommitRecord:
    exposure = f"r99999{visit:014d}_{number:04d}"
    entries = []
    for detector in DETECTORS:
        name = f"{exposure}_wfi{detector:02d}_f158_cal.asdf"
        path = root.path / name
        path.write_text(name)
        staged = archive.stage(path)
        entries.append(
            ProductEntry(
                name=name,
                sha256=staged.sha256,
                size=staged.size,
                fingerprint=fingerprint(Step.EXPOSURE, (), None, {}),
                context="roman_0042.pmap",
                software={"romancal": "1.1.0"},
                metadata={"survey": "HLWAS", "ra": 10.0, "dec": 5.0, "radius": 0.09},
            )
        )
    return CommitRecord(step=Step.EXPOSURE, partition=exposure, products=tuple(entries))


def publisher(root: DataRoot, records: Sequence[CommitRecord], waits: bool) -> Callable[[], None]:
    """Give the work of committing records, folding after each or at the end."""

    def publish() -> None:
        journal = Journal(root)
        for record in records:
            journal.write(record)
            if waits:
                fold(root)
        fold(root)

    return publish


class Ours:
    """A registry of a size, to publish to and to search in.

    Parameters
    ----------
    root
        Where it is.
    size
        Products in it.
    """

    def __init__(self, root: DataRoot, size: int) -> None:
        self._root, self._size = root, size
        self._visits = itertools.count(int(time.time()))  # new ones in registries kept
        self._choice = random.Random(1)
        self._registry = Registry(root)

    def ingest(self, processes: int, records: int, waits: bool) -> float:
        """Publish records in processes; gives seconds a record."""
        share = records // processes
        shares = [
            (self._root, new_records(self._root, next(self._visits), share), waits)
            for _ in range(processes)
        ]
        return in_processes(publisher, shares) / (share * processes)

    def searches(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Give one search of each sort, at places of their own."""
        registry = self._registry
        visit, ra, dec = self._somewhere()
        yield "exposure", lambda: registry.products.find(exposure=f"{visit}_0003")
        visit, ra, dec = self._somewhere()
        yield "visit", lambda: registry.products.find(visit=visit)
        yield "cone", lambda: registry.products.find(cone=(ra, dec, SEARCHED))
        visit, ra, dec = self._somewhere()
        yield "polygon", lambda: registry.products.find(polygon=_square(ra, dec, SEARCHED))
        yield "counts", lambda: registry.products.counts(by=("level", "state"))
        yield "percentiles", lambda: registry.deadlines.latencies(by=("survey", "level"))

    def _somewhere(self) -> tuple[str, float, float]:
        visits = min(self._size, SEASON) // PRODUCTS_OF_EXPOSURE // EXPOSURES_OF_VISIT
        number = self._choice.randrange(visits)
        season = self._choice.randrange(-(-self._size // SEASON))
        visit = f"r{10 + number % PROGRAMS + PROGRAMS * season:05d}"
        visit += f"{number // PROGRAMS + 1:02d}001001001001"
        name = self._registry.products.find(visit=visit, kind="cal", limit=1)["name"][0]
        metadata = self._registry.generations.current([name])[name].metadata
        return visit, metadata["ra"], metadata["dec"]


def _square(ra: float, dec: float, half: float) -> list[tuple[float, float]]:
    wide = half / float(np.cos(np.radians(dec)))
    return [
        (ra - wide, dec - half), (ra + wide, dec - half),
        (ra + wide, dec + half), (ra - wide, dec + half),
    ]  # fmt: skip


class ButlerRepository:
    """A data butler on SQLite with the dimensions of the Wide Field Instrument.

    Parameters
    ----------
    place
        Where it is, or is made.
    """

    def __init__(self, place: Path) -> None:
        from lsst.daf.butler import Butler, DatasetType

        self._repo, self._files = str(place / "repo"), place / "files"
        if not self._files.exists():
            self._files.mkdir(parents=True)
            Butler.makeRepo(self._repo)
            registry = Butler.from_config(self._repo, writeable=True, run="prompt").registry
            limits = {
                "visit_max": 10**9,
                "exposure_max": 10**9,
                "detector_max": 18,
                "visit_system": 0,
            }
            registry.insertDimensionData(
                "instrument",
                {
                    "name": "WFI",
                    "class_name": "lsst.obs.base.Instrument",
                    "visit_system": 0,
                    **limits,
                },
            )
            registry.insertDimensionData(
                "detector",
                *[{"instrument": "WFI", "id": d, "full_name": f"WFI{d:02d}"} for d in DETECTORS],
            )
            registry.insertDimensionData(
                "physical_filter", {"instrument": "WFI", "name": "F158", "band": "F158"}
            )
            registry.insertDimensionData("day_obs", {"instrument": "WFI", "id": 20270101})
        self.butler = Butler.from_config(self._repo, writeable=True, run="prompt")
        self.kind = DatasetType(
            "cal",
            {"instrument", "visit", "detector"},
            "StructuredDataDict",
            universe=self.butler.dimensions,
        )
        self.butler.registry.registerDatasetType(self.kind)

    def write_files(self, exposures: Sequence[int]) -> None:
        """Write the files that are to be ingested."""
        for exposure in exposures:
            for detector in DETECTORS:
                self._path(exposure, detector).write_text("file")

    def ingest(self, exposures: Sequence[int]) -> None:
        """Ingest the files of exposures in place, in one transaction."""
        from lsst.daf.butler import DatasetRef, FileDataset

        registry = self.butler.registry
        with self.butler.transaction():
            registry.insertDimensionData("visit", *map(self._pointing, exposures))
            registry.insertDimensionData(
                "visit_detector_region",
                *[
                    {
                        "instrument": "WFI",
                        "visit": exposure,
                        "detector": detector,
                        "region": region_of(*detector_place(exposure, detector), HALF_WIDTH),
                    }
                    for exposure in exposures
                    for detector in DETECTORS
                ],
            )
            self.butler.ingest(
                *[
                    FileDataset(
                        path=str(self._path(exposure, detector)),
                        refs=[
                            DatasetRef(
                                self.kind,
                                registry.expandDataId(
                                    instrument="WFI", visit=exposure, detector=detector
                                ),
                                run="prompt",
                            )
                        ],
                    )
                    for exposure in exposures
                    for detector in DETECTORS
                ],
                transfer="direct",
            )

    def find(self, where: str, **bind: Any) -> int:
        """Count what a search finds, having fetched it."""
        where = f"instrument = 'WFI' and {where}"
        return len(self.butler.query_datasets("cal", collections="prompt", where=where, bind=bind))

    def _path(self, exposure: int, detector: int) -> Path:
        return self._files / f"{exposure}_{detector}.asdf"

    @staticmethod
    def _pointing(exposure: int) -> dict[str, Any]:
        """Describe an exposure, which is a visit in the butler's words."""
        return {
            "instrument": "WFI",
            "id": exposure,
            "name": f"r{exposure:019d}",
            "physical_filter": "F158",
            "day_obs": 20270101,
            "science_program": f"visit{exposure // EXPOSURES_OF_VISIT}",
            "exposure_time": 140.0,
            "target_name": "HLWAS",
            "region": region_of(*detector_place(exposure, 9), 4 * HALF_WIDTH),
        }


def detector_place(exposure: int, detector: int) -> tuple[float, float]:
    """Give where a detector of the butler's side looks: spread as ours are."""
    number = exposure // EXPOSURES_OF_VISIT
    dec = float(np.degrees(np.arcsin(number * 0.7548776662 % 1 * 1.6 - 0.8)))
    ra = number * 0.6180339887 % 1 * 360 / SEASONS
    row, column = divmod(detector - 1, 6)
    return ra + column * 0.13 / float(np.cos(np.radians(dec))), dec + row * 0.13


def region_of(ra: float, dec: float, half: float) -> Any:
    """Give a square as the butler takes it."""
    from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

    corners = (LonLat.fromDegrees(*corner) for corner in _square(ra, dec, half))
    return ConvexPolygon([UnitVector3d(corner) for corner in corners])


def ingester(place: Path, exposures: Sequence[int], together: bool) -> Callable[[], None]:
    """Give the work of ingesting exposures one by one, or all together."""
    repository = ButlerRepository(place)

    def ingest() -> None:
        for share in [exposures] if together else [[exposure] for exposure in exposures]:
            repository.ingest(share)

    return ingest


class Theirs:
    """A butler's repository of a size, filled as it is made.

    Parameters
    ----------
    place
        Where it is made.
    size
        Datasets in it.
    """

    def __init__(self, place: Path, size: int) -> None:
        self._place = place
        self._repository = ButlerRepository(place)
        self._known = size // len(DETECTORS)
        self._choice = random.Random(1)
        for low in range(0, self._known, 200):
            exposures = range(low, min(low + 200, self._known))
            self._repository.write_files(exposures)
            self._repository.ingest(exposures)
        self._numbers = itertools.count(self._known)

    def ingest(self, processes: int, records: int, together: bool) -> float:
        """Ingest exposures in processes; gives seconds an exposure."""
        share = records // processes
        lists = [[next(self._numbers) for _ in range(share)] for _ in range(processes)]
        for exposures in lists:
            self._repository.write_files(exposures)
        shares = [(self._place, exposures, together) for exposures in lists]
        return in_processes(ingester, shares) / (share * processes)

    def searches(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Give one search of each sort, at a place of its own."""
        find, number = self._repository.find, self._choice.randrange(self._known)
        ra, dec = detector_place(number, 9)
        yield "exposure", lambda: find(f"visit = {number}")
        program = f"visit{number // EXPOSURES_OF_VISIT}"
        yield "visit", lambda: find(f"visit.science_program = '{program}'")
        overlaps = "visit_detector_region.region OVERLAPS"
        yield "cone", lambda: find(f"{overlaps} CIRCLE({ra}, {dec}, {SEARCHED})")
        square = region_of(ra, dec, SEARCHED)
        yield "polygon", lambda: find(f"{overlaps} :square", square=square)


def measure_ingest(
    figures: Figures, ours: Ours, theirs: Theirs | None, size: int, records: int, repeats: int
) -> None:
    """Measure what a record costs, both sides in turn."""
    for processes, _ in itertools.product(PROCESSES, range(repeats)):
        for name, count in (("publish", records), ("ingest", INGEST_FACTOR * records)):
            if theirs is not None:
                alternative = theirs.ingest(processes, count, together=False)
                figures.add("butler", f"{name}_{processes}", size, alternative)
            seconds = ours.ingest(processes, count, waits=name == "publish")
            figures.add("ours", f"{name}_{processes}", size, seconds)
        if theirs is not None:
            alternative = theirs.ingest(processes, INGEST_FACTOR * records, together=True)
            figures.add("butler", f"bulk_{processes}", size, alternative)
            figures.add("ours", f"bulk_{processes}", size, seconds)


def merge_on(root: DataRoot, tiers: Sequence[str], begun: Event) -> None:
    """Merge tiers into one that is thrown away, again and again."""
    while True:
        with draft_tier(root) as tier:
            begun.set()
            write_merged(tier, tiers, (), lambda: None)


def measure_beside_a_merge(root: DataRoot, size: int) -> None:
    """Print how long publishing takes, by itself and while tiers are merged."""
    snapshot = read_snapshot(root.registry)
    assert snapshot is not None
    tiers = snapshot.tiers[-1:]  # Folds leave the oldest as it is.
    merged = sum(tier_path(root, tier).stat().st_size for tier in tiers)
    print_publishing(f"{size:10,} products alone", time_publishing(root, PUBLISHED))
    begun = _processes.Event()
    merging = _processes.Process(target=merge_on, args=(root, tiers, begun))
    merging.start()
    begun.wait()
    beside = time_publishing(root, PUBLISHED)
    assert merging.is_alive()
    merging.kill()
    merging.join()
    print_publishing(f"{size:10,} products beside a merge of {merged / 2**20:.0f} MiB", beside)


def time_publishing(root: DataRoot, records: int) -> list[float]:
    """Publish records one after another; return the seconds that each took until readers saw it."""
    seconds: list[float] = []
    for record in new_records(root, int(time.time()), records):
        with elapsed(seconds):
            Journal(root).write(record)
            fold(root)
    return seconds


def print_publishing(about: str, seconds: Sequence[float]) -> None:
    """Print the median of times, and what one in a hundred exceeds."""
    p50, p99 = (float(np.percentile(seconds, part)) for part in (50, 99))
    print(
        f"{about}: publish p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, {p99 / p50:.2f} times",
        flush=True,
    )


def measure_searches(figures: Figures, ours: Ours, theirs: Theirs | None, size: int) -> None:
    """Measure searches, both sides in turn, after one that is not counted."""
    sides: list[tuple[str, Ours | Theirs]] = [("ours", ours)]
    if theirs is not None:
        sides.append(("butler", theirs))
    for repeat in range(QUERIES + 1):
        for side, searched in sides:
            for name, search in searched.searches():
                seconds: list[float] = []
                with elapsed(seconds):
                    search()
                if repeat:
                    figures.add(side, name, size, seconds[0])


def main() -> None:
    """Parse the command line, build, measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--products", type=float, nargs="+", default=[1e5, 1e6], help="sizes of the registry"
    )
    parser.add_argument("--no-butler", action="store_true", help="measure ours alone")
    parser.add_argument("--records", type=int, default=40, help="to publish; ingest is 5x")
    parser.add_argument("--repeats", type=int, default=3, help="of ingesting")
    parser.add_argument("--work", type=Path, help="a directory for the data, removed afterwards")
    parser.add_argument("--keep", type=Path, help="a directory whose registries are used again")
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.products)
    figures = Figures()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for size in sizes:
            root = DataRoot((options.keep or Path(work)) / f"{size}")
            seconds: list[float] = []
            if read_snapshot(root.registry) is None:
                with elapsed(seconds):
                    build(root, size)
                print(f"{size:10,} products built in {seconds[0]:.0f} s", flush=True)
            # The smallest size is the butler's as well.
            beside = size == sizes[0] and not options.no_butler
            theirs = Theirs(Path(work) / "butler", size) if beside else None
            ours = Ours(root, size)
            measure_searches(figures, ours, theirs, size)
            measure_ingest(figures, ours, theirs, size, options.records, options.repeats)
            figures.show(size)
            measure_beside_a_merge(root, size)
    figures.report(sizes)


if __name__ == "__main__":
    main()
