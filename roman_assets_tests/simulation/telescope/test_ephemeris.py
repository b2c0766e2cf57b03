from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import EphemerisKind, open_ephemeris
from roman_assets.simulation.telescope.ephemeris import barycentric_velocity, orbit_message

START = datetime(2027, 6, 1, tzinfo=UTC)
STOP = START + timedelta(hours=3)
MIDDLE = START + timedelta(minutes=97)


@pytest.fixture(scope="module")
def orbits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("orbits")
    for kind in EphemerisKind:
        (directory / f"{kind}.oem").write_text(orbit_message(START, STOP, kind))
    return {kind: open_ephemeris(directory / f"{kind}.oem") for kind in EphemerisKind}


@pytest.mark.parametrize("kind", list(EphemerisKind))
def test_an_orbit_file_says_its_kind_and_covers_its_span(orbits, kind):
    assert orbits[kind].kind is kind
    assert orbits[kind].covers(START, STOP)
    assert not orbits[kind].covers(START - timedelta(days=1), STOP)


def test_the_definitive_orbit_is_kilometres_from_the_predicted_one(orbits):
    predicted, definitive = (orbits[kind].state(MIDDLE) for kind in EphemerisKind)
    assert 1 < np.linalg.norm(definitive.position - predicted.position) < 10
    assert 0 < np.linalg.norm(definitive.velocity - predicted.velocity) < 1e-3


def test_the_definitive_orbit_is_made_after_the_observations(orbits):
    assert orbits[EphemerisKind.PREDICTED].creation_date < START
    assert orbits[EphemerisKind.DEFINITIVE].creation_date > STOP


def test_velocities_agree_with_the_motion(orbits):
    step = timedelta(minutes=1)
    for orbit in orbits.values():
        before, after = (orbit.state(MIDDLE + sign * step).position for sign in (-1, 1))
        moved = (after - before) / (2 * step.total_seconds())
        assert orbit.state(MIDDLE).velocity == pytest.approx(moved, abs=1e-4)


def test_the_telescope_moves_as_its_orbit_file_says(orbits):
    stated = orbits[EphemerisKind.PREDICTED].state(MIDDLE).velocity
    assert barycentric_velocity(MIDDLE) == pytest.approx(stated, abs=1e-4)


def test_a_plan_beyond_the_mission_is_refused():
    late = datetime(2050, 1, 1, tzinfo=UTC)
    with pytest.raises(BadInputError, match="span"):
        orbit_message(late, late, EphemerisKind.PREDICTED)
