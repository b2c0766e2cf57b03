"""The deadline ledger: how every product stands against its deadline, and why (R2, R5, R9, R10).

The ledger is not a second truth: it is a set of DuckDB macros over what the registry has folded
from the commit records (products, attempts, receipts, failures) and over the table of deadlines.
The present time is an argument. ``docs/deadlines.md`` explains its rules.

Two macros are for use, `GROUPS` and `PRODUCTS`. Products that one record made, of one kind, share
all their moments; so do those of one kind that one exposure does not have for one reason. A row of
the former is such a group, and a row of the latter is a single product.
"""

# Names put into SQL are names of this module; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import timedelta

import duckdb

from roman_assets.errors import LostPacketsError, PassingFaultError
from roman_assets.products.deadline import DEADLINES, Blame, Deadline, ProductState
from roman_assets.products.kind import (
    DELIVERY_STEPS,
    KINDS,
    VISIT_STEPS,
    Level,
    Maker,
    ProductKind,
    Step,
    expected_kinds,
)
from roman_assets.products.observation import DETECTORS, ExposureType, Survey
from roman_assets.products.origin import Origin
from roman_assets.products.retry import CANCELLED, INTERRUPTIONS, RetryPauses

GROUPS = "ledger_groups"
"""Macro ``ledger_groups(moment, visits)``: a row for the products of one kind that share a fate.

``moment`` is the present (TIMESTAMPTZ), ``visits`` the visits to look at (VARCHAR[]), null for all.
"""

JUDGED = "ledger_judged"
"""Macro ``ledger_judged(moment, visits)``: the same rows, before `hours_spent`."""

PRODUCTS = "ledger"
"""Macro ``ledger(moment, visits)``: a row for each expected product and each generation made."""

GROUP_COLUMNS: tuple[str, ...] = (
    "partition", "visit", "survey", "optical_element", "step", "level", "kind", "products",
    "detectors", "state", "stage", "at_risk", "first", "started_at", "due", "made", "margin_hours",
    "blame", *(f"{blame}_hours" for blame in Blame), "reason", "record_id", "file_sets",
)  # fmt: skip
_OF_GROUPS = frozenset({"products", "detectors", "first", "file_sets"})
_OWN_COLUMNS = ("name", "file_set", "detector", "generation")
PRODUCT_COLUMNS: tuple[str, ...] = (
    *_OWN_COLUMNS,
    *(column for column in GROUP_COLUMNS if column not in _OF_GROUPS),
)  # fmt: skip

MOST_URGENT_FIRST = f"""
    case when state = '{ProductState.OVERDUE}' then 0 when state = '{ProductState.FAILED}' then 1
        when at_risk then 2 when made is null and state <> '{ProductState.NOT_EXPECTED}' then 3
        when state = '{ProductState.MADE_LATE}' then 4 else 5 end, margin_hours nulls last"""
"""The order in which an operator looks at rows of the ledger."""


def attempts_as_far(condition: str = "true") -> str:
    """Return SQL for a row for each attempt, put together of the records of its begin and its end.

    Parameters
    ----------
    condition
        On the partition: only attempts for these.
    """
    return f"""
        select attempt_id, any_value(step) as step, any_value("partition") as "partition",
            any_value(run_id) as run_id, arg_max(record_id, closed) as record_id,
            min(queued) as queued, min(started) as started,
            max(finished) as finished, arg_max(outcome, closed) as outcome,
            arg_max(error, closed) as error, arg_max(message, closed) as message,
            arg_max(last_try, closed) as last_try
        from (select *, (outcome = 'finished', outcome <> 'running', committed_at) as closed
            from attempts where {condition})
        group by attempt_id
    """


def failed_runs(tries: str) -> str:
    """Return SQL for the runs that failed for passing faults, by work and partition.

    L1 and L2 of an exposure are one work. A run that somebody cancelled does not count.

    Parameters
    ----------
    tries
        SQL for `attempts_as_far` with columns of `faults_of`.
    """
    return f"""
        select work, "partition", count(*) filter (failed) as total,
            coalesce(min(back) filter (not failed) - 1, count(*)) as in_a_row, max(ended) as ended,
            arg_min(reason, back) as reason, arg_min(failed and partial, back) as partial
        from (
            select *, row_number() over (
                partition by work, "partition" order by ended desc, run) as back
            from (
                select if(step = '{Step.FORMATTING}', '{Step.EXPOSURE}', step) as work, "partition",
                    coalesce(run_id, attempt_id) as run, max(finished) as ended,
                    arg_max(outcome = 'passing fault' or coalesce(passing, false),
                        (started, finished)) as failed,
                    arg_max(coalesce(fault, error || ': ' || message), (started, finished))
                        as reason,
                    arg_max(outcome = 'finished', (started, finished)) as partial
                from (
                    select *, bool_or(error = '{CANCELLED}') over (
                        partition by "partition", coalesce(run_id, attempt_id)) as cancelled
                    from ({tries})
                ) where outcome <> 'running' and error not in {INTERRUPTIONS} and not cancelled
                group by work, "partition", run
            )
        ) group by work, "partition" having total > 0
    """


def faults_of(condition: str) -> str:
    """Return SQL for the records of file sets that could not be made, and whether a retry may help.

    Parameters
    ----------
    condition
        On the partition: only failures of these.
    """
    passing = f"error = '{PassingFaultError.__name__}'"
    return f"""
        select record_id, bool_or({passing}) as passing,
            any_value(error || ': ' || message) filter ({passing}) as fault
        from failures where ({condition}) and error <> '{LostPacketsError.__name__}'
        group by record_id
    """


def detectors_in(mask: float | None) -> tuple[str, ...]:
    """Return the detectors of a group: bit n of its ``detectors`` stands for WFIn."""
    if mask is None or mask != mask:  # NaN, which differs from itself, is null in a table
        return ()
    return tuple(name for number, name in enumerate(DETECTORS, 1) if int(mask) >> number & 1)


def define_ledger(
    connection: duckdb.DuckDBPyConnection,
    deadlines: Mapping[Level, Deadline] = DEADLINES,
    makers: frozenset[Maker] = frozenset(Maker),
    pauses: RetryPauses = RetryPauses(),  # noqa: B008 (frozen)
) -> None:
    """Define the ledger's macros on a connection whose current database is a registry.

    They are temporary: nothing is written to the registry, which may be read-only. Doing it again
    replaces them.

    Parameters
    ----------
    connection
        The connection.
    deadlines
        The table of deadlines.
    makers
        Whose products are expected.
    pauses
        Between runs that fail.
    """
    for name, rows in (
        ("kinds", _kinds(makers)),
        ("deadlines", _deadlines(deadlines)),
        ("retries", _retries(pauses)),
    ):
        connection.execute(
            f"create or replace temp table ledger_{name} as "
            "select unnest(row) from (select unnest($rows) as row)",
            {"rows": rows},
        )
    visits = "visits := null::varchar[]"
    groups = hours_spent(f"from {JUDGED}(moment, visits := visits)")
    for name, body in ((JUDGED, _JUDGED), (GROUPS, groups), (PRODUCTS, _PRODUCTS)):
        connection.execute(f"create or replace temp macro {name}(moment, {visits}) as table {body}")


@functools.cache
def _kinds(makers: frozenset[Maker]) -> list[dict[str, str | bool]]:
    """Return which kinds are made of each survey and exposure type; '' stands for not known.

    What the SOC does not make is listed as not expected; the SSC lists only what it makes.
    """
    certain = [
        kind
        for kind in KINDS
        if all(kind in expected_kinds(s, t) for s in Survey for t in ExposureType)
    ]
    rows = [_kind_row("", "", kind, True) for kind in certain]
    for survey in Survey:
        for exposure_type in ExposureType:
            expected = expected_kinds(survey, exposure_type)
            rows += [
                _kind_row(survey, exposure_type, kind, kind in expected)
                for kind in KINDS
                if kind.maker in makers
                and not kind.picture
                and (kind.maker is Maker.SOC or kind in expected)
            ]
    return rows


def _kind_row(
    survey: str, exposure_type: str, kind: ProductKind, expected: bool
) -> dict[str, str | bool]:
    return {
        "survey": str(survey),
        "exposure_type": str(exposure_type),
        "kind": kind.name,
        "level": kind.level.value,
        "scope": kind.scope.value,
        "step": kind.step.value,
        "of_visit": kind.step in VISIT_STEPS,
        "delivered": kind.maker is Maker.SSC,
        "needs_packets": kind.needs_packets,
        "suffix": f"{kind.suffix}.{kind.extension}",
        "expected": expected,
    }


def _deadlines(deadlines: Mapping[Level, Deadline]) -> list[dict[str, str | int]]:
    microsecond = timedelta(microseconds=1)
    return [
        {
            "kind": kind.name,
            "origin": deadline.origin.value,
            "latency_us": deadline.latency // microsecond,
            "warning_us": deadline.warning // microsecond,
        }
        for kind in KINDS
        for deadline in (deadlines[kind.due_level],)
    ]


def _retries(pauses: RetryPauses) -> list[dict[str, int]]:
    microsecond = timedelta(microseconds=1)
    return [{"first_us": pauses.first // microsecond, "most_us": pauses.most // microsecond}]


DELIVERIES = str(tuple(step.value for step in DELIVERY_STEPS))
"""The steps that take in what the SSC delivers, as SQL."""
_PICTURES = str(tuple(kind.name for kind in KINDS if kind.picture))
"""Kinds without a deadline, as SQL."""
_OF_VISITS = str(tuple(sorted(step.value for step in VISIT_STEPS)))

_CHOSEN = "visits is null or partition_key in partition_keys(visits)"
"""The condition that a statement is about one of the visits that a macro looks at."""

_CLOCK_START = """
        case when isfinite(ancillary) and (arrived is not null or cut_off <= moment::timestamptz)
            then greatest(coalesce(arrived, cut_off), ancillary) end as start"""
"""When the clock of a sender's L1 and L2 starts: its packets are in, or the wait for them is over,
and the ancillary data are in."""

# A set of detectors is a bit mask: bit n for WFIn, bit 0 for what is not made by detector.
_FACTS = f"""
received as materialized (
    -- one row an exposure: what is known and in of it
    select "partition", split_part("partition", '_', 1) as visit, survey, exposure_type,
        optical_element, nexposures, truncated, execution_end, all_received, lacks_packets, origin,
        coalesce(list_bit_or(list_transform(detectors, lambda d: 1::bigint << d[4:]::integer)), 0)
            as planned,
        coalesce(last_packet, if(lacks_packets, null, first_packet)) as last_packet,
        if(lacks_ancillary, 'infinity', ancillary) as ancillary, cut_off, arrivals
    from receipts
    where {_CHOSEN}
    qualify row_number() over (
        partition by "partition" order by committed_at desc, record_id desc) = 1
),
early as materialized (
    -- the senders whose packets were in before the others, by the moment at which they were
    select "partition", entry.received as arrived,
        bit_or(if(entry.sender = 'FACE', 1, 1::bigint << entry.sender[4:]::integer)) as mask
    from (select "partition", unnest(arrivals) as entry from received)
    group by "partition", arrived
),
clocks as materialized (
    -- the senders of an exposure that share a moment: when their packets were in, null before
    select "partition", mask, arrived, false as is_rest, {_CLOCK_START}
    from early join received using ("partition")
    union all
    select "partition", ~coalesce(taken, 0), last_packet, true,
        coalesce(if(taken is null, all_received, null), start)
    from (
        select *, last_packet as arrived, {_CLOCK_START} from received left join (
            select "partition", bit_or(mask) as taken from early group by "partition"
        ) using ("partition")
    )
),
made as materialized (
    -- products of one kind that one record made, for the first time or again
    select counted.*, records.step, records."partition"
    from (
        select record_id, kind, any_value(level) as level, any_value(visit) as visit,
            any_value(survey) as survey, any_value(optical_element) as optical_element,
            generation = 1 as first, count(*) as products,
            bit_or(if(detector is null, 1, 1::bigint << detector[4:]::integer)) as detectors
        from products
        where release = 'p' and kind not in {_PICTURES}
            and (visits is null or name_key in partition_keys(visits))
            -- what a data release makes, or reprocesses, has no prompt deadline
            and (data_release is null or generation = 1)
        group by record_id, kind, generation = 1
    ) counted join (
        from records where {_CHOSEN}
    ) records using (record_id)
),
faults as materialized (
    {faults_of(_CHOSEN)}
),
tries as materialized (
    -- in vain is an attempt that will fail again until its input is repaired
    select *, outcome = 'running' and following is null as running,
        following is null and (
            outcome = 'bad input' or (outcome = 'passing fault' and last_try)) as dead,
        outcome = 'bad input' or coalesce(not passing, false) as in_vain
    from (
        select *, lead(started) over (
            partition by step, "partition" order by started, attempt_id) as following
        from ({attempts_as_far(_CHOSEN)})
    ) left join faults using (record_id)
),
handed as materialized (
    -- when the SSC was told that L2 images are ready
    select "partition", handed_over from handovers
    where {_CHOSEN}
),
publications as materialized (
    select records.record_id, records.step, records."partition",
        records.committed_at as published, coalesce(attempts.started, records.committed_at)
            as started,
        row_number() over (partition by records.step, records."partition"
            order by records.committed_at desc, records.record_id desc) = 1 as latest,
        attempts.last_try, coalesce(attempts.queued, attempts.started, records.committed_at)
            as asked_for
    from (
        from records where statement = 'publication'
            and ({_CHOSEN})
    ) records left join (
        from attempts where {_CHOSEN}
    ) attempts using (record_id)
),
refused as materialized (
    -- file sets that the latest publication of a step could not make, and whether it tries again
    select failures.step, failures."partition", file_set, error || ': ' || message as reason,
        error = '{PassingFaultError.__name__}' and not coalesce(last_try, true) as again,
        if(error = '{LostPacketsError.__name__}', started, null) as lost_at,
        if(regexp_matches(file_set, '_wfi\\d\\d_'),
            1::bigint << regexp_extract(file_set, '_wfi(\\d\\d)_', 1)::integer, 1) as detectors
    from failures join (
        select record_id, last_try, started from publications where latest
    ) using (record_id)
),
retries as materialized (
    select work, "partition", 'waits for retry ' || in_a_row || ' at ' || strftime(make_timestamp(
            epoch_us(ended) + least(most_us, first_us * 2 ** least(in_a_row - 1, 30))::bigint),
            '%Y-%m-%d %H:%M') || ' UTC after ' || reason as waits
    from ({failed_runs("from tries")}), ledger_retries where in_a_row > 0
)
"""

# What has happened to the steps of a partition, in one row.
_PROGRESS = """
first_made as materialized (
    select "partition", kind, any_value(step) as step, bit_or(detectors) as detectors
    from made where first group by "partition", kind
),
steps as materialized (
    select step, "partition", bool_or(running) as running, bool_or(dead) as dead,
        max(started) filter (running or dead) as started,
        max(started) filter (running) as running_since,
        any_value(error || ': ' || message) filter (dead) as error,
        coalesce(bit_or(refused) filter (lost_at is null), 0) as refused,
        coalesce(bit_or(refused) filter (lost_at is not null), 0) as lost,
        max(lost_at) as lost_at, coalesce(bit_or(settled), 0) as settled,
        any_value(reason) filter (lost_at is null) as reason,
        any_value(reason) filter (lost_at is not null) as lost_reason
    from (
        select step, "partition", running, dead, started, error, message,
            null::bigint as refused, null::timestamptz as lost_at, null::bigint as settled,
            null as reason from tries
        union all
        select step, "partition", false, false, null, null, null, detectors, lost_at, null, reason
            from refused where not again
        union all
        select step, "partition", false, false, null, null, null, null, null, detectors, null
            from first_made
    ) group by step, "partition"
),
exposures as materialized (
    -- how far the senders of an exposure with one clock have come; a mask of -1 stands for all
    select r.* exclude (planned, all_received), r.planned as of_exposure, k.mask, k.is_rest,
        k.arrived, k.start, r.planned & k.mask as planned,
        coalesce(u.detectors, 0) as formatted, coalesce(c.detectors, 0) as calibrated,
        coalesce(f.running, false) as formatting, coalesce(e.running, false) as calibrating,
        case when formatting then 0
            when coalesce(f.dead and f.started >= k.start, false) then -1
            else coalesce(f.refused | f.settled | if(k.arrived > f.lost_at, 0, f.lost), 0) end
            as unformatted,
        (r.planned & k.mask & ~formatted & unformatted) as without_l1,
        (case when calibrating then 0
            when coalesce(e.dead and e.started >= k.start, false) then -1
            else coalesce(e.refused | e.settled, 0) end)
            | if(unformatted = -1, -1, without_l1) as uncalibrated,
        case when k.arrived is null and r.lacks_packets
                and coalesce(r.cut_off > moment::timestamptz, true) then 'waiting for downlink'
            when k.start is null then 'waiting for ancillary data'
            when formatting then 'running' else 'queued' end as l1_stage,
        if(l1_stage = 'queued' and calibrating, 'running', l1_stage) as l2_stage,
        r.planned = 0 and k.is_rest and k.start is null
            or (r.planned & k.mask & ~calibrated & ~uncalibrated) <> 0 as pending,
        coalesce(f.error, if(k.arrived is null, f.lost_reason, null), f.reason) as l1_reason,
        coalesce(e.error, e.reason, l1_reason) as l2_reason
    from received r
    join clocks k on k."partition" = r."partition"
    left join steps f on f."partition" = r."partition" and f.step = 'formatting'
    left join steps e on e."partition" = r."partition" and e.step = 'exposure'
    left join first_made u on u."partition" = r."partition" and u.kind = 'uncal'
    left join first_made c on c."partition" = r."partition" and c.kind = 'cal'
),
visit_progress as materialized (
    select x.visit as "partition", x.visit, any_value(survey) as survey,
        any_value(exposure_type) as exposure_type, any_value(optical_element) as optical_element,
        not bool_or(truncated)
            and count(execution_end) filter (is_rest) < coalesce(max(nexposures), 9999)
            as more_to_come,
        if(more_to_come, null, max(execution_end)) as execution_end,
        max(start) as all_received,
        if(more_to_come, 'infinity', max(if(arrived is null and not lacks_packets,
            null, least(coalesce(arrived, 'infinity'), coalesce(cut_off, 'infinity')))))
            as packets, max(ancillary) as ancillary,
        case when coalesce(any_value(s.running), false) then 'running'
            when more_to_come or bool_or(pending and l2_stage = 'waiting for downlink')
                then 'waiting for downlink'
            when bool_or(pending and l2_stage = 'waiting for ancillary data')
                then 'waiting for ancillary data'
            when bool_or(pending and l2_stage = 'running') then 'running'
            else 'queued' end as stage,
        stage <> 'running' and (coalesce(any_value(s.dead), false)
            or not more_to_come and not bool_or(pending) and bit_or(calibrated) = 0) as failed,
        coalesce(any_value(s.error), any_value(l2_reason) filter (calibrated = 0)) as reason
    from exposures x left join steps s on s."partition" = x.visit and s.step = 'visit'
    group by x.visit
)
"""

_MISSING = f"""
told as materialized (
    select "partition", max(handed_over) as handed_over from handed group by "partition"
),
missing as materialized (
    -- what is expected and not made, divided into what failed and what may still come
    select "partition", visit, survey, optical_element, step, level, kind, stage, failed,
        if(unknown, null, mask) as detectors, if(unknown, 1, bit_count(mask)) as products,
        null::varchar[] as file_sets, if(failed, reason, coalesce(rejection, waits)) as reason,
        arrived
    from (
        select x."partition", x.visit, x.survey, x.optical_element, k.step, k.level, k.kind,
            x.arrived, x.of_exposure = 0 as unknown,
            case when k.step = 'formatting' then x.l1_stage
                when k.delivered and h.handed_over is not null
                    then if(d.running, '{ProductState.RUNNING}', '{ProductState.WAITING_FOR_SSC}')
                else x.l2_stage end as stage,
            if(k.step = 'formatting', x.l1_reason, x.l2_reason) as reason,
            if(k.delivered, d.error, null) as rejection,
            if(stage in ('{ProductState.QUEUED}', '{ProductState.WAITING_FOR_SSC}'), w.waits, null)
                as waits,
            if(k.scope = 'detector', x.planned, 1 & x.mask) & ~coalesce(m.detectors, 0) as lacking,
            case when k.step = 'formatting' then x.unformatted
                when k.delivered then x.uncalibrated & ~x.calibrated
                when k.scope = 'detector' then x.uncalibrated else 0 end as hopeless,
            unnest([false, true]) as failed,
            case when unknown then if(failed or not x.is_rest, 0, 1)
                when failed then lacking & hopeless else lacking & ~hopeless end as mask
        from exposures x
        join ledger_kinds k on k.survey = coalesce(x.survey, '')
            and k.exposure_type = coalesce(x.exposure_type, '') and k.expected and not k.of_visit
            and (x.origin is distinct from '{Origin.DELIVERED}' or not k.needs_packets)
        left join first_made m on m."partition" = x."partition" and m.kind = k.kind
        left join told h on h."partition" = x."partition"
        left join steps d on d."partition" = x."partition" and d.step = k.step
        left join retries w on w."partition" = x."partition"
            and w.work = if(k.delivered, k.step, '{Step.EXPOSURE}')
    ) where mask <> 0
    union all
    select v."partition", v.visit, v.survey, v.optical_element, k.step, k.level, k.kind,
        case when k.delivered and h.handed_over is not null
            then if(d.running, '{ProductState.RUNNING}', '{ProductState.WAITING_FOR_SSC}')
            else v.stage end as stage_now,
        v.failed and stage_now <> '{ProductState.RUNNING}', null, 1, null,
        case when v.failed then v.reason when k.delivered and d.error is not null then d.error
            when stage_now in ('{ProductState.QUEUED}', '{ProductState.WAITING_FOR_SSC}')
                then w.waits end, null
    from visit_progress v
    join ledger_kinds k on k.survey = v.survey and k.exposure_type = v.exposure_type
        and k.expected and k.of_visit
    left join told h on h."partition" = v."partition"
    left join steps d on d."partition" = v."partition" and d.step = k.step
    left join retries w on w."partition" = v."partition" and w.work = k.step
    anti join first_made m on m."partition" = v."partition" and m.kind = k.kind
    anti join refused r on r."partition" = v."partition" and r.step = k.step and k.step = 'visit'
        and r.file_set like '%\\_p\\_v%' escape '\\'
    union all
    -- skycells of a visit that could not be made
    select v."partition", v.visit, v.survey, v.optical_element, k.step, k.level, k.kind, v.stage,
        v.stage <> 'running' and not r.again, null, count(*), list(r.file_set),
        any_value(if(r.again, w.waits, r.reason)), null
    from visit_progress v
    left join retries w on w."partition" = v."partition" and w.work = '{Step.VISIT}'
    join refused r on r."partition" = v."partition" and r.step = 'visit'
        and r.file_set like '%\\_p\\_v%' escape '\\'
    join ledger_kinds k on k.survey = v.survey and k.exposure_type = v.exposure_type
        and k.expected and k.step = 'visit'
    anti join (
        select file_set, kind from products where skycell is not null
            and (visits is null or name_key in partition_keys(visits))
    ) p
        on p.file_set = r.file_set and p.kind = k.kind
    group by all
)
"""

# A work is a publication, or an open one: what a step has still to do for a partition.
_WORKS = f"""
works as materialized (
    select record_id, step, "partition", split_part("partition", '_', 1) as visit, started,
        published, false as open, true as awaited, asked_for, previous
    from (
        select *, lag(published) over (
            partition by step, "partition" order by published, record_id) as previous
        from publications semi join (
            select record_id from made
            union all
            -- that something is lost is said by work that is over as well
            select record_id from failures
            where error = '{LostPacketsError.__name__}' and ({_CHOSEN})
        ) using (record_id)
    ) semi join made using (record_id)
    union all
    select step || ' ' || "partition", step, "partition", visit,
        coalesce(running_since, moment::timestamptz), moment::timestamptz, true, awaited,
        coalesce(running_since, moment::timestamptz), null
    from (select step, "partition", any_value(visit) as visit, bool_or(not failed) as awaited
        from missing group by step, "partition")
    left join steps using (step, "partition")
),
inputs_of as materialized (
    -- when the inputs of a work were there, and the work that made the last of them
    select w.record_id, null as input, greatest(max(k.start) filter (k.start <= w.started),
        max(greatest(x.cut_off, x.ancillary))
            filter (greatest(x.cut_off, x.ancillary) <= w.started)) as ready
    from works w left join received x on x."partition" = w."partition"
    left join clocks k on k."partition" = w."partition"
    where w.step = 'formatting' group by w.record_id
    union all
    select w.record_id, coalesce(f.record_id, if(w.open, 'formatting ' || w."partition", null)),
        coalesce(f.published, if(w.open, moment::timestamptz, null))
    from (select * from works where step = 'exposure') w
    asof left join (select * from works where step = 'formatting' and not open) f
        on f."partition" = w."partition" and f.published <= w.started
    union all
    select w.record_id, coalesce(e.record_id, if(w.open, 'exposure ' || w."partition", null)),
        coalesce(e.published, if(w.open, moment::timestamptz, null))
    from (select * from works where step in {DELIVERIES} and step not in {_OF_VISITS}) w
    asof left join (select * from works where step = 'exposure' and not open) e
        on e."partition" = w."partition" and e.published <= w.started
    union all
    select w.record_id, arg_max(e.record_id, (e.open, e.published, x.all_received)),
        max(e.published)
    from works w
    join works e on e.visit = w.visit and e.step = 'exposure' and e.awaited
        and e.published <= w.started
    left join received x on x."partition" = e."partition"
    where w.step in {_OF_VISITS} group by w.record_id
),
timed as materialized (
    select w.record_id, any_value(i.input) as input,
        coalesce(min(t.started) filter (i.ready is null or t.started >= i.ready),
            any_value(w.started)) as first_start,
        coalesce(min(t.started) filter (t.started > w.previous), any_value(w.started))
            as first_start_again,
        coalesce(min(coalesce(t.queued, t.started)) filter (t.started > w.previous),
            any_value(w.started)) as asked,
        min(t.started) filter (t.in_vain and t.started < w.started
            and (i.ready is null or t.started >= i.ready)) as unusable,
        min(t.started) filter (t.in_vain and t.started < w.started and t.started > w.previous)
            as unusable_again,
        max(coalesce(t.following, w.started)) filter (t.in_vain and t.started < w.started
            and (i.ready is null or t.started >= i.ready)) as usable
    from works w left join inputs_of i using (record_id)
    left join tries t on t.step = w.step and t."partition" = w."partition"
        and t.started <= w.started
    group by w.record_id
),
chained as materialized (
    -- the moments along the critical path of a work: of its step and of the steps before
    select w.record_id, w.step, w."partition", w.open, w.published,
        w.step in {DELIVERIES} as delivered,
        if(delivered and h.handed_over > w.previous, h.handed_over, t.asked) as asked,
        t.first_start_again, if(delivered, null, t.unusable_again) as unusable_again,
        s.execution_end, s.all_received,
        w.started as work_started,
        if(w.step in {_OF_VISITS}, least(s.packets, t.first_start), s.packets) as packets,
        if(w.step in {_OF_VISITS}, least(s.ancillary, t.first_start), s.ancillary) as ancillary,
        t2.first_start as first_start_2, t2.unusable as unusable_2, t2.usable as usable_2,
        w2.started as started_2, w2.published as published_2,
        t1.first_start as first_start_1, t1.unusable as unusable_1, t1.usable as usable_1,
        w1.started as started_1, w1.published as published_1,
        case when delivered then coalesce(h.handed_over, if(w.open, moment::timestamptz, null)) end
            as handed_over,
        if(delivered, w.asked_for, null) as delivered_at,
        t.first_start as first_start_0, if(delivered, null, t.unusable) as unusable_0,
        if(delivered, null, t.usable) as usable_0, w.started as started_0
    from works w
    join timed t using (record_id)
    asof left join handed h on h."partition" = w."partition" and h.handed_over <= w.started
    left join works w1 on w1.record_id = t.input
    left join timed t1 on t1.record_id = w1.record_id
    left join works w2 on w2.record_id = t1.input
    left join timed t2 on t2.record_id = w2.record_id
    left join (
        select "partition", execution_end, all_received, last_packet as packets, ancillary
        from received
        union all
        select "partition", execution_end, all_received, packets, ancillary from visit_progress
    ) s on s."partition" = w."partition"
)
"""

_OF_STEP = (
    ("first_start", Blame.QUEUE),
    ("unusable", Blame.RETRIES),
    ("usable", Blame.INPUT),
    ("started", Blame.RETRIES),
    ("published", Blame.COMPUTATION),
)
_CHAIN = (
    ("packets", Blame.DOWNLINK),
    ("ancillary", Blame.ANCILLARY),
    *((f"{moment}_2", blame) for moment, blame in _OF_STEP),
    *((f"{moment}_1", blame) for moment, blame in _OF_STEP),
    ("handed_over", Blame.QUEUE),
    ("delivered_at", Blame.SSC),
    *((f"{moment}_0", blame) for moment, blame in _OF_STEP[:-1]),
    ("until", Blame.COMPUTATION),
)
"""The moments between a clock's start and a publication, and what the time up to each is put to."""


def _milestones() -> str:
    """Return SQL for the moments, in order and within the time from the start to the end.

    Each is the latest so far, so that none lies before the one before it.
    """
    lines, moments = [], "started_at"
    for number, (moment, _) in enumerate(_CHAIN):
        moments += f", {moment}"
        lines.append(
            "if(started_at is null, null, "
            f"greatest(started_at, least(until, greatest({moments})))) as t{number}"
        )
    return ",\n        ".join(lines)


def _blame_hours() -> str:
    """Return SQL for the hours of each blame; they add up to those from start to end."""
    spans: dict[Blame, list[str]] = {blame: [] for blame in Blame}
    before = "started_at"
    for number, (_, blame) in enumerate(_CHAIN):
        spans[blame].append(f"epoch(t{number} - {before})")
        before = f"t{number}"
    return ",\n        ".join(
        f"({' + '.join(terms)}) / 3600 as {blame}_hours" for blame, terms in spans.items()
    )


_JUDGED = f"""
with {_FACTS}, {_PROGRESS}, {_MISSING}, {_WORKS},
grouped as (
    -- what was made or is missing, divided by the clocks of those who send what it is made of
    select m."partition", m.visit, coalesce(x.survey, v.survey, m.survey) as survey,
        coalesce(x.optical_element, v.optical_element, m.optical_element) as optical_element,
        m.step, m.level, m.kind,
        if(k.mask is null or m.detectors & ~k.mask = 0, m.products,
            bit_count(m.detectors & k.mask)) as products,
        m.detectors & coalesce(k.mask, -1) as detectors, null::varchar[] as file_sets,
        null as stage, false as failed, m.first, w.published as made, m.record_id, null as reason,
        k.arrived
    from made m join works w using (record_id)
    left join received x on x."partition" = m."partition"
    left join clocks k on k."partition" = m."partition" and m.detectors & k.mask <> 0
    left join visit_progress v on v."partition" = m."partition"
    union all
    select "partition", visit, survey, optical_element, step, level, kind, products, detectors,
        file_sets, stage, failed, true, null, step || ' ' || "partition", reason, arrived
    from missing
),
clocked as (
    select g.* exclude (arrived),
        c.* exclude (
            record_id, step, "partition", published, open, first_start_0, unusable_0, packets,
            ancillary, all_received, work_started),
        coalesce(g.made, moment::timestamptz) as until,
        -- made before the last packet: what there was at the cut-off
        case when x."partition" is null then c.packets
            when g.made is null and g.arrived is not null then g.arrived
            when g.arrived <= c.work_started or x.cut_off is null then g.arrived
            when x.cut_off <= until then x.cut_off
            else g.arrived end as waited,
        -- of what is lost all time is put to downlink
        if(x."partition" is not null and g.arrived is null and (g.failed and x.cut_off is not null
            or waited is null and x.lacks_packets and g.made is null), 'infinity', waited)
            as packets,
        if(x."partition" is null, c.ancillary, x.ancillary) as ancillary,
        case when x."partition" is null then c.all_received
            when x.cut_off is null and g.arrived is not distinct from x.last_packet
                and x.all_received is not null then x.all_received
            when waited is not null and isfinite(x.ancillary) then greatest(waited, x.ancillary)
        end as clock_start,
        case when not g.first then c.first_start_again
            when x."partition" is not null and g.made is null and c.first_start_0 < waited
                then c.started_0
            else c.first_start_0 end as first_start_0,
        if(g.first, c.unusable_0, c.unusable_again) as unusable_0,
        case when not g.first then c.asked
            when d.origin = 'receipt' then clock_start else c.execution_end end as started_at,
        started_at + to_microseconds(latency_us) as due,
        epoch(due - until) / 3600 as margin_hours, warning_us
    from grouped g join chained c using (record_id) join ledger_deadlines d using (kind)
    left join received x on x."partition" = g."partition"
)
select * replace (if(made is null, null, record_id) as record_id),
    case when made is not null and due is null then 'made, no clock'
        when made is not null then if(made <= due, 'made in time', 'made late')
        when failed then 'failed'
        when until > due then 'overdue'
        else stage end as state,
    made is null and state not in ('failed', 'overdue')
        and coalesce(due - until < to_microseconds(warning_us), false) as at_risk
from clocked
union all by name
select p."partition", p.visit, p.survey, p.optical_element, k.step, k.level, k.kind,
    1 as products, '{ProductState.NOT_EXPECTED}' as state, false as at_risk, true as first
from (
    select "partition", visit, survey, exposure_type, optical_element, false as of_visit
    from received
    union all
    select "partition", visit, survey, exposure_type, optical_element, true from visit_progress
) p
join ledger_kinds k on k.survey = p.survey and k.exposure_type = p.exposure_type
    and not k.expected and k.of_visit = p.of_visit
"""


def hours_spent(judged: str) -> str:
    """Return SQL for the rows of the ledger with where the hours went.

    Parameters
    ----------
    judged
        SQL for rows of `JUDGED`: to select few before is faster than after.
    """
    hours = ", ".join(f"{blame}_hours" for blame in Blame)
    names = ", ".join(f"'{blame}'" for blame in Blame)
    return f"""
        select * exclude ({", ".join(f"t{number}" for number in range(len(_CHAIN)))}),
            if(margin_hours < 0, [{names}][list_position([{hours}], greatest({hours}))], null)
                as blame
        from (
            select *, {_blame_hours()}
            from (select *, {_milestones()} from ({judged}))
        )
    """


_DETECTOR = "upper(nullif(regexp_extract(file_set, '_(wfi\\d\\d)_', 1), ''))"
_SHARED = ", ".join(f'g."{column}"' for column in PRODUCT_COLUMNS[len(_OWN_COLUMNS) :])

_PRODUCTS = f"""
with grouped as materialized (from {GROUPS}(moment, visits := visits)),
unmade as (
    select *, unnest(coalesce(file_sets, if(detectors is null, [null], list_transform(
        list_filter(range(19), lambda n: detectors >> n & 1 = 1),
        lambda n: "partition" || if(n = 0, '', '_wfi' || lpad(n::varchar, 2, '0'))
            || '_' || lower(optical_element))))) as file_set
    from grouped where made is null
)
select p.name, p.file_set, p.detector, p.generation, {_SHARED}
from products p join grouped g
    on g.record_id = p.record_id and g.kind = p.kind and g.first = (p.generation = 1)
    and g.detectors
        & if(p.detector is null, 1, 1::bigint << p.detector[4:]::integer) <> 0
union all
select file_set || '_' || k.suffix, file_set, {_DETECTOR}, null, {_SHARED}
from unmade g join (select distinct kind, suffix from ledger_kinds) k using (kind)
"""
