from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.products.retention_policy import RetentionPeriods
from roman_assets.records.journal import Journal
from roman_assets.registry.store.fold import fold
from roman_assets.rehearsal.volume import (
    STATED_SIZES,
    Holding,
    ProductSizes,
    draw_volumes,
    measured_sizes,
    moments_of,
    stocks_of_plan,
    stocks_of_registry,
    volume_over_time,
    with_releases,
)
from roman_assets_tests.support.plans import DETECTORS, START, night
from roman_assets_tests.support.small_products import (
    SUPERSEDED_AT,
    commit_names,
    installed_with_release,
    moment,
    record_of,
    skycell_set,
)

MB = 1e6
SIZES = ProductSizes(dict.fromkeys(STATED_SIZES.megabytes, 1.0), 6, "test")
PERIODS = RetentionPeriods(timedelta(days=90), {Survey.HLTDS: timedelta(days=30)})
DAY = timedelta(days=1)


def held(stocks, when, periods=PERIODS):
    row = volume_over_time(stocks, periods, pd.DatetimeIndex([when])).iloc[0]
    return {holding: value / MB for holding, value in row.items() if value}


def test_every_product_of_a_plan_counts_from_its_observation_on():
    stocks = stocks_of_plan(night([2, 1]), SIZES)
    assert held(stocks, START - DAY) == {}
    # of 3 exposures of 3 detectors: ramps, guide windows, supplements, a FACE file; L2; two L4
    assert held(stocks, START + DAY) == {
        Holding.LEVEL1: 3 * (3 * len(DETECTORS) + 1),
        Holding.LEVEL2: 3 * len(DETECTORS),
        Holding.LEVEL4: 3 * 2 * len(DETECTORS),
        # of 5 skycells: association, catalogue; coadd and segmentation map on a quarter of pixels
        Holding.PROMPT: (3 + 2) * (2 + 2 / 4),
    }
    fine = stocks_of_plan(night([2, 1]), SIZES, PixelScale.SKYMAP)
    assert held(fine, START + DAY)[Holding.PROMPT] == (3 + 2) * 4


def test_ramps_grow_with_their_resultants_and_nothing_else_does():
    twice = ProductSizes(SIZES.megabytes, 3, "test")
    before, after = (
        held(stocks_of_plan(night([1]), sizes), START + DAY) for sizes in (SIZES, twice)
    )
    assert after[Holding.LEVEL1] - before[Holding.LEVEL1] == len(DETECTORS)
    assert after | {Holding.LEVEL1: 0} == before | {Holding.LEVEL1: 0}


def test_grism_exposures_give_no_prompt_l3_here():
    stocks = stocks_of_plan(
        night([1], optical_element=OpticalElement.GRISM, exposure_type="WFI_SPECTRAL"), SIZES
    )
    assert Holding.PROMPT not in held(stocks, START + DAY)


@pytest.mark.parametrize(("survey", "days"), [(Survey.GAS, 90), (Survey.HLTDS, 30)])
def test_prompt_mosaics_go_after_the_period_of_their_survey_and_those_of_releases_stay(
    survey, days
):
    stocks = with_releases(
        stocks_of_plan(night([1], survey=survey), SIZES), [START + 100 * DAY, START + 300 * DAY]
    )
    prompt, released = 2 * 2.5, 2 * 4.0
    of_day = {
        day: {
            holding: size
            for holding, size in held(stocks, START + day * DAY).items()
            if holding in (Holding.PROMPT, Holding.RELEASED)
        }
        for day in (99, 101, 99 + days, 101 + days, 301)
    }
    assert of_day[99] == {Holding.PROMPT: prompt}
    assert of_day[101] == of_day[99 + days] == of_day[99] | {Holding.RELEASED: released}
    assert of_day[101 + days] == {Holding.RELEASED: released}
    assert of_day[301] == {Holding.RELEASED: 2 * released}
    for_ever = held(stocks, START + 301 * DAY, None)
    assert for_ever[Holding.PROMPT] == prompt


def test_a_release_supersedes_only_what_was_observed_before_it():
    stocks = with_releases(
        stocks_of_plan(night([1, 1], spacing_s=86400.0), SIZES), [START + DAY / 2]
    )
    assert held(stocks, START + 200 * DAY)[Holding.PROMPT] == 2 * 2.5


def test_a_size_that_is_not_known_is_named():
    with pytest.raises(BadInputError, match="uncal"):
        stocks_of_plan(night([1]), ProductSizes({}, 1, "an empty installation"))


def test_an_installation_is_counted_with_what_it_has_and_had(tmp_path):
    root = installed_with_release(DataRoot(tmp_path))
    commit_names(root, skycell_set(2), committed_at=moment(7200))
    sizes = {name: len(f"{name} {moment(0)}") for name in (*skycell_set(1), *skycell_set(1, "r0"))}
    prompt = sum(sizes[name] for name in skycell_set(1))
    released = sum(len(f"{name} {SUPERSEDED_AT}") for name in skycell_set(1, "r0"))
    stocks = stocks_of_registry(root)
    row = volume_over_time(stocks, PERIODS, pd.DatetimeIndex([moment(3 * 3600)])).iloc[0]
    # of the second skycell the newer generation, not both
    assert row[Holding.PROMPT] == 2 * prompt
    assert row[Holding.RELEASED] == released
    later = volume_over_time(stocks, PERIODS, pd.DatetimeIndex([moment(100 * 86400)])).iloc[0]
    assert later[Holding.PROMPT] == prompt
    assert measured_sizes(root).megabytes["coadd"] == pytest.approx(sizes[skycell_set(1)[1]] / MB)


def test_measured_sizes_of_coadds_hold_for_every_pixel_scale(tmp_path):
    root = DataRoot(tmp_path)
    facts = {"pixel_scale": PixelScale.NATIVE.arcsec, "survey": "HLTDS"}
    Journal(root).write(record_of(root, dict.fromkeys(skycell_set(1), b"x" * 1000), metadata=facts))
    fold(root)
    sizes = measured_sizes(root)
    for kind in ("coadd", "visit_segmentation", "visit_catalog"):
        assert sizes.of(KIND_BY_NAME[kind], scale=PixelScale.NATIVE) == pytest.approx(1000)
    assert sizes.of(KIND_BY_NAME["coadd"]) == pytest.approx(4000)
    stocks = stocks_of_registry(root)
    assert stocks["size"].sum() == 4000
    assert stocks["released_size"].sum() == pytest.approx(2 * 1000 + 2 * 4000)


def test_the_picture_is_drawn_from_the_first_product_to_the_last_removal(tmp_path):
    stocks = with_releases(stocks_of_plan(night([1]), SIZES), [START + 10 * DAY])
    times = moments_of(stocks, 90 * DAY)
    assert times[0] <= START + DAY
    assert times[-1] > START + 100 * DAY
    choices = {"kept 90 d": PERIODS, "kept for ever": None}
    volumes = {title: volume_over_time(stocks, one, times) for title, one in choices.items()}
    draw_volumes(volumes, tmp_path / "volume.png")
    assert (tmp_path / "volume.png").read_bytes().startswith(b"\x89PNG")
