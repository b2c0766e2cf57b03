"""Deletes old runs from Dagster's history.

Dagster keeps every run for ever, with its events and logs; only ticks have a time limit of its own.
A run goes once it ended long ago and nothing asks for it: the keys of its exposure or visit are put
away (`roman_assets.defs.upkeep.partition_window`), so every product stands as it will stay. The
registry has what it made, the attempts and the errors. Runs of other assets are never touched, nor
are those of data releases, whose keys stay.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from roman_assets.defs.deadlines.check_reports import REPORTS_JOB
from roman_assets.defs.lib.dagster_internals import SqliteEventLogStorage
from roman_assets.defs.lib.in_progress import (
    ENDED,
    PARTITION_TAG,
    RANGE_START_TAG,
    end_of_run,
    partitions_in_progress,
)
from roman_assets.defs.lib.partitions import OBSERVED, OBSERVED_PARTITIONS
from roman_assets.defs.lib.run_history import WORK_TAG

if TYPE_CHECKING:
    from roman_assets.data_root import DataRoot

RUNS_AT_ONCE = 10_000
"""Largest number of runs deleted by one sweep, oldest first; some ten days of a busy survey."""

RUNS_OF_A_PAGE = 500


@dataclass(frozen=True)
class OldRuns:
    """The old runs of an installation that nothing asks for.

    Parameters
    ----------
    instance
        Keeps the runs.
    root
        The installation.
    upkeep_jobs
        Names of jobs without partitions whose runs go too.
    """

    instance: dg.DagsterInstance
    root: DataRoot
    upkeep_jobs: Collection[str] = (REPORTS_JOB,)

    def ended_before(self, moment: datetime) -> Iterator[str]:
        """Yield the ids of runs that ended before a moment (UTC), oldest first."""
        kept = self._kept_keys()
        for record in self._records(moment):
            if end_of_run(record) < moment and self._is_settled(record.dagster_run, kept):
                yield record.dagster_run.run_id

    def _records(self, moment: datetime) -> Iterator[dg.RunRecord]:
        filters = dg.RunsFilter(statuses=list(ENDED), created_before=moment)
        cursor: str | None = None
        while page := self.instance.get_run_records(
            filters, limit=RUNS_OF_A_PAGE, cursor=cursor, ascending=True
        ):
            yield from page
            cursor = page[-1].dagster_run.run_id

    def _kept_keys(self) -> frozenset[str]:
        """Return the keys whose runs are kept: present, in progress, or awaiting the SSC."""
        from roman_assets.registry.registry import Registry

        with Registry(self.root) as registry:
            unanswered = frozenset(registry.receipts.unanswered_handovers())
        present = (
            key
            for definition in OBSERVED_PARTITIONS
            for key in self.instance.get_dynamic_partitions(str(definition.name))
        )
        return partitions_in_progress(self.instance) | unanswered | frozenset(present)

    def _is_settled(self, run: dg.DagsterRun, kept: frozenset[str]) -> bool:
        keys = self._keys(run)
        if not keys:
            return run.job_name in self.upkeep_jobs
        if not all(OBSERVED.fullmatch(key) for key in keys) or not kept.isdisjoint(keys):
            return False
        return run.status is DagsterRunStatus.SUCCESS or not self._is_last_of_work(run)

    def _keys(self, run: dg.DagsterRun) -> frozenset[str]:
        if PARTITION_TAG in run.tags:
            return frozenset({run.tags[PARTITION_TAG]})
        if RANGE_START_TAG not in run.tags:
            return frozenset()
        made = self.instance.all_logs(run.run_id, of_type={DagsterEventType.ASSET_MATERIALIZATION})
        events = (entry.dagster_event for entry in made)
        of_range = frozenset(event.partition for event in events if event and event.partition)
        return of_range | {run.tags[RANGE_START_TAG]}

    def _is_last_of_work(self, run: dg.DagsterRun) -> bool:
        """Return whether a run says how a piece of work stands; without it, it began anew."""
        if WORK_TAG not in run.tags:
            return False
        last = self.instance.get_runs(dg.RunsFilter(tags={WORK_TAG: run.tags[WORK_TAG]}), limit=1)
        return [one.run_id for one in last] == [run.run_id]


def delete_runs(instance: dg.DagsterInstance, run_ids: Sequence[str], budget: timedelta) -> int:
    """Delete runs that have ended, with their events and logs.

    The run itself goes last: if the process is killed before, the next sweep finds it again.

    Parameters
    ----------
    instance
        Keeps the runs.
    run_ids
        Which, in order.
    budget
        Time after which no further one is begun.

    Returns
    -------
    int
        How many were deleted.
    """
    end = time.monotonic() + budget.total_seconds()
    for number, run_id in enumerate(run_ids):
        if time.monotonic() > end:
            return number
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.event_log_storage.delete_events(run_id)
        _remove_events_file(instance, run_id)
        instance.run_storage.delete_run(run_id)
    return len(run_ids)


def _remove_events_file(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove the file that SQLite storage has for the events of one run; it stays there empty."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        file = Path(storage.path_for_shard(run_id))
        for path in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
            with suppress(FileNotFoundError):
                path.unlink()
