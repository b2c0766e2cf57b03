"""The sensor that puts old partitions away, before their number slows Dagster down.

Dagster's pages and sensors slow down with the number of keys (docs/operating.md has figures). Keys
of a visit and its exposures are deleted once nothing of it has changed for a set time and every
product stands as it will stay. Registry and archive do not need them; what was materialised stays
in Dagster's event log, and a key that is added again shows it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_internals import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
)
from roman_assets.defs.lib.in_progress import partitions_in_progress
from roman_assets.defs.lib.in_time_check import ledger_rows
from roman_assets.defs.lib.partitions import OBSERVED_PARTITIONS
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.visit.visit_watch import visit_of_key
from roman_assets.products.deadline import ProductState
from roman_assets.products.observation import VisitId
from roman_assets.settings.automation_settings import partition_window

if TYPE_CHECKING:
    from roman_assets.registry.registry import Registry

VISITS_AT_ONCE = 500
"""Largest number of visits that one query of the ledger looks up."""

VISITS_PER_TICK = 100
"""Largest number of visits put away in one tick: Dagster deletes keys one by one."""

SETTLED = frozenset(
    {
        ProductState.MADE_IN_TIME,
        ProductState.MADE_LATE,
        ProductState.MADE_UNTIMED,
        ProductState.NOT_EXPECTED,
    }
)
"""States that nothing but a new delivery or a person changes."""


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Puts away the keys of visits and exposures that have long been done.",
)
def partition_window_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Delete the keys of old visits of which nothing is going on."""
    window = partition_window()
    keys = keys_to_put_away(context.instance, installation.root, datetime.now(UTC) - window)
    requests = [
        definition.build_delete_request(sorted(old))
        for definition in OBSERVED_PARTITIONS
        if (old := keys.intersection(context.instance.get_dynamic_partitions(str(definition.name))))
    ]
    if not requests:
        return dg.SkipReason(f"nothing has been done for more than {window.days} days")
    return dg.SensorResult(
        dynamic_partitions_requests=requests,
        skip_reason=dg.SkipReason(f"{len(keys)} keys put away"),
    )


def keys_to_put_away(
    instance: dg.DagsterInstance, root: DataRoot, before: datetime
) -> frozenset[str]:
    """Return the keys of visits that are settled, and of which nothing has changed since a time.

    Parameters
    ----------
    instance
        Holds the keys, and knows what is going on.
    root
        The installation.
    before
        UTC.
    """
    from roman_assets.registry.registry import Registry

    if backfills_in_progress(instance):
        return frozenset()
    keys: dict[VisitId, set[str]] = {}
    for definition in OBSERVED_PARTITIONS:
        for key in instance.get_dynamic_partitions(str(definition.name)):
            keys.setdefault(visit_of_key(key), set()).add(key)
    with Registry(root) as registry:
        newest = registry.work.newest_by_partition()
        recent = newest[newest["committed_at"] >= before]["partition"]
        known = {visit_of_key(key) for key in newest["partition"]}
        old = (keys.keys() & known) - {visit_of_key(key) for key in recent}
        old -= {visit_of_key(key) for key in partitions_in_progress(instance)}
        chosen = islice(settled_visits(registry, sorted(old)), VISITS_PER_TICK)
        return frozenset(key for visit in chosen for key in keys[visit])


def settled_visits(registry: Registry, visits: Sequence[VisitId]) -> Iterator[VisitId]:
    """Yield those visits of which every product, and those of its exposures, stands as it will."""
    for start in range(0, len(visits), VISITS_AT_ONCE):
        batch = visits[start : start + VISITS_AT_ONCE]
        rows = ledger_rows(registry.deadlines.groups(visit=[str(visit) for visit in batch]))
        unsettled = {row["visit"] for row in rows if not _is_settled(row)}
        yield from (visit for visit in batch if str(visit) not in unsettled)


def _is_settled(row: Mapping[str, Any]) -> bool:
    """Whether a row of the ledger stands as it will; what the SSC delivers late adds its key."""
    return row["state"] in SETTLED or row["stage"] == ProductState.WAITING_FOR_SSC


def backfills_in_progress(instance: dg.DagsterInstance) -> bool:
    """Return whether a backfill has runs still to be started: it needs the keys it was given."""
    unfinished = [one for one in BulkActionStatus if one not in BULK_ACTION_TERMINAL_STATUSES]
    return bool(instance.get_backfills(BulkActionsFilter(statuses=unfinished), limit=1))
