"""Images that a person graded bad or withdrew are left out of coadds and releases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.defs.visit.visit_state import visit_states
from roman_assets.errors import BadInputError
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.lifecycle import Quality, State
from roman_assets.products.observation import ExposureId
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import Release
from roman_assets.registry.store.fold import fold
from roman_assets.releases.publication import publish_release
from roman_assets.releases.run import begin_release, work_on_release
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.quality import Grade, grade, withdraw
from roman_assets_tests.support.survey_night import EARLY, FIRST, START, Night

EXPOSURES = [ExposureId(FIRST, number) for number in (1, 2)]
SPOILED, GOOD = (f"{exposure}_wfi01_f158" for exposure in EXPOSURES)
CAL = f"{SPOILED}_cal.asdf"
UNIT = "r00001_r0_v01001001001001"
BAD = Grade(Quality.BAD, "stray light", "A. Person")
FINE = Grade(Quality.OK, "it was the sky", "A. Person")


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """One visit of two exposures, whose L2 are made promptly."""
    night = Night.begun(tmp_path, monkeypatch)
    for number, exposure in enumerate(EXPOSURES):
        night.format(exposure, START + timedelta(hours=number))
    fold(night.root)
    for exposure in EXPOSURES:
        calibrate_exposure(night.root, exposure, context=EARLY, workers=1)
    return night


def images_in(night: Night, release: str = "p") -> list[str]:
    """Give the file sets of the images in the visit's coadd, and check what it says is missing."""
    with Registry(night.root) as registry:
        names = registry.products.find(kind="coadd", release=release)["name"]
        (coadd,) = registry.generations.current(names).values()
    used = sorted(item.name.removesuffix("_cal.asdf") for item in coadd.inputs)
    assert coadd.metadata.get("missing", []) == sorted({SPOILED, GOOD} - set(used))
    return used


def up_to_date(night: Night) -> bool:
    with Registry(night.root) as registry:
        ((state,), _) = visit_states(night.root, registry, [FIRST])
    return state.up_to_date


@pytest.mark.parametrize("graded", [CAL, f"{SPOILED}_uncal.asdf"], ids=["L2", "L1"])
def test_coadds_are_made_again_without_a_bad_image_and_with_it_when_that_is_taken_back(
    night: Night, graded: str
) -> None:
    mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
    assert images_in(night) == [SPOILED, GOOD]
    assert up_to_date(night)
    for given, used in ((BAD, [GOOD]), (FINE, [SPOILED, GOOD])):
        grade(night.root, [graded], given)
        assert not up_to_date(night)
        mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
        assert images_in(night) == used
        assert up_to_date(night)
    assert fsck(night.root) == []


def test_a_bad_image_is_not_awaited(night: Night) -> None:
    grade(night.root, [CAL], BAD)
    with Registry(night.root) as registry:
        manifest = visit_manifests(night.root, registry, [FIRST])[FIRST]
    assert (manifest.missing, manifest.awaited) == ((SPOILED,), ())
    assert [member.name for member in manifest.members] == [f"{GOOD}_cal.asdf"]


def test_a_withdrawn_image_does_not_come_back_until_a_person_makes_it(night: Night) -> None:
    withdraw(night.root, [CAL], reason="wrong target", author="A. Person")
    with Registry(night.root) as registry:
        progress = registry.work.exposure_progress([str(EXPOSURES[0])])
    assert list(progress["calibrated"]) == [True], "no sensor asks for it"
    routine = calibrate_exposure(night.root, EXPOSURES[0], context=EARLY, workers=1, routine=True)
    assert routine.made == ()
    mosaic_visit(night.root, FIRST, context=EARLY, workers=1)
    assert images_in(night) == [GOOD]
    calibrate_exposure(night.root, EXPOSURES[0], context=EARLY, workers=1)
    (_, again) = Registry(night.root).generations.of([CAL])[CAL]
    assert (again.state, again.quality) == (State.CURRENT, Quality.BAD)


def begin(night: Night) -> Release:
    return begin_release(night.root, night.declare(groupings='["visit"]'))


def test_a_release_leaves_out_bad_images_and_its_own_bad_products(night: Night) -> None:
    grade(night.root, [CAL], BAD)
    release = begin(night)
    assert work_on_release(night.root, release, workers=1).complete
    assert images_in(night, "r0") == [GOOD]
    with Registry(night.root) as registry:
        (segmentation,) = registry.products.find(release="r0", kind="visit_segmentation")["name"]
    grade(night.root, [segmentation], BAD)
    published = publish_release(night.root, release)
    assert segmentation in published.lacking
    assert segmentation not in published.published
    assert not fsck(night.root), "what a release leaves out is not hidden by mistake"
    grade(night.root, [segmentation], FINE)
    assert Registry(night.root).generations.current([segmentation])[segmentation].access == "public"


def test_a_release_made_from_an_image_that_is_bad_by_now_is_not_published(night: Night) -> None:
    release = begin(night)
    work_on_release(night.root, release, workers=1)
    grade(night.root, [CAL], BAD)
    with pytest.raises(BadInputError, match=r"graded BAD by now.*roman-assets withdraw"):
        publish_release(night.root, release)
    with Registry(night.root) as registry:
        file_sets = sorted(set(registry.products.find(release="r0")["file_set"]))
    withdraw(night.root, file_sets, reason="with stray light", author="A. Person")
    assert work_on_release(night.root, release, workers=1).complete
    assert images_in(night, "r0") == [GOOD]
    assert publish_release(night.root, release).record_id
