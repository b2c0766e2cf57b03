from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest
from astropy.coordinates import get_body_barycentric_posvel
from astropy.time import Time

from roman_assets.errors import BadInputError
from roman_assets.formatting.ancillary import content_hash, parse_document, read_document
from roman_assets.formatting.orbit_ephemeris import Ephemeris, EphemerisKind, open_ephemeris
from roman_assets.products.observation import Survey
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    START,
    TOWARDS_L2,
    executed_visit,
    write_document,
    write_oem,
)


@pytest.mark.parametrize("document", [executed_visit(), MA_TABLE], ids=lambda d: d.kind)
def test_a_document_written_is_read_as_it_was(tmp_path, document):
    read = read_document(write_document(document, tmp_path / "document.json"))
    assert read == document
    assert content_hash(read) == content_hash(document)


def changed(path: str, value: object) -> dict:
    document = executed_visit().model_dump(mode="json")
    *parents, last = path.split(".")
    part = document
    for key in parents:
        part = part[int(key)] if key.isdigit() else part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("optical_element", "F999", "F062"),
        ("exposure_type", "WFI_MOVIE", "WFI_IMAGE"),
        ("visit", "r123", "19 digits"),
        ("nexposures", None, "required"),
        ("nexposures", 0, "greater"),
        ("nexposures", 10_000, "less"),
        ("revision", 2**63, "less"),
        ("rcs.counts", 2**63, "less"),
        ("exposures.0.ma_table_number", 2**63, "less"),
        ("exposures.0.nresultants", 10**6, "less"),
        ("exposures.0.pointing.target_ra", 1e300, "less"),
        ("apertures.WFI01.v2_ref", 1e300, "less"),
        ("dither.executed_pattern", [0] * 100_000, "at most"),
        ("start_time", "0001-01-01T00:00:00+14:00", "between 2000 and 2100"),
        ("exposures.0.end_time", "9999-12-31T23:59:59-14:00", "between 2000 and 2100"),
        ("surprise", 1, "Extra"),
        ("start_time", "2027-06-01T00:00:00", "timezone"),
        ("exposures.0.detectors", ["WFI19"], "WFI01 to WFI18"),
        ("exposures.0.pointing.target_dec", 91.0, "90"),
        ("exposures.0.pointing.ra_v1", float("nan"), "finite"),
        ("apertures.WFI01.v2_corners", [1.0, 2.0, 3.0], "required"),
    ],
)
def test_a_bad_field_is_named_with_its_reason(path, value, said):
    with pytest.raises(BadInputError, match=said) as caught:
        parse_document(changed(path, value), "visit.json")
    named = caught.value.field.split(".")
    assert set(path.split(".")) & set(named)
    assert caught.value.source == "visit.json"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("exposures.0.end_time", "2027-06-01T00:00:00Z", "end_time is not after"),
        ("exposures.0.detectors", ["WFI01", "WFI01"], "listed twice"),
        ("exposures.0.detectors", ["WFI01", "WFI05"], "none for WFI05"),
        ("apertures.WFI02", None, "none for WFI02"),
        ("exposures.0.exposure", 3, "number 3 of 2"),
    ],
)
def test_fields_that_contradict_each_other_are_named(path, value, said):
    with pytest.raises(BadInputError, match=said):
        parse_document(changed(path, value), "visit.json")


@pytest.mark.parametrize("pattern", [[], [[]], [[1], [3, 2]], [[0], [1]], [[1], [1]]])
def test_an_impossible_read_pattern_is_refused(pattern):
    document = MA_TABLE.model_dump(mode="json") | {"read_pattern": pattern}
    with pytest.raises(BadInputError, match="read_pattern"):
        parse_document(document, "ma_table.json")


def test_a_document_of_no_known_kind_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"kind": "weather"}))
    with pytest.raises(BadInputError, match="executed_visit"):
        read_document(path)


def test_exposure_times_follow_rads_definitions():
    assert MA_TABLE.exposure_time == pytest.approx(6 * 3.16)
    assert MA_TABLE.effective_exposure_time == pytest.approx((5 - 1) * 3.16)
    cut = MA_TABLE.truncated(2)
    assert (cut.nresultants, cut.exposure_time) == (2, pytest.approx(3 * 3.16))
    assert cut.effective_exposure_time == pytest.approx((2.5 - 1) * 3.16)


def test_the_survey_is_that_of_the_programs_subcategory():
    assert executed_visit().survey is Survey.HLWAS
    assert executed_visit().executed(EXPOSURE) is not None


def test_a_state_is_barycentric(tmp_path):
    ephemeris = Ephemeris(write_oem(tmp_path / "orbit.oem"))
    state = ephemeris.state(START)
    position, velocity = get_body_barycentric_posvel("earth", Time(START), ephemeris="builtin")
    # the sample recedes by 0.1 km/s, 1.5e6 km from Earth ten days before that midnight
    midnight = START.replace(hour=0, minute=0, second=0, microsecond=0)
    elapsed = (START - midnight + timedelta(days=10)).total_seconds()
    offset = TOWARDS_L2 * (1.5e6 + 0.1 * elapsed)
    np.testing.assert_allclose(state.position, position.xyz.to_value("km") + offset, atol=0.01)
    drift = TOWARDS_L2 * 0.1
    np.testing.assert_allclose(state.velocity, velocity.xyz.to_value("km/s") + drift, atol=1e-6)
    assert state.frame == "EME2000"


@pytest.mark.parametrize(
    ("name", "comment", "kind"),
    [
        ("orbit.oem", "DEFINITIVE", EphemerisKind.DEFINITIVE),
        ("x_predicted_y.oem", None, EphemerisKind.PREDICTED),
        ("predicted.oem", "DEFINITIVE", EphemerisKind.DEFINITIVE),
    ],
)
def test_the_kind_is_told_by_the_comment_before_the_name(tmp_path, name, comment, kind):
    path = write_oem(tmp_path / name, comment or "NONE")
    if comment is None:
        path.write_text(path.read_text().replace("COMMENT EPHEMERIS_TYPE = NONE\n", ""))
    assert Ephemeris(path).kind is kind


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("= EARTH", "= MARS", "CENTER_NAME"),
        ("= EME2000", "= ITRF", "REF_FRAME"),
        ("= UTC", "= TDB", "TIME_SYSTEM"),
        ("EPHEMERIS_TYPE = PREDICTED", "EPHEMERIS_TYPE = GUESSED", "EPHEMERIS_TYPE"),
    ],
)
def test_an_orbit_not_handled_is_refused_by_keyword(tmp_path, old, new, field):
    path = write_oem(tmp_path / "orbit.oem")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInputError) as caught:
        Ephemeris(path)
    assert caught.value.field == field


def test_an_orbit_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"orbit\.oem: ephemeris: it is gone"):
        open_ephemeris(tmp_path / "orbit.oem")


@pytest.mark.parametrize("size", [9 << 20, 1 << 40])
def test_a_file_beyond_its_limit_is_not_read(tmp_path, size):
    for name, read in (("visit.json", read_document), ("predicted.oem", Ephemeris)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        with pytest.raises(BadInputError, match=f"it has {size} B"):
            read(tmp_path / name)


def test_a_moment_outside_the_orbit_is_refused(tmp_path):
    ephemeris = Ephemeris(write_oem(tmp_path / "orbit.oem"))
    late = START + timedelta(days=300)
    assert ephemeris.covers(START, START)
    assert not ephemeris.covers(START, late)
    with pytest.raises(BadInputError, match="not covered"):
        ephemeris.state(late)
