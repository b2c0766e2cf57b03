"""The runs of an installation, as a command that waits for products asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import prepare_dagster_home
from roman_assets.defs.lib.in_progress import PARTITION_TAG, UNFINISHED


@contextmanager
def opened_instance(root: DataRoot) -> Iterator[DagsterInstance]:
    """Open Dagster's instance of an installation, whose home is created if need be."""
    with DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        yield instance


@dataclass(frozen=True)
class Runs:
    """The runs that Dagster knows.

    Parameters
    ----------
    instance
        Keeps them.
    """

    instance: DagsterInstance

    def any_unfinished(self) -> bool:
        """Return whether a run waits, works or is about to."""
        return self.instance.get_runs_count(RunsFilter(statuses=list(UNFINISHED))) > 0

    def failed(self) -> dict[str, str]:
        """Return the identities of runs that failed, by partition."""
        failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE])
        return {
            run.tags[PARTITION_TAG]: run.run_id
            for run in self.instance.get_runs(failed)
            if PARTITION_TAG in run.tags
        }
