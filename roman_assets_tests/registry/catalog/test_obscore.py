"""The ObsCore view: the standard's columns, and for each kind of product the right values."""

import importlib.resources
import io
import re

import astropy.io.votable
import numpy as np
import pytest
import yaml
from astropy.time import Time

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.bandpass import BANDPASSES
from roman_assets.products.kind import KINDS, Level, Maker, Scope
from roman_assets.products.name import ProductName
from roman_assets.products.observation import OpticalElement
from roman_assets.records.journal import Journal
from roman_assets.registry.catalog.obscore import DATA_KINDS, OBSCORE_COLUMNS, obscore_table
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.snapshot import read_snapshot
from roman_assets.registry.store.tiers import TieredDatabase
from roman_assets_tests.support.small_products import VISIT, cal, exposure, record_of

SQUARE = "POLYGON ICRS  269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"
FACTS = {
    "survey": "HLTDS", "start_time": "2027-06-01T00:00:00+00:00",
    "end_time": "2027-06-01T00:02:19.149+00:00", "ra": 270.0, "dec": 66.0, "radius": 0.108,
    "footprint": SQUARE, "exposure_time": 139.149,
}  # fmt: skip
DETECTOR, SKYCELL = f"{exposure()}_wfi02_f158", "r00010_p_v01001001001001_270p65x49y70_f158"
NAMES = {
    "uncal": f"{DETECTOR}_uncal.asdf",
    "guide_window": f"{DETECTOR}_gw.asdf",
    "face": f"{exposure()}_f158_face.asdf",
    "supplement": f"{DETECTOR}_wcs.asdf",
    "cal": f"{DETECTOR}_cal.asdf",
    "exposure_catalog": f"{DETECTOR}_cat.parquet",
    "exposure_segmentation": f"{DETECTOR}_segm.asdf",
    "association": f"{SKYCELL}_asn.json",
    "coadd": f"{SKYCELL}_coadd.asdf",
    "coadd_preview": f"{SKYCELL}_preview.png",
    "coadd_thumbnail": f"{SKYCELL}_thumb.png",
    "cal_preview": f"{DETECTOR}_preview.png",
    "cal_thumbnail": f"{DETECTOR}_thumb.png",
    "visit_catalog": f"{SKYCELL}_cat.parquet",
    "visit_segmentation": f"{SKYCELL}_segm.asdf",
}
STEMS = {
    Scope.DETECTOR: DETECTOR,
    Scope.GROUP_DETECTOR: "r00010_p_v01001001001001_wfi02_f158",
    Scope.GROUP: "r00010_p_v01001001001001_f158",
}
NAMES |= {
    kind.name: f"{STEMS[kind.scope]}_{kind.suffix}.{kind.extension}"
    for kind in KINDS
    if kind.maker is Maker.SSC
}
STANDARD_TYPES = {"string": "VARCHAR", "int": "INTEGER", "long": "BIGINT", "double": "DOUBLE"}


@pytest.fixture(scope="module")
def standard():
    """The columns of ObsCore 1.1 as Rubin's description of the standard gives them."""
    path = importlib.resources.files("lsst.dax.obscore") / "configs" / "obscore_nominal.yaml"
    (table,) = yaml.safe_load(path.read_text())["tables"]
    return {column["name"]: column for column in table["columns"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = DataRoot(tmp_path_factory.mktemp("data"))
    axes = {"naxis1": 4096, "naxis2": 4088}
    for kind, name in NAMES.items():
        facts = FACTS | (axes | {"naxis3": 9} if kind == "uncal" else axes)
        if kind in ("guide_window", "face", "association") or kind.endswith("catalog"):
            facts = {key: value for key, value in facts.items() if not key.startswith("naxis")}
        if name.startswith(f"{SKYCELL}_"):
            facts = facts | {"pixel_scale": 0.055}
        Journal(root).write(record_of(root, {name: b"x" * 1001}, metadata=facts))
    fold(root)
    return root


@pytest.fixture(scope="module")
def rows(root):
    frame = Registry(root).archive.obscore()
    return {row["dataproduct_subtype"]: row for row in frame.to_dict("records")}


@pytest.fixture
def connection(root):
    """What the public registry shows, for SQL of one's own."""
    snapshot = read_snapshot(root.public_registry)
    database = TieredDatabase(root, Role.PUBLIC)
    database.show(snapshot)
    yield database.connection
    database.close()


def test_every_column_is_as_the_standard_defines_it(standard):
    for column in OBSCORE_COLUMNS:
        defined = standard[column.name]
        assert column.ucd == defined["ivoa:ucd"], column.name
        assert column.utype == defined["votable:utype"], column.name
        assert column.unit == defined["ivoa:unit"], column.name
        assert column.type == STANDARD_TYPES[defined["datatype"]], column.name
        assert column.description


def test_images_state_the_scale_of_their_pixels_and_tables_none(rows):
    scales = {kind: row["s_pixel_scale"] for kind, row in rows.items()}
    assert {scales[kind] for kind in ("uncal", "cal", "exposure_segmentation")} == {0.11}
    assert {scales[kind] for kind in ("coadd", "visit_segmentation")} == {0.055}
    assert np.isnan([scales[kind] for kind in ("exposure_catalog", "visit_catalog")]).all()


def test_no_mandatory_column_lacks(standard):
    path = importlib.resources.files("lsst.dax.obscore") / "configs" / "obscore_nominal.yaml"
    optional = set(re.findall(r"- name: (\w+)  # \(optional\)", path.read_text()))
    mandatory = standard.keys() - optional
    assert len(mandatory) >= 29
    assert mandatory <= {column.name for column in OBSCORE_COLUMNS}


def test_rubins_validator_accepts_the_view_as_a_schema(standard):
    from felis.datamodel import Schema

    tables = [
        {
            "name": "ivoa_obscore", "@id": "#ivoa_obscore", "description": "the view",
            "columns": [
                {
                    "name": column.name, "@id": f"#{column.name}",
                    "description": column.description, "ivoa:ucd": column.ucd,
                    "votable:utype": column.utype, "ivoa:unit": column.unit,
                    "datatype": standard[column.name]["datatype"],
                    **({"length": 255, "votable:arraysize": "*"}
                       if column.type == "VARCHAR" else {}),
                }
                for column in OBSCORE_COLUMNS
            ],
        }
    ]  # fmt: skip
    schema = Schema.model_validate(
        {"name": "ivoa", "@id": "#ivoa", "description": "ObsCore", "tables": tables}
    )
    assert len(schema.tables[0].columns) == len(OBSCORE_COLUMNS)


def test_what_must_be_known_is_known(rows, standard):
    for column in OBSCORE_COLUMNS:
        if not standard[column.name]["nullable"]:
            assert all(row[column.name] is not None for row in rows.values()), column.name


@pytest.mark.parametrize(
    ("kind", "product_type", "level", "samples"),
    [
        ("uncal", "image", 1, 9),
        ("guide_window", "cube", 1, None),
        ("face", "timeseries", 1, None),
        ("cal", "image", 2, 1),
        ("coadd", "image", 3, 1),
        ("exposure_catalog", "measurements", 4, None),
        ("visit_catalog", "measurements", 4, None),
        ("exposure_segmentation", "image", 4, 1),
        ("visit_segmentation", "image", 4, 1),
        ("microlensing_reference_frame", "image", 3, 1),
        ("microlensing_light_curve_catalog", "timeseries", 4, None),
        ("microlensing_event_catalog", "measurements", 4, None),
        ("spec_decontam_2d", "spectrum", 4, None),
        ("spec_individual_1d", "spectrum", 4, None),
    ],
)
def test_each_kind_has_its_type_and_level(rows, kind, product_type, level, samples):
    row = rows[kind]
    assert (row["dataproduct_type"], row["calib_level"]) == (product_type, level)
    assert row["t_xel"] == samples or (samples is None and np.isnan(row["t_xel"]))


def test_products_that_are_no_data_of_the_sky_are_not_listed(rows):
    assert rows.keys() == DATA_KINDS.keys()
    assert {kind.name for kind in KINDS} - rows.keys() == {
        "supplement", "association", "spec_location_table", "cal_preview", "cal_thumbnail",
        "coadd_preview", "coadd_thumbnail",
        "microlensing_detection_efficiency_catalog", "microlensing_periodic_dqa",
        "microlensing_longterm_dqa", "microlensing_events_dqa", "spec_dqa_2d", "spec_catalog_dqa",
    }  # fmt: skip
    assert DATA_KINDS.keys() <= {kind.name for kind in KINDS if kind.level in Level}


def test_an_image_has_place_time_and_light_in_the_standards_units(rows):
    row = rows["cal"]
    assert (row["s_ra"], row["s_dec"], row["s_fov"]) == (270.0, 66.0, 0.216)
    assert row["s_region"] == "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"
    assert (row["s_xel1"], row["s_xel2"]) == (4096, 4088)
    assert row["t_min"] == pytest.approx(Time("2027-06-01T00:00:00").mjd, abs=1e-9)
    assert row["t_max"] == pytest.approx(Time("2027-06-01T00:02:19.149").mjd, abs=1e-9)
    assert row["t_exptime"] == row["t_resolution"] == 139.149
    band = BANDPASSES[OpticalElement.F158]
    assert row["em_min"] == pytest.approx(band.shortest * 1e-6, rel=1e-12)
    assert row["em_max"] == pytest.approx(band.longest * 1e-6, rel=1e-12)
    assert row["em_res_power"] == pytest.approx(3.995, abs=1e-3)
    assert row["s_resolution"] == band.psf_fwhm
    assert (row["facility_name"], row["instrument_name"]) == ("Roman", "WFI")
    assert (row["obs_id"], row["obs_collection"]) == (DETECTOR, "Roman prompt")
    assert (row["proposal_id"], row["data_rights"]) == ("00010", "public")


def test_a_ramp_resolves_its_resultants_and_a_coadd_nothing_in_time(rows):
    assert rows["uncal"]["t_resolution"] == pytest.approx(139.149 / 9)
    assert np.isnan(rows["coadd"]["t_resolution"])
    assert np.isnan(rows["coadd"]["s_resolution"])


def test_pointing_corrections_are_no_light(rows):
    assert np.isnan(rows["face"]["em_min"])
    assert not np.isnan(rows["guide_window"]["em_min"])


def test_a_disperser_has_a_range_of_resolving_powers(tmp_path):
    root = DataRoot(tmp_path)
    name = NAMES["cal"].replace("f158", "grism")
    Journal(root).write(record_of(root, {name: b"x"}, metadata=FACTS))
    fold(root)
    (row,) = Registry(root).archive.obscore().to_dict("records")
    assert (row["em_min"], row["em_max"]) == pytest.approx((1e-6, 1.93e-6))
    assert row["em_res_power_min"] < row["em_res_power"] < row["em_res_power_max"]
    assert np.isnan(row["em_xel"])


def test_the_files_are_where_the_view_says(root, rows):
    archive = Archive.of(root)
    for kind, row in rows.items():
        name = ProductName.parse(NAMES[kind])
        assert row["access_url"] == archive.uri(name)
        assert row["access_estsize"] == 2
        assert row["obs_publisher_did"].endswith(f"?{name}")
    assert rows["cal"]["access_format"] == "application/x-asdf"
    assert rows["visit_catalog"]["access_format"] == "application/vnd.apache.parquet"


def test_who_serves_the_files_elsewhere_says_where(root):
    frame = Registry(root).archive.obscore(
        name=NAMES["cal"], archive_url="https://archive.example/roman", publisher="ivo://example/r"
    )
    (row,) = frame.to_dict("records")
    key = Archive.public_key(ProductName.parse(NAMES["cal"]))
    assert row["access_url"] == f"https://archive.example/roman/{key}"
    assert row["obs_publisher_did"] == f"ivo://example/r?{NAMES['cal']}"


def test_the_public_registry_has_the_view_with_the_declared_types(connection):
    found = connection.execute("describe ivoa_obscore").fetchall()
    assert [(name, kind) for name, kind, *_ in found] == [
        (column.name, column.type) for column in OBSCORE_COLUMNS
    ]
    (url,) = connection.execute(
        "select access_url from ivoa_obscore where dataproduct_subtype = 'cal'"
    ).fetchone()
    assert url == f"L2/00010/{VISIT}/{NAMES['cal']}"


def test_only_available_public_products_are_listed(tmp_path):
    root = DataRoot(tmp_path)
    for content in (b"old", b"newest"):
        Journal(root).write(record_of(root, {cal(1): content}, metadata=FACTS))
    Journal(root).write(record_of(root, {cal(2): b"x"}, access=Role.OPERATIONS))
    fold(root)
    for role in Role:
        frame = Registry(root, role).archive.obscore()
        assert [did.rpartition("?")[2] for did in frame["obs_publisher_did"]] == [cal(1)]


def test_searches_by_type_and_level_are_possible(root):
    registry = Registry(root)
    images = registry.archive.obscore(dataproduct_type="image", calib_level=[2, 3])
    assert set(images["dataproduct_subtype"]) == {"cal", "coadd", "microlensing_reference_frame"}
    assert Registry(DataRoot(root.path / "none")).archive.obscore().empty


def test_a_votable_carries_units_ucds_and_utypes(root):
    table = obscore_table(Registry(root).archive.obscore())
    stream = io.BytesIO()
    table.write(stream, format="votable")
    stream.seek(0)
    votable = astropy.io.votable.parse_single_table(stream)
    fields = {field.name: field for field in votable.fields}
    for column in OBSCORE_COLUMNS:
        field = fields[column.name]
        assert (field.ucd, field.utype) == (column.ucd, column.utype)
        assert field.description.split() == column.description.split()
        assert str(field.unit or "") == (column.unit or "")
    back = votable.to_table()
    assert set(back["calib_level"]) == {1, 2, 3, 4}
    assert np.ma.is_masked(back["s_xel1"][list(back["dataproduct_type"]).index("measurements")])


def test_a_file_set_lists_what_it_has(connection):
    found = connection.execute(
        "select kinds, products, size, detector from file_sets where file_set = $file_set",
        {"file_set": DETECTOR},
    ).fetchone()
    kinds = sorted(kind for kind, name in NAMES.items() if name.startswith(DETECTOR))
    assert found == (kinds, len(kinds), 1001 * len(kinds), "WFI02")
