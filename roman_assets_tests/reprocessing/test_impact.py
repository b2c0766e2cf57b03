from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.products.kind import Step
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.registry.registry import Registry
from roman_assets.reprocessing.change import (
    context_change,
    data_change,
    ephemeris_change,
    level0_change,
    pixel_scale_change,
    software_change,
)
from roman_assets.reprocessing.impact import Impact, impact_of
from roman_assets.reprocessing.impact_text import impact_lines
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.ephemeris import orbit_message
from roman_assets.simulation.telescope.reference_delivery import deliver_reference
from roman_assets.software import installed_version
from roman_assets_tests.support.reprocessed_season import (
    DETECTORS,
    RUN_SECONDS,
    Season,
    detector_names,
    exposure_key,
    skycell_names,
    start_of,
    visit_key,
)

EARLY, TRUE = CONTEXTS
NAMES_OF_ALL = tuple(
    (visit, number, detector) for visit in (1, 2) for number in (1, 2) for detector in DETECTORS
)


def names(impact: Impact) -> set[str]:
    return set(impact.products["name"])


def of_images(*images: tuple[int, int, int]) -> set[str]:
    return {
        name
        for visit, number, detector in images
        for name in detector_names(exposure_key(visit, number), detector)
    }


def test_one_new_reference_names_exactly_the_products_of_its_detector(
    season: Season, cache_of_three: Path
) -> None:
    season.observe((1, 2), TRUE)
    new = deliver_reference(cache_of_three, "photom", "WFI02", use_after=start_of(1, 2))
    impact = impact_of(season.root, context_change(season.root, new))
    assert names(impact) == of_images((1, 2, 2), (2, 1, 2), (2, 2, 2))
    assert set(impact.following["name"]) == {*skycell_names(1), *skycell_names(2)}
    assert impact.exposures == (exposure_key(1, 2), exposure_key(2, 1), exposure_key(2, 2))
    assert impact.visits == (visit_key(1), visit_key(2))
    assert [one["visit"] for one in impact.mixed_visits] == [visit_key(1), visit_key(2)]


def test_what_was_made_again_is_affected_no_more(season: Season, cache_of_three: Path) -> None:
    season.observe((1,), TRUE)
    new = deliver_reference(cache_of_three, "photom", "WFI02")
    season.calibrate(1, 1, new, detectors=(2,), at=datetime(2028, 1, 1, tzinfo=UTC))
    season.observe((2,), new)
    impact = impact_of(season.root, context_change(season.root, new))
    assert names(impact) == of_images((1, 2, 2))
    (mixed,) = impact.mixed_visits
    assert mixed["old"] == mixed["new"] == [TRUE, new]


def test_the_references_that_change_are_told(season: Season) -> None:
    season.observe((1,), EARLY)
    summary = impact_of(season.root, context_change(season.root, TRUE)).summary()
    told = {(row["kind"], row["detector"], row["images"]) for row in summary["references"]}
    assert told == {("photom", f"WFI0{detector}", 2) for detector in DETECTORS}
    assert summary["mixed_visits"]["count"] == 0


def test_volume_and_time_are_counted_from_what_happened(season: Season) -> None:
    season.observe((1, 2), EARLY)
    impact = impact_of(season.root, context_change(season.root, TRUE))
    assert impact.products["size"].sum() == 1_000 * len(of_images(*NAMES_OF_ALL))
    work = {one.step: one for one in impact.work}
    assert (work[Step.EXPOSURE].partitions, work[Step.EXPOSURE].units) == (4, 12)
    assert work[Step.EXPOSURE].computation == timedelta(seconds=12 * RUN_SECONDS)
    assert work[Step.VISIT].computation == timedelta(seconds=2 * RUN_SECONDS)
    assert impact.computation == timedelta(seconds=14 * RUN_SECONDS)
    lines = dict(impact_lines(impact.summary()))
    assert lines["products that change"] == "48 (L1: 12, L2: 12, L4: 24), 48.0 kB"
    assert lines["computation"].startswith("14.0 min of one machine")


def test_a_deadline_that_one_run_of_reprocessing_would_miss_is_named(season: Season) -> None:
    season.observe((1,), EARLY)
    now = start_of(9, 1)
    spare = timedelta(seconds=2.5 * RUN_SECONDS)
    season.wait_for(5, 1, now - timedelta(hours=24) + spare)
    change = context_change(season.root, TRUE)
    impact = impact_of(season.root, change, clock=lambda: now)
    assert {(one.partition, one.level) for one in impact.endangered} == {(exposure_key(5, 1), "L1")}
    much = impact_of(season.root, change, clock=lambda: now - timedelta(minutes=30))
    assert not much.endangered
    late = impact_of(season.root, change, clock=lambda: now + timedelta(minutes=30))
    assert not late.endangered


def test_another_version_of_a_package_names_what_was_made_with_others(season: Season) -> None:
    season.observe((1,), TRUE)
    season.software = {"romancal": "1.1.0"}
    season.observe((2,), TRUE)
    impact = impact_of(season.root, software_change("romancal=1.1.0"))
    assert set(impact.products["visit"]) == {visit_key(1)}
    assert set(impact.products["step"]) == {Step.EXPOSURE, Step.VISIT}
    assert impact_of(season.root, software_change("stcal=2.0")).products.empty


def test_corrected_formatting_code_names_the_l1_that_was_made_with_other_code(
    season: Season,
) -> None:
    season.software = {"roman_assets": "0.1.0+g1", "roman_assets.formatting": "before"}
    season.observe((1,), TRUE)
    recipe = installed_version("roman_assets.formatting") or ""
    season.software = {"roman_assets": "0.1.0+g2", "roman_assets.formatting": recipe}
    season.observe((2,), TRUE)
    impact = impact_of(season.root, software_change("roman_assets.formatting"))
    formatted = impact.products[impact.products["step"] == Step.FORMATTING]
    assert set(formatted["visit"]) == {visit_key(1)}


@pytest.mark.parametrize("name", ["roman-assets", "asdf", "roman_asets.formatting"])
def test_software_that_decides_nothing_is_refused_and_what_decides_is_named(name: str) -> None:
    with pytest.raises(BadInputError, match=r"no product.*numpy.*roman_assets\.formatting"):
        software_change(name)


@pytest.mark.parametrize("stated", [PixelScale.SKYMAP, None])
def test_another_pixel_scale_names_the_coadds_of_the_former_one_and_their_l4(
    season: Season, stated: PixelScale | None
) -> None:
    season.observe((1,), TRUE)
    season.pixel_scale = stated
    season.observe((2,), TRUE)
    impact = impact_of(season.root, pixel_scale_change("native"))
    assert names(impact) == set(skycell_names(2))
    assert (impact.exposures, impact.visits) == ((), (visit_key(2),))
    assert [(one.step, one.units) for one in impact.work] == [(Step.VISIT, 1)]
    assert names(impact_of(season.root, pixel_scale_change("skymap"))) == set(skycell_names(1))
    with pytest.raises(BadInputError, match="native, skymap"):
        pixel_scale_change("coarse")


def test_a_definitive_ephemeris_names_what_has_a_predicted_one_within_its_time(
    season: Season,
) -> None:
    season.observe((1, 3), TRUE)
    season.ephemeris = "DEFINITIVE"
    season.observe((4,), TRUE)
    season.root.landing.mkdir(parents=True)
    for kind in EphemerisKind:
        message = orbit_message(start_of(3, 1), start_of(4, 9), kind)
        (season.root.landing / f"{kind}.oem".lower()).write_text(message)
    change = ephemeris_change(season.root, "definitive.oem")
    impact = impact_of(season.root, change)
    assert impact.exposures == (exposure_key(3, 1), exposure_key(3, 2))
    assert set(impact.products["kind"]) >= {"uncal", "cal"}
    with pytest.raises(BadInputError, match="predicted"):
        ephemeris_change(season.root, "predicted.oem")
    day = season.root.landing / "day"
    day.mkdir()
    (season.root.landing / "definitive.oem").rename(day / "definitive.oem")
    for name in ("day/definitive.oem", str(day / "definitive.oem")):
        change = ephemeris_change(season.root, name)
        assert change.value == "day/definitive.oem"
        assert impact_of(season.root, change).exposures == impact.exposures
    with pytest.raises(BadInputError, match="landing area"):
        ephemeris_change(season.root, "other.oem")


def test_repaired_packets_name_all_of_their_exposure(season: Season) -> None:
    season.observe((1,), TRUE)
    with Registry(season.root) as registry:
        impact = impact_of(season.root, level0_change(registry, [exposure_key(1, 2)]))
        for wrong in ("foo", exposure_key(3, 1)):
            with pytest.raises(BadInputError, match=wrong):
                level0_change(registry, [wrong])
    expected = {
        name
        for detector in DETECTORS
        for end in ("uncal.asdf", "cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf")
        for name in detector_names(exposure_key(1, 2), detector, [end])
    }
    assert names(impact) == expected
    assert impact.visits == (visit_key(1),)


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    detector=st.sampled_from(DETECTORS),
    kind=st.sampled_from(["photom", "gain", "mask"]),
    from_=st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1)]),
)
def test_the_impact_is_what_crds_says_of_each_image(
    season: Season, cache_of_three: Path, detector: int, kind: str, from_: tuple[int, int]
) -> None:
    from roman_assets.products.observation import ExposureType, OpticalElement
    from roman_assets.references.context import best_references, known_contexts

    if not names(impact_of(season.root, context_change(season.root, EARLY))):
        season.observe((1, 2), known_contexts()[-1])
    before = _images(season)
    new = deliver_reference(cache_of_three, kind, f"WFI0{detector}", use_after=start_of(*from_))
    expected = set()
    for visit, number, one in NAMES_OF_ALL:
        (image,) = detector_names(exposure_key(visit, number), one, ["cal.asdf"])
        best = best_references(
            f"WFI0{one}",
            OpticalElement.F158,
            ExposureType.WFI_IMAGE,
            start_of(visit, number),
            context=new,
        )
        if any(best.get(used, "N/A") != name for used, name in before[image].items()):
            expected |= of_images((visit, number, one))
    assert names(impact_of(season.root, context_change(season.root, new))) == expected


def _images(season: Season) -> dict[str, dict[str, str]]:
    with Registry(season.root) as registry:
        found = registry.generations.current(registry.products.find(kind="cal")["name"])
    return {name: dict(entry.references) for name, entry in found.items()}


def test_a_problem_of_the_data_of_some_time_names_what_was_observed_then(season: Season) -> None:
    season.observe((1, 3), TRUE)
    start, stop = start_of(1, 2), start_of(1, 2) + timedelta(seconds=1)
    impact = impact_of(season.root, data_change(start, stop))
    assert impact.exposures == (exposure_key(1, 2),)
    assert impact.visits == (visit_key(1),)
    images = [name for name in names(impact) if name.endswith(("_uncal.asdf", "_cal.asdf"))]
    assert len(images) == 2 * len(DETECTORS)
    of_one = impact_of(season.root, data_change(start, stop, [f"wfi{DETECTORS[0]:02d}"])).products
    assert set(of_one[of_one["level"] == "L2"]["detector"]) == {f"WFI{DETECTORS[0]:02d}"}
    later = start_of(9, 1)
    assert impact_of(season.root, data_change(later, later + timedelta(days=1))).exposures == ()
    for begin, end, detectors in ((stop, start, ()), (start, stop, ("WFI19",))):
        with pytest.raises(BadInputError, match="data problem"):
            data_change(begin, end, detectors)
