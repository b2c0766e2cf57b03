"""Runs that nobody asked for replace nothing, and make what was lost as it was (R7, R13, R15)."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from roman_assets.calibration import calibration_plan
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.defs.exposure import assets as exposure_assets
from roman_assets.defs.exposure.assets import level2
from roman_assets.defs.lib.partition_work import PartitionOutcome
from roman_assets.defs.lib.partitions import exposure_partitions, visit_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.visit import assets as visit_assets
from roman_assets.defs.visit.assets import level3
from roman_assets.mosaic import visit as visit_pipeline
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.store.fold import fold
from roman_assets.software import installed_software
from roman_assets.upkeep.retention import remove, supersede
from roman_assets_tests.support.survey_night import (
    EARLY,
    EXPOSURES,
    FIRST,
    LATE,
    START,
    Night,
)

ROUTINE = {"dagster/sensor_name": "some_sensor"}
EXPOSURE = ExposureId(FIRST, 1)


@pytest.fixture(scope="module")
def _prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as patch:
        night = Night.observed(place, patch)
        for exposure in EXPOSURES[:2]:
            calibrate_exposure(night.root, exposure, context=EARLY, data_release="r0", workers=1)
        mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
    return place


@pytest.fixture
def night(_prompt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """A visit made with the early context, its L2 for a release; now the late one is the best."""
    night = Night.copied(_prompt, tmp_path / "night", monkeypatch)
    for pipeline in (calibration_plan, visit_pipeline):
        monkeypatch.setattr(pipeline, "operational_context", lambda: LATE)
    return night


def run(night: Night, key: str) -> None:
    """Do the work of a run that a sensor requested."""
    if "_" in key:
        calibrate_exposure(night.root, ExposureId.parse(key), routine=True, workers=1)
    else:
        mosaic_visit(night.root, VisitId.parse(key), routine=True, workers=1)


def materialize(night: Night, key: str, tags: dict[str, str]) -> None:
    """Materialize an exposure, or a visit, in a run with these tags."""
    asset, keys = (level2, exposure_partitions) if "_" in key else (level3, visit_partitions)
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        for module in (exposure_assets, visit_assets):
            # without pictures: the products are no images
            patch.setattr(module, "outcome_of", lambda *work, **checks: PartitionOutcome())
        instance.add_dynamic_partitions(keys.name, [key])
        dg.materialize(
            [asset],
            instance=instance,
            partition_key=key,
            resources={"installation": Installation(data_root=str(night.root.path), workers=1)},
            tags=tags,
        )


def products(night: Night, **search: object) -> dict[str, RegisteredProduct]:
    with Registry(night.root) as registry:
        return registry.generations.current(registry.products.find(**search)["name"])


def is_calibrated(night: Night) -> bool:
    with Registry(night.root) as registry:
        return bool(registry.work.exposure_progress([str(EXPOSURE)])["calibrated"].all())


def test_a_routine_run_replaces_no_l2_of_the_same_l1(night):
    before = products(night, exposure=str(EXPOSURE))
    run(night, str(EXPOSURE))
    assert products(night, exposure=str(EXPOSURE)) == before


def test_a_routine_run_makes_lost_l2_with_its_context_and_for_its_release(night):
    before = products(night, exposure=str(EXPOSURE), step="exposure")
    night.lose(before)
    assert not products(night, exposure=str(EXPOSURE), step="exposure")
    run(night, str(EXPOSURE))
    after = products(night, exposure=str(EXPOSURE), step="exposure")
    assert after.keys() == before.keys()
    assert {(one.context, one.metadata["data_release"]) for one in after.values()} == {
        (EARLY, "r0")
    }


@pytest.mark.parametrize("kind", ["supplement", "exposure_catalog", "cal"])
def test_a_lost_product_is_made_as_it_was_and_the_others_stay(night, kind):
    before = products(night, exposure=str(EXPOSURE), step="exposure")
    (lost,) = (name for name, one in before.items() if one.product_name.kind.name == kind)
    assert is_calibrated(night)
    night.lose([lost])
    assert not is_calibrated(night), "a sensor asks for a run"
    run(night, str(EXPOSURE))
    assert is_calibrated(night)
    after = products(night, exposure=str(EXPOSURE), step="exposure")
    changed = {name for name in before if after[name].generation != before[name].generation}
    assert changed == {lost}
    assert (after[lost].context, after[lost].fingerprint) == (EARLY, before[lost].fingerprint)


def set_scale(night: Night, scale: str) -> None:
    (night.root.path / "coadds.toml").write_text(f'version = 1\nprompt_visit = "{scale}"\n')


def test_a_routine_run_keeps_the_pixel_scale_of_coadds_and_makes_lost_ones_with_it(night):
    before = products(night, visit=str(FIRST), step="visit")
    set_scale(night, "skymap")
    run(night, str(FIRST))
    assert products(night, visit=str(FIRST), step="visit") == before
    night.lose(before)
    run(night, str(FIRST))
    after = products(night, visit=str(FIRST), step="visit")
    assert {name: one.fingerprint for name, one in after.items()} == {
        name: one.fingerprint for name, one in before.items()
    }
    assert {one.metadata["pixel_scale"] for one in after.values()} == {0.11}


def test_a_run_that_a_person_asks_for_makes_coadds_with_the_pixel_scale_that_is_set(night):
    before = products(night, visit=str(FIRST), step="visit")
    mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
    assert products(night, visit=str(FIRST), step="visit") == before
    set_scale(night, "skymap")
    mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
    after = products(night, visit=str(FIRST), step="visit")
    assert after.keys() == before.keys()
    for name, one in after.items():
        assert one.metadata["pixel_scale"] == 0.055
        assert one.fingerprint != before[name].fingerprint


def with_other_software(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = installed_software(Step.EXPOSURE) | {"romancal": "9.9.9"}
    monkeypatch.setattr(calibration_plan, "installed_software", lambda step: versions)


def test_nothing_is_added_to_an_l2_that_other_software_made(night, monkeypatch):
    with_other_software(monkeypatch)
    before = products(night, exposure=str(EXPOSURE))
    (catalog,) = (name for name in before if name.endswith("cat.parquet"))
    night.lose([catalog])
    run(night, str(EXPOSURE))
    assert products(night, exposure=str(EXPOSURE)).keys() == before.keys() - {catalog}
    with Registry(night.root) as registry:
        (failure,) = registry.work.failures(str(EXPOSURE))["message"]
    assert "made with" in failure
    assert "propose" in failure
    assert is_calibrated(night), "no sensor asks for it again and again"


def test_a_lost_l2_that_other_software_makes_is_no_product_of_the_release(night, monkeypatch):
    with_other_software(monkeypatch)
    before = products(night, exposure=str(EXPOSURE), step="exposure")
    night.lose([name for name in before if name.endswith("cal.asdf")])
    run(night, str(EXPOSURE))
    after = products(night, exposure=str(EXPOSURE), step="exposure")
    assert after.keys() == before.keys()
    assert {one.software["romancal"] for one in after.values()} == {"9.9.9"}
    assert {one.context for one in after.values()} == {EARLY}
    assert not any("data_release" in one.metadata for one in after.values())


def test_l2_of_another_l1_is_made_with_the_best_context(night):
    night.format(EXPOSURE, START)
    fold(night.root)
    (ramp,) = products(night, exposure=str(EXPOSURE), kind="uncal").values()
    assert ramp.generation == 2
    # the same bytes are the same L1, whatever record tells of them
    run(night, str(EXPOSURE))
    (image,) = products(night, exposure=str(EXPOSURE), kind="cal").values()
    assert image.context == EARLY
    night.format(EXPOSURE, START, "another ramp")
    fold(night.root)
    run(night, str(EXPOSURE))
    for one in products(night, exposure=str(EXPOSURE), step="exposure").values():
        assert one.context == LATE
        assert "data_release" not in one.metadata


@pytest.mark.parametrize("key", [str(EXPOSURE), str(FIRST)])
@pytest.mark.parametrize(
    ("tags", "context"),
    [
        ({}, LATE),
        (ROUTINE, EARLY),
        (ROUTINE | {"roman_assets/context": LATE}, LATE),
    ],
    ids=["a person", "a sensor", "a sensor for an approved proposal"],
)
def test_who_asked_for_a_run_decides_whether_it_replaces_products(night, key, tags, context):
    materialize(night, key, tags)
    made = products(night, partition=key).values()
    assert {one.context for one in made if one.product_name.kind.level != "L1"} == {context}


def test_a_routine_run_replaces_no_coadd_of_the_same_l2(night):
    before = products(night, partition=str(FIRST))
    run(night, str(FIRST))
    assert products(night, partition=str(FIRST)) == before


def test_a_routine_run_makes_coadds_of_other_l2_with_the_best_context(night):
    calibrate_exposure(night.root, EXPOSURE, context=LATE, workers=1)
    run(night, str(FIRST))
    made = products(night, partition=str(FIRST)).values()
    assert {(one.generation, one.context) for one in made} == {(2, LATE)}


@pytest.mark.parametrize("lost", ["coadd.asdf", "cat.parquet"])
def test_lost_products_of_a_visit_are_made_as_they_were(night, lost):
    before = products(night, partition=str(FIRST))
    gone = {name for name in before if name.endswith(lost)}
    night.lose(gone)
    run(night, str(FIRST))
    after = products(night, partition=str(FIRST))
    assert {name for name in before if after[name].generation == 2} == gone
    assert {one.context for one in after.values()} == {EARLY}


def test_a_coadd_that_was_removed_after_its_time_does_not_come_back(night):
    (coadd,) = products(night, partition=str(FIRST), kind="coadd")
    supersede(night.root, [coadd], reason="r0 is published", cause="r0")
    remove(night.root, [coadd], reason="its time is over", cause="retention")
    run(night, str(FIRST))
    assert not products(night, partition=str(FIRST))
