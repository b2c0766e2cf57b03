import json
import re
import struct
import time
from datetime import UTC, datetime, timedelta

import asdf
import pytest
import roman_datamodels.datamodels as rdm
from astropy.time import Time

from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.registry.catalog.metadata import product_metadata
from roman_assets_tests.support.small_products import association, cal, exposure

SQUARE = "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"


def facts_of(path):
    return product_metadata(path, ProductName.parse(path.name)).facts


def image(model_class=rdm.ImageModel, **arguments):
    model = model_class.create_fake_data(**arguments)
    model.meta.program.subcategory = "HLTD"
    model.meta.exposure.start_time = Time("2027-06-01T00:00:00.5")
    model.meta.exposure.end_time = Time("2027-06-01T00:02:00")
    model.meta.exposure.exposure_time = 139.1
    model.meta.visit.nexposures = 2
    model.meta.wcsinfo.s_region = SQUARE
    return model


EXPECTED = {
    "survey": "HLTDS",
    "exposure_type": "WFI_IMAGE",
    "start_time": "2027-06-01T00:00:00.500000+00:00",
    "end_time": "2027-06-01T00:02:00+00:00",
    "nexposures": 2,
    "ra": pytest.approx(270.0),
    "dec": pytest.approx(66.0, abs=1e-3),
    "radius": pytest.approx(0.108, abs=1e-3),
    "footprint": SQUARE,
    "exposure_time": 139.1,
}


def test_the_facts_of_an_image_are_those_of_its_metadata(tmp_path):
    model = image(shape=(6, 8))
    path = tmp_path / cal()
    model.save(path)
    facts = facts_of(path)
    assert facts == EXPECTED | {"naxis1": 8, "naxis2": 6}
    json.dumps(facts)


def test_a_ramp_has_its_resultants_as_a_third_axis(tmp_path):
    path = tmp_path / cal().replace("_cal", "_uncal")
    image(rdm.ScienceRawModel, shape=(4, 6, 8)).save(path)
    assert facts_of(path) == EXPECTED | {"naxis1": 8, "naxis2": 6, "naxis3": 4}


@pytest.mark.parametrize(
    "time",
    [
        Time("2027-06-01T00:08:00.000"),
        Time(datetime(2027, 6, 1, 0, 8)),
        Time("2027-06-01 00:08:00"),
        Time("2027-06-01T00:08:37", scale="tai"),
        Time(61557 + 8 / 1440, format="mjd"),
    ],
    ids=["isot", "datetime", "iso", "tai", "mjd"],
)
def test_a_time_is_read_in_whatever_form_it_was_written(tmp_path, time):
    path = tmp_path / cal()
    asdf.AsdfFile({"roman": {"meta": {"exposure": {"start_time": time}}}}).write_to(path)
    (start,) = facts_of(path).values()
    wanted = datetime(2027, 6, 1, 0, 8, tzinfo=UTC)
    assert abs(datetime.fromisoformat(start) - wanted) < timedelta(milliseconds=1)


def test_the_status_of_every_calibration_step_is_a_fact(tmp_path):
    status = {"flat_field": "COMPLETE", "refpix": "SKIPPED"}
    path = tmp_path / cal()
    asdf.AsdfFile({"roman": {"meta": {"cal_step": status}}}).write_to(path)
    assert facts_of(path) == {"cal_step": status}


def test_the_facts_of_a_catalogue_are_those_of_its_metadata_and_not_of_its_sources(tmp_path):
    path = tmp_path / cal().replace("_cal.asdf", "_cat.parquet")
    image(rdm.ImageSourceCatalogModel).save(path)
    assert facts_of(path) == EXPECTED


def test_the_facts_of_a_coadd_are_those_of_all_its_exposures(tmp_path):
    model = rdm.MosaicModel.create_fake_data(shape=(8, 8))
    model.meta.program.subcategory = "HLWA"
    model.meta.coadd_info.time_first = Time("2027-06-01T00:00:00")
    model.meta.coadd_info.time_last = Time("2027-06-02T00:00:00")
    model.meta.wcsinfo.s_region = SQUARE
    path = tmp_path / association().replace("_asn.json", "_coadd.asdf")
    model.save(path)
    facts = facts_of(path)
    assert facts["survey"] == "HLWAS"
    assert facts["start_time"] == "2027-06-01T00:00:00+00:00"
    assert facts["end_time"] == "2027-06-02T00:00:00+00:00"
    assert facts["footprint"] == SQUARE
    assert "nexposures" not in facts


@pytest.mark.parametrize(
    ("model_class", "name"),
    [
        (rdm.L1DetectorGuidewindowModel, f"{exposure()}_wfi01_f158_gw.asdf"),
        (rdm.L1FaceGuidewindowModel, f"{exposure()}_f158_face.asdf"),
    ],
)
def test_guide_window_and_face_files_have_times_and_no_place(tmp_path, model_class, name):
    model_class.create_fake_data().save(tmp_path / name)
    facts = facts_of(tmp_path / name)
    assert facts == {
        "start_time": "2020-01-01T00:00:00+00:00",
        "end_time": "2020-01-01T00:00:00+00:00",
    }


def test_an_association_has_no_facts_of_its_own(tmp_path):
    path = tmp_path / association()
    path.write_text('{"asn_type": "image", "products": []}')
    assert facts_of(path) == {}


@pytest.mark.parametrize("name", [cal(), cal().replace("_cal.asdf", "_cat.parquet"), association()])
@pytest.mark.parametrize("content", [b"", b"not the file it says", b"[1, 2]"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=name):
        facts_of(path)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("wcsinfo", "s_region", "POLYGON ICRS nowhere"),
        ("exposure", "start_time", "yesterday"),
        ("visit", "nexposures", "two"),
        ("visit", "nexposures", 2**40),
        ("exposure", "exposure_time", [1]),
        ("exposure", "start_time", "0001-01-01T00:00:00+14:00"),
        ("exposure", "type", 7),
        ("wcsinfo", "s_region", 12),
        ("wcsinfo", "s_region", "POLYGON ICRS 0 0 90 0 180 0 270 0"),
    ],
)
def test_a_fact_that_makes_no_sense_is_named_with_its_field(tmp_path, section, field, value):
    path = tmp_path / cal()
    asdf.AsdfFile({"roman": {"meta": {section: {field: value}}}}).write_to(path)
    with pytest.raises(BadInputError, match=f"{section}.{field}.*{re.escape(str(value))}"):
        facts_of(path)


def test_no_array_is_read(tmp_path):
    path = tmp_path / cal()
    image(shape=(512, 512)).save(path)
    content = path.read_bytes()
    header = content.index(b"\n...\n") + 5
    path.write_bytes(content[:header])
    assert facts_of(path)["survey"] == "HLTDS"


def bomb(levels: int) -> bytes:
    """Lists of two aliases each: two to the power of the levels, once written out."""
    lines = ["x0: &x0 [0]", *(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, levels))]
    return "".join(f"    {line}\n" for line in lines).encode()


def many_bytes(compression: bytes) -> bytes:
    """An empty block that says it holds a petabyte."""
    return b"\xd3BLK" + struct.pack(">HI4sQQQ16s", 48, 0, compression, 0, 0, 10**15, bytes(16))


BEGINNING = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n--- \n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (cal(), b"[" * 200_000 + b"\n...\n", "nested"),
        (cal(), b"- " * 200_000 + b"\n...\n", "nested"),
        (cal(), b"roman:\n  meta:\n" + bomb(60) + b"\n...\n", "metadata values|nested"),
        (cal(), b"roman: &r\n  meta: *r\n...\n", "nested"),
        (cal(), b"roman:\n  meta: {a: 0x" + b"f" * 100_000 + b"}\n...\n", "400000 bits"),
        (cal(), b"roman:\n  meta: {a: " + b"x" * 100_000 + b"}\n...\n", "100000 characters"),
        (cal(), b"roman:\n  meta: {}\n  data: {shape: [*, 4]}\n...\n", "alias"),
        (cal(), b"roman:\n  meta: {}\n  data: {shape: [-1, 4]}\n...\n", "shape"),
        (cal(), b"roman:\n  meta: {}\n...\n" + many_bytes(b"zlib"), "decompressed"),
        (cal(), b"a" * 10_000_000, "no end"),
        (cal().replace("_cal.asdf", "_cat.parquet"), b"PAR1\xff\xff\xff\x7fPAR1", "footer"),
        (association(), b"[" * 200_000, "recursion"),
        (association(), b" " * 10_000_000, "10000000 bytes"),
        (association(), b'{"a": "\\ud800"}', "surrogates"),
        (association(), b'{"a": 1' + b"0" * 400 + b"}", "1329|1332 bits|integer"),
    ],
)
def test_a_file_beyond_a_limit_is_refused_before_it_takes_memory_or_time(
    tmp_path, name, content, reason
):
    path = tmp_path / name
    path.write_bytes(BEGINNING + content if name == cal() else content)
    began = time.process_time()
    with pytest.raises(BadInputError, match=reason):
        facts_of(path)
    assert time.process_time() - began < 5
