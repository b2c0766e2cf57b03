from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from roman_assets.simulation.ssc import season
from roman_assets.simulation.ssc.event import (
    THRESHOLD,
    constant_chi2,
    magnification,
    search,
    total_error,
)
from roman_assets.simulation.ssc.season import (
    EPOCH_COLUMNS,
    LightCurve,
    chance_improvements,
    detection_efficiency,
    light_curves,
    tied_together,
)

TIME = np.arange(61557.0, 61581.0)
Values = NDArray[np.float64]


def steady(seed: int, flux: float = 100.0, error: float = 1.0) -> Values:
    return flux + np.random.default_rng(seed).normal(0, error, len(TIME))


def curve(seed: int) -> LightCurve:
    flux = steady(seed)
    photon = np.ones(len(TIME))
    return LightCurve(seed, TIME, flux, total_error(flux, photon), photon)


def test_a_magnification_is_one_far_from_the_lens_and_grows_towards_it() -> None:
    assert magnification(np.array([1e6]), 0.0, 1.0, 0.1)[0] == pytest.approx(1)
    assert magnification(np.array([0.0]), 0.0, 1.0, 0.1)[0] == pytest.approx(10.037, abs=1e-3)
    assert magnification(np.array([0.0]), 0.0, 1.0, 1.0)[0] == pytest.approx(3 / np.sqrt(5))


def test_injected_events_above_twice_the_threshold_are_found_where_they_are() -> None:
    rng = np.random.default_rng(5)
    found = wanted = near = 0
    for seed in range(60):
        t0, te, u0 = rng.uniform(61560, 61577), rng.uniform(1.5, 5), rng.uniform(0.05, 0.8)
        lensed = 100 * (magnification(TIME, t0, te, u0) - 1)
        flux = steady(seed) + lensed
        error = total_error(flux, np.ones(len(TIME)))
        if constant_chi2(100 + lensed, error)[1] < 2 * THRESHOLD:
            continue
        wanted += 1
        event = search(TIME, flux, error)
        found += event is not None
        near += event is not None and abs(event.t0 - t0) < 0.3 * te
    assert wanted >= 40
    assert found >= 0.95 * wanted
    assert near >= 0.9 * found


def test_noise_alone_stays_below_the_threshold() -> None:
    curves = [curve(seed) for seed in range(40)]
    assert chance_improvements(curves).max() < THRESHOLD
    assert not any(search(TIME, one.flux, one.error) for one in curves)


def test_a_drift_over_the_season_is_no_event() -> None:
    flux = steady(1) + np.linspace(0, 60, len(TIME))
    assert search(TIME, flux, np.ones(len(TIME))) is None


def test_too_few_epochs_are_no_event() -> None:
    flux = steady(1)
    flux[3:6] += 100
    few = slice(0, 7)
    assert search(TIME[few], flux[few], np.ones(7)) is None


def test_the_efficiency_counts_every_search_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(season, "INJECTIONS", 60)
    table = detection_efficiency([curve(seed) for seed in range(4)])
    counts = table["BinaryClass"].value_counts()
    assert counts.get("FP", 0) + counts["TN"] == 4
    assert counts["TP"] > 3 * counts.get("FN", 0)
    assert (table["expected_delta_chi2"][table["BinaryClass"] == "TP"] > THRESHOLD).all()


def test_images_of_different_zero_points_are_tied_together() -> None:
    tables = []
    for number, zero in enumerate((1.0, 1.1, 0.95)):
        rows = [
            (object_id, 61557.0 + number, (100 + object_id) * zero, 0.5, f"image {number}")
            for object_id in range(20)
        ]
        tables.append(pd.DataFrame(rows, columns=list(EPOCH_COLUMNS)))
    tied = tied_together(pd.concat(tables))
    for one in light_curves(tied):
        assert np.ptp(one.flux) < 1e-6 * one.flux[0]


def objects(count: int, shift: float = 0.0, first: int = 1) -> pd.DataFrame:
    """Give objects a hundredth of a degree apart."""
    dec = np.arange(count) / 100 + shift / 3600
    return pd.DataFrame({"object_id": np.arange(first, first + count), "ra": 10.0, "dec": dec})


def test_measurements_at_other_objects_get_the_numbers_of_the_same_places() -> None:
    theirs, ours = objects(4, shift=0.02, first=1), objects(3, first=11)[::-1]
    epochs = pd.DataFrame({"object_id": [1, 2, 3, 4], "flux": [1.0, 2.0, 3.0, 4.0]})
    found = season.renumbered(epochs, theirs, ours)
    assert dict(zip(found["object_id"], found["flux"], strict=True)) == {11: 1, 12: 2, 13: 3}
    assert season.renumbered(epochs, theirs, objects(3, shift=1.0)).empty
    assert season.renumbered(epochs, theirs, theirs) is epochs


def test_an_event_that_shows_in_a_neighbour_is_one_event() -> None:
    rise = magnification(TIME, 61568.0, 2.0, 0.2) - 1
    light = {1: 100 * rise, 2: 60 * rise, 3: 100 * rise}
    curves = [
        LightCurve(number, TIME, steady(number) + more, np.ones(24), np.ones(24))
        for number, more in light.items()
    ]
    sky = objects(3)
    sky.loc[1, "dec"] = sky.loc[0, "dec"] + 0.2 / 3600
    assert set(season.events(curves, sky)) == {1, 3}


def beside(seconds: list[float]) -> pd.DataFrame:
    """Give objects so many arcsec north of the first."""
    sky = objects(len(seconds))
    return sky.assign(dec=np.array(seconds) / 3600)


def curves_of(light: list[Values]) -> list[LightCurve]:
    return [
        LightCurve(number, TIME, steady(number) + more, np.ones(24), np.ones(24))
        for number, more in enumerate(light, start=1)
    ]


def test_light_in_the_wings_of_a_bright_event_is_no_event() -> None:
    rise = magnification(TIME, 61568.0, 2.0, 0.2) - 1
    light = [10_000 * rise, 30 * rise, 50 * (magnification(TIME, 61574.0, 2.0, 0.2) - 1)]
    assert set(season.events(curves_of(light), beside([0.0, 2.0, 2.5]))) == {1, 3}
    assert set(season.events(curves_of(light), beside([0.0, 20.0, 40.0]))) == {1, 2, 3}


def test_two_epochs_are_an_event_and_one_is_not() -> None:
    rise = 15 * (magnification(TIME, 61568.5, 0.8, 0.3) - 1)
    assert np.sum(rise > 3) == 2
    found = search(TIME, steady(4) + rise, np.ones(len(TIME)))
    assert found is not None
    assert abs(found.t0 - 61568.5) < 0.8
    once = np.where(TIME == 61568.0, 60.0, 0.0)
    assert search(TIME, steady(4) + once, np.ones(len(TIME))) is None


def test_single_epochs_that_are_off_are_no_event() -> None:
    spikes = np.zeros(len(TIME))
    spikes[[4, 9, 15, 20]] = 60.0
    flux = steady(3) + spikes
    assert constant_chi2(flux, np.ones(len(TIME)))[1] > THRESHOLD
    assert search(TIME, flux, np.ones(len(TIME))) is None


def test_errors_are_as_large_as_successive_epochs_differ() -> None:
    noisy = 100 + np.random.default_rng(2).normal(0, 5, 200)
    time = np.arange(200.0)
    wider = season.light_curve(1, time, noisy, np.ones(200))
    assert 4 < np.median(wider.error) < 6
    smooth = 100 + 50 * (magnification(time, 100.0, 20.0, 0.3) - 1) + noisy / 5 - 20
    assert np.median(season.light_curve(1, time, smooth, np.ones(200)).error) < 1.6
