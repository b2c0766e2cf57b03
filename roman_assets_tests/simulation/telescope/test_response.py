from importlib import resources

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from roman_datamodels.dqflags import pixel
from stcal.linearity.linearity import apply_polynomial

from roman_assets.products.observation import DETECTORS, OpticalElement
from roman_assets.simulation.telescope import references
from roman_assets.simulation.telescope.response import (
    DetectorResponse,
    electron_rate,
    imaging,
    sky_rate,
)

FILTERS = [element for element in OpticalElement if imaging(element)]
ARRAYS = ("gain", "read_noise", "dark_rate", "pedestal", "nonlinearity", "saturation", "dq")


@pytest.fixture(scope="module")
def response():
    return DetectorResponse("WFI04", 64, 11)


def test_the_same_seed_gives_the_same_detector(response):
    again = DetectorResponse("WFI04", 64, 11)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(response, name), getattr(again, name))
    np.testing.assert_array_equal(
        response.flat(OpticalElement.F158), again.flat(OpticalElement.F158)
    )


@pytest.mark.parametrize(
    "other", [DetectorResponse("WFI05", 64, 11), DetectorResponse("WFI04", 64, 12)]
)
def test_other_detectors_and_other_seeds_differ(response, other):
    for name in ARRAYS:
        assert not np.array_equal(getattr(response, name), getattr(other, name)), name


def test_filters_have_flats_of_their_own(response):
    assert not np.array_equal(
        response.flat(OpticalElement.F158), response.flat(OpticalElement.F106)
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(100.0, 60000.0))
def test_the_converter_can_be_undone(counts):
    response = DetectorResponse("WFI04", 64, 11)
    linear = np.full(response.shape, counts)
    raw = response.raw_counts(linear).astype(float)
    assert np.abs(response.linear_counts(raw) - linear).max() < 0.02


def test_bright_pixels_show_too_few_counts(response):
    raw = response.raw_counts(np.full(response.shape, 50000.0))
    loss = 1 - raw[response.active].mean() / 50000
    assert 0.02 < loss < 0.06


def test_romancals_polynomials_are_those_of_the_detector(response):
    linear = np.full(response.shape, 45000.0, dtype=np.float32)
    a = response.nonlinearity
    bent = 2 * linear / (1 + np.sqrt(1 + 4 * a * linear))
    forth = references.inverselinearity(response).coeffs
    back = references.linearity(response).coeffs
    assert np.abs(apply_polynomial(linear, forth) - bent).max() < 0.1
    assert np.abs(apply_polynomial(bent, back) - linear).max() < 0.1


@pytest.mark.parametrize("element", FILTERS)
def test_electron_rates_are_the_projects_zero_points(element):
    place = resources.files("romanisim") / "data" / "roman-technical-information" / "data"
    path = place / "WideFieldInstrument/Imaging/ZeroPoints/Roman_zeropoints_20240301.ecsv"
    table = Table.read(str(path), format="ascii.ecsv")
    row = table[(table["detector"] == "WFI09") & (table["element"] == str(element))][0]
    magnitude = 2.5 * np.log10(electron_rate("WFI09", element))
    assert magnitude == pytest.approx(row["ABMag"], abs=0.03)


def test_nothing_shines_through_the_dark_element():
    assert electron_rate("WFI01", OpticalElement.DARK) == 0
    assert sky_rate("WFI01", OpticalElement.DARK) == 0


def test_the_sky_is_brightest_where_the_telescope_glows():
    rates = {element: sky_rate("WFI01", element) for element in FILTERS}
    assert max(rates, key=rates.__getitem__) is OpticalElement.F213
    assert all(0.1 < rate < 10 for rate in rates.values())


def test_the_flat_undoes_response_gain_and_area(response):
    element = OpticalElement.F129
    electrons = response.quantum_efficiency(element) * response.relative_area
    counts = electrons / response.gain[response.active]
    alive = (response.dq[response.active] & pixel.DEAD) == 0
    flattened = counts[alive] / response.flat(element)[alive]
    np.testing.assert_allclose(flattened, 1 / response.nominal_gain, rtol=1e-5)


def test_dead_pixels_answer_to_nothing_and_say_so():
    response = DetectorResponse("WFI01", 256, 3)
    dead = (response.dq[response.active] & pixel.DEAD) > 0
    assert dead.any()
    assert (response.quantum_efficiency(OpticalElement.F158)[dead] == 0).all()
    assert ((response.dq[response.active][dead] & pixel.DO_NOT_USE) > 0).all()


def test_hot_pixels_are_hot_and_the_border_is_dark():
    response = DetectorResponse("WFI01", 256, 3)
    hot = (response.dq & pixel.HOT) > 0
    assert response.dark_rate[hot].min() > 1
    assert response.dark_rate[:4].max() == 0
    assert ((response.dq[:4] & pixel.REFERENCE_PIXEL) > 0).all()


def test_only_whole_detectors_decay_after_reset():
    amplitudes = {DetectorResponse(name, None, 0).dark_decay[0] for name in DETECTORS}
    assert min(amplitudes) > 0
    assert len(amplitudes) == len(DETECTORS)
    assert DetectorResponse("WFI01", 512, 0).dark_decay[0] == 0
