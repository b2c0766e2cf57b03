"""Dagster's run queue and pool on a simulated clock.

As in Dagster, a queued run starts when fewer than the admitted number run: the one of the highest
priority first, of equal ones that which was queued first. A step of a pool waits, in the same
order, until the pool has a free slot, and its run goes on holding its place meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush

from roman_assets.errors import BadInputError


@dataclass(frozen=True)
class Platform:
    """What works on the products, and how Dagster is set up.

    Parameters
    ----------
    workers
        romancal processes in all.
    workers_per_machine
        Of them on one machine; a machine has one slot of the pool ``romancal``.
    concurrent_runs
        Runs at once; None for one more than there are machines, as in ``dagster.yaml``.
    step_retries
        Waits before a step that failed in passing is tried again, one for each retry.
    run_retries
        How often a run that lost its worker is started again.
    daemon_interval
        Time between two looks of sensors, run queue and run monitoring.
    run_start
        From leaving the queue to the first step: 4 s were measured.
    operator_response
        After so long an operator executes a run again that failed in passing for good.

    Raises
    ------
    BadInputError
        If the workers do not make whole machines, or nothing may run.
    """

    workers: int
    workers_per_machine: int = 2
    concurrent_runs: int | None = None
    step_retries: tuple[timedelta, ...] = ()
    run_retries: int = 0
    daemon_interval: timedelta = timedelta(seconds=5)
    run_start: timedelta = timedelta(seconds=4)
    operator_response: timedelta = timedelta(hours=12)

    def __post_init__(self) -> None:
        for name in ("workers", "workers_per_machine", "most_runs"):
            if getattr(self, name) < 1:
                raise BadInputError(
                    "rehearsal", name, f"{getattr(self, name)} do no work", "give at least one"
                )
        if self.workers % self.workers_per_machine:
            raise BadInputError(
                "rehearsal", "workers",
                f"{self.workers} do not fill machines of {self.workers_per_machine}",
                f"give a multiple of {self.workers_per_machine}",
            )  # fmt: skip

    @property
    def machines(self) -> int:
        """Machines, each with one slot of the pool."""
        return self.workers // self.workers_per_machine

    @property
    def most_runs(self) -> int:
        """Runs at once."""
        return self.machines + 1 if self.concurrent_runs is None else self.concurrent_runs


@dataclass
class Slots:
    """A number of places, and who waits for one: highest priority first, then first come.

    Parameters
    ----------
    free
        Places that nobody holds.
    """

    free: int
    _waiting: list[tuple[int, int, int]] = field(default_factory=list)
    _arrivals: int = 0

    def wait(self, who: int, priority: int) -> None:
        """Wait for a place."""
        self._arrivals += 1
        heappush(self._waiting, (-priority, self._arrivals, who))

    def admit(self) -> int | None:
        """Return a free place to whom it belongs; None if there is none, or nobody waits."""
        if not self.free or not self._waiting:
            return None
        self.free -= 1
        return heappop(self._waiting)[2]

    def leave(self) -> None:
        """Return a place back."""
        self.free += 1
