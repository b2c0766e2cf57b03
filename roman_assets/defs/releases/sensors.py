"""Backfills that make a data release: first its L2, then its units, after all prompt products.

`roman-assets release run` begins a release and launches its first backfill. The sensor goes on: it
launches the first backfill where that command died before, and that over the units when the L2 are
made; the units that the SSC delivers are handed over to it. What failed for a passing fault is
launched again with growing pauses. What was cancelled, or found its input unusable, waits for a
person to run the release again. The registry tells what there is to do, so that a backfill is over
what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, takewhile
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.lib.backfill import launch_backfill
from roman_assets.defs.lib.dagster_internals import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)
from roman_assets.defs.lib.partition_work import CONTEXT_TAG, RELEASE_TAG, REPROCESSING_TAG
from roman_assets.defs.lib.partitions import exposure_partitions, release_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.run_history import keys_to_try_again
from roman_assets.defs.lib.specs import asset_key
from roman_assets.defs.ssc.handover_sensor import handover_event
from roman_assets.products.kind import KIND_BY_NAME, Level, Step
from roman_assets.products.priority import PRIORITY_TAG, REPROCESSING_PRIORITY
from roman_assets.products.retry import RetryPauses

if TYPE_CHECKING:
    from roman_assets.defs.lib.dagster_internals import BaseAssetGraph
    from roman_assets.registry.releases.state import Release, ReleaseState

LEVEL_TAG = "roman_assets/level"


@dataclass(frozen=True)
class Stage:
    """One backfill's work of a release.

    Parameters
    ----------
    level
        What is made.
    asset
        What the backfill asks for; all that is made together comes with it.
    partitions
        What keys them.
    keys
        What is left to do.
    """

    level: Level
    asset: dg.AssetKey
    partitions: dg.DynamicPartitionsDefinition
    keys: tuple[str, ...]


def stages(state: ReleaseState, *, try_again: bool) -> tuple[Stage, Stage]:
    """Return the two backfills that make a release, each with what is left for it.

    Parameters
    ----------
    state
        How far the release is.
    try_again
        With the exposures of which a detector failed.
    """
    exposures = state.exposures_to_try if try_again else state.exposures_left
    return (
        Stage(
            Level.L2,
            asset_key(Step.EXPOSURE, KIND_BY_NAME["cal"]),
            exposure_partitions,
            tuple(map(str, exposures)),
        ),
        Stage(
            Level.L3,
            asset_key(Step.RELEASE, KIND_BY_NAME["coadd"]),
            release_partitions,
            tuple(map(str, state.units_left)),
        ),
    )


def launch(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,  # type: ignore[type-arg]
    state: ReleaseState,
    *,
    by_person: bool = False,
    pauses: RetryPauses = RetryPauses(),  # noqa: B008 (frozen)
    now: datetime | None = None,
) -> str | None:
    """Launch the next backfill of a release, if there is something to do and none is under way.

    Parameters
    ----------
    instance
        Keeps the backfills.
    graph
        The assets.
    state
        How far the release is.
    by_person
        Whether somebody asks for it: then also what failed for bad input is tried again.
    pauses
        Between backfills that fail.
    now
        UTC; the present if left out.

    Returns
    -------
    str or None
        The backfill's id.
    """
    release = state.release
    known = backfills_of(instance, release)
    if any(one.status not in BULK_ACTION_TERMINAL_STATUSES for one in known):
        return None
    wanted = next((one for one in stages(state, try_again=by_person) if one.keys), None)
    if wanted is not None and not by_person:
        wanted = _by_itself(instance, known, wanted, pauses, now or datetime.now(UTC))
    if wanted is None:
        return None
    backfill_id = _backfill_id(release, len(known) + 1)
    launch_backfill(
        instance,
        graph,
        backfill_id,
        partitions=wanted.partitions,
        keys=wanted.keys,
        assets=[wanted.asset],
        tags={**release_tags(release), LEVEL_TAG: wanted.level.value},
        title=f"{release.declaration}: {wanted.level}",
        description=(
            f"Data release {release.declaration} with {release.declaration.context} and "
            f"romancal {release.declaration.romancal}."
        ),
    )
    return backfill_id


def backfills_of(instance: dg.DagsterInstance, release: Release) -> Sequence[PartitionBackfill]:
    """Return the backfills of a release, in the order in which they were launched."""
    found = (instance.get_backfill(_backfill_id(release, number)) for number in count(1))
    return [backfill for backfill in takewhile(lambda one: one is not None, found) if backfill]


def _backfill_id(release: Release, number: int) -> str:
    return f"{release.partition}_{number}"


def release_tags(release: Release) -> dict[str, str]:
    """Return the tags of runs for a release: which one, with what, and after prompt products."""
    return {
        RELEASE_TAG: release.partition,
        REPROCESSING_TAG: "release",
        CONTEXT_TAG: release.declaration.context,
        PRIORITY_TAG: str(REPROCESSING_PRIORITY),
    }


def _by_itself(
    instance: dg.DagsterInstance,
    known: Sequence[PartitionBackfill],
    wanted: Stage,
    pauses: RetryPauses,
    now: datetime,
) -> Stage | None:
    """Return what is launched without a person: each stage once, and what may succeed now."""
    if known and known[-1].status is BulkActionStatus.CANCELED:
        return None
    levels = [one.tags.get(LEVEL_TAG) for one in known]
    if wanted.level not in levels:
        return wanted
    if levels[-1] != wanted.level:
        return None
    keys = keys_to_try_again(instance, known, wanted.keys, pauses, now)
    return replace(wanted, keys=keys) if keys else None


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Goes on with data releases that were begun: when the L2 are made, with L3 and L4, "
    "and tells the SSC of the L2 that it makes products of.",
)
def release_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Launch what is next of every release that was begun and is not published; tell the SSC."""
    from roman_assets.registry.registry import Registry
    from roman_assets.registry.releases.state import begun_releases, release_state
    from roman_assets.settings.retry_settings import retry_pauses_of
    from roman_assets.ssc.handover import hand_over
    from roman_assets.ssc.released_images import untold_units

    assert context.repository_def is not None
    launched, pauses, untold = [], retry_pauses_of(installation.root), []
    with Registry(installation.root) as registry:
        open_releases = [
            release for release in begun_releases(registry).values() if release.published_at is None
        ]
        for release in open_releases:
            state = release_state(registry, release)
            backfill = launch(
                context.instance, context.repository_def.asset_graph, state, pauses=pauses
            )
            launched += [] if backfill is None else [backfill]
            untold += untold_units(registry, state)
    told = hand_over(installation.root, untold)
    if told:
        return dg.SensorResult(
            asset_events=[handover_event(installation.root, one) for one in told],
            dynamic_partitions_requests=[
                release_partitions.build_add_request([one.partition for one in told])
            ],
        )
    if launched:
        return dg.SkipReason(f"launched {', '.join(launched)}")
    return dg.SkipReason(f"{len(open_releases)} releases are being made")
