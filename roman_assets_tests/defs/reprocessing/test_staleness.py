from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from roman_assets.defs.lib.partitions import exposure_partitions
from roman_assets.defs.lib.specs import (
    ANCILLARY,
    CALIBRATION_REFERENCES,
    VISIT_REFERENCES,
    upstream_specs,
)
from roman_assets.defs.reprocessing.staleness import (
    EXPOSURE_INPUTS,
    StalenessWatch,
    changed_versions,
    first_version,
)
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.ephemeris import orbit_message
from roman_assets.simulation.telescope.reference_delivery import deliver_reference
from roman_assets_tests.support.dagster_privates import (
    CachingStaleStatusResolver,
    LoadingContext,
    StaleStatus,
)
from roman_assets_tests.support.reprocessed_season import Season, start_of, visit_key
from roman_assets_tests.support.reprocessed_season import exposure_key as season_key
from roman_assets_tests.support.sky import Sky, exposure_key

FIRST, SECOND = exposure_key(1), exposure_key(2)
CAL = dg.AssetKey("cal")


@dg.asset(key=CAL, deps=[CALIBRATION_REFERENCES], partitions_def=exposure_partitions)
def calibrated() -> dg.MaterializeResult:
    return dg.MaterializeResult()


DEFINITIONS = dg.Definitions(
    assets=[spec for spec in upstream_specs() if spec.key == CALIBRATION_REFERENCES] + [calibrated]
)


class Loading(LoadingContext):
    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[Any, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders


def stale(instance: dg.DagsterInstance) -> set[str]:
    """Give the exposures that Dagster shows as stale."""
    graph = DEFINITIONS.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, Loading(instance))
    return {key for key in (FIRST, SECOND) if resolver.get_status(CAL, key) is StaleStatus.STALE}


def calibrate(instance: dg.DagsterInstance, key: str) -> None:
    dg.materialize(DEFINITIONS.assets or [], partition_key=key, instance=instance, selection=[CAL])


def report(
    instance: dg.DagsterInstance, affected: Mapping[str, str], in_force: Collection[str] = ()
) -> int:
    events = list(changed_versions(instance, CALIBRATION_REFERENCES, affected, in_force))
    for event in events:
        instance.report_runless_asset_event(event)
    return len(events)


@pytest.fixture
def made(instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Two exposures are calibrated."""
    instance.add_dynamic_partitions("exposure", [FIRST, SECOND])
    for key in (FIRST, SECOND):
        instance.report_runless_asset_event(first_version(CALIBRATION_REFERENCES, key))
        calibrate(instance, key)
    return instance


def test_dagster_shows_exactly_the_affected_exposures_as_stale(made: dg.DagsterInstance) -> None:
    assert stale(made) == set()
    assert report(made, {FIRST: "roman_0003.pmap"}) == 1
    assert stale(made) == {FIRST}
    assert report(made, {FIRST: "roman_0003.pmap"}) == 0
    calibrate(made, FIRST)
    assert report(made, {}) == 0
    assert stale(made) == set()


def test_what_is_affected_no_more_is_not_stale_any_longer(made: dg.DagsterInstance) -> None:
    report(made, {FIRST: "roman_0003.pmap"})
    assert report(made, {}) == 1
    assert stale(made) == set()
    assert report(made, {}) == 0
    report(made, {FIRST: "roman_0004.pmap"})
    calibrate(made, FIRST)
    report(made, {FIRST: "roman_0005.pmap"})
    assert stale(made) == {FIRST}
    assert report(made, {}) == 1
    assert stale(made) == set()
    assert report(made, {}) == 0


def test_what_was_made_again_is_not_stale_though_dagster_hears_of_it_later(
    made: dg.DagsterInstance,
) -> None:
    new = "roman_0003.pmap"
    report(made, {FIRST: new}, {new})
    assert report(made, {}, {new}) == 0
    calibrate(made, FIRST)
    assert report(made, {}, {new}) == 0
    assert stale(made) == set()


def test_keys_that_were_put_away_are_not_reported(made: dg.DagsterInstance) -> None:
    made.delete_dynamic_partition("exposure", FIRST)
    assert report(made, {FIRST: "roman_0003.pmap"}) == 0


def test_what_is_new_gives_other_versions_to_what_it_affects_only(
    tmp_path: Path,
    cache_of_three: Path,
) -> None:
    from roman_assets.data_root import DataRoot

    root = DataRoot(tmp_path / "data")
    season = Season(root)
    season.observe((1, 3), CONTEXTS[1])
    watch = StalenessWatch(root)
    assert not any(watch.versions().values())
    new = deliver_reference(cache_of_three, "photom", "WFI02", use_after=start_of(3, 2))
    (root.landing).mkdir(parents=True)
    for kind in EphemerisKind:
        text = orbit_message(start_of(1, 1), start_of(1, 9), kind)
        (root.landing / f"{kind.lower()}.oem").write_text(text)
    LandingArea(root).scan()
    assert watch.versions() == {
        CALIBRATION_REFERENCES: {season_key(3, 2): new},
        VISIT_REFERENCES: {visit_key(3): new},
        ANCILLARY: dict.fromkeys([season_key(1, 1), season_key(1, 2)], "definitive.oem"),
    }


def test_coadds_of_another_pixel_scale_than_is_set_are_shown_as_stale(
    tmp_path: Path,
    cache_of_three: Path,
) -> None:
    from roman_assets.data_root import DataRoot

    root = DataRoot(tmp_path / "data")
    Season(root).observe((1,), CONTEXTS[1])
    watch = StalenessWatch(root)
    assert not watch.versions()[VISIT_REFERENCES]
    (root.path / "coadds.toml").write_text('version = 1\nprompt_visit = "skymap"\n')
    assert watch.versions()[VISIT_REFERENCES] == {visit_key(1): "skymap pixels"}
    new = deliver_reference(cache_of_three, "photom", "WFI02", use_after=start_of(1, 1))
    assert watch.versions()[VISIT_REFERENCES] == {visit_key(1): f"{new}, skymap pixels"}
    (root.path / "coadds.toml").unlink()
    assert watch.versions()[VISIT_REFERENCES] == {visit_key(1): new}


def test_every_exposure_and_visit_has_a_version_before_it_is_made(sky: Sky) -> None:
    def observed(asset: dg.AssetKey) -> list[str | None]:
        records = sky.instance.fetch_observations(asset, limit=10).records
        return [
            record.asset_observation.partition for record in records if record.asset_observation
        ]

    sky.receive(FIRST)
    sky.look_at_landing()
    for asset in EXPOSURE_INPUTS:
        assert observed(asset) == [FIRST]
    sky.end_runs()
    sky.process(FIRST)
    sky.process(SECOND)
    (request,) = sky.look_at_visits()
    assert observed(VISIT_REFERENCES) == [request.partition_key]
    sky.end_runs()
    sky.receive(FIRST, "again")
    sky.look_at_landing()
    assert len(observed(CALIBRATION_REFERENCES)) == 1
