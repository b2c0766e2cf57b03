from __future__ import annotations

from datetime import timedelta
from importlib import resources

import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.cli.status_tables import status_tables
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.orbit_ephemeris import Ephemeris, EphemerisKind
from roman_assets.formatting.spacecraft import FILE_NAME, Spacecraft
from roman_assets.simulation.telescope.ephemeris import orbit_message
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    START,
    executed_visit,
    write_document,
    write_oem,
)


@pytest.fixture
def area(tmp_path):
    area = LandingArea(DataRoot(tmp_path / "data"))
    write_document(executed_visit(detectors=("WFI01",), size=16), area.path / "visit.json")
    write_document(MA_TABLE, area.path / "ma.json")
    return area


@pytest.mark.filterwarnings("ignore::erfa.ErfaWarning")
def test_the_mission_and_the_simulator_give_the_observatorys_own_orbit(tmp_path):
    data = resources.files("romanisim") / "data" / "roman-technical-information" / "data"
    published = sorted((data / "Observatory" / "Orbit").glob("*.oem"))
    assert published
    for number, source in enumerate(published):
        path = tmp_path / f"predicted_{number}.oem"
        path.write_text(source.read_text())
        Spacecraft().check(Ephemeris(path))
    for kind in EphemerisKind:
        path = tmp_path / f"{kind}.oem"
        path.write_text(orbit_message(START, START + timedelta(days=2), kind))
        Spacecraft().check(Ephemeris(path))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"OBJECT_NAME": "LEO"}, "OBJECT_NAME"),
        ({"OBJECT_NAME": "ROMANTIC"}, "OBJECT_NAME"),
        ({"OBJECT_ID": "2021-130A"}, "OBJECT_ID"),
        ({"offset": -1.46e6}, "states"),
        ({"offset": 1.5e9}, "states"),
        ({"CENTER_NAME": "SUN"}, "states"),
    ],
    ids=str,
)
def test_the_orbit_of_another_spacecraft_is_set_aside_and_no_exposure_gets_it(area, changes, field):
    write_oem(area.path / "orbit.oem", "DEFINITIVE", **changes)
    area.scan()
    (case,) = SetAside(area.root).list()
    assert case.field == field
    assert FILE_NAME in case.remedy
    assert area.ancillary(EXPOSURE).ephemerides == ()


def test_an_observatory_of_another_name_can_be_set(area):
    (area.root.path / FILE_NAME).write_text(
        'version = 1\nnames = ["NGRST"]\nids = ["2026-999A"]\nfarthest_from_l2_km = 2_000_000\n'
    )
    write_oem(area.path / "orbit.oem", OBJECT_NAME="NGRST", OBJECT_ID="2026-999A", offset=-1.46e6)
    assert "orbit.oem" in area.scan().taken


@pytest.mark.parametrize("text", ["names = []", "version = 2", "[", "version = 1\nids = 'x'", "\0"])
def test_ephemerides_wait_while_their_setting_is_wrong_and_all_else_goes_on(area, text):
    settings = area.root.path / FILE_NAME
    settings.write_text(text)
    write_oem(area.path / "orbit.oem")
    result = area.scan()
    assert set(result.taken) == {"visit.json", "ma.json"}
    (fault,) = result.left
    assert fault.source == str(settings)
    (table,) = [table for table in status_tables(area.root) if "Unusable" in str(table.title)]
    assert list(table.columns[0].cells) == [str(settings)]
    settings.unlink()
    assert area.scan().taken == ("orbit.oem",)
    assert SetAside(area.root).list() == ()


def test_an_orbit_may_begin_at_the_earth_and_not_leave_l2_again(tmp_path):
    path = write_oem(tmp_path / "orbit.oem", days=4)
    lines = path.read_text().splitlines()
    far, *rest = lines[-4:]
    departing = far.split()[0] + " 7000.0 0.0 0.0 0.1 0.0 0.0"
    path.write_text("\n".join([*lines[:-4], departing, *rest]) + "\n")
    Spacecraft().check(Ephemeris(path))
    back = rest[-1].split()[0] + " 7000.0 0.0 0.0 0.1 0.0 0.0"
    path.write_text("\n".join([*lines[:-1], back]) + "\n")
    with pytest.raises(BadInputError, match="from the Sun-Earth L2 point"):
        Spacecraft().check(Ephemeris(path))
