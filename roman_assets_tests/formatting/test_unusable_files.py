"""Whatever one file of the landing area does, it alone is put away, once; the rest goes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.cli.status_tables import status_tables
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.formatting import landing as landing_module
from roman_assets.formatting.landing import LandingArea, ScanResult
from roman_assets_tests.formatting.test_landing import PACKETS, arrive, place
from roman_assets_tests.support.other_user import NOBODY, another_user, as_root, open_directory
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    executed_visit,
    write_document,
    write_oem,
)

GOOD = b"".join(PACKETS)


@pytest.fixture
def area(tmp_path):
    return LandingArea(DataRoot(tmp_path / "data"))


def first(path: Path) -> Path:
    """Set the arrival of a file before all others."""
    arrive(path, -1000)
    return path


def name_without_text(area: LandingArea) -> Path:
    return first(place(area, os.fsdecode(b"contact_\xff.l0"), GOOD))


def longest_name(area: LandingArea) -> Path:
    path = area.path / ("x" * 252 + ".l0")
    path.write_bytes(b"noise")
    return first(path)


def statement_of_a_case(area: LandingArea) -> Path:
    return first(place(area, "case.json", b"{"))


def changed_document(area: LandingArea, **changes: object) -> Path:
    document = executed_visit().model_dump(mode="json") | changes
    path = area.path / "visit.json"
    path.write_text(json.dumps(document))
    return first(path)


def time_before_all_times(area: LandingArea) -> Path:
    return changed_document(area, start_time="0001-01-01T00:00:00+14:00")


def endless_revision(area: LandingArea) -> Path:
    return changed_document(area, revision=2**63)


def half_a_character(area: LandingArea) -> Path:
    return changed_document(area, visit_type="\ud800")


def changed_orbit(area: LandingArea, old: str, new: str) -> Path:
    path = write_oem(area.path / "orbit_1.oem")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return first(path)


def created_in_a_leap_second(area: LandingArea) -> Path:
    return changed_orbit(
        area, "CREATION_DATE = 2027-05-20T00:00:00", "CREATION_DATE = 2016-12-31T23:59:60"
    )


def useable_from_a_leap_second(area: LandingArea) -> Path:
    return changed_orbit(
        area,
        "STOP_TIME",
        "USEABLE_START_TIME = 2016-12-31T23:59:60\n"
        "USEABLE_STOP_TIME = 2027-06-05T00:00:00\nSTOP_TIME",
    )


def arrival_beyond_all_times(area: LandingArea) -> Path:
    path = place(area, "contact_1.l0", GOOD)
    os.utime(path, (2**34 - 1, 2**34 - 1))
    return path


def arrival_before_all_times(area: LandingArea) -> Path:
    path = place(area, "contact_1.l0", GOOD)
    os.utime(path, (-1, -1))
    return path


def link_to_a_directory_above(area: LandingArea) -> Path:
    (area.path / "loop").symlink_to(".")
    return area.path / "loop"


def link_to_itself(area: LandingArea) -> Path:
    (area.path / "loop.l0").symlink_to("loop.l0")
    return area.path / "loop.l0"


def link_to_nothing(area: LandingArea) -> Path:
    (area.path / "nothing.l0").symlink_to("/nothing")
    return area.path / "nothing.l0"


def pipe(area: LandingArea) -> Path:
    os.mkfifo(area.path / "pipe.l0")
    return area.path / "pipe.l0"


@pytest.mark.parametrize(
    "make",
    [
        name_without_text,
        longest_name,
        statement_of_a_case,
        time_before_all_times,
        endless_revision,
        half_a_character,
        created_in_a_leap_second,
        useable_from_a_leap_second,
        arrival_beyond_all_times,
        arrival_before_all_times,
        link_to_a_directory_above,
        link_to_itself,
        link_to_nothing,
        pipe,
    ],
)
def test_one_file_is_set_aside_once_with_its_reason_and_those_after_it_go_on(area, make):
    path = make(area)
    place(area, "good.l0", GOOD)
    assert area.scan().taken == ("good.l0",)
    assert not os.path.lexists(path)
    (case,) = SetAside(area.root).list()
    assert not case.is_damaged
    assert case.reason
    assert case.remedy
    assert LandingArea(area.root).scan() == ScanResult()
    assert area.receipt(EXPOSURE)
    assert len(SetAside(area.root).list()) == 1


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        ValueError("odd"),
        OverflowError("odd"),
        KeyError("odd"),
        MemoryError(),
        RecursionError("odd"),
    ],
    ids=repr,
)
def test_whatever_is_raised_while_one_file_is_read_the_index_stays_and_the_rest_goes_on(
    area, monkeypatch, error
):
    first(place(area, "odd.l0", GOOD))
    place(area, "good.l0", GOOD)
    (area.path / "visit.json").write_text(executed_visit().model_dump_json())
    index = area._inventory.database.identity
    read = landing_module.begin_reading

    def reading(path: Path, spacecraft):
        if path.name == "odd.l0":
            raise error
        return read(path, spacecraft)

    monkeypatch.setattr(landing_module, "begin_reading", reading)
    assert set(area.scan().taken) == {"good.l0", "visit.json"}
    assert area._inventory.database.identity == index
    (case,) = SetAside(area.root).list()
    assert case.content.name == "odd.l0"


def test_a_process_with_too_many_open_files_sets_nothing_aside(area, monkeypatch):
    place(area, "good.l0", GOOD)

    def reading(path: Path, spacecraft):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(landing_module, "begin_reading", reading)
    with pytest.raises(PassingFaultError, match="open files"):
        area.scan()
    monkeypatch.undo()
    assert area.scan().taken == ("good.l0",)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again_and_not_set_aside(
    area, monkeypatch
):
    place(area, "contact.l0", b"noise")
    read = landing_module.begin_reading

    def reading(path: Path, spacecraft):
        try:
            return (yield from read(path, spacecraft))
        finally:
            place(area, "contact.l0", GOOD)

    monkeypatch.setattr(landing_module, "begin_reading", reading)
    assert area.scan() == ScanResult()
    monkeypatch.undo()
    assert area.scan().taken == ("contact.l0",)
    assert SetAside(area.root).list() == ()


def closed_directory(landing: Path) -> Path:
    (landing / "closed").mkdir(mode=0o700)
    (landing / "closed/contact.l0").write_bytes(b"noise")
    return landing / "closed"


def closed_file(landing: Path) -> Path:
    (landing / "day").mkdir(mode=0o755)
    path = landing / "day/contact.l0"
    path.write_bytes(GOOD)
    path.chmod(0o600)
    return path


def noise_in_a_directory_of_others(landing: Path) -> Path:
    (landing / "day").mkdir(mode=0o755)
    path = landing / "day/contact.l0"
    path.write_bytes(b"noise")
    path.chmod(0o644)
    return path


@pytest.fixture
def foreign():
    """A landing area of a user who owns nothing else, into which root delivers."""
    with open_directory() as place:
        landing = place / "data/landing"
        landing.mkdir(parents=True)
        for path in (place / "data", landing):
            os.chown(path, NOBODY, NOBODY)
        yield DataRoot(place / "data")


@as_root
@pytest.mark.parametrize("deliver", [closed_directory, closed_file, noise_in_a_directory_of_others])
def test_what_can_neither_be_used_nor_moved_is_told_once_and_named_until_it_is_mended(
    foreign, deliver
):
    root = foreign
    path = deliver(root.landing)
    (root.landing / "good.l0").write_bytes(GOOD)
    (root.landing / "good.l0").chmod(0o644)
    with another_user():
        area = LandingArea(root)
        result = area.scan()
        assert result.taken == ("good.l0",)
        (fault,) = result.left
        assert fault.source == str(path)
        for again in (area, LandingArea(root)):
            assert again.scan() == ScanResult()
        (table,) = [table for table in status_tables(root) if "Unusable" in str(table.title)]
        assert list(table.columns[0].cells) == [str(path)]
        assert SetAside(root).list() == ()
    for one in (path, *path.glob("*")):
        one.unlink() if one.is_file() and one.read_bytes() == b"noise" else one.chmod(0o755)
    with another_user():
        area.scan()
        assert area.left() == []
        assert LandingArea(root).scan() == ScanResult()


@as_root
def test_files_of_a_directory_that_is_closed_for_a_while_still_count(foreign):
    root = foreign
    day = root.landing / "day"
    day.mkdir(mode=0o755)
    (day / "contact.l0").write_bytes(b"".join(PACKETS))
    write_document(executed_visit(detectors=("WFI01",), size=16), day / "visit.json")
    write_document(MA_TABLE, day / "ma.json")
    write_oem(day / "orbit.oem")
    with another_user():
        LandingArea(root).scan()
        assert LandingArea(root).receipt(EXPOSURE).complete
    day.chmod(0o700)
    with another_user():
        assert len(LandingArea(root).scan().left) == 1
        assert LandingArea(root).receipt(EXPOSURE).complete


@as_root
def test_a_file_of_others_is_set_aside_where_the_directory_allows_it(foreign):
    path = foreign.landing / "contact.l0"
    path.write_bytes(GOOD)
    path.chmod(0o600)
    with another_user():
        assert len(LandingArea(foreign).scan().set_aside) == 1
        (case,) = SetAside(foreign).list()
    assert case.field == "file"
    assert "Permission denied" in case.reason


def test_files_below_a_link_to_a_directory_are_not_taken_in_twice(area):
    (area.path / "day").mkdir()
    place(area, "day/contact.l0", GOOD)
    (area.path / "again").symlink_to("day")
    assert area.scan().taken == ("day/contact.l0",)


def test_any_number_of_links_to_the_landing_area_itself_is_set_aside_by_one_scan(area):
    """Setting one aside changes the directory that all of them lead to."""
    for number in range(5):
        (area.path / f"loop{number}").symlink_to(".")
    assert len(area.scan().set_aside) == 5


def test_reasons_with_brackets_can_be_shown(area):
    place(area, "odd.json", b'{"kind": "[/red]"}')
    titles = [str(table.title) for table in status_tables(area.root)]
    assert "Set aside" in titles
