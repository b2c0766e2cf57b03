"""Measure the registry at several sizes, beside Rubin's data butler on SQLite.

A registry of each size is built by the fold's own SQL from synthetic commit records: seasons of up
to a million products, each on its own strip of sky; what is larger holds copies of a season under
other program numbers and at other right ascensions. Then, at each size:

- *publish*: records of 18 products are committed and folded one by one; when a fold returns,
  readers see the products and their public names are linked. The butler's side is one transaction
  with the dimension records of an exposure and ``Butler.ingest`` of its 18 files, in place.
- *bulk*: records are committed one by one and folded together, until readers see all. The butler's
  side is one transaction with the dimension records and one ``Butler.ingest`` for all of them.
- queries by exposure, visit, cone and polygon, counts and latency percentiles through `Registry`,
  each at another place every time; the butler's side is ``Butler.query_datasets``.

On both sides the files exist before the clock starts, and hashing them is not counted. Several
processes start together, each with its own exposures.

    python benchmarks/registry.py                              # 10^5 and 10^6 products
    python benchmarks/registry.py --products 1e5 1e6 1e7       # 5 GB of disk
    python benchmarks/registry.py --products 2e4 --records 10 --butler-products 5e3  # short
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.fold import (
    HEALPIX_NSIDE,
    NO_RECORD,
    READ_BY_FOLD,
    apply_incoming,
    fold,
    fold_lock,
)
from roman_assets.registry.journal import Journal
from roman_assets.registry.record import CommitRecord, ProductEntry, fingerprint
from roman_assets.registry.registry import Registry
from roman_assets.registry.schema import PLACES, TABLES, Table
from roman_assets.registry.tiers import (
    NEWEST,
    Snapshot,
    TieredDatabase,
    merge_tiers,
    new_tier,
    publish_snapshot,
)

DETECTORS = range(1, 19)
PRODUCTS_OF_EXPOSURE = 54
"""Of 18 detectors: uncal, cal and catalogue, in three records."""

EXPOSURES_OF_VISIT = 8
EXPOSURES_AT_ONCE = 4_000
SEASON = 1_000_000
SEASONS = 10
PROGRAMS = 400
QUERIES = 15
_processes = multiprocessing.get_context("spawn")

_FOOTPRINT = """'POLYGON ICRS ' || concat_ws(' ',
    ra - 0.06 / cos(radians("dec")), "dec" - 0.06, ra + 0.06 / cos(radians("dec")), "dec" - 0.06,
    ra + 0.06 / cos(radians("dec")), "dec" + 0.06, ra - 0.06 / cos(radians("dec")), "dec" + 0.06)"""

_INCOMING = f"""
create temp table incoming as
{NO_RECORD} union all by name (
with exposures as (
    select i // {EXPOSURES_OF_VISIT} as v, timestamptz '2027-01-01' + to_seconds(i * 140) as begun,
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
    with fold_lock(root):
        with new_tier(root, read=READ_BY_FOLD, published=False) as season:
            _fill_season(season.database, min(products, SEASON) // PRODUCTS_OF_EXPOSURE)
        tiers = [season.name]
        for number in range(1, -(-products // SEASON)):
            with new_tier(root, published=False) as copy:
                copy.database.attach(tiers[:1])
                _copy_season(copy.database, tiers[0], number)
            tiers.append(copy.name)
        whole = merge_tiers(root, tiers, is_whole=True)
        publish_snapshot(root, Snapshot.of((whole,)), None)


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
    """What was measured, in seconds: by side, name and size."""

    values: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def add(self, side: str, name: str, size: int, seconds: Sequence[float]) -> None:
        """Keep the median and print it with the spread."""
        self.values[side, name, size] = statistics.median(seconds)
        print(
            f"{size:10,} products {side:7} {name:14} {statistics.median(seconds) * 1e3:9.2f} ms "
            f"(from {min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f})",
            flush=True,
        )

    def report(self, sizes: Sequence[int], butler_size: int | None) -> None:
        """Print the ratios: the butler against ours, and the smallest size against each."""
        for (side, name, size), ours in self.values.items():
            other = self.values.get(("butler", name, butler_size or 0))
            if side == "ours" and other:
                print_ratio(f"{name}_at_{size:.0e}", other / ours)
        for size in sizes[1:]:
            for name in ("publish_1", "publish_4", "bulk_1", "bulk_4"):
                first, here = (self.values["ours", name, one] for one in (sizes[0], size))
                print_ratio(f"{name}_flat_{sizes[0]:.0e}_to_{size:.0e}", first / here)


def print_ratio(name: str, value: float) -> None:
    """Print a ratio as every benchmark does."""
    print(f"ratio {name.replace('+', '')}: {value:.3f} (alternative / ours, higher is better)")


@contextmanager
def elapsed(into: list[float], share: int = 1) -> Iterator[None]:
    """Add the seconds that a block takes, divided by a number of records."""
    begun = time.perf_counter()
    yield
    into.append((time.perf_counter() - begun) / share)


def in_processes(
    work: Callable[..., Callable[[], None]], shares: Sequence[tuple[Any, ...]]
) -> float:
    """Do work in processes that start together; gives the seconds until the last is done.

    `work` makes ready what is not counted and returns what is.
    """
    barrier = _processes.Barrier(len(shares) + 1)
    started = [_processes.Process(target=_after, args=(barrier, work, *one)) for one in shares]
    for process in started:
        process.start()
    barrier.wait()
    begun = time.perf_counter()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise SystemExit("a process failed")
    return time.perf_counter() - begun


def _after(barrier: Barrier, work: Callable[..., Callable[[], None]], *arguments: Any) -> None:
    counted = work(*arguments)
    barrier.wait()
    counted()


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
                fingerprint=fingerprint((), None, {}),
                context="roman_0042.pmap",
                software={"romancal": "1.1.0"},
                metadata={"survey": "HLWAS", "ra": 10.0, "dec": 5.0, "radius": 0.09},
            )
        )
    return CommitRecord(step=Step.EXPOSURE, partition=exposure, products=tuple(entries))


def publisher(
    root: DataRoot, records: Sequence[CommitRecord], together: bool
) -> Callable[[], None]:
    """Give the work of committing records and folding each, or all together."""

    def publish() -> None:
        journal = Journal(root)
        for record in records:
            journal.write(record)
            if not together:
                fold(root)
        if together:
            fold(root)

    return publish


def measure_ingest(figures: Figures, root: DataRoot, size: int, count: int, repeats: int) -> None:
    """Measure what a record costs until readers see it."""
    visits = iter(range(1, 10**9))
    for processes in (1, 4):
        for name, together in (("publish", False), ("bulk", True)):
            records = count if not together else 10 * count
            seconds = []
            for _ in range(repeats):
                shares = [
                    (root, new_records(root, next(visits), records // processes), together)
                    for _ in range(processes)
                ]
                done = processes * (records // processes)
                seconds.append(in_processes(publisher, shares) / done)
            figures.add("ours", f"{name}_{processes}", size, seconds)


def measure_queries(figures: Figures, root: DataRoot, size: int) -> None:
    """Measure searches, each at another place every time."""
    choice = random.Random(1)
    seasons = -(-size // SEASON)
    visits = min(size, SEASON) // PRODUCTS_OF_EXPOSURE // EXPOSURES_OF_VISIT
    registry = Registry(root)
    places: list[tuple[str, float, float]] = []
    for _ in range(QUERIES + 1):
        number = choice.randrange(visits)
        program = 10 + number % PROGRAMS + PROGRAMS * choice.randrange(seasons)
        visit = f"r{program:05d}{number // PROGRAMS + 1:02d}001001001001"
        first = registry.find(visit=visit, kind="cal", limit=1)
        places.append((visit, *registry_place(registry, first["name"][0])))
    searches: dict[str, Callable[[str, float, float], object]] = {
        "exposure": lambda visit, ra, dec: registry.find(exposure=f"{visit}_0003"),
        "visit": lambda visit, ra, dec: registry.find(visit=visit),
        "cone": lambda visit, ra, dec: registry.find(cone=(ra, dec, 0.02)),
        "polygon": lambda visit, ra, dec: registry.find(polygon=_square(ra, dec, 0.02)),
        "counts": lambda visit, ra, dec: registry.counts(by=("level", "state")),
        "percentiles": lambda visit, ra, dec: registry.latencies(by=("survey", "level")),
    }
    for name, search in searches.items():
        search(*places[0])
        seconds: list[float] = []
        for place in places[1:]:
            with elapsed(seconds):
                search(*place)
        figures.add("ours", name, size, seconds)
    registry.close()


def registry_place(registry: Registry, name: str) -> tuple[float, float]:
    """Give where a product lies on the sky."""
    metadata = registry.current([name])[name].metadata
    return metadata["ra"], metadata["dec"]


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
            limits = {"visit_max": 10**9, "exposure_max": 10**9, "detector_max": 18}
            registry.insertDimensionData(
                "instrument", {"name": "WFI", "class_name": "lsst.obs.base.Instrument", **limits}
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
            {"instrument", "exposure", "detector"},
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
            groups = sorted({self._group(exposure) for exposure in exposures})
            rows = [{"instrument": "WFI", "name": group} for group in groups]
            registry.insertDimensionData("group", *rows, skip_existing=True)
            registry.insertDimensionData("exposure", *map(self._exposure, exposures))
            self.butler.ingest(
                *[
                    FileDataset(
                        path=str(self._path(exposure, detector)),
                        refs=[
                            DatasetRef(
                                self.kind,
                                registry.expandDataId(
                                    instrument="WFI", exposure=exposure, detector=detector
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

    def find(self, where: str) -> int:
        """Count what a search finds, having fetched it."""
        where = f"instrument = 'WFI' and {where}"
        return len(self.butler.query_datasets("cal", collections="prompt", where=where))

    def _path(self, exposure: int, detector: int) -> Path:
        return self._files / f"{exposure}_{detector}.asdf"

    @staticmethod
    def _group(exposure: int) -> str:
        return f"visit{exposure // EXPOSURES_OF_VISIT}"

    def _exposure(self, exposure: int) -> dict[str, Any]:
        return {
            "instrument": "WFI",
            "id": exposure,
            "obs_id": f"r{exposure:019d}",
            "physical_filter": "F158",
            "day_obs": 20270101,
            "group": self._group(exposure),
            "observation_type": "science",
            "exposure_time": 140.0,
            "target_name": "HLWAS",
        }


def ingester(place: Path, exposures: Sequence[int], together: bool) -> Callable[[], None]:
    """Give the work of ingesting exposures one by one, or all together."""
    repository = ButlerRepository(place)

    def ingest() -> None:
        for share in [exposures] if together else [[exposure] for exposure in exposures]:
            repository.ingest(share)

    return ingest


def measure_butler(figures: Figures, place: Path, size: int, count: int, repeats: int) -> None:
    """Measure the same on the butler's side, at a size that it can hold."""
    repository = ButlerRepository(place)
    known = size // len(DETECTORS)
    for low in range(0, known, 200):
        exposures = range(low, min(low + 200, known))
        repository.write_files(exposures)
        repository.ingest(exposures)
    numbers = iter(range(known, 10**8))
    for processes in (1, 4):
        for name, together in (("publish", False), ("bulk", True)):
            records = count if not together else 10 * count
            seconds = []
            for _ in range(repeats):
                share = records // processes
                lists = [[next(numbers) for _ in range(share)] for _ in range(processes)]
                for exposures in lists:
                    repository.write_files(exposures)
                shares = [(place, exposures, together) for exposures in lists]
                seconds.append(in_processes(ingester, shares) / (processes * share))
            figures.add("butler", f"{name}_{processes}", size, seconds)
    choice = random.Random(1)
    for name, search in (
        ("exposure", lambda number: f"exposure = {number}"),
        ("visit", lambda number: f"exposure.group = 'visit{number // EXPOSURES_OF_VISIT}'"),
    ):
        repository.find(search(0))
        seconds = []
        for _ in range(QUERIES):
            with elapsed(seconds):
                repository.find(search(choice.randrange(known)))
        figures.add("butler", name, size, seconds)


def main() -> None:
    """Parse the command line, build, measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--products", type=float, nargs="+", default=[1e5, 1e6], help="sizes of the registry"
    )
    parser.add_argument("--butler-products", type=float, default=1e5, help="0 for no butler")
    parser.add_argument("--records", type=int, default=40, help="published one by one; bulk is 10x")
    parser.add_argument("--repeats", type=int, default=3, help="of ingesting")
    parser.add_argument("--work", type=Path, help="a directory for the data, removed afterwards")
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.products)
    figures = Figures()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        if options.butler_products:
            measure_butler(
                figures,
                Path(work) / "butler",
                int(options.butler_products),
                options.records,
                options.repeats,
            )
        for size in sizes:
            root = DataRoot(Path(work) / f"{size}")
            seconds: list[float] = []
            with elapsed(seconds):
                build(root, size)
            print(f"{size:10,} products built in {seconds[0]:.0f} s", flush=True)
            measure_queries(figures, root, size)
            measure_ingest(figures, root, size, options.records, options.repeats)
    figures.report(sizes, int(options.butler_products))


if __name__ == "__main__":
    main()
