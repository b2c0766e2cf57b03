"""Searching a region of the sky: no pixel is missed, every decision is exact."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import astropy.units as u
import hpgeom
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from spherical_geometry.polygon import SingleSphericalPolygon

from roman_assets.data_root import DataRoot
from roman_assets.records.journal import Journal
from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.area import Polygon, areas_of
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.product_rows import HEALPIX_NSIDE
from roman_assets_tests.support.small_products import cal, record_of

declinations = st.one_of(st.floats(-89.9, 89.9), st.floats(83, 89.99), st.floats(-89.99, -83))
centres = st.tuples(st.floats(0, 359.9), declinations)


@st.composite
def polygons(draw: st.DrawFn, sizes: st.SearchStrategy[float]) -> list[tuple[float, float]]:
    """Corners on a circle, hence convex, in either direction around it."""
    centre, size = draw(centres), draw(sizes)
    gaps = np.array(draw(st.lists(st.floats(20, 100), min_size=3, max_size=7)))
    angles = draw(st.floats(0, 360)) + np.cumsum(gaps) * 360 / gaps.sum()
    assume(np.diff(angles, append=angles[0] + 360).max() < 170)
    order = draw(st.sampled_from([1, -1]))
    corners = SkyCoord(*centre, unit="deg").directional_offset_by(
        angles[::order] * u.deg, size * u.deg
    )
    return list(zip(corners.ra.deg.tolist(), corners.dec.deg.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(polygons(st.floats(0.01, 40)), polygons(st.floats(0.01, 3)))
def test_two_footprints_meet_when_spherical_geometry_says_so(
    region: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    mine, theirs = Footprint.of_region(region), Footprint.of_region(other)
    oracle = _spherical(mine).intersects_poly(_spherical(theirs))
    # where they only touch, rounding decides
    assume(oracle == _spherical(mine, 1.0001).intersects_poly(_spherical(theirs, 1.0001)))
    assume(oracle == _spherical(mine, 0.9999).intersects_poly(_spherical(theirs, 0.9999)))
    assert mine.meets(theirs) == theirs.meets(mine) == oracle


def _spherical(footprint: Footprint, scale: float = 1.0) -> SingleSphericalPolygon:
    centre = SkyCoord(*footprint.centre, unit="deg")
    corners = SkyCoord(*footprint.corners.T, unit="deg")
    grown = centre.directional_offset_by(
        centre.position_angle(corners), centre.separation(corners) * scale
    )
    return SingleSphericalPolygon.from_lonlat(
        grown.ra.deg, grown.dec.deg, center=(centre.ra.deg, centre.dec.deg)
    )


@settings(deadline=None)
@given(
    polygons(st.floats(0.001, 30)),
    st.floats(0.0001, 3),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 360),
)
@example([(45.0, 88.0), (165.0, 88.0), (285.0, 88.0)], 1.0, 0.5, 1.0, 0.0)
def test_no_pixel_within_the_margin_of_a_polygon_is_missed(
    region: list[tuple[float, float]], margin: float, along: float, apart: float, angle: float
) -> None:
    (area,) = areas_of(None, region)
    corners = SkyCoord(region, unit="deg")
    start, end = corners[0], corners[1]
    edge = start.directional_offset_by(start.position_angle(end), start.separation(end) * along)
    near = edge.directional_offset_by(angle * u.deg, 0.999 * apart * margin * u.deg)
    pixel = hpgeom.angle_to_pixel(HEALPIX_NSIDE, near.ra.deg, near.dec.deg)
    low, high = area.pixel_ranges(margin)
    assert np.any((low <= pixel) & (pixel < high))
    assert np.all(low < high)
    assert np.all(high[:-1] < low[1:])


@settings(deadline=None, max_examples=40)
@given(centres, st.floats(0, 360), st.floats(1, 15), st.floats(0.01, 0.3), st.floats(0.02, 0.3))
def test_no_pixel_within_the_margin_of_a_long_strip_is_missed(
    centre: tuple[float, float], angle: float, length: float, width: float, margin: float
) -> None:
    """Where the pixels on the polygon and their neighbours are taken, not the circle around it."""
    middle = SkyCoord(*centre, unit="deg")
    ends = middle.directional_offset_by([angle, angle + 180] * u.deg, length * u.deg)
    along = ends[0].position_angle(ends[1]).deg, ends[1].position_angle(ends[0]).deg
    corners = [
        ends[end].directional_offset_by((along[end] + side) * u.deg, width * u.deg)
        for end, side in ((0, 90), (0, -90), (1, 90), (1, -90))
    ]
    region = [(corner.ra.deg, corner.dec.deg) for corner in corners]
    (area,) = areas_of(None, region)
    low, high = area.pixel_ranges(margin)
    points = [_beside(*pair, margin) for pair in pairwise([*corners, corners[0]])]
    for pixels in (
        hpgeom.angle_to_pixel(HEALPIX_NSIDE, near.ra.deg, near.dec.deg) for near in points
    ):
        place = np.searchsorted(low, pixels, side="right") - 1
        assert np.all((place >= 0) & (pixels < high[place]))


def _beside(start: SkyCoord, end: SkyCoord, margin: float) -> SkyCoord:
    """Points as far from an edge as the margin, all along it on both sides."""
    steps = np.linspace(0, 1, 60) * start.separation(end)
    edge = start.directional_offset_by(start.position_angle(end), steps)
    beside = edge.position_angle(end) + np.tile([90, -90], 30) * u.deg
    return edge.directional_offset_by(beside, 0.999 * margin * u.deg)


@pytest.mark.parametrize(
    ("polygon", "square_degrees"),
    [
        ([(10, 20), (11, 20), (11, 21), (10, 21)], 3),
        ([(10, 20), (20, 20), (20, 20.1), (10, 20.1)], 25),
    ],
)
def test_the_pixels_of_a_polygon_are_few(polygon: Polygon, square_degrees: float) -> None:
    (area,) = areas_of(None, polygon)
    low, high = area.pixel_ranges(0.09)
    of_sky = (high - low).sum() / hpgeom.nside_to_npixel(HEALPIX_NSIDE)
    assert of_sky * 41253 < square_degrees


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        ([(0, 0), (1, 0)], "three or more corners"),
        ([(0, 0, 1), (1, 0, 1), (1, 1, 1)], "three or more corners"),
        ("CIRCLE ICRS 1 2 3", "s_region"),
        ("", "s_region"),
        ([(0, 0), (1, 0), (1, 91)], "not on the sky"),
        ([(0, 0), (1, 0), (float("nan"), 1)], "not on the sky"),
        ([(0, 0), (2, 0), (1, 0.5), (1, 2)], "not convex"),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "not convex"),
        ([(0, 0), (0, 0), (1, 1)], "not convex"),
        ([(0, 0), (150, 0), (75, 80)], "wider"),
    ],
)
def test_what_is_no_region_to_search_in_is_refused_with_the_reason(
    polygon: Polygon, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        areas_of(None, polygon)


def test_a_polygon_may_be_closed_and_go_either_way_round() -> None:
    corners = [(10.0, 20.0), (11.0, 20.0), (11.0, 21.0), (10.0, 21.0)]
    shown = Footprint.of_region(corners)
    for same in ([*corners, corners[0]], corners[::-1], "POLYGON 10 20 11 20 11 21 10 21"):
        other = Footprint.of_region(same)
        assert other.radius == pytest.approx(shown.radius)
        assert other.meets(Footprint.of_region([(10.5, 20.5), (10.6, 20.5), (10.5, 20.6)]))


def test_a_polygon_finds_the_products_it_meets_and_no_others(root: DataRoot) -> None:
    random = np.random.default_rng(3)
    places = [(0.0, 0.0), (359.97, 0.02), (12.0, 89.95), (200.0, -89.99)]
    places += [(10 + x, 60 + y) for x, y in random.uniform(-1, 1, (60, 2))]
    footprints = [_square(*place, 0.06) for place in places]
    for number, footprint in enumerate(footprints, start=1):
        ra, dec = footprint.centre
        region = "POLYGON ICRS " + " ".join(map(str, footprint.corners.ravel()))
        facts = {"ra": ra, "dec": dec, "radius": footprint.radius, "footprint": region}
        Journal(root).write(record_of(root, {cal(number): b""}, metadata=facts))
    fold(root)
    registry = Registry(root)
    polygons: list[Polygon] = [
        [(359.9, -0.1), (0.1, -0.1), (0.1, 0.1), (359.9, 0.1)],
        [(0, 89.9), (120, 89.9), (240, 89.9)],
        [(9.7, 59.8), (10.4, 59.8), (10.0, 60.5)],
        [(9, 60.0), (11, 60.0), (11, 60.0001), (9, 60.0001)],
        [(50, 50), (51, 50), (51, 51)],
    ]
    for polygon in polygons:
        region_ = Footprint.of_region(polygon)
        expected = {
            cal(number)
            for number, footprint in enumerate(footprints, start=1)
            if region_.meets(footprint)
        }
        found = registry.products.find(polygon=polygon)
        assert set(found["name"]) == expected, polygon
        both = registry.products.find(polygon=polygon, cone=(10, 60, 0.3))
        assert set(both["name"]) == expected & set(
            registry.products.find(cone=(10, 60, 0.3))["name"]
        )
    assert len(registry.products.find(polygon=polygons[2])) > 3


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path)


def _square(ra: float, dec: float, half: float) -> Footprint:
    corners = SkyCoord(ra, dec, unit="deg").directional_offset_by(
        np.array([45, 135, 225, 315]) * u.deg, np.sqrt(2) * half * u.deg
    )
    return Footprint(np.stack([corners.ra.deg, corners.dec.deg], axis=-1))
