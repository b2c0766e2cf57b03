"""How busy a rehearsed platform is, hour by hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roman_assets.products.kind import Step
from roman_assets.rehearsal.replay import ReplayLog
from roman_assets.rehearsal.run_queue import Platform

HOUR_S = 3600.0
_HOURS_OF_DAY = 24


@dataclass(frozen=True)
class Timeline:
    """Hours of a rehearsal.

    Parameters
    ----------
    hours
        Beginnings of the hours, after the epoch; shape (n,).
    queued
        Runs in the queue at the beginning of each hour; shape (n,).
    busy
        Workers at work, mean of each hour; shape (n,).
    """

    hours: NDArray[np.float64]
    queued: NDArray[np.int64]
    busy: NDArray[np.float64]

    @classmethod
    def of(cls, log: ReplayLog, platform: Platform) -> Timeline:
        """Read the log of a replay."""
        edges = np.arange(0.0, log.end + HOUR_S, HOUR_S)
        began = np.sort([run.queued for run in log.runs])
        left = np.sort([run.started for run in log.runs])
        at_work = [one for one in log.attempts if one.step is not Step.FORMATTING]
        spent = _until([one.ended for one in at_work], edges)
        spent = _until([one.started for one in at_work], edges) - spent
        return cls(
            edges[:-1] / HOUR_S,
            (np.searchsorted(began, edges, "right") - np.searchsorted(left, edges, "right"))[:-1],
            np.diff(spent) / HOUR_S * platform.workers_per_machine,
        )

    @property
    def busiest_day(self) -> float:
        """The most workers that are at work, mean of 24 hours."""
        hours = min(len(self.busy), _HOURS_OF_DAY)
        return float(np.convolve(self.busy, np.full(hours, 1 / hours), "valid").max())

    @property
    def longest_queue(self) -> int:
        """The most runs that waited at once."""
        return int(self.queued.max(initial=0))


def _until(moments: ArrayLike, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the seconds that have passed since all of some moments, added up, at each edge."""
    ordered = np.sort(np.asarray(moments, dtype=np.float64))
    before = np.searchsorted(ordered, edges, "right")
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    passed: NDArray[np.float64] = before * edges - sums[before]
    return passed


def longest_wait(log: ReplayLog) -> float:
    """Return the longest time between the queueing of a run and its start, hours."""
    waits = [min(run.started, log.end) - run.queued for run in log.runs]
    return max(waits, default=0.0) / HOUR_S
