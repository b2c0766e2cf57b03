"""Reading the registry: always the published snapshot, never the database being folded."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import State, Transition
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.registry.deadline_settings import deadlines_of
from roman_assets.registry.ledger import (
    ATTEMPTS_AS_FAR,
    DELIVERIES,
    GROUP_COLUMNS,
    JUDGED,
    MOST_URGENT_FIRST,
    PRODUCT_COLUMNS,
    PRODUCTS,
    define_ledger,
    detectors_in,
    hours_spent,
)
from roman_assets.registry.obscore import ARCHIVE_URL, DEFAULT_PUBLISHER, OBSCORE, PUBLISHER
from roman_assets.registry.record import (
    ExposureReceipt,
    Outcome,
    ProductEntry,
    ProductInput,
    ReleaseStatement,
    UtcTime,
)
from roman_assets.registry.schema import (
    ARCHIVE_TABLES,
    CURRENT_PRODUCTS,
    IDENTITY,
    IS_AVAILABLE,
    METADATA,
    PLACES,
    search_columns,
    source_tables,
    tables_seen_by,
)
from roman_assets.registry.tiers import (
    SNAPSHOT,
    Snapshot,
    SnapshotError,
    TieredDatabase,
    read_snapshot,
    refresh_snapshot,
    registry_directory,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from roman_assets.registry.area import Area, Cone, Polygon

OneOrMore = str | Iterable[str] | None

_EMPTY = (0, 0, 0)
_DAMAGE = (
    duckdb.IOException, duckdb.SerializationException, duckdb.FatalException,
    duckdb.BinderException,
)  # fmt: skip
_GROUPING_COLUMNS = frozenset(column.name for column in IDENTITY) | {
    "survey", "exposure_type", "state", "step", "partition",
}  # fmt: skip


class RegisteredProduct(ProductEntry):
    """A product entry with its place in the archive's history.

    Parameters
    ----------
    generation
        How often a product of this name had been made, from 1.
    state
        What has become of it.
    committed_at
        When its record was written, UTC.
    ended_at
        When it ceased to be available, UTC; None while it is.
    record_id
        Its commit record.
    """

    generation: int
    state: State
    committed_at: UtcTime
    ended_at: UtcTime | None
    record_id: str


@dataclass(frozen=True)
class VisitExposure:
    """One exposure of a visit as the registry knows it.

    Parameters
    ----------
    exposure
        Which one.
    nexposures
        Planned number of exposures of its visit, None if no product says.
    survey, exposure_type, optical_element
        As its products say, None where none does.
    cal
        Its current L2 products, by name; empty before the exposure pipeline has run.
    """

    exposure: ExposureId
    nexposures: int | None
    survey: str | None
    exposure_type: str | None
    optical_element: str | None
    cal: tuple[RegisteredProduct, ...]


@dataclass(frozen=True)
class ToldSsc:
    """What the SSC was told last of an exposure or visit (R12).

    Parameters
    ----------
    manifest
        Where the manifest is in the exchange with the SSC.
    digest
        Identifies what it says.
    images
        Number of L2 images.
    handed_over
        When (UTC).
    """

    manifest: str
    digest: str
    images: int
    handed_over: datetime


@dataclass(frozen=True)
class CalibratedImage:
    """One detector of an exposure with L1, and how its current L2 was made.

    Parameters
    ----------
    file_set, exposure, exposure_type
        Which one.
    ramp_size
        Of its L1 file, bytes.
    name, context, software
        Of its L2: CRDS pipeline context, and versions by package name. Without L2 the former are
        None.
    data_release
        The data release that the L2 was made for, None for a prompt one.
    """

    file_set: str
    exposure: str
    exposure_type: str | None
    ramp_size: int
    name: str | None
    context: str | None
    software: Mapping[str, str]
    data_release: str | None


@dataclass(frozen=True)
class DeadlineOverview:
    """What an operator sees of the deadline ledger at a glance.

    Parameters
    ----------
    now
        The present time it was made for, UTC.
    counts
        ``products`` (number), those of them ``at_risk``, and ``least_margin_hours``, by ``survey``,
        ``level``, ``step`` and ``state``.
    rows
        The most urgent groups of products, as `Registry.deadlines` gives them.
    """

    now: datetime
    counts: list[dict[str, Any]]
    rows: list[dict[str, Any]]


class Registry:
    """The registry of one installation, for reading, from any process or thread.

    Every call sees one whole state: the newest snapshot at its beginning. Before the first fold
    all results are empty.

    Parameters
    ----------
    root
        The installation.
    role
        For whom: the public role reads the public registry, which knows neither records nor
        events nor failures (R1); what needs them raises `AccessDeniedError`.
    """

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        self._root = root
        self._role = role
        self._lock = threading.Lock()
        self._database: TieredDatabase | None = None
        self._opened: tuple[int, int, int] | None = None
        self._widest: float | None = None
        """Radius of the widest footprint in the snapshot, deg; None until it is asked for."""

    def __reduce__(self) -> tuple[type[Registry], tuple[DataRoot, Role]]:
        return (Registry, (self._root, self._role))

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the snapshot; a later call opens it again."""
        with self._lock:
            self._close()

    def current(self, names: Iterable[str]) -> dict[str, RegisteredProduct]:
        """Give the current entries of products by name; names without one are absent."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        rows = self._rows(
            f"""
            with wanted as (
                select * from products where {IS_AVAILABLE} and name in $names
                    and name_key in list_transform($names, lambda name: name_key(name))
            ), made_from as (
                select record_id, name,
                    list({{'name': input_name, 'sha256': input_sha256}} order by ordinal) as inputs
                from inputs where name in $names
                    and name_key in list_transform($names, lambda name: name_key(name))
                group by all
            )
            select wanted.*, inputs
            from wanted left join made_from using (record_id, name) order by name
            """,
            {"names": wanted},
        )
        return {row["name"]: _entry(row) for row in rows}

    def find(
        self,
        *,
        name: OneOrMore = None,
        kind: OneOrMore = None,
        level: OneOrMore = None,
        exposure: OneOrMore = None,
        visit: OneOrMore = None,
        program: int | Iterable[int] | None = None,
        survey: OneOrMore = None,
        exposure_type: OneOrMore = None,
        optical_element: OneOrMore = None,
        detector: OneOrMore = None,
        skycell: OneOrMore = None,
        release: OneOrMore = None,
        step: OneOrMore = None,
        partition: OneOrMore = None,
        access: OneOrMore = None,
        pattern: OneOrMore = None,
        cone: Cone | None = None,
        polygon: Polygon | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        overwritten: bool = False,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Search products; all conditions must hold, an iterable means any of its values.

        Parameters
        ----------
        name, kind, level, exposure, visit, program, survey, exposure_type, optical_element, \
detector, skycell, release, step, partition, access
            Values of the columns of that name.
        pattern
            Official names with ``*``, ``?`` and ``[...]``.
        cone
            Right ascension, declination (ICRS) and radius, deg: products whose footprint has a
            point in common with it.
        polygon
            Corners (right ascension and declination, ICRS, deg) of a convex polygon of great
            circles, or an s_region: products whose footprint has a point in common with it.
        after, before
            Products whose exposures overlap this time range, UTC.
        overwritten
            Past generations as well (their files are no longer public).
        limit
            At most so many rows, of the newest.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.schema.search_columns`; times are UTC, angles ICRS deg,
            sizes bytes. Ordered by name and generation.

        Raises
        ------
        ValueError
            If the cone is not on the sky, or the polygon not convex or too wide
            (`Footprint.of_region`).
        """
        from roman_assets.registry.area import areas_of

        values = {
            "name": name, "kind": kind, "level": level, "exposure": exposure, "visit": visit,
            "program": program, "survey": survey, "exposure_type": exposure_type,
            "optical_element": optical_element, "detector": detector, "skycell": skycell,
            "release": release, "step": step, "partition": partition, "access": access,
        }  # fmt: skip
        conditions, parameters = _conditions(values)
        conditions += _places(values)
        if after is not None:
            conditions.append("end_time >= $after")
            parameters["after"] = after
        if before is not None:
            conditions.append("start_time <= $before")
            parameters["before"] = before
        if not overwritten:
            conditions.append(IS_AVAILABLE)
        if pattern is not None:
            condition, named = _named_like([pattern] if isinstance(pattern, str) else pattern)
            conditions.append(condition)
            parameters |= named
        columns = ", ".join(f'"{column}"' for column in search_columns(self._role))
        where = " and ".join(conditions) or "true"
        selection = f"select {columns} from products where {where}"
        areas = areas_of(cone, polygon)
        if areas:
            return self._found_in_areas(areas, columns, where, parameters, limit)
        if limit is not None:
            selection = f"from ({selection} order by committed_at desc, name limit $limit)"
            parameters["limit"] = limit
        return self._query(f"{selection} order by name, generation", parameters)

    def names(self, pattern: str = "*") -> Iterator[str]:
        """Go through the names of current products, in order, however many there are.

        Parameters
        ----------
        pattern
            An official name with ``*``, ``?`` and ``[...]``.
        """
        condition, parameters = _named_like([pattern])
        sql = f"select name from products where {IS_AVAILABLE} and {condition} order by name"
        # On a connection of its own, so that whoever goes through slowly keeps nobody waiting.
        with Registry(self._root, self._role) as own, own._answer(sql, parameters, {}) as answer:
            for batch in answer.to_arrow_reader():
                yield from batch.column(0).to_pylist()

    def generations(self, names: Iterable[str]) -> dict[str, tuple[RegisteredProduct, ...]]:
        """Give all generations of products by name, oldest first; unknown names are absent.

        What was overwritten or removed is there with all by which it can be cited and made again.
        """
        wanted = sorted(set(names))
        if not wanted:
            return {}
        names_wanted = {"name": wanted}
        conditions, parameters = _conditions(names_wanted)
        where = " and ".join([*conditions, *_places(names_wanted)])
        rows = self._rows(
            f"""
            with wanted as (
                select * from products where {where}
            ), made_from as (
                select record_id, name,
                    list({{'name': input_name, 'sha256': input_sha256}} order by ordinal) as inputs
                from inputs where {where} group by all
            )
            select wanted.*, inputs
            from wanted left join made_from using (record_id, name) order by name, generation
            """,
            parameters,
        )
        found: dict[str, tuple[RegisteredProduct, ...]] = {}
        for row in rows:
            found[row["name"]] = (*found.get(row["name"], ()), _entry(row))
        return found

    def superseded_sets(self) -> pd.DataFrame:
        """Give the available products of every prompt file set that a release has superseded.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``kind``, ``file_set``, ``survey``, ``visit``, ``size`` (bytes), ``sha256``,
            ``state`` and ``record_id`` of each, ordered by name; ``superseded_at`` (UTC) and
            ``superseded_by``, the cause on record, null for members that are not superseded
            themselves; ``replaced``, whether a published data release of the survey has a coadd of
            the same skycell and optical element.
        """
        return self._query(
            f"""
            with stated as (
                select name_key, name, made_by as record_id, min(committed_at) as superseded_at,
                    arg_min(cause, (committed_at, record_id)) as superseded_by
                from transitions where transition = '{Transition.SUPERSEDED}' group by all
            ), sets as (
                select distinct name_key, file_set from products
                where state = '{State.SUPERSEDED}'
            ), released as (
                select distinct survey, skycell, optical_element from products
                where {IS_AVAILABLE} and access = '{Role.PUBLIC}' and kind = 'coadd'
                    and "release" <> '{PROMPT_RELEASE}'
            )
            select name, kind, file_set, survey, visit, size, sha256, state, record_id,
                superseded_at, superseded_by, released.skycell is not null as replaced
            from products semi join sets using (name_key, file_set)
                left join stated using (name_key, name, record_id)
                left join released using (survey, skycell, optical_element)
            where {IS_AVAILABLE} order by name
            """,
            {},
        )

    def volumes(self) -> pd.DataFrame:
        """Give how much was there from when to when, all generations summed up by the hour.

        Returns
        -------
        pandas.DataFrame
            ``size`` (bytes) and ``products`` by ``level``, ``grouped`` (made of several
            exposures), ``released`` (by a data release), ``survey``, ``begin``, ``superseded_at``
            and ``end`` (UTC; the latter null while they are available).
        """
        return self._query(
            f"""
            with stated as (
                select name_key, name, made_by as record_id, min(committed_at) as superseded_at
                from transitions where transition = '{Transition.SUPERSEDED}' group by all
            )
            select level, exposure is null as "grouped",
                "release" <> '{PROMPT_RELEASE}' as released, survey,
                date_trunc('hour', committed_at) as "begin",
                date_trunc('hour', superseded_at) as superseded_at,
                date_trunc('hour', ended_at) as "end",
                sum(size)::double as size, count(*) as products
            from products left join stated using (name_key, name, record_id)
            where state <> '{State.REFUSED}' group by all order by all
            """,
            {},
        )

    def mean_sizes(self) -> tuple[dict[str, float], float | None]:
        """Give the mean size of the products there are, bytes by kind, and of ramps the length.

        Returns
        -------
        sizes, resultants
            The latter is the mean number of resultants of ramps, None if there are no ramps.
        """
        rows = self._rows(
            f"select kind, avg(size) as size, avg(naxis3) as length from {CURRENT_PRODUCTS} "
            f"where \"release\" = '{PROMPT_RELEASE}' group by kind",
            {},
        )
        lengths = {row["kind"]: row["length"] for row in rows}
        return {row["kind"]: float(row["size"]) for row in rows}, lengths.get("uncal")

    def made_from(self, inputs: Iterable[ProductInput]) -> dict[ProductInput, set[tuple[str, str]]]:
        """Tell what was made from files: name and commit record of each generation."""
        wanted = {(item.name, item.sha256): item for item in inputs}
        rows = self._rows(
            "select distinct input_name, input_sha256, name, record_id from inputs "
            "where input_key in list_transform($hashes, lambda hash: md5_number_lower(hash)) "
            "and input_sha256 in $hashes",
            {"hashes": sorted({sha256 for _, sha256 in wanted})},
        )
        made: dict[ProductInput, set[tuple[str, str]]] = {item: set() for item in wanted.values()}
        for row in rows:
            item = wanted.get((row["input_name"], row["input_sha256"]))
            if item is not None:
                made[item].add((row["name"], row["record_id"]))
        return made

    def exposures_of_visit(self, visit: VisitId | str) -> tuple[VisitExposure, ...]:
        """Give the exposures of a visit that have any product, in order, with their L2."""
        return self.exposures_of_visits([visit]).get(VisitId.parse(str(visit)), ())

    def exposures_of_visits(
        self, visits: Iterable[VisitId | str]
    ) -> dict[VisitId, tuple[VisitExposure, ...]]:
        """Do so for several visits; those without products are absent."""
        rows = self._rows(
            "select exposure, max(nexposures) as nexposures, max(survey) as survey, "
            "max(exposure_type) as exposure_type, max(optical_element) as optical_element, "
            "list(name order by name) filter (kind = 'cal') as cal "
            f"from {CURRENT_PRODUCTS} where visit in $visits "
            "and exposure is not null group by exposure order by exposure",
            {"visits": [str(visit) for visit in visits]},
        )
        entries = self.current(name for row in rows for name in row["cal"] or ())
        found: dict[VisitId, list[VisitExposure]] = {}
        for row in rows:
            exposure = ExposureId.parse(row["exposure"])
            found.setdefault(exposure.visit, []).append(
                VisitExposure(
                    exposure=exposure,
                    nexposures=row["nexposures"],
                    survey=row["survey"],
                    exposure_type=row["exposure_type"],
                    optical_element=row["optical_element"],
                    cal=tuple(entries[name] for name in row["cal"] or () if name in entries),
                )
            )
        return {visit: tuple(exposures) for visit, exposures in found.items()}

    def calibrated_images(self, exposures: Iterable[str]) -> tuple[CalibratedImage, ...]:
        """Tell how the current L2 of exposures were made, one for each L1, ordered by name."""
        wanted = {"exposure": list(exposures)}
        conditions, parameters = _conditions(wanted)
        where = " and ".join([IS_AVAILABLE, *conditions, *_places(wanted)])
        rows = self._rows(
            f"""
            with chosen as materialized (
                select * from products where {where} and kind in ('uncal', 'cal')
            )
            select ramp.file_set, ramp.exposure, ramp.exposure_type, ramp.size as ramp_size,
                image.name, image.context, image.software, image.data_release
            from (from chosen where kind = 'uncal') as ramp
            left join (from chosen where kind = 'cal') as image using (file_set)
            order by ramp.file_set
            """,
            parameters,
        )
        software = functools.cache(json.loads)
        return tuple(
            CalibratedImage(**row | {"software": software(row["software"] or "{}")}) for row in rows
        )

    def finished_partitions(self, step: Step, partitions: Iterable[str]) -> frozenset[str]:
        """Give those partitions whose latest attempt of a step ended well, without a failure."""
        rows = self._rows(
            f"""
            with tries as (
                from ({ATTEMPTS_AS_FAR}) where step = $step and "partition" in $partitions
                qualify row_number() over (
                    partition by "partition" order by started desc, attempt_id desc) = 1
            ), newest as (
                select arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication' and step = $step
                    and "partition" in $partitions group by "partition"
            )
            select "partition" from tries where outcome = '{Outcome.FINISHED}'
            except select "partition" from failures semi join newest using (record_id)
            """,
            {"step": step.value, "partitions": list(partitions)},
        )
        return frozenset(row["partition"] for row in rows)

    def partition_state(self, step: Step, after: datetime | None = None) -> pd.DataFrame:
        """Give what a step has left behind for each of its partitions.

        Parameters
        ----------
        step
            The work.
        after
            Only partitions with a record committed at this time or later.

        Returns
        -------
        pandas.DataFrame
            One row for each partition the step recorded, ordered by it: ``partition``;
            ``record_id``, ``committed_at``, ``run_id`` and ``failures`` (their number) of the
            newest record; ``products`` (number of current ones) and ``content``, a hash of the
            current names and files that changes if and only if they do.
        """
        return self._query(
            f"""
            with newest as (
                select "partition", arg_max(record_id, (committed_at, record_id)) as record_id,
                    max(committed_at) as committed_at,
                    arg_max_null(run_id, (committed_at, record_id)) as run_id
                from records where step = $step and statement = 'publication'
                    and ($after is null or committed_at >= $after) group by "partition"
            ), made as (
                select "partition", count(*) as products,
                    hex(bit_xor(md5_number_lower(name || sha256))) as content
                from products semi join newest using ("partition")
                where step = $step and {IS_AVAILABLE} group by "partition"
            ), failed as (
                select record_id, count(*) as failures from failures group by record_id
            )
            select "partition", record_id, committed_at, run_id,
                coalesce(failures, 0) as failures, coalesce(products, 0) as products,
                coalesce(content, '') as content
            from newest left join made using ("partition") left join failed using (record_id)
            order by "partition"
            """,
            {"step": step.value, "after": after},
        )

    def newest_by_partition(self, after: datetime | None = None) -> pd.DataFrame:
        """Give the newest commit record of each exposure and visit, newest first.

        Parameters
        ----------
        after
            Only records committed at this time or later.

        Returns
        -------
        pandas.DataFrame
            ``partition``, ``record_id``, ``committed_at``.
        """
        return self._query(
            """
            select "partition", arg_max(record_id, (committed_at, record_id)) as record_id,
                max(committed_at) as committed_at
            from records where ($after is null or committed_at >= $after)
                and regexp_full_match("partition", 'r\\d{19}(_\\d{4})?')
            group by "partition" order by committed_at desc, "partition"
            """,
            {"after": after},
        )

    def count_records(self, before: datetime | None = None) -> int:
        """Count the commit records, or those committed before a time."""
        sql = "select count(*) as n from records where $before is null or committed_at < $before"
        return int(self._rows(sql, {"before": before})[0]["n"])

    def latest_commit(self) -> datetime | None:
        """Give when the newest commit record was written, UTC; None before there is one."""
        time = self._rows("select max(committed_at) as time from records", {})[0]["time"]
        return None if time is None else time.astimezone(UTC)

    def exposure_progress(self, exposures: Iterable[str] | None = None) -> pd.DataFrame:
        """Tell how far exposures with L1 have come, all by default.

        Parameters
        ----------
        exposures
            Only these.

        Returns
        -------
        pandas.DataFrame
            ``exposure``; ``received``, the content version of the packets that all its L1 ramps
            were made from (null if they differ); ``content``, a hash that changes with every
            ramp; and ``calibrated``, whether every ramp has L2 made from it or failed.
        """
        wanted = None if exposures is None else list(exposures)
        chosen = "exposure in $exposures" if wanted is not None else "true"
        of_chosen = chosen.replace("exposure in", '"partition" in')
        return self._query(
            f"""
            with made as materialized (
                select exposure, kind, record_id, name, name_key, sha256, file_set from products
                where {IS_AVAILABLE} and kind in ('uncal', 'cal') and {chosen}
            ), made_from as materialized (
                select made.exposure, made.kind, input_name, input_sha256
                from made join inputs using (name_key, record_id, name)
                where input_name = made.exposure || '_l0' or made.kind = 'cal'
            ), received as (
                select exposure, min(input_sha256) as lowest, max(input_sha256) as highest
                from made_from where kind = 'uncal' group by exposure
            ), used as (
                select distinct input_name as name, input_sha256 as sha256
                from made_from where kind = 'cal'
            ), newest as (
                select arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication' and {of_chosen}
                group by step, "partition"
            ), failed as (
                select distinct file_set from failures semi join newest using (record_id)
            )
            select exposure, if(any_value(lowest) = any_value(highest), any_value(lowest), null)
                    as received,
                hex(bit_xor(md5_number_lower(made.name || made.sha256))) as content,
                bool_and(used.name is not null or failed.file_set is not null) as calibrated
            from made left join received using (exposure)
            left join used on used.name = made.name and used.sha256 = made.sha256
            left join failed on failed.file_set = made.file_set
            where kind = 'uncal' group by exposure order by exposure
            """,
            {} if wanted is None else {"exposures": wanted},
        )

    def computation_times(self, step: Step, after: datetime) -> list[timedelta]:
        """Give how long a step took, from its start to its end, each time since `after`."""
        rows = self._rows(
            """
            select max(time) - min(time) as duration
            from events semi join (from records where statement = 'publication') using (record_id)
            where step = $step and committed_at >= $after and event in ($started, $finished)
            group by record_id having count(distinct event) = 2
            """,
            {
                "step": step.value,
                "after": after,
                "started": ClockEvent.STARTED.value,
                "finished": ClockEvent.FINISHED.value,
            },
        )
        return [row["duration"] for row in rows]

    def unit_times(self, step: Step) -> list[tuple[float, int]]:
        """Give how long each publication of a step took (s), and how many file sets it made."""
        rows = self._rows(
            """
            select epoch(finished - started) as seconds, units
            from attempts join (
                select record_id, count(distinct file_set) filter (
                    detector is not null or skycell is not null) as units
                from products group by record_id
            ) using (record_id)
            where step = $step and outcome = 'finished' and finished > started and units > 0
            order by finished, record_id
            """,
            {"step": step.value},
        )
        return [(row["seconds"], row["units"]) for row in rows]

    def latest_records(self, step: Step | None = None, limit: int = 100) -> pd.DataFrame:
        """Give the newest commit records, newest first.

        Returns
        -------
        pandas.DataFrame
            ``record_id``, ``step``, ``partition``, ``committed_at``, ``run_id``, ``products`` and
            ``failures`` (numbers).
        """
        return self._query(
            """
            with newest as (
                select * from records
                where statement = 'publication' and ($step is null or step = $step)
                order by committed_at desc, record_id limit $limit
            )
            select newest.record_id, step, "partition", committed_at, run_id,
                (select count(*) from products where products.record_id = newest.record_id)
                    as products,
                (select count(*) from failures where failures.record_id = newest.record_id)
                    as failures
            from newest order by committed_at desc, record_id
            """,
            {"step": None if step is None else step.value, "limit": limit},
        )

    def failures(self, partition: OneOrMore = None) -> pd.DataFrame:
        """Give what could not be made at the latest attempt of each step and partition.

        Parameters
        ----------
        partition
            Only of these exposures and visits.

        Returns
        -------
        pandas.DataFrame
            ``partition``, ``step``, ``file_set``, ``error``, ``message``, ``committed_at``,
            ``record_id``.
        """
        conditions, parameters = _conditions({"partition": partition})
        return self._query(
            f"""
            with newest as (
                select step, "partition", arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication'
                    and {" and ".join(conditions) or "true"} group by step, "partition"
            )
            select "partition", step, file_set, error, message, committed_at, record_id
            from failures semi join newest using (record_id) order by all
            """,
            parameters,
        )

    def archive_rows(
        self, table: str, *, name: OneOrMore = None, overwritten: bool = False
    ) -> pd.DataFrame:
        """Give what products say in one of the metadata tables that rad declares.

        Parameters
        ----------
        table
            Such as ``WFIExposure``.
        name
            Only these products.
        overwritten
            Past generations as well.

        Returns
        -------
        pandas.DataFrame
            The table's columns but ``name_key``, ordered by name and commit.

        Raises
        ------
        ValueError
            If there is no such table.
        """
        if table not in (known := [declared.name for declared in ARCHIVE_TABLES]):
            raise ValueError(f"{table!r} is no metadata table: known are {', '.join(known)}")
        conditions, parameters = _conditions({"name": name})
        conditions += _places({"name": name})
        if not overwritten:
            conditions.append(IS_AVAILABLE)
        return self._query(
            f"select {table}.* exclude (name_key) from {table} join "
            "(select name_key, record_id, name, state, committed_at from products) "
            "using (name_key, record_id, name) "
            f"where {' and '.join(conditions) or 'true'} order by name, committed_at",
            parameters,
        )

    def obscore(
        self,
        *,
        name: OneOrMore = None,
        dataproduct_type: OneOrMore = None,
        calib_level: int | Iterable[int] | None = None,
        archive_url: str | None = None,
        publisher: str | None = None,
    ) -> pd.DataFrame:
        """Give the available public data products as the IVOA's ObsCore 1.1 describes them.

        Parameters
        ----------
        name
            Only these products, by official file name.
        dataproduct_type, calib_level
            Only products of these types and levels, in ObsCore's words.
        archive_url
            Where users find the public tree; by default its own place.
        publisher
            The IVOA identifier of who publishes, such as ``ivo://observatory.example/roman``.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.obscore.OBSCORE_COLUMNS`, ordered by ``obs_id`` and
            ``obs_publisher_did``. `roman_assets.registry.obscore.obscore_table` makes a VOTable.
        """
        conditions, parameters = _conditions(
            {"dataproduct_type": dataproduct_type, "calib_level": calib_level}
        )
        if name is not None:
            conditions.append("split_part(obs_publisher_did, '?', -1) in (select unnest($names))")
            parameters["names"] = [name] if isinstance(name, str) else [str(one) for one in name]
        variables = {
            ARCHIVE_URL: archive_url or Archive.of(self._root).public_uri,
            PUBLISHER: publisher or DEFAULT_PUBLISHER,
        }
        return self._query(
            f"select * from {OBSCORE} where {' and '.join(conditions) or 'true'} "
            "order by obs_id, obs_publisher_did",
            parameters,
            prepare=partial(_set_variables, values=variables),
        )

    def unfit_values(self, name: OneOrMore = None) -> pd.DataFrame:
        """Give what products say that does not fit the column it belongs to.

        Parameters
        ----------
        name
            Only these products.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``table_name``, ``column_name``, ``datatype``, ``value`` and ``record_id``.
        """
        conditions, parameters = _conditions({"name": name})
        conditions += _places({"name": name})
        return self._query(
            "select name, table_name, column_name, datatype, value, record_id from unfit_values "
            f"where {' and '.join(conditions) or 'true'} order by all",
            parameters,
        )

    def events(self, partition: str, step: Step | None = None) -> dict[ClockEvent, datetime]:
        """Give the clock events of an exposure or visit, UTC; the newest statement counts.

        Parameters
        ----------
        partition
            The exposure or visit.
        step
            Only what this step recorded (``started`` and ``finished`` differ by step).
        """
        return self.events_of([partition], step).get(partition, {})

    def events_of(
        self, partitions: Iterable[str], step: Step | None = None
    ) -> dict[str, dict[ClockEvent, datetime]]:
        """Give the clock events of several; those without any are absent."""
        rows = self._rows(
            'select "partition", event, arg_max(time, (committed_at, record_id)) as time '
            'from events where "partition" in $partitions '
            'and ($step is null or step = $step) group by "partition", event order by all',
            {"partitions": list(partitions), "step": None if step is None else step.value},
        )
        found: dict[str, dict[ClockEvent, datetime]] = {}
        for row in rows:
            moment = row["time"].astimezone(UTC)
            found.setdefault(row["partition"], {})[ClockEvent(row["event"])] = moment
        return found

    def receipts(
        self, exposures: Iterable[str]
    ) -> dict[str, tuple[ExposureReceipt, dict[ClockEvent, datetime]]]:
        """Give what is known and in of exposures, with its moments (UTC); the newest counts."""
        fields = tuple(ExposureReceipt.model_fields)
        rows = self._rows(
            f"""
            with newest as (
                select record_id, "partition", {", ".join(fields)} from receipts
                where "partition" in $exposures
                qualify row_number() over (
                    partition by "partition" order by committed_at desc, record_id desc) = 1
            ), moments as (
                select record_id, map_from_entries(list((event, time))) as events
                from events semi join newest using (record_id) group by record_id
            )
            select newest.*, events from newest left join moments using (record_id)
            """,
            {"exposures": sorted(set(exposures))},
        )
        return {
            row["partition"]: (
                ExposureReceipt(**{field: row[field] for field in fields}),
                {
                    ClockEvent(event): moment.astimezone(UTC)
                    for event, moment in (row["events"] or {}).items()
                },
            )
            for row in rows
        }

    def handovers(self, partitions: Iterable[str]) -> dict[str, ToldSsc]:
        """Give what the SSC was told last of exposures and visits (R12); others are absent."""
        rows = self._rows(
            """
            select "partition", manifest, digest, images, handed_over from handovers
            where "partition" in $partitions
            qualify row_number() over (
                partition by "partition" order by committed_at desc, record_id desc) = 1
            """,
            {"partitions": sorted(set(partitions))},
        )
        return {
            row.pop("partition"): ToldSsc(
                **{**row, "handed_over": row["handed_over"].astimezone(UTC)}
            )
            for row in rows
        }

    def unanswered_handovers(
        self, partitions: Iterable[str] | None = None, limit: int | None = None
    ) -> dict[str, ToldSsc]:
        """Give what the SSC was told of exposures and visits and has delivered nothing since (R12).

        Parameters
        ----------
        partitions
            Only of these.
        limit
            At most so many, those that wait longest.
        """
        rows = self._rows(
            f"""
            select "partition" from (
                select "partition", max(handed_over) as handed_over from handovers
                where $partitions is null or list_contains($partitions::varchar[], "partition")
                group by "partition"
            ) told anti join (
                select "partition", committed_at from products where step in {DELIVERIES}
            ) made on made."partition" = told."partition" and committed_at > handed_over
            order by handed_over limit $limit
            """,
            {"partitions": None if partitions is None else list(partitions), "limit": limit},
        )
        return self.handovers(row["partition"] for row in rows)

    def attempts(
        self,
        partition: str | None = None,
        *,
        run_id: str | None = None,
        outcome: Outcome | None = None,
    ) -> pd.DataFrame:
        """Give the attempts of steps, each as far as it has come, in the order they were begun.

        Parameters
        ----------
        partition, run_id, outcome
            Only attempts of these.

        Returns
        -------
        pandas.DataFrame
            ``attempt_id``, ``step``, ``partition``, ``run_id``, ``record_id`` (of its end, or of
            its beginning), ``queued``, ``started``, ``finished`` (UTC), ``outcome``, ``error``,
            ``message``, ``last_try``.
        """
        return self._query(
            f"""
            select * from ({ATTEMPTS_AS_FAR}) where ($outcome is null or outcome = $outcome)
            and ($partition is null or "partition" = $partition)
            and ($run_id is null or run_id = $run_id) order by started, attempt_id
            """,
            {"partition": partition, "run_id": run_id, "outcome": outcome},
        )

    def releases(
        self, *, survey: OneOrMore = None, release: OneOrMore = None
    ) -> list[tuple[ReleaseStatement, datetime]]:
        """Give what is stated of data releases and when (UTC), in the order of commit.

        Parameters
        ----------
        survey, release
            Only those of these surveys and identities.
        """
        conditions, parameters = _conditions({"survey": survey, "release": release})
        rows = self._rows(
            f"select * from releases where {' and '.join(conditions) or 'true'} "
            "order by committed_at, record_id",
            parameters,
        )
        return [
            (
                ReleaseStatement(
                    release=row["release"],
                    survey=row["survey"],
                    phase=row["phase"],
                    declaration=row["declaration"],
                    content=row["content"],
                    software=json.loads(row["software"]),
                    exposures=tuple(row["exposures"]),
                ),
                row["committed_at"].astimezone(UTC),
            )
            for row in rows
        ]

    def counts(self, by: Iterable[str] = ("visit", "exposure", "level")) -> pd.DataFrame:
        """Count current products by columns, for a table of what there is.

        Parameters
        ----------
        by
            Columns that say what, where or whose a product is.

        Returns
        -------
        pandas.DataFrame
            The columns `by`, ``products`` (number), ``size`` (bytes) and ``newest`` (time of the
            newest commit, UTC), ordered by the former.

        Raises
        ------
        ValueError
            If a column cannot be grouped by.
        """
        columns = _grouping_columns(by)
        listed = "".join(f'"{column}", ' for column in columns)
        grouping = f"group by {listed.rstrip(', ')} order by all" if columns else ""
        return self._query(
            f"select {listed}count(*) as products, coalesce(sum(size), 0)::bigint as size, "
            f"max(committed_at) as newest from {CURRENT_PRODUCTS} {grouping}",
            {},
        )

    def deadlines(
        self,
        *,
        visit: OneOrMore = None,
        partition: OneOrMore = None,
        level: OneOrMore = None,
        survey: OneOrMore = None,
        kind: OneOrMore = None,
        state: OneOrMore = None,
        at_risk: bool | None = None,
        now: datetime | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Give how products stand against their deadlines, those of one fate together.

        Parameters
        ----------
        visit, partition, level, survey, kind, state
            Only products of these: a visit has its exposures' too, a partition is one exposure or
            the products of a visit itself; states are those of
            `roman_assets.products.deadline.ProductState`.
        at_risk
            Only products that are, or are not, at risk.
        now
            The present time, UTC; that of this machine by default.
        limit
            At most so many rows, the most urgent.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.ledger.GROUP_COLUMNS`, the most urgent first: overdue,
            failed, at risk, the others not made, made late, the rest; among them by margin.
        """
        groups = self._ledger(
            JUDGED,
            GROUP_COLUMNS,
            {
                "visit": visit, "partition": partition, "level": level, "survey": survey,
                "kind": kind, "state": state, "at_risk": at_risk,
            },
            now,
            limit,
        )  # fmt: skip
        return groups.assign(detectors=groups["detectors"].map(detectors_in))

    def ledger(
        self,
        *,
        name: OneOrMore = None,
        visit: OneOrMore = None,
        partition: OneOrMore = None,
        level: OneOrMore = None,
        survey: OneOrMore = None,
        kind: OneOrMore = None,
        state: OneOrMore = None,
        at_risk: bool | None = None,
        now: datetime | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Give the ledger's row of every product, expected or made; parameters as `deadlines`.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.ledger.PRODUCT_COLUMNS`, ordered as `deadlines`, then
            by name. A product that was made again has a row for each generation.
        """
        return self._ledger(
            PRODUCTS,
            PRODUCT_COLUMNS,
            {
                "name": name, "visit": visit, "partition": partition, "level": level,
                "survey": survey, "kind": kind, "state": state, "at_risk": at_risk,
            },
            now,
            limit,
        )  # fmt: skip

    def deadline_overview(
        self,
        *,
        visit: OneOrMore = None,
        partition: OneOrMore = None,
        level: OneOrMore = None,
        survey: OneOrMore = None,
        kind: OneOrMore = None,
        state: OneOrMore = None,
        at_risk: bool | None = None,
        now: datetime | None = None,
        limit: int | None = None,
    ) -> DeadlineOverview:
        """Count products by state and give the most urgent rows; parameters as `deadlines`."""
        conditions, parameters = _conditions(
            {
                "visit": visit, "partition": partition, "level": level, "survey": survey,
                "kind": kind, "state": state, "at_risk": at_risk,
            }
        )  # fmt: skip
        moment = now or datetime.now(UTC)
        visits = _visits_of({"visit": visit, "partition": partition})
        order = f'{MOST_URGENT_FIRST}, "partition", level, kind, made'
        most_urgent = f"from chosen order by {order} limit $limit"
        columns = ", ".join(f'"{column}"' for column in GROUP_COLUMNS)
        deadlines = deadlines_of(self._root)
        # one statement, so that the ledger is worked out once and not written down
        sql = f"""
            with chosen as materialized (
                from {JUDGED}($now, visits := $visits) where {" and ".join(conditions) or "true"}
            ), counted as (
                select survey, level, step, state, sum(products)::bigint as products,
                    sum(products) filter (at_risk)::bigint as at_risk,
                    min(margin_hours) as least_margin_hours
                from chosen group by survey, level, step, state
            ), urgent as (
                select {columns} from ({hours_spent(most_urgent)})
            )
            select (select list(counted order by survey, level, step, state) from counted),
                (select list(urgent order by {order}) from urgent)
        """
        values = {**parameters, "now": moment, "visits": visits, "limit": limit}
        with self._asked() as connection:
            define_ledger(connection, deadlines)
            ((counts, rows),) = connection.execute(sql, values).fetchall()
        return DeadlineOverview(
            moment,
            counts or [],
            [row | {"detectors": detectors_in(row["detectors"])} for row in rows or ()],
        )

    def _ledger(
        self,
        macro: str,
        columns: tuple[str, ...],
        values: dict[str, Any],
        now: datetime | None,
        limit: int | None,
    ) -> pd.DataFrame:
        conditions, parameters = _conditions(values)
        visits = _visits_of(values)
        by_name = "name, " if "name" in columns else ""
        listed = ", ".join(f'"{column}"' for column in columns)
        deadlines = deadlines_of(self._root)
        order = f'order by {MOST_URGENT_FIRST}, "partition", level, kind, {by_name}made'
        chosen = (
            f"select * from {macro}($now, visits := $visits) "
            f"where {' and '.join(conditions) or 'true'} {order} limit $limit"
        )
        return self._query(
            f"select {listed} from ({hours_spent(chosen) if macro == JUDGED else chosen}) {order}",
            parameters | {"now": now or datetime.now(UTC), "visits": visits, "limit": limit},
            prepare=lambda connection: define_ledger(connection, deadlines),
        )

    def latencies(self, by: Iterable[str] = ("survey", "level")) -> pd.DataFrame:
        """Give how long after all data of their partition were in available products were made.

        Parameters
        ----------
        by
            Columns that say what, where or whose a product is.

        Returns
        -------
        pandas.DataFrame
            The columns `by`, ``products`` (number) and percentiles of the latency, ``p50_hours``,
            ``p90_hours`` and ``p99_hours``, ordered by the former. Products of partitions whose
            receipt is not on record are left out, and what a data release made.

        Raises
        ------
        ValueError
            If a column cannot be grouped by.
        """
        columns = _grouping_columns(by)
        listed = "".join(f'"{column}", ' for column in columns)
        grouped = f"partition by {listed.removesuffix(', ')}" if columns else ""
        return self._query(
            f"""
            with received as (
                select "partition", max(time) as received from events
                where event = $received group by "partition"
            ), made_together as (
                select {listed} "partition", committed_at, count(*) as products
                from products where {IS_AVAILABLE} and data_release is null group by all
            ), measured as (
                select {listed} products, epoch(committed_at - received) / 3600 as hours
                from made_together join received using ("partition")
            ), ranked as (
                select {listed} hours, sum(products) over ({grouped} order by hours
                        rows between unbounded preceding and current row) as rank,
                    sum(products) over ({grouped}) as total
                from measured
            )
            select {listed} any_value(total)::bigint as products,
                {", ".join(_percentile(percent) for percent in (50, 90, 99))}
            from ranked group by all order by all
            """,
            {"received": ClockEvent.ALL_RECEIVED},
        )

    def read_all(self) -> None:
        """Read every value of every table, as damage may lie in what no search touches.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        """
        for table in tables_seen_by(self._role):
            self._rows(f"select bit_xor(hash(row)) from {table.name} as row", {})

    def source_tables(self) -> list[str]:
        """Give the tables at fault against R11 (see `schema.source_tables`); empty if it holds."""
        with self._lock:
            self._snapshot()
            assert self._database is not None
            with self._database.each_tier() as tiers:
                found = [finding for tier in tiers for finding in source_tables(tier)]
        return list(dict.fromkeys(found))

    def _found_in_areas(
        self,
        areas: Sequence[Area],
        columns: str,
        where: str,
        parameters: Mapping[str, Any],
        limit: int | None,
    ) -> pd.DataFrame:
        import pyarrow as pa

        widest = self._widest_footprint()
        # The first area selects by pixels; each is asked exactly.
        low, high = areas[0].pixel_ranges(widest)
        found = self._table(
            f"""
            with near as materialized (
                select distinct healpix, name_key from {PLACES.name}
                semi join ranges on healpix >= ranges.low and healpix < ranges.high
                where healpix between $lowest and $highest
            )
            select {columns} from products semi join near using (healpix, name_key) where {where}
            """,
            {**parameters, "lowest": int(low.min()), "highest": int(high.max())},
            ranges=pa.table({"low": low, "high": high}),
        )
        found = found.filter(_meets(areas, found["footprint"].to_pylist()))
        if limit is not None:
            newest = found.sort_by([("committed_at", "descending"), ("name", "ascending")])
            found = newest.slice(0, limit)
        in_order = found.sort_by([("name", "ascending"), ("generation", "ascending")])
        frame: pd.DataFrame = in_order.to_pandas()
        return frame

    def _widest_footprint(self) -> float:
        with self._lock:
            self._snapshot()
            if self._widest is not None:
                return self._widest
        row = self._rows("select max(radius) as radius from products", {})[0]
        self._widest = row["radius"] or 0.0
        return self._widest

    def _query(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
        **tables: pa.Table,
    ) -> pd.DataFrame:
        frame: pd.DataFrame = self._table(sql, parameters, prepare, **tables).to_pandas()
        return frame

    def _table(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
        **tables: pa.Table,
    ) -> pa.Table:
        with self._answer(sql, parameters, tables, prepare) as answer:
            return answer.to_arrow_table()

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._answer(sql, parameters, {}) as answer:
            return [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]

    @contextmanager
    def _answer(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        tables: Mapping[str, pa.Table],
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        """Ask the newest snapshot, alone among the threads until the answer is read."""
        with self._asked() as connection:
            for name, table in tables.items():
                connection.register(name, table)
            if prepare is not None:
                prepare(connection)
            yield connection.sql(sql, params=dict(parameters))

    def proposals(self) -> list[dict[str, Any]]:
        """Give all proposals to make products again, in the order in which they were made (R15).

        Returns
        -------
        list of dict
            What was proposed, ``proposed_at`` (UTC), and of the first decision about it
            ``verdict``, ``decided_by``, ``decision_reason`` and ``decided_at``, None while it is
            open.
        """
        return self._rows(
            """
            with first_proposed as (
                select * from proposals qualify row_number() over (
                    partition by proposal_id order by committed_at, record_id) = 1
            ), first_decided as (
                select proposal_id, verdict, author as decided_by, reason as decision_reason,
                    committed_at as decided_at
                from decisions qualify row_number() over (
                    partition by proposal_id order by committed_at, record_id) = 1
            )
            select proposal_id, cause, value, author, reason, exposures, visits, impact,
                committed_at as proposed_at, verdict, decided_by, decision_reason, decided_at
            from first_proposed left join first_decided using (proposal_id)
            order by committed_at, proposal_id
            """,
            {},
        )

    def approvals_of_visits(self, visits: Iterable[VisitId | str]) -> dict[str, dict[str, Any]]:
        """Give the newest approved proposal to make each visit again (R15).

        Returns
        -------
        dict
            By visit: ``proposal_id``, ``cause``, ``value`` and ``decided_at`` (UTC); visits that
            none names are absent.
        """
        rows = self._rows(
            """
            with decided as (
                select proposal_id, arg_min(verdict, (committed_at, record_id)) as verdict,
                    min(committed_at) as decided_at
                from decisions group by proposal_id
            ), named as (
                select proposal_id, cause, value, decided_at, unnest(visits) as visit
                from proposals join decided using (proposal_id) where verdict = 'approved'
            )
            select * from named where visit in $visits
            qualify row_number() over (partition by visit order by decided_at desc) = 1
            """,
            {"visits": [str(visit) for visit in visits]},
        )
        return {row["visit"]: row for row in rows}

    def connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Give the newest snapshot for a question of several statements, alone among the threads.

        Temporary tables may be made in it; they are the asker's.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        """
        return self._asked()

    @contextmanager
    def _asked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give the newest snapshot's connection, alone among the threads."""
        with self._lock:
            connection = self._snapshot()
            try:
                yield connection
            except duckdb.CatalogException as error:
                if self._role.may_see(Role.OPERATIONS):
                    raise _damaged(self._path, error) from error
                raise AccessDeniedError(
                    f"the public registry does not hold what was asked for: {error}"
                ) from error
            except duckdb.Error as error:
                if not _tells_damage(error):
                    raise
                self._close()
                raise _damaged(self._path, error) from error

    @property
    def _path(self) -> Path:
        return registry_directory(self._root, self._role) / SNAPSHOT

    def _snapshot(self) -> duckdb.DuckDBPyConnection:
        """Give a connection to the newest snapshot; the lock is held."""
        refresh_snapshot(self._root, self._role)
        newest = self._identity()
        if self._database is None:
            self._database, self._opened = TieredDatabase(self._root, self._role), None
        if newest != self._opened:
            self._show(self._database)
            self._opened, self._widest = newest, None
        return self._database.connection

    def _identity(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return _EMPTY
        except PermissionError as error:
            raise AccessDeniedError(
                f"{self._path} is not for you to read: {error.strerror}. Remedy: search with the "
                f"role {Role.PUBLIC}, or as a user who operates this installation"
            ) from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _show(self, database: TieredDatabase) -> None:
        failed: Snapshot | None = None
        while True:
            try:
                snapshot = read_snapshot(self._path.parent)
                database.show(snapshot.tiers if snapshot else ())
            except SnapshotError as error:
                raise _damaged(self._path, error) from error
            except duckdb.Error as error:
                # The tiers of a snapshot go when the second after it is published.
                if snapshot == failed:
                    self._close()
                    raise _damaged(self._path, error) from error
                failed = snapshot
            else:
                return

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database, self._opened = None, None


def _tells_damage(error: duckdb.Error) -> bool:
    # A block with a wrong checksum raises an error of no class of its own.
    return isinstance(error, _DAMAGE) or type(error) is duckdb.Error


def _percentile(percent: int) -> str:
    """Give the percentile of ``hours``, as `quantile_cont` does, where a row stands for several.

    ``rank`` counts what is up to and with a row, ``total`` everything.
    """
    place = f"{percent / 100} * (total - 1)"
    low, high = (f"min(hours) filter (rank > {rounded}({place}))" for rounded in ("floor", "ceil"))
    return f"{low} + ({high} - {low}) * any_value({place} - floor({place})) as p{percent}_hours"


def _meets(areas: Sequence[Area], regions: Sequence[str]) -> pa.BooleanArray:
    """Tell of footprints whether they have a point in common with all areas."""
    import pyarrow as pa

    from roman_assets.registry.footprint import Footprint

    footprints = {region: Footprint.parse(region) for region in set(regions)}
    verdicts = {
        region: all(area.meets(footprint) for area in areas)
        for region, footprint in footprints.items()
    }
    return pa.array([verdicts[region] for region in regions], pa.bool_())


def _set_variables(connection: duckdb.DuckDBPyConnection, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        connection.execute(f"set variable {name} = $value", {"value": value})


def _damaged(path: Path, error: Exception) -> PassingFaultError:
    return PassingFaultError(
        f"{path} cannot be read: {error}. Remedy: rebuild the registry from the commit records"
    )


def _grouping_columns(by: Iterable[str]) -> tuple[str, ...]:
    columns = tuple(by)
    if unknown := sorted(set(columns) - _GROUPING_COLUMNS):
        raise ValueError(f"cannot count by {unknown}: known are {sorted(_GROUPING_COLUMNS)}")
    return columns


def _conditions(values: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    for column, value in values.items():
        if value is None:
            continue
        single = isinstance(value, str | int | VisitId | ExposureId)
        items = [value] if single else list(value)
        parameters[column] = [item if isinstance(item, int) else str(item) for item in items]
        conditions.append(f'"{column}" in ${column}')
    return conditions, parameters


_NAMES_OF: Mapping[str, str] = {
    "name": "name",
    "exposure": "exposure",
    "visit": "visit || '_'",
}
"""How the names of products begin that have a value in a column, as SQL of that column."""


def _places(values: Mapping[str, Any]) -> list[str]:
    """Give conditions that tell where products with these values lie, and change nothing else."""
    return [
        f"name_key in list_transform(${column}, lambda {column}: name_key({beginning}))"
        for column, beginning in _NAMES_OF.items()
        if values.get(column) is not None
    ]


def _named_like(patterns: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Give the condition that a name matches a pattern, by its fixed beginning where it has one."""
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for number, pattern in enumerate(patterns):
        prefix = _WILDCARD.split(pattern, maxsplit=1)[0]
        lowest, highest = _key_range(prefix)
        parameters |= {
            f"like{number}": pattern,
            f"from{number}": prefix,
            f"to{number}": prefix + chr(sys.maxunicode),
            f"lowest{number}": lowest,
            f"highest{number}": highest,
        }
        parts.append(
            f"(name_key between $lowest{number} and $highest{number} "
            f"and name between $from{number} and $to{number} and name glob $like{number})"
        )
    return f"({' or '.join(parts) or 'false'})", parameters


def _key_range(prefix: str) -> tuple[int, int]:
    """Give between which keys (`schema.NAME_KEY`) names lie that begin so."""
    visits = _OF_EXPOSURES.match(prefix)
    if visits is not None:
        return int(visits[1].ljust(_VISIT_DIGITS, "0")), int(visits[1].ljust(_VISIT_DIGITS, "9"))
    visit = _OF_VISIT.match(prefix)
    if visit is not None:
        return int(visit[1] + visit[2]), int(visit[1] + visit[2])
    return 0, 2**64 - 1


_VISIT_DIGITS = 19
# More digits than a program has: no skycell product, which may belong to no visit, begins so.
_OF_EXPOSURES = re.compile(r"r(\d{6,19})", re.ASCII)
_OF_VISIT = re.compile(r"r(\d{5})_[^_]+_v(\d{14})", re.ASCII)
_WILDCARD = re.compile(r"[*?\[]")


def _visits_of(values: Mapping[str, Any]) -> list[str] | None:
    """Give the visits to which conditions on visit and exposure lead, None for all."""
    parts = [values[column] for column in ("visit", "partition") if values[column] is not None]
    names = [
        str(item)
        for value in parts
        for item in ([value] if isinstance(value, str | VisitId | ExposureId) else value)
    ]
    return sorted({name.split("_")[0] for name in names}) if parts else None


def _entry(row: Mapping[str, Any]) -> RegisteredProduct:
    return RegisteredProduct(
        name=row["name"],
        sha256=row["sha256"],
        size=row["size"],
        fingerprint=row["fingerprint"],
        inputs=tuple(ProductInput(**item) for item in row["inputs"] or ()),
        context=row["context"],
        software=json.loads(row["software"] or "{}"),
        references=json.loads(row["reference_files"] or "{}"),
        metadata=_metadata(row),
        access=row["access"],
        generation=row["generation"],
        state=row["state"],
        committed_at=row["committed_at"],
        ended_at=row["ended_at"],
        record_id=row["record_id"],
    )


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Put the metadata of the commit record together again; times as ISO 8601 in UTC."""
    known = {
        column.name: _READ_AS_JSON.get(column.type, _unchanged)(row[column.name])
        for column in METADATA
        if row[column.name] is not None
    }
    others: dict[str, Any] = json.loads(row["facts"] or "{}")
    return known | others


def _unchanged(value: Any) -> Any:
    return value


_READ_AS_JSON: Mapping[str, Callable[[Any], Any]] = {
    "TIMESTAMPTZ": lambda time: time.astimezone(UTC).isoformat(),
    "JSON": json.loads,
}
