"""The order of commit records, which no clock decides.

Generations, attempts and decisions follow one another by the time of commit, as the clock of the
host gave it. Clocks are set back, and those of hosts differ. So before a fold seals a record, it
sets its time to after all that is folded already of the same partition and of the products it
names. Records folded later come later. A record that was in time keeps its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import duckdb

from roman_assets.archive.watched_lock import Fence
from roman_assets.records.journal import Journal, PendingRecord
from roman_assets.records.record import WHOLE_ARCHIVE

_TICK = timedelta(microseconds=1)


def new_in_order(
    connection: duckdb.DuckDBPyConnection,
    journal: Journal,
    records: Sequence[PendingRecord],
    fence: Fence,
) -> list[PendingRecord]:
    """Return the records not folded yet, each once, with times after those they follow.

    A time that is set is written into the pending record first, so that a fold that dies and is
    repeated sets the same.

    Parameters
    ----------
    connection
        A connection that reads `roman_assets.registry.store.fold.READ_BY_FOLD`.
    journal
        Where the records are.
    records
        Pending records.
    fence
        Of the fold lock.
    """
    records = list({item.record.record_id: item for item in records}.values())
    if not records or not _has_any_since(connection, min(map(_time, records))):
        return records
    known = _known(connection, records)
    new = [item for item in records if item.record.record_id not in known]
    newest = _newest(connection, new)
    ordered = []
    # Times that an earlier fold has set stay.
    for item in sorted(new, key=lambda item: (not journal.is_retimed(item), _time(item))):
        keys = _keys(item)
        bound = max((newest[key] for key in keys if key in newest), default=None)
        if bound is not None and _time(item) <= bound:
            item = journal.retime(item, bound + _TICK, fence)
        newest |= dict.fromkeys(keys, _time(item))
        ordered.append(item)
    return ordered


def _time(item: PendingRecord) -> datetime:
    return item.record.committed_at


def _keys(item: PendingRecord) -> set[tuple[str, str]]:
    """Return the subjects of a record: its partition, and products by name."""
    names = {("name", name) for name in item.record.names}
    if item.record.partition == WHOLE_ARCHIVE:
        return names
    return names | {("partition", item.record.partition)}


def _has_any_since(connection: duckdb.DuckDBPyConnection, moment: datetime) -> bool:
    found = connection.execute(
        "select 1 from records where committed_at >= $moment limit 1", {"moment": moment}
    )
    return found.fetchone() is not None


def _known(connection: duckdb.DuckDBPyConnection, records: Sequence[PendingRecord]) -> set[str]:
    rows = connection.execute(
        "select record_id from records "
        "where committed_at between $first and $last and record_id in $ids",
        {
            "first": min(map(_time, records)),
            "last": max(map(_time, records)),
            "ids": [item.record.record_id for item in records],
        },
    ).fetchall()
    return {record_id for (record_id,) in rows}


def _newest(
    connection: duckdb.DuckDBPyConnection, records: Sequence[PendingRecord]
) -> dict[tuple[str, str], datetime]:
    """Return when the newest folded record was committed that is about the same, by what."""
    keys = {key for item in records for key in _keys(item)}
    listed = {
        of: sorted(value for kind, value in keys if kind == of) for of in ("partition", "name")
    }
    rows = connection.execute(
        """
        select 'partition', "partition", max(committed_at) from records
        where partition_key in partition_keys($partition) and "partition" in $partition
        group by all
        union all
        select 'name', name, max(committed_at) from (
            select name_key, name, committed_at from products
            union all select name_key, name, committed_at from transitions
        ) where name_key in name_keys($name) and name in $name
        group by all
        """,
        listed,
    ).fetchall()
    return {(of, value): time.astimezone(UTC) for of, value, time in rows}
