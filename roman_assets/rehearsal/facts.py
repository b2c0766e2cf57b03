"""The registry that a rehearsal leaves: the rows that folding its commit records would give.

The ledger is then the registry's own, on these rows. What the records state is taken in as a fold
does it; products are made in bulk, since a month has millions.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import SOC_STEPS, Step, expected_kinds
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.products.origin import Origin
from roman_assets.records.record import Outcome, Statement
from roman_assets.registry.catalog.schema import PRODUCTS, RECEIPTS, create_tables, open_database
from roman_assets.registry.engine import EVENT_COLUMNS, insert_records
from roman_assets.rehearsal.fault import Faults
from roman_assets.rehearsal.ground import Receipts
from roman_assets.rehearsal.planned_work import Observations
from roman_assets.rehearsal.replay import Ending, RehearsedAttempt, ReplayLog

_OUTCOMES = {
    Ending.FINISHED: Outcome.FINISHED,
    Ending.PASSING_FAULT: Outcome.PASSING_FAULT,
    Ending.LOST_WORKER: Outcome.PASSING_FAULT,
    Ending.BAD_INPUT: Outcome.BAD_INPUT,
    Ending.RUNNING: Outcome.RUNNING,
}
_ERRORS = {
    Ending.PASSING_FAULT: "PassingFaultError",
    Ending.LOST_WORKER: "RunLost",
    Ending.BAD_INPUT: "BadInputError",
}
_MICROSECONDS = 1_000_000


VISITS_OF_A_PART = 15_000
"""A month of a survey: the ledger of its products takes some gigabyte."""


@dataclass(frozen=True)
class Part:
    """Some visits of a rehearsal: no deadline of theirs depends on another visit.

    Parameters
    ----------
    visits, exposures
        Their numbers, and those of their exposures.
    attempts
        What was tried of them, with its number in the log.
    """

    visits: NDArray[np.int64]
    exposures: NDArray[np.int64]
    attempts: Sequence[tuple[int, RehearsedAttempt]]


def parts(
    log: ReplayLog, observations: Observations, most_visits: int = VISITS_OF_A_PART
) -> list[Part]:
    """Divide what happened by visits, so that each part fits into memory as rows.

    Parameters
    ----------
    log
        What happened.
    observations
        The plan.
    most_visits
        Of a part.
    """
    visit_of = observations.visit_of
    numbers = np.arange(len(observations.visits))
    count = math.ceil(len(numbers) / most_visits)
    attempts: list[list[tuple[int, RehearsedAttempt]]] = [[] for _ in range(count)]
    part_of_exposure = (visit_of // most_visits).tolist()
    for number, one in enumerate(log.attempts):
        at_visit = one.step is Step.VISIT
        part = one.partition // most_visits if at_visit else part_of_exposure[one.partition]
        attempts[part].append((number, one))
    return [
        Part(
            numbers[part * most_visits : (part + 1) * most_visits],
            np.flatnonzero(visit_of // most_visits == part),
            attempts[part],
        )
        for part in range(count)
    ]


def registry_of(
    log: ReplayLog, faults: Faults, receipts: Receipts, part: Part | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a registry as if the platform had made what a rehearsal made.

    Parameters
    ----------
    log
        What happened.
    faults
        The plan, and what went wrong.
    receipts
        When what was received.
    part
        Only that part of it; everything by default.

    Returns
    -------
    duckdb.DuckDBPyConnection
        In memory, with the registry's own schema. Columns that no deadline depends on (hashes,
        sizes, footprints) are null.
    """
    if part is None:
        observations = faults.observations
        (part,) = parts(log, observations, len(observations.visits))
    spill = Path(tempfile.gettempdir()) / f"roman-assets-{uuid.uuid4().hex}"
    connection = open_database(":memory:", spill)
    create_tables(connection)
    connection.execute("create schema rehearsed")
    for name, table in (
        ("kinds", _kinds()),
        ("exposures", _exposures(log, faults, receipts, part.exposures)),
        ("visits", _visits(faults.observations, part.visits)),
        ("tries", _tries(part, faults.observations)),
        ("mosaics", _mosaics(part, faults.observations)),
    ):
        connection.register("incoming", table)
        connection.execute(f"create table rehearsed.{name} as from incoming")
        connection.unregister("incoming")
    insert_records(connection, _RECORDS)
    for statement in _PRODUCTS:
        connection.execute(statement)
    return connection


def _kinds() -> pa.Table:
    """Return the kinds that are made, by survey and exposure type."""
    return pa.Table.from_pylist(
        [
            {
                "survey": str(survey),
                "exposure_type": str(exposure_type),
                "kind": kind.name,
                "level": str(kind.level),
                "scope": str(kind.scope),
                "step": str(kind.step),
                "ending": f"_{kind.suffix}.{kind.extension}",
            }
            for survey, exposure_type in product(Survey, ExposureType)
            for kind in expected_kinds(survey, exposure_type, SOC_STEPS)
        ]
    )


def _exposures(
    log: ReplayLog, faults: Faults, receipts: Receipts, numbers: NDArray[np.int64]
) -> pa.Table:
    """Return the executed ones of some exposures, and what was received of them before the end."""
    observations = faults.observations
    planned = [observations.exposures[number] for number in numbers.tolist()]
    failed = faults.failed_detectors[numbers].tolist()
    columns: dict[str, Any] = {
        "number": numbers,
        "partition": [str(one.exposure) for one in planned],
        "visit": [str(one.exposure.visit) for one in planned],
        "program": [one.exposure.visit.program for one in planned],
        "survey": [str(one.survey) for one in planned],
        "exposure_type": [str(one.exposure_type) for one in planned],
        "optical_element": [str(one.optical_element) for one in planned],
        "detectors": [list(one.detectors) for one in planned],
        "failed_detectors": [
            [name for name, fails in zip(one.detectors, flags, strict=False) if fails]
            for one, flags in zip(planned, failed, strict=True)
        ],
        "nexposures": [one.nexposures for one in planned],
        "truncated": _truncated(faults)[numbers],
        "execution_end": _moments(observations, observations.end[numbers]),
        "first_packet": _moments(observations, receipts.first_packet[numbers], log.end),
        "last_packet": _moments(observations, receipts.last_packet[numbers], log.end),
        "ancillary": _moments(observations, receipts.ancillary[numbers], log.end),
        "all_received": _moments(observations, receipts.all_received[numbers], log.end),
        # exposures are received whole or not at all
        "cut_off": pa.nulls(len(planned), pa.timestamp("us", "UTC")),
    }
    return pa.table(columns).filter(pa.array(faults.executed[numbers]))


def _truncated(faults: Faults) -> NDArray[np.bool_]:
    """Return which exposures are of visits that were cut short."""
    observations = faults.observations
    cut = np.zeros(len(observations.visits), dtype=bool)
    cut[observations.visit_of[~faults.executed]] = True
    return cut[observations.visit_of]


def _visits(observations: Observations, numbers: NDArray[np.int64]) -> pa.Table:
    """Return visits with the facts they share with their exposures."""
    first = [
        observations.exposures[observations.visits[number].members[0]]
        for number in numbers.tolist()
    ]
    return pa.table(
        {
            "number": numbers,
            "partition": [str(one.exposure.visit) for one in first],
            "program": [one.exposure.visit.program for one in first],
            "grouping": [one.exposure.visit.grouping for one in first],
            "survey": [str(one.survey) for one in first],
            "exposure_type": [str(one.exposure_type) for one in first],
            "optical_element": [str(one.optical_element) for one in first],
        }
    )


def _tries(part: Part, observations: Observations) -> pa.Table:
    """Return the attempts with their commit records; each has its own."""
    attempts = [one for _, one in part.attempts]
    return pa.table(
        {
            "record_id": pa.array([_record_id(number) for number, _ in part.attempts], pa.string()),
            "step": pa.array([str(one.step) for one in attempts], pa.string()),
            "number": pa.array([one.partition for one in attempts], pa.int64()),
            "run_id": pa.array([f"run-{one.run:08d}" for one in attempts], pa.string()),
            "outcome": pa.array([str(_OUTCOMES[one.ending]) for one in attempts], pa.string()),
            "error": pa.array([_ERRORS.get(one.ending, "") for one in attempts], pa.string()),
            "last_try": pa.array([one.last_try for one in attempts], pa.bool_()),
            "queued": _moments(observations, [one.queued for one in attempts]),
            "started": _moments(observations, [one.started for one in attempts]),
            "ended": _moments(observations, [one.ended for one in attempts]),
        }
    )


def _mosaics(part: Part, observations: Observations) -> pa.Table:
    """Return the skycells that each publication of a visit has made."""
    made = [
        (_record_id(number), sorted(observations.skycells_of_visit(one.partition, one.fresh)))
        for number, one in part.attempts
        if one.step is Step.VISIT and one.ending is Ending.FINISHED
    ]
    counts = [len(cells) for _, cells in made]
    return pa.table(
        {
            "record_id": pa.array([record for record, _ in made], pa.string()).take(
                pa.array(np.repeat(np.arange(len(made)), counts))
            ),
            "skycell": pa.array([cell for _, cells in made for cell in cells], pa.string()),
        }
    )


def _record_id(number: int) -> str:
    return f"{number:07d}"


def _moments(
    observations: Observations, seconds: ArrayLike, until: float = math.inf
) -> pa.TimestampArray:
    """Turn seconds after the epoch into UTC; null for what is later than a moment, or never."""
    times = np.asarray(seconds, dtype=np.float64)
    known = np.isfinite(times) & (times <= until)
    epoch = round(observations.epoch.timestamp() * _MICROSECONDS)
    moments = epoch + np.rint(np.where(known, times, 0.0) * _MICROSECONDS).astype(np.int64)
    return pa.array(moments, mask=~known).cast(pa.timestamp("us", "UTC"))


def _known(moments: Mapping[ClockEvent, str]) -> str:
    """Return the SQL for a map of clock events, without those that have not happened."""
    entries = ", ".join(f"{{'k': '{event}', 'v': {sql}}}" for event, sql in moments.items())
    return f"map_from_entries(list_filter([{entries}], lambda e: e.v is not null))"


_RECEIVED = {event: column for column, event in EVENT_COLUMNS[RECEIPTS.name].items()}
_TRIED = {
    ClockEvent.QUEUED: "queued",
    ClockEvent.STARTED: "started",
    ClockEvent.FINISHED: "if(outcome = 'running', null, ended)",
}
_PARTITIONS = """
(select step, number, "partition", failed_detectors, optical_element
    from rehearsed.exposures, (values ('formatting'), ('exposure')) steps (step)
union all
select 'visit', number, "partition", [], optical_element from rehearsed.visits)
"""

_RECORDS = f"""
(
    select 'receipt-' || number as record_id, 'formatting' as step, "partition",
        greatest(execution_end, last_packet, ancillary) as committed_at,
        '{Statement.RECEIPT}' as statement,
        {{'survey': survey, 'exposure_type': exposure_type, 'optical_element': optical_element,
            'detectors': detectors, 'nexposures': nexposures, 'truncated': truncated,
            'lacks_packets': last_packet is null, 'lacks_ancillary': ancillary is null,
            'origin': '{Origin.PACKETS}'
        }} as receipt,
        {_known(_RECEIVED)} as events
    from rehearsed.exposures
)
union all by name (
    select record_id, step, "partition",
        coalesce(if(outcome = 'running', started, ended), started) as committed_at, run_id,
        if(outcome = 'finished', '{Statement.PUBLICATION}', '{Statement.ATTEMPT}') as statement,
        {{'attempt_id': record_id, 'outcome': outcome, 'error': error, 'message': error,
            'last_try': last_try}} as attempt,
        if(step = 'exposure' and outcome = 'finished', [{{
            'file_set': "partition" || '_' || lower(detector) || '_' || lower(optical_element),
            'error': 'BadInputError', 'message': 'rehearsed failure of a detector'
        }} for detector in failed_detectors], []) as failures,
        {_known(_TRIED)} as events
    from rehearsed.tries join {_PARTITIONS} using (step, number)
)
"""

# The products are a view: millions of rows, of which the ledger reads few columns.
_PRODUCTS = (
    """
create table rehearsed.skycells as
select record_id, skycell,
    row_number() over (partition by number, skycell order by ended, record_id) as generation,
    generation = count(*) over (partition by number, skycell) as last
from rehearsed.mosaics join rehearsed.tries using (record_id)
""",
    f"create table rehearsed.none as from {PRODUCTS.name} limit 0",
    f"drop table {PRODUCTS.name}",
    f"""
create view {PRODUCTS.name} as
from rehearsed.none
union all by name
select file_set || ending as name, kind, level, file_set, "partition" as exposure, visit, program,
    optical_element, detector, 'p' as release, 1 as generation, 'current' as state,
    ended as committed_at, record_id, step, "partition", run_id, survey, exposure_type, nexposures
from (
    select *, unnest(case when scope <> 'detector' then [null]
            when step = 'exposure' then list_filter(
                detectors, lambda d: not list_contains(failed_detectors, d))
            else detectors end) as detector,
        "partition" || coalesce('_' || lower(detector), '') || '_' || lower(optical_element)
            as file_set
    from rehearsed.tries join rehearsed.exposures using (number)
    join rehearsed.kinds using (step, survey, exposure_type)
    where outcome = 'finished' and step <> 'visit'
)
union all by name
select file_set || ending as name, kind, level, file_set, "partition" as visit, program,
    optical_element, skycell, 'p' as release, generation,
    if(last, 'current', 'overwritten') as state, ended as committed_at, record_id, step,
    "partition", run_id, survey, exposure_type
from (
    select *, printf('r%05d_p_%s_%s_%s', program, grouping, skycell, lower(optical_element))
        as file_set
    from rehearsed.tries join rehearsed.skycells using (record_id)
    join rehearsed.visits using (number)
    where step = 'visit'
) join rehearsed.kinds using (step, survey, exposure_type)
""",
)
