import time

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from roman_assets.registry.catalog.footprint import Footprint


def square(ra: float, dec: float, side: float) -> Footprint:
    """A square on the sky about a centre, deg."""
    centre = SkyCoord(ra, dec, unit="deg")
    corners = centre.directional_offset_by(
        np.array([45, 135, 225, 315]) * 1.0 * _deg, side / np.sqrt(2) * _deg
    )
    return Footprint(np.stack([corners.ra.deg, corners.dec.deg], axis=-1))


_deg = SkyCoord(0, 0, unit="deg").ra.unit
directions = st.tuples(st.floats(0, 359.9), st.floats(-89.5, 89.5))


def test_an_s_region_of_rad_is_read():
    region = "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"
    assert Footprint.parse(region).corners.tolist() == [
        [269.9, 65.9], [270.1, 65.9], [270.1, 66.1], [269.9, 66.1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["?", "", "CIRCLE ICRS 1 2 3", "POLYGON ICRS 1 2 3 4", "POLYGON ICRS 1 2 3 4 5 6 7"]
)
def test_what_is_no_polygon_is_refused(text):
    with pytest.raises(ValueError, match="not an s_region polygon"):
        Footprint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "POLYGON ICRS " + "1" * 40 + "x",
        "POLYGON ICRS 269.912345678 65.912345678 270.112345678 65.912345678 270.1 66.1 nan nan",
        "POLYGON ICRS 269.912345678 65.912345678 270.112345678 65.912345678 270.1 66.08deg",
        "POLYGON ICRS 1_0 2 3 4 5 6",
        "POLYGON ICRS " + "1 " * 2_000_000,
    ],
)
def test_a_text_that_is_nearly_a_polygon_is_refused_at_once(text):
    began = time.process_time()
    with pytest.raises(ValueError, match=r"s_region polygon|on the sky|corners"):
        Footprint.parse(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("POLYGON ICRS 0 0 90 0 180 0 270 0", "no product is wider"),
        ("POLYGON ICRS 0 0 2.1 0 2.1 0.1 0 0.1", "no product is wider"),
        ("POLYGON ICRS 0 0 180 0 0 0 180 0", "no product is wider|fewer than three"),
        ("POLYGON ICRS 10 94.9 10.1 94.9 10.1 95 10 95", "not on the sky"),
        ("POLYGON ICRS 1e300 0 0.1 0 0.1 0.1", "not on the sky"),
        ("POLYGON ICRS 10 20 10 20 10 20", "fewer than three"),
        ("POLYGON ICRS 10 20 10.1 20 10.1 20", "fewer than three"),
    ],
)
def test_a_footprint_that_no_product_can_have_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        Footprint.of_product(text)


@given(directions, st.floats(0.01, 5))
def test_centre_and_radius_are_those_of_the_square(direction, side):
    footprint = square(*direction, side)
    centre = SkyCoord(*footprint.centre, unit="deg")
    assert centre.separation(SkyCoord(*direction, unit="deg")).deg < 1e-6
    assert footprint.radius == pytest.approx(side / np.sqrt(2), rel=1e-6)


@given(directions, st.floats(0, 360), st.floats(0, 3), st.floats(0.001, 3))
def test_a_cone_meets_a_square_when_it_comes_near_enough(direction, angle, distance, radius):
    """Against a dense sample of the square's points."""
    side = 0.5
    footprint = square(*direction, side)
    axis = SkyCoord(*direction, unit="deg").directional_offset_by(angle * _deg, distance * _deg)
    nearest = nearest_of_square(footprint, axis)
    meets = footprint.meets_cone(axis.ra.deg, axis.dec.deg, radius)
    if abs(nearest - radius) > 5e-3:
        assert meets == (nearest < radius)


def nearest_of_square(footprint: Footprint, axis: SkyCoord) -> float:
    steps = np.linspace(0, 1, 101)
    corners = SkyCoord(*footprint.corners.T, unit="deg").cartesian.xyz.value.T
    low = corners[0] + steps[:, None] * (corners[1] - corners[0])
    high = corners[3] + steps[:, None] * (corners[2] - corners[3])
    points = low[:, None] + steps[None, :, None] * (high - low)[:, None]
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    direction = axis.cartesian.xyz.value
    chord = np.linalg.norm(points - direction, axis=-1).min()
    return float(np.degrees(2 * np.arcsin(min(chord / 2, 1))))


def test_a_cone_on_the_other_side_of_the_sky_does_not_meet():
    assert not square(10, 20, 1).meets_cone(190, -20, 1)


def test_a_cone_within_the_footprint_meets_it():
    assert square(10, 20, 1).meets_cone(10.1, 20.1, 1e-6)


def test_a_footprint_across_the_meridian_and_one_at_the_pole_are_met():
    assert square(0, 0, 1).meets_cone(359.9, 0, 0.01)
    assert square(0, 90, 1).meets_cone(123, 89.9, 0.01)
