import numpy as np
import pysiaf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.products.observation import DETECTORS
from roman_assets.simulation.telescope.detector_geometry import (
    array_pixels,
    detector_wcs,
    distortion,
    pixel_area,
    reference_pixel_area,
    wcsinfo,
    window_origin,
)

SIAF = pysiaf.Siaf("Roman")
pixels = st.floats(-0.5, 4087.5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DETECTORS), pixels, pixels)
def test_every_pixel_is_where_siaf_says(detector, x, y):
    aperture = SIAF[f"{detector}_FULL"]
    # SIAF counts science pixels from 1
    expected = aperture.sci_to_tel(x + 1, y + 1)
    assert distortion(detector, None)(x, y) == pytest.approx(expected, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DETECTORS), pixels, pixels)
def test_the_inverse_leads_back_to_the_pixel(detector, x, y):
    transform = distortion(detector, None)
    assert transform.inverse(*transform(x, y)) == pytest.approx((x, y), abs=2e-5)


def test_a_window_shows_the_middle_of_the_detector():
    detector, window = "WFI07", 512
    aperture = SIAF[f"{detector}_FULL"]
    centre = distortion(detector, window)(255.5, 255.5)
    assert centre == pytest.approx((aperture.V2Ref, aperture.V3Ref), abs=1e-7)
    origin = window_origin(window)
    assert distortion(detector, window)(3.0, 500.0) == pytest.approx(
        distortion(detector, None)(3.0 + origin, 500.0 + origin), abs=1e-9
    )
    assert array_pixels(window) == 520
    assert array_pixels(None) == 4096


@pytest.mark.parametrize("detector", ["WFI01", "WFI18"])
def test_pixel_areas_are_those_of_the_sky(detector):
    window = 512
    wcs = detector_wcs(detector, 270.0, 66.0, 30.0, window)
    area = pixel_area(detector, window)
    for column, row in ((0, 0), (511, 3), (255, 256)):
        x = column + np.array([-0.5, 0.5, 0.5, -0.5])
        y = row + np.array([-0.5, -0.5, 0.5, 0.5])
        ra, dec = np.deg2rad(wcs(x, y, with_bounding_box=False))
        east, north = (ra - ra[0]) * np.cos(dec.mean()), dec - dec[0]
        quadrangle = 0.5 * abs(
            (east[2] - east[0]) * (north[3] - north[1])
            - (east[3] - east[1]) * (north[2] - north[0])
        )
        assert area[row, column] == pytest.approx(quadrangle, rel=1e-5)
    assert area[255:257, 255:257].mean() == pytest.approx(reference_pixel_area(detector), rel=1e-6)


def test_the_position_angle_is_that_of_the_instruments_y_axis():
    # WFI02 and WFI05, WFI03 and WFI06 ... are stacked along Y; so are the rows of each detector
    wcs = detector_wcs("WFI05", 270.0, 0.0, 40.0, None)
    ra, dec = wcs(np.array([2043.5, 2043.5]), np.array([1543.5, 2543.5]))
    angle = np.rad2deg(np.arctan2((ra[1] - ra[0]) * np.cos(np.deg2rad(dec[0])), dec[1] - dec[0]))
    assert angle == pytest.approx(40.0, abs=1.5)


def test_all_detectors_share_one_pointing():
    assert wcsinfo(10.0, -5.0, 350.0)["roll_ref"] == pytest.approx(50.0)
    centres = [detector_wcs(name, 10.0, -5.0, 350.0, 512)(255.5, 255.5) for name in DETECTORS]
    ra, dec = np.transpose(centres)
    assert ra.max() - ra.min() > 0.5
    assert abs(ra.mean() - 10.0) < 0.1
    assert abs(dec.mean() + 5.0) < 0.2


def test_the_velocity_of_the_observatory_changes_the_scale():
    still = detector_wcs("WFI18", 270.0, 66.0, 0.0, 512)
    moving = detector_wcs("WFI18", 270.0, 66.0, 0.0, 512, velocity_aberration=1 + 1e-4)
    assert still(0, 0) != pytest.approx(moving(0, 0), abs=1e-6)


@pytest.mark.parametrize("window", [511, 2, 4090])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match=str(window)):
        distortion("WFI01", window)


def test_an_unknown_detector_is_refused():
    with pytest.raises(ValueError, match="WFI19"):
        distortion("WFI19", 512)
