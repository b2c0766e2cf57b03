"""What a change would change, cost and endanger, told before anything runs (R14, R15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import median
from typing import Any

import pandas as pd

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Clock, ProductState, utc_now
from roman_assets.products.kind import Step
from roman_assets.records.record import Cause, Change
from roman_assets.registry.registry import Registry
from roman_assets.reprocessing.affected import AffectedProducts
from roman_assets.reprocessing.change import STEPS, ReferenceChanges, choose_images

_WAITING = (ProductState.QUEUED, ProductState.RUNNING)
_MEASURED_LAST = 500
"""Publications whose times are counted: software and machines change."""

_MOST_LISTED = 1_000
"""Visits and products that a summary names; it counts all."""


@dataclass(frozen=True)
class WorkEstimate:
    """What a step has to do again.

    Parameters
    ----------
    step
        The work.
    partitions
        Exposures or visits: the number of runs.
    units
        Detectors or skycells.
    computation
        Time of the machine, None while none was ever measured.
    longest_run
        Time of the longest of these runs, None likewise.
    """

    step: Step
    partitions: int
    units: int
    computation: timedelta | None
    longest_run: timedelta | None


@dataclass(frozen=True)
class EndangeredProducts:
    """Products of one partition and level that might miss their deadline."""

    partition: str
    level: str
    due: datetime


@dataclass(frozen=True)
class Impact:
    """What a change would change, cost and endanger.

    Parameters
    ----------
    change
        What is new.
    at
        When this was found, UTC.
    products
        The products that would change, as `AffectedProducts.products` gives them.
    following
        The L3 and L4 that would be reprocessed because their L2 change.
    references
        Which references would be others, where that is the change.
    contexts
        The contexts of the L2 of each visit concerned, as `AffectedProducts.contexts_of_visits`.
    work
        What is to be done, step by step.
    endangered
        Products that wait and would be late although they go first: a run that has begun is not
        interrupted.
    """

    change: Change
    at: datetime
    products: pd.DataFrame
    following: pd.DataFrame
    references: ReferenceChanges
    contexts: Sequence[Mapping[str, Any]]
    work: tuple[WorkEstimate, ...]
    endangered: tuple[EndangeredProducts, ...]

    @property
    def exposures(self) -> tuple[str, ...]:
        """The exposures to reprocess."""
        return tuple(sorted(self.products["exposure"].dropna().unique()))

    @property
    def visits(self) -> tuple[str, ...]:
        """The visits whose L3 and L4 are to be reprocessed."""
        coadded = self.products[self.products["step"] == Step.VISIT]
        return tuple(sorted({*coadded["visit"], *self.following["visit"]}))

    @cached_property
    def mixed_visits(self) -> tuple[Mapping[str, Any], ...]:
        """The visits whose L2 would be of more than one context."""
        return tuple(one for one in self.contexts if len(one["new"]) > 1)

    @property
    def computation(self) -> timedelta | None:
        """Time of the machine for all of it, None while some step was never measured."""
        times = [one.computation for one in self.work]
        return None if None in times else sum((t for t in times if t is not None), timedelta())

    def summary(self) -> dict[str, Any]:
        """Return it as JSON values, for the record and for people."""
        return {
            "change": {"cause": self.change.cause.value, "value": self.change.value},
            "at": self.at.astimezone(UTC).isoformat(),
            "products": _counted(self.products, ("level", "kind")),
            "detectors": _counted(self.products.dropna(subset=["detector"]), ("detector",)),
            "surveys": _counted(self.products, ("survey", "optical_element")),
            "following": _counted(self.following, ("level", "kind")),
            "references": _reference_counts(self.references),
            "exposures": len(self.exposures),
            "visits": len(self.visits),
            "mixed_visits": {
                "count": len(self.mixed_visits),
                "already": sum(len(one["old"]) > 1 for one in self.mixed_visits),
                "visits": [
                    {"visit": one["visit"], "contexts": one["new"]}
                    for one in self.mixed_visits[:_MOST_LISTED]
                ],
            },
            "work": [
                {
                    "step": one.step.value,
                    "runs": one.partitions,
                    "units": one.units,
                    "computation_s": _seconds(one.computation),
                }
                for one in self.work
            ],
            "computation_s": _seconds(self.computation),
            "endangered": {
                "count": len(self.endangered),
                "products": [
                    {"partition": one.partition, "level": one.level, "due": one.due.isoformat()}
                    for one in self.endangered[:_MOST_LISTED]
                ],
            },
        }


def impact_of(
    root: DataRoot,
    change: Change,
    *,
    partitions: Iterable[str] | None = None,
    clock: Clock = utc_now,
) -> Impact:
    """Find what a change would change, cost and endanger. Nothing is made or recorded.

    Parameters
    ----------
    root
        The installation.
    change
        What is new.
    partitions
        Only products of these exposures and visits.
    clock
        Gives the time.

    Raises
    ------
    BadInputError
        If what is new is not there, such as a context that the cache does not have.
    """
    now = clock()
    with Registry(root) as registry:
        with registry.snapshot.connection() as connection:
            affected = AffectedProducts(connection, partitions)
            references = choose_images(root, change, affected)
            products, following = affected.products(), affected.following()
            contexts = affected.contexts_of_visits(_context_after(root, change))
        work = tuple(_work(registry, change, products, following))
        endangered = tuple(_endangered(registry, work, now))
    return Impact(change, now, products, following, references, contexts, work, endangered)


def _context_after(root: DataRoot, change: Change) -> str:
    """Return the context that images would be made with: the operational one, unless it is new."""
    from roman_assets.references.context import configure_crds, operational_context

    if change.cause is Cause.CONTEXT:
        return change.value
    configure_crds(root)
    return operational_context()


def _work(
    registry: Registry, change: Change, products: pd.DataFrame, following: pd.DataFrame
) -> Iterable[WorkEstimate]:
    images = products[products["kind"].isin(["uncal", "cal"])]
    for step in STEPS[change.cause]:
        chosen = images[images["step"] == step]
        if not chosen.empty:
            yield _estimate(registry, step, chosen["exposure"], chosen["file_set"])
    coadds = pd.concat([products, following])
    coadds = coadds[coadds["kind"] == "coadd"]
    if not coadds.empty:
        yield _estimate(registry, Step.VISIT, coadds["visit"], coadds["file_set"])


def _estimate(
    registry: Registry, step: Step, partitions: pd.Series[str], file_sets: pd.Series[str]
) -> WorkEstimate:
    measured = registry.work.unit_times(step)[-_MEASURED_LAST:]
    units = int(file_sets.nunique())
    number = int(partitions.nunique())
    if not measured:
        return WorkEstimate(step, number, units, None, None)
    seconds = sum(time for time, _ in measured) / sum(count for _, count in measured)
    most = int(file_sets.groupby(partitions).nunique().max())
    return WorkEstimate(
        step, number, units, timedelta(seconds=seconds * units), timedelta(seconds=seconds * most)
    )


def _endangered(
    registry: Registry, work: Iterable[WorkEstimate], now: datetime
) -> Iterable[EndangeredProducts]:
    """Find what waits and is late only because a run of this work has begun just before.

    What waits goes first, the earliest due first, one run at a time; so each waits for one run of
    this work and for all that is due before.
    """
    begun = max((one.longest_run for one in work if one.longest_run), default=timedelta())
    waiting = registry.deadlines.groups(state=_WAITING, now=now)
    runs = waiting.dropna(subset=["due"]).sort_values("due")
    times = {Step(step): _run_time(registry, Step(step)) for step in runs["step"].unique()}
    ends = now
    seen: set[tuple[str, str]] = set()
    for row in runs.to_dict("records"):
        if (row["partition"], row["step"]) not in seen:
            seen.add((row["partition"], row["step"]))
            ends += times[Step(row["step"])]
        due = row["due"].to_pydatetime()
        if ends <= due < ends + begun:
            yield EndangeredProducts(row["partition"], row["level"], due)


def _run_time(registry: Registry, step: Step) -> timedelta:
    measured = registry.work.unit_times(step)[-_MEASURED_LAST:]
    return timedelta(seconds=median(time for time, _ in measured)) if measured else timedelta()


def _counted(products: pd.DataFrame, by: tuple[str, ...]) -> list[dict[str, Any]]:
    groups = products.groupby(list(by), sort=True)["size"].agg(["count", "sum"])
    return [
        {
            **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
            "products": int(count),
            "size": int(size),
        }
        for key, count, size in groups.itertuples()
    ]


def _reference_counts(references: ReferenceChanges) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str, str], int] = {}
    for images, changes in references:
        for change in changes:
            key = (change.kind, images.selection.detector, change.old, change.new)
            counts[key] = counts.get(key, 0) + images.images
    names = ("kind", "detector", "old", "new")
    return [
        dict(zip(names, key, strict=True)) | {"images": count}
        for key, count in sorted(counts.items())
    ]


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else round(time.total_seconds(), 1)
