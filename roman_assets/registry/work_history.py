"""What steps did for exposures and visits, when, and what came of it."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Quality, State
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.products.packet_policy import FACE
from roman_assets.products.retry import FailedRuns
from roman_assets.records.record import Outcome
from roman_assets.registry.catalog.schema import (
    IS_AVAILABLE,
    PRODUCTS,
)
from roman_assets.registry.ledger import attempts_as_far, failed_runs, faults_of
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import (
    OneOrMore,
    about,
    conditions_of,
    of_partitions,
    places_of,
)
from roman_assets.registry.search.generations import Generations, RegisteredProduct

if TYPE_CHECKING:
    import pandas as pd


MOST_MEASURED = 1_000
"""Number of newest computations from which the duration of a step is taken."""


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
    bad
        File sets of its images that a person graded ``BAD``, by their L1 or L2.
    """

    exposure: ExposureId
    nexposures: int | None
    survey: str | None
    exposure_type: str | None
    optical_element: str | None
    cal: tuple[RegisteredProduct, ...]
    bad: frozenset[str] = frozenset()


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
    is_bad
        Whether a person graded its L1 or L2 ``BAD``: coadds and releases leave it out.
    """

    file_set: str
    exposure: str
    exposure_type: str | None
    ramp_size: int
    name: str | None
    context: str | None
    software: Mapping[str, str]
    data_release: str | None
    is_bad: bool = False


class WorkHistory:
    """Work done for partitions.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot
        self._generations = Generations(snapshot)

    def exposures_of_visit(self, visit: VisitId | str) -> tuple[VisitExposure, ...]:
        """Return the exposures of a visit that have any product, in order, with their L2."""
        return self.exposures_of_visits([visit]).get(VisitId.parse(str(visit)), ())

    def exposures_of_visits(
        self, visits: Iterable[VisitId | str]
    ) -> dict[VisitId, tuple[VisitExposure, ...]]:
        """Do so for several visits; those without products are absent."""
        wanted = {"visit": list(visits)}
        conditions, parameters = conditions_of(wanted)
        rows = self._snapshot.rows(
            "select exposure, max(nexposures) as nexposures, max(survey) as survey, "
            "max(exposure_type) as exposure_type, max(optical_element) as optical_element, "
            "list(name order by name) filter (kind = 'cal') as cal "
            f"from {PRODUCTS.name} where "
            f"{' and '.join([IS_AVAILABLE, *conditions, *places_of(wanted)])} "
            "and exposure is not null group by exposure order by exposure",
            parameters,
        )
        entries = self._generations.current(name for row in rows for name in row["cal"] or ())
        bad = self.bad_images(visit=wanted["visit"])
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
                    bad=bad.get(row["exposure"], frozenset()),
                )
            )
        return {visit: tuple(exposures) for visit, exposures in found.items()}

    def bad_images(
        self, *, visit: Iterable[VisitId | str] | None = None, exposure: Iterable[str] | None = None
    ) -> dict[str, frozenset[str]]:
        """Return the images whose L1 or L2 a person graded ``BAD``: file sets by exposure.

        Parameters
        ----------
        visit, exposure
            Only of these.
        """
        wanted = {"visit": visit, "exposure": exposure}
        asked = {name: list(values) for name, values in wanted.items() if values is not None}
        conditions, parameters = conditions_of(asked)
        rows = self._snapshot.rows(
            "select exposure, list(distinct file_set) as file_sets from products "
            f"where {' and '.join([*conditions, *places_of(asked)])} "
            f"and kind in ('uncal', 'cal') and quality = '{Quality.BAD}' group by exposure",
            parameters,
        )
        return {row["exposure"]: frozenset(row["file_sets"]) for row in rows}

    def calibrated_images(self, exposures: Iterable[str]) -> tuple[CalibratedImage, ...]:
        """Return how the current L2 of exposures were made, one for each L1, ordered by name."""
        wanted = {"exposure": list(exposures)}
        conditions, parameters = conditions_of(wanted)
        where = " and ".join([IS_AVAILABLE, *conditions, *places_of(wanted)])
        rows = self._snapshot.rows(
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
        bad = frozenset[str]().union(*self.bad_images(exposure=wanted["exposure"]).values())
        return tuple(
            CalibratedImage(
                **row | {"software": software(row["software"] or "{}")},
                is_bad=row["file_set"] in bad,
            )
            for row in rows
        )

    def finished_partitions(self, step: Step, partitions: Iterable[str]) -> frozenset[str]:
        """Return those partitions whose latest attempt of a step ended well, without a failure."""
        rows = self._snapshot.rows(
            f"""
            with tries as (
                from ({attempts_as_far(of_partitions("partitions"))}) where step = $step
                qualify row_number() over (
                    partition by "partition" order by started desc, attempt_id desc) = 1
            ), newest as (
                select arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication' and step = $step
                    and {of_partitions("partitions")} group by "partition"
            )
            select "partition" from tries where outcome = '{Outcome.FINISHED}'
            except select "partition" from failures semi join newest using (record_id)
                where {of_partitions("partitions")}
            """,
            {"step": step.value, "partitions": list(partitions)},
        )
        return frozenset(row["partition"] for row in rows)

    def partition_state(self, step: Step, after: datetime | None = None) -> pd.DataFrame:
        """Return what a step has left behind for each of its partitions.

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
        return self._snapshot.query(
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

    def recent_records(self, after: datetime) -> pd.DataFrame:
        """Return the commit records of exposures and visits since a time, newest first.

        Returns
        -------
        pandas.DataFrame
            ``partition``, ``record_id``, ``committed_at``.
        """
        return self._snapshot.query(
            f"""
            select "partition", record_id, committed_at from records
            where committed_at >= $after and {_OF_OBSERVATION}
            order by committed_at desc, "partition"
            """,
            {"after": after},
        )

    def newest_by_partition(self) -> pd.DataFrame:
        """Return the newest commit record of each exposure and visit, newest first.

        Returns
        -------
        pandas.DataFrame
            ``partition``, ``record_id``, ``committed_at``.
        """
        return self._snapshot.query(
            f"""
            select "partition", arg_max(record_id, (committed_at, record_id)) as record_id,
                max(committed_at) as committed_at
            from records where {_OF_OBSERVATION}
            group by "partition" order by committed_at desc, "partition"
            """,
            {},
        )

    def count_records(self, before: datetime | None = None) -> int:
        """Count the commit records, or those committed before a time."""
        # a time is read faster than the record's name, which count(*) reads
        sql = (
            "select count(committed_at) as n from records "
            "where $before is null or committed_at < $before"
        )
        return int(self._snapshot.rows(sql, {"before": before})[0]["n"])

    def latest_commit(self) -> datetime | None:
        """Return when the newest commit record was written, UTC; None before there is one."""
        time = self._snapshot.rows("select max(committed_at) as time from records", {})[0]["time"]
        return None if time is None else time.astimezone(UTC)

    def exposure_progress(self, exposures: Iterable[str]) -> pd.DataFrame:
        """Return how far exposures have come of which L1 was made, or found to be impossible.

        Returns
        -------
        pandas.DataFrame
            ``exposure``; ``received``, of each sender (a detector, or FACE) the content versions of
            the packets that its L1 were made from or could not be made from, and when the work
            began: a list of ``sender``, ``content``, ``begun``; ``content``, a hash that changes
            with every ramp, empty without any; and ``calibrated``, whether every ramp has L2 made
            from it or failed, and no other product of the SOC is lost.
        """
        wanted = {"exposure": list(exposures)}
        conditions, parameters = conditions_of(wanted)
        lying = places_of(wanted)
        return self._snapshot.query(
            f"""
            with made as materialized (
                select exposure, kind, detector, record_id, name, name_key, sha256, file_set,
                    committed_at
                from products where {" and ".join([IS_AVAILABLE, *conditions, *lying])}
                    and kind in ('uncal', 'face', 'cal')
            ), made_from as materialized (
                select made.exposure, made.kind, made.record_id, committed_at, input_name,
                    input_sha256, coalesce(detector, '{FACE}') as sender
                from made join inputs using (name_key, record_id, name)
                where {" and ".join(lying)}
                    and (ends_with(input_name, '_l0') or made.kind = 'cal')
            ), used as (
                select distinct input_name as name, input_sha256 as sha256
                from made_from where kind = 'cal'
                union
                -- L2 that a person has withdrawn are not remade of the same L1
                select input_name, input_sha256
                from products join inputs using (name_key, record_id, name)
                where {" and ".join([*conditions, *lying])} and kind = 'cal'
                    and state = '{State.WITHDRAWN}' and quality = '{Quality.BAD}'
            ), newest as (
                select arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication' and {of_partitions("exposure")}
                group by step, "partition"
            ), failed as (
                select "partition" as exposure, file_set, content, record_id, committed_at
                from failures semi join newest using (record_id)
                where {of_partitions("exposure")}
            ), begun as (
                select record_id, started from attempts where {of_partitions("exposure")}
            ), received as (
                select exposure, list({{'sender': sender, 'content': content,
                    'begun': coalesce(started, committed_at)}}) as received
                from (
                    select exposure, sender, input_sha256 as content, record_id, committed_at
                    from made_from where kind <> 'cal'
                    union all
                    select exposure, coalesce(nullif(upper(
                            regexp_extract(file_set, '_(wfi\\d\\d)_', 1)), ''), '{FACE}'),
                        content, record_id, committed_at
                    from failed where content is not null
                ) left join begun using (record_id) group by exposure
            ), lost as (
                select distinct exposure from (
                    select exposure, file_set, arg_max(state, generation) as state from products
                    where {" and ".join([*conditions, *lying])} and step in $steps
                        and (detector is null or file_set in (select file_set from made))
                    group by exposure, file_set, name
                ) anti join failed using (file_set) where state = '{State.LOST}'
            ), ramps as (
                select made.exposure,
                    hex(bit_xor(md5_number_lower(made.name || made.sha256))) as content,
                    bool_and(used.name is not null
                        or made.file_set in (select file_set from failed)) as calibrated
                from made left join used on used.name = made.name and used.sha256 = made.sha256
                where kind = 'uncal' group by made.exposure
            )
            select exposure, received, coalesce(content, '') as content,
                coalesce(calibrated, true) and exposure not in (from lost) as calibrated
            from received full join ramps using (exposure) order by exposure
            """,
            parameters | {"steps": [Step.FORMATTING.value, Step.EXPOSURE.value]},
        )

    def computation_times(self, step: Step, after: datetime) -> list[timedelta]:
        """Return how long a step took, from its start to its end, the last times since `after`."""
        rows = self._snapshot.rows(
            """
            with newest as materialized (
                select record_id, partition_key from records
                where statement = 'publication' and step = $step and committed_at >= $after
                order by committed_at desc limit $limit
            )
            select max(time) - min(time) as duration
            from events semi join newest using (partition_key, record_id)
            where step = $step and event in ($started, $finished)
            group by record_id having count(distinct event) = 2
            """,
            {
                "step": step.value,
                "after": after,
                "limit": MOST_MEASURED,
                "started": ClockEvent.STARTED.value,
                "finished": ClockEvent.FINISHED.value,
            },
        )
        return [row["duration"] for row in rows]

    def unit_times(self, step: Step) -> list[tuple[float, int]]:
        """Return how long each publication of a step took (s), and how many file sets it made."""
        rows = self._snapshot.rows(
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
        """Return the newest commit records, newest first.

        Returns
        -------
        pandas.DataFrame
            ``record_id``, ``step``, ``partition``, ``committed_at``, ``run_id``, ``products`` and
            ``failures`` (numbers).
        """
        return self._snapshot.query(
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
        """Return what could not be made at the latest attempt of each step and partition.

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
        chosen, parameters = about(partition)
        return self._snapshot.query(
            f"""
            with newest as (
                select step, "partition", arg_max(record_id, (committed_at, record_id)) as record_id
                from records where statement = 'publication'
                    and {chosen} group by step, "partition"
            )
            select "partition", step, file_set, error, message, committed_at, record_id
            from failures semi join newest using (record_id) where {chosen} order by all
            """,
            parameters,
        )

    def failed_runs(self, step: Step, partitions: Iterable[str]) -> dict[str, FailedRuns]:
        """Return the runs that failed for passing faults; partitions without any are absent.

        Parameters
        ----------
        step
            The last step of the runs: that of L2 stands for L1 too.
        partitions
            Exposures or visits.
        """
        chosen = of_partitions("partitions")
        tries = (
            f"from ({attempts_as_far(chosen)}) left join ({faults_of(chosen)}) using (record_id)"
        )
        rows = self._snapshot.rows(
            f"select * exclude (work) from ({failed_runs(tries)}) where work = $step",
            {"partitions": sorted(set(partitions)), "step": step.value},
        )
        return {
            row.pop("partition"): FailedRuns(**{**row, "ended": row["ended"].astimezone(UTC)})
            for row in rows
        }

    def attempts(
        self,
        partition: OneOrMore = None,
        *,
        run_id: str | None = None,
        outcome: Outcome | None = None,
    ) -> pd.DataFrame:
        """Return the attempts of steps, each as far as it has come, in the order they were begun.

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
        chosen, parameters = about(partition)
        if outcome is Outcome.RUNNING:
            # there are few, among all that have ended
            chosen += f" and {_HAS_NOT_ENDED}"
        return self._snapshot.query(
            f"""
            select * from ({attempts_as_far(chosen)}) where ($outcome is null or outcome = $outcome)
            and ($run_id is null or run_id = $run_id) order by started, attempt_id
            """,
            parameters | {"run_id": run_id, "outcome": outcome},
        )


_OF_OBSERVATION = r"""regexp_full_match("partition", 'r\d{19}(_\d{4})?')"""

_HAS_NOT_ENDED = f"""(partition_key, attempt_id) in (
    select (partition_key, attempt_id) from (
        (from attempts where outcome = '{Outcome.RUNNING}')
        anti join (from attempts where outcome <> '{Outcome.RUNNING}')
        using (partition_key, attempt_id)))"""
