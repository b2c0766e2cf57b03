"""The sensor by which Dagster shows what is not up to date: the affected partitions, and no others.

It reports the inputs that no asset makes, `CALIBRATION_REFERENCES`, `VISIT_REFERENCES` and
`ANCILLARY`, with a data version for each exposure and visit. At first that says nothing. When the
operational context would choose another reference for an image, a definitive ephemeris covers an
exposure with a predicted one, or another pixel scale of coadds is set, the version is another, and
Dagster shows what is made with it as stale. Nothing is reprocessed because of it (R15). The
versions follow from registry, cache, landing area and settings as they are; no event is remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.partitions import exposure_partitions, visit_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import ANCILLARY, CALIBRATION_REFERENCES, VISIT_REFERENCES
from roman_assets.errors import BadInputError

if TYPE_CHECKING:
    from datetime import datetime

    from roman_assets.products.pixel_scale import PixelScale
    from roman_assets.records.record import Change
    from roman_assets.registry.registry import Registry

FIRST_VERSION = "first"
"""Data version of what a partition is made with at first."""

EXPOSURE_INPUTS = (ANCILLARY, CALIBRATION_REFERENCES)

REPORTS_PER_TICK = 100
"""A report takes Dagster's SQLite storage some 30 to 160 ms."""

_MADE_WITH = {
    ANCILLARY: dg.AssetKey("uncal"),
    CALIBRATION_REFERENCES: dg.AssetKey("cal"),
    VISIT_REFERENCES: dg.AssetKey("coadd"),
}


def first_version(asset: dg.AssetKey, partition: str) -> dg.AssetObservation:
    """Report an input of a partition that is about to be made for the first time.

    Dagster compares versions with that observed before; without one nothing would ever be stale.
    """
    return _observation(asset, partition, FIRST_VERSION)


def _observation(
    asset: dg.AssetKey, partition: str, version: str, why: str | None = None
) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset,
        partition=partition,
        metadata={} if why is None else {"why": why},
        tags={DATA_VERSION_TAG: version},
    )


@dataclass
class StalenessWatch(Remembered):
    """What is affected by what is new, worked out again when the registry or its inputs change.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    in_force: frozenset[str] = frozenset()
    """The versions that something may be made with, as `versions` has found them."""
    _latest_commit: datetime | None = None
    _versions: Mapping[dg.AssetKey, Mapping[str, str]] | None = None

    def versions(self) -> Mapping[dg.AssetKey, Mapping[str, str]]:
        """Return by asset and partition the version it would be made with, where affected."""
        from roman_assets.formatting.landing import definitive_ephemerides
        from roman_assets.references.context import configure_crds, operational_context
        from roman_assets.registry.registry import Registry
        from roman_assets.settings.coadd_settings import prompt_pixel_scale

        configure_crds(self.root)
        context, scale = operational_context(), prompt_pixel_scale(self.root)
        ephemerides = definitive_ephemerides(self.root)
        with Registry(self.root) as registry:
            in_force = {context, *ephemerides, *visit_versions(context, scale)}
            known = (frozenset(in_force), registry.work.latest_commit())
            if self._versions is None or known != (self.in_force, self._latest_commit):
                self._versions = affected_versions(self.root, registry, context, scale, ephemerides)
                self.in_force, self._latest_commit = known
        return self._versions


def visit_versions(context: str, scale: PixelScale) -> tuple[str, str, str]:
    """Return the versions of a visit's references: of a context, of a pixel scale, of both."""
    named = f"{scale} pixels"
    return context, named, f"{context}, {named}"


def affected_versions(
    root: DataRoot,
    registry: Registry,
    context: str,
    scale: PixelScale,
    ephemerides: Iterable[str],
) -> Mapping[dg.AssetKey, Mapping[str, str]]:
    """Work out which exposures and visits a context, a pixel scale and ephemerides affect."""
    from roman_assets.records.record import Cause, Change
    from roman_assets.reprocessing.change import ephemeris_change

    exposures, visits = _affected(root, registry, Change(cause=Cause.CONTEXT, value=context))
    _, scaled = _affected(root, registry, Change(cause=Cause.PIXEL_SCALE, value=scale))
    of_context, of_scale, of_both = visit_versions(context, scale)
    orbits: dict[str, str] = {}
    for name in ephemerides:
        try:
            change = ephemeris_change(root, name)
        except BadInputError:  # it has been removed since
            continue
        covered, _ = _affected(root, registry, change)
        orbits |= dict.fromkeys(covered, name)
    return {
        CALIBRATION_REFERENCES: dict.fromkeys(exposures, context),
        VISIT_REFERENCES: {
            **dict.fromkeys(visits - scaled, of_context),
            **dict.fromkeys(scaled - visits, of_scale),
            **dict.fromkeys(visits & scaled, of_both),
        },
        ANCILLARY: orbits,
    }


def _affected(root: DataRoot, registry: Registry, change: Change) -> tuple[set[str], set[str]]:
    from roman_assets.reprocessing.affected import AffectedProducts
    from roman_assets.reprocessing.change import choose_images

    with registry.snapshot.connection() as connection:
        affected = AffectedProducts(connection)
        choose_images(root, change, affected)
        products, following = affected.products(), affected.following()
    coadds = products[products["step"] == "visit"]
    return set(products["exposure"].dropna()), {*coadds["visit"], *following["visit"]}


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks assets stale if they would come out differently today. Never starts a run.",
)
def staleness_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult | dg.SkipReason:
    """Report new data versions of references and ephemerides where they are others."""
    try:
        with memory.look(context, StalenessWatch, installation.root) as watch:
            versions = watch.versions()
    except BadInputError as error:
        return dg.SkipReason(f"staleness cannot be determined: {error}")
    reports = [
        report
        for asset, of_asset in versions.items()
        for report in changed_versions(context.instance, asset, of_asset, watch.in_force)
    ]
    told = reports[:REPORTS_PER_TICK]
    return dg.SensorResult(
        asset_events=told,
        skip_reason=dg.SkipReason(f"{len(told)} of {len(reports)} new data versions reported"),
    )


def changed_versions(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    affected: Mapping[str, str],
    in_force: Collection[str] = (),
) -> Iterator[dg.AssetObservation]:
    """Yield the observations that Dagster lacks of one input.

    Parameters
    ----------
    instance
        Holds what was observed before, and the keys.
    asset
        The input.
    affected
        Version by partition, of those that would come out differently.
    in_force
        Versions that are not withdrawn. A partition that was told one of them and is not affected
        any more was made with it: it is on record before Dagster hears of it.
    """
    definition = visit_partitions if asset == VISIT_REFERENCES else exposure_partitions
    keys = instance.get_dynamic_partitions(str(definition.name))
    observed = {
        key: tags[DATA_VERSION_TAG]
        for key, tags in instance.event_log_storage.get_latest_tags_by_partition(
            asset, DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
        ).items()
    }
    for key in sorted(affected.keys() & set(keys)):
        if observed.get(key) != affected[key]:
            yield _observation(asset, key, affected[key], f"affected by {affected[key]}")
    kept = {FIRST_VERSION, *in_force}
    other = {
        key: observed[key]
        for key in keys
        if key not in affected and observed.get(key, FIRST_VERSION) not in kept
    }
    yield from _taken_back(instance, asset, other)


def _taken_back(
    instance: dg.DagsterInstance, asset: dg.AssetKey, observed: Mapping[str, str]
) -> Iterator[dg.AssetObservation]:
    """Report the former version of partitions that are affected no more, without being reprocessed.

    That is so when a context was withdrawn.
    """
    if not observed:
        return
    wanted = set(observed)
    storage = instance.event_log_storage
    made = storage.get_latest_storage_id_by_partition(
        _MADE_WITH[asset], DagsterEventType.ASSET_MATERIALIZATION, wanted
    )
    seen = storage.get_latest_storage_id_by_partition(
        asset, DagsterEventType.ASSET_OBSERVATION, wanted
    )
    for key, version in observed.items():
        if key in made and made[key] < seen[key]:
            former = _version_before(instance, asset, key, made[key])
            if former != version:
                yield _observation(asset, key, former, "affected no more")


def _version_before(
    instance: dg.DagsterInstance, asset: dg.AssetKey, key: str, storage_id: int
) -> str:
    records = instance.fetch_observations(
        dg.AssetRecordsFilter(asset, asset_partitions=[key], before_storage_id=storage_id), limit=1
    ).records
    observation = records[0].event_log_entry.asset_observation if records else None
    return FIRST_VERSION if observation is None else observation.tags[DATA_VERSION_TAG]
