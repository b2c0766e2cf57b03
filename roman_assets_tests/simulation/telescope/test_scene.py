import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.simulation.telescope.scene import (
    BULGE_COUNTS,
    BULGE_FIELD,
    BULGE_REFERENCE_LIMIT,
    FILTERS,
    REFERENCE_LIMIT,
    STAR_DENSITY,
    Scene,
    SkyCircle,
    SourceKind,
)

NEAR = SkyCircle(269.83, 65.86, 0.02)


@settings(max_examples=20, deadline=None)
@given(
    ra=st.floats(0, 360),
    dec=st.floats(-89.9, 89.9),
    radius=st.floats(0.001, 0.05),
    shift=st.floats(-0.05, 0.05),
)
def test_a_place_looks_the_same_whatever_else_is_asked_for(ra, dec, radius, shift):
    circle = SkyCircle(ra, dec, radius)
    wider = SkyCircle(ra, float(np.clip(dec + shift, -90, 90)), radius + abs(shift))
    alone = Scene(3).sources([circle])
    together = Scene(3).sources([wider, circle])
    rows = {row["name"]: tuple(row) for row in together}
    assert len(rows) == len(together)
    assert all(rows[row["name"]] == tuple(row) for row in alone)


def test_only_simulated_sources_depend_on_the_seed():
    skies = [Scene(seed).sources([NEAR]) for seed in (1, 2)]
    real = [set(sky["name"][sky["kind"] == str(SourceKind.GAIA)]) for sky in skies]
    simulated = [set(sky["ra"][sky["kind"] != str(SourceKind.GAIA)]) for sky in skies]
    assert real[0] == real[1] != set()
    assert not simulated[0] & simulated[1]


def test_truth_is_complete_and_finite():
    sky = Scene(1).sources([NEAR])
    assert set(sky["kind"]) == {str(kind) for kind in SourceKind} - {str(SourceKind.BULGE)}
    for name in ("ra", "dec", *FILTERS):
        assert np.all(np.isfinite(sky[name]))
    assert all(np.all(sky[name] > 0) for name in FILTERS)
    galaxies = sky["kind"] == str(SourceKind.GALAXY)
    assert np.all((sky["half_light_radius"] > 0) == galaxies)
    distance = np.hypot((sky["ra"] - NEAR.ra) * np.cos(np.radians(NEAR.dec)), sky["dec"] - NEAR.dec)
    assert distance.max() <= NEAR.radius * 1.001


def test_simulated_stars_have_their_stated_density():
    sky = Scene(1).sources([SkyCircle(120.0, -20.0, 0.1)])
    stars = np.count_nonzero(sky["kind"] == str(SourceKind.STAR))
    assert stars / (np.pi * 6.0**2) == pytest.approx(STAR_DENSITY, rel=0.06)


def test_the_reference_catalogue_is_the_bright_stars_of_the_scene():
    sky = Scene(1).sources([NEAR])
    bright = sky[(sky["kind"] != "galaxy") & (-2.5 * np.log10(sky["F158"]) < REFERENCE_LIMIT)]
    catalogue = Scene(1).reference_stars([NEAR])
    assert set(catalogue["RA"]) == set(bright["ra"])
    assert set(catalogue["kind"]) == {"gaia", "simulated_star"}


BULGE = SkyCircle(BULGE_FIELD.ra, BULGE_FIELD.dec, 0.01)


def test_the_bulge_is_as_crowded_as_published_counts_say():
    sky = Scene(1).sources([BULGE])
    magnitude = -2.5 * np.log10(sky["F158"][sky["kind"] == str(SourceKind.BULGE)])
    (first, brighter), *others = BULGE_COUNTS
    assert magnitude.min() > first
    for limit, count in others:
        found = np.count_nonzero(magnitude < limit) / (np.pi * 0.6**2)
        expected = count - brighter
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / np.pi) / 0.6)


def test_the_catalogue_has_the_bright_stars_of_the_bulge_only():
    sky = Scene(1).sources([BULGE])
    bright = -2.5 * np.log10(sky["F158"]) < BULGE_REFERENCE_LIMIT
    stars = sky[bright & (sky["kind"] == str(SourceKind.BULGE))]
    catalogue = Scene(1).reference_stars([BULGE])
    crowd = catalogue[catalogue["kind"] == str(SourceKind.BULGE)]
    assert len(stars) > 100
    assert set(crowd["RA"]) == set(stars["ra"])


def test_the_crowd_is_the_same_whatever_else_is_asked_for():
    wider = SkyCircle(BULGE.ra, BULGE.dec, 0.02)
    alone = Scene(1).sources([BULGE])
    together = set(Scene(1).sources([wider])["name"])
    assert set(alone["name"]) <= together
