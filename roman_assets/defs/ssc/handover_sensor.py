"""The sensor that tells the SSC which L2 images are ready (R12).

It compares states: the L2 of each visit and exposure that the SSC works on, with what the SSC was
told last. So a reprocessed image is handed over again, and nothing is handed over twice.
An incomplete visit is handed over in part when the SSC has no more than `ssc_reserve` left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.in_progress import partitions_in_progress
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.partitions import exposure_partitions, is_exposure, ssc_visit_partitions
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import EXPOSURE_HANDOVER, RELEASE_HANDOVER, VISIT_HANDOVER
from roman_assets.defs.visit.visit_watch import visit_of_key
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import CLOCK_START, Deadline
from roman_assets.products.kind import Level
from roman_assets.products.observation import VisitId
from roman_assets.products.visit_policy import VisitDecision, VisitProgress, decide
from roman_assets.settings.automation_settings import ssc_reserve

if TYPE_CHECKING:
    from roman_assets.mosaic.manifest import VisitManifest
    from roman_assets.registry.receipts import ToldSsc
    from roman_assets.ssc.handover import HandoverManifest, ReadyImages

VISITS_PER_TICK = 200
"""Largest number of visits compared in one tick: changed ones first, the others in turns."""


@dataclass
class HandoverWatch(Remembered):
    """The visits of an installation that are still to be handed over to the SSC.

    Like `defs.visit.visit_watch.VisitWatch` it is a memory that spares work and decides
    nothing; empty after a restart, when everything is compared.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    faults: Mapping[VisitId, BadInputError] = field(default_factory=dict)
    """The visits that the last look could not list, and why."""
    _waiting: dict[VisitId, None] = field(default_factory=dict)

    @cached_property
    def _changes(self) -> RegistryChanges:
        return RegistryChanges(self.root)

    @property
    def waiting(self) -> int:
        """Number of visits that wait."""
        return len(self._waiting)

    def ready(self, instance: dg.DagsterInstance, now: datetime) -> list[ReadyImages]:
        """Return what to hand over to the SSC now."""
        from roman_assets.mosaic.manifest import listed_visits
        from roman_assets.settings.deadline_settings import deadlines_of
        from roman_assets.ssc.handover import ready_images
        from roman_assets.ssc.released_images import changed_by_releases_alone

        changed = map(visit_of_key, self._changes.look(now).partitions)
        self._waiting = dict.fromkeys([*changed, *self._waiting])
        visits = list(self._waiting)[:VISITS_PER_TICK]
        if not visits:
            return []
        registry = self._changes.registry
        listed = listed_visits(self.root, registry, visits)
        self.faults = dict(listed.faults)
        found = {
            visit: list(ready_images(manifest)) for visit, manifest in listed.manifests.items()
        }
        every = [one for ready in found.values() for one in ready]
        told = registry.receipts.handovers(one.partition for one in every)
        unchanged = changed_by_releases_alone(registry, every, told)
        busy = partitions_in_progress(instance)
        deadlines = deadlines_of(self.root)
        chosen = []
        for visit in visits:
            del self._waiting[visit]
        self._waiting |= dict.fromkeys(listed.faults)
        for visit, ready in found.items():
            for one in ready:
                if one.partition in unchanged:
                    continue
                manifest = listed.manifests[visit]
                progress = _progress(one, manifest, told.get(one.partition), busy, deadlines)
                decision = decide(progress, now, ssc_reserve())
                if decision in (VisitDecision.MAKE, VisitDecision.MAKE_PARTIAL):
                    chosen.append(one)
                if decision is not VisitDecision.LEAVE:
                    # also those to be told now: the next look sees that they were
                    self._waiting[visit] = None
        return chosen


def _progress(
    ready: ReadyImages,
    manifest: VisitManifest,
    told: ToldSsc | None,
    busy: Iterable[str],
    deadlines: Mapping[Level, Deadline],
) -> VisitProgress:
    """Return the progress of the hand-over, for the policy of visits."""
    deadline = deadlines[ready.level]
    start = manifest.executed.get(CLOCK_START[deadline.origin])
    if ready.of_exposure:
        at_work = ready.partition in busy
    else:
        at_work = any(visit_of_key(key) == manifest.visit for key in busy if is_exposure(key))
    return VisitProgress(
        inputs=len(ready.members),
        awaited=ready.awaited,
        at_work=at_work,
        up_to_date=told is not None and told.digest == ready.digest,
        made=None if told is None else told.handed_over,
        due=None if start is None else deadline.due(start),
    )


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the SSC which L2 images of GBTDS visits and spectroscopic exposures are "
    "ready, and again when they are reprocessed.",
)
def handover_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult | dg.SkipReason:
    """Write a manifest for every exposure and visit whose L2 the SSC does not know yet."""
    from roman_assets.ssc.handover import hand_over

    root = installation.root
    with memory.look(context, HandoverWatch, root) as watch:
        told = hand_over(root, watch.ready(context.instance, datetime.now(UTC)))
        for fault in watch.faults.values():
            context.log.warning(str(fault))
    if not told:
        return dg.SkipReason(f"{watch.waiting} visits wait for exposures or their deadline")
    exposures = [one.partition for one in told if is_exposure(one.partition)]
    visits = [one.partition for one in told if not is_exposure(one.partition)]
    return dg.SensorResult(
        asset_events=[handover_event(root, one) for one in told],
        dynamic_partitions_requests=[
            exposure_partitions.build_add_request(exposures),
            ssc_visit_partitions.build_add_request(visits),
        ],
        skip_reason=None,
    )


def handover_event(root: DataRoot, manifest: HandoverManifest) -> dg.AssetMaterialization:
    """Report that the SSC was told."""
    from roman_assets.ssc.exchange import Exchange

    return dg.AssetMaterialization(
        _asset_of(manifest),
        partition=manifest.partition,
        metadata={
            "survey": manifest.survey.value,
            "optical_element": manifest.optical_element.value,
            "images": len(manifest.images),
            "missing": dg.MetadataValue.json(list(manifest.missing)),
            "manifest": dg.MetadataValue.path(Exchange.of(root).location(manifest.key)),
            "handed_over": dg.MetadataValue.timestamp(manifest.handed_over_at),
            "expected": dg.MetadataValue.json(list(manifest.products)),
        },
        tags={DATA_VERSION_TAG: manifest.digest},
    )


def _asset_of(manifest: HandoverManifest) -> dg.AssetKey:
    if manifest.release is not None:
        return RELEASE_HANDOVER
    return EXPOSURE_HANDOVER if is_exposure(manifest.partition) else VISIT_HANDOVER
