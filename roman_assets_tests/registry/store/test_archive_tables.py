"""What products say arrives in the metadata tables with the right type, or is named."""

import json
import math
from datetime import UTC, datetime

import pandas as pd
import pytest
import roman_datamodels.datamodels as rdm
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import Output, publish_step
from roman_assets.records.journal import Journal
from roman_assets.records.record import ArchivedMetadata, CommitRecord, Sections
from roman_assets.registry.catalog.archive_catalog import archive_catalog
from roman_assets.registry.catalog.metadata import ArchiveValues, archive_values, product_metadata
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import (
    ANY_FINGERPRINT,
    archived,
    cal,
    exposure,
    record_of,
)

CATALOGUE = cal().replace("_cal.asdf", "_cat.parquet")


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def folded(root, schema, values, contents=None):
    """Commit products that say the values and give the registry."""
    Journal(root).write(record_of(root, contents or {cal(): b"a"}, **archived(schema, values)))
    fold(root)
    return Registry(root)


def row(registry, table):
    (found,) = registry.archive.archive_rows(table).to_dict("records")
    return found


def test_the_values_of_an_image_are_those_of_its_model(root):
    model = rdm.ImageModel.create_fake_data(shape=(8, 8))
    meta = model.meta
    meta.exposure.start_time = Time("2027-06-01T00:00:00.5")
    meta.exposure.truncated = True
    meta.exposure.read_pattern = [[1], [2, 3]]
    meta.exposure.exposure_time = 139.25
    meta.observation.visit = 7
    meta.program.title = "One: \"quoted\", with {braces} and 'more'"
    meta.ref_file.dark = "crds://roman_wfi_dark_0001.asdf"
    meta.statistics = {"zodiacal_light": math.nan, "image_median": 0.5, "image_rms": 0.1,
                       "good_pixel_fraction": 1.0}  # fmt: skip
    path = root.path / cal()
    model.save(path)
    publish_step(
        root,
        step=Step.EXPOSURE,
        partition=exposure(),
        outputs=[Output(ProductName.parse(cal()), path, ANY_FINGERPRINT)],
    )
    registry = Registry(root)
    found = row(registry, "WFIExposure")
    assert found["name"] == found["filename"] == cal()
    assert found["exposure_start_time"] == datetime(2027, 6, 1, 0, 0, 0, 500000, tzinfo=UTC)
    with rdm.open(Archive.of(root).path(ProductName.parse(cal()))) as written:
        assert found["filedate"] == written.meta.file_date.to_datetime(UTC)
    assert (found["exposure_truncated"], found["hga_move"]) == ("T", "F")
    assert json.loads(found["read_pattern"]) == [[1], [2, 3]]
    assert (found["exposure_time"], found["visit"], found["image_median"]) == (139.25, 7, 0.5)
    assert found["program_title"] == meta.program.title
    assert found["detector"] == meta.instrument.detector
    # -999999, ? and NaN say that nothing is known
    for column in ("program", "ma_table_number", "ra_ref", "investigator_name", "zodiacal_light"):
        assert found[column] is None or math.isnan(found[column]), column
    references = row(registry, "ScienceRefData")
    assert references["r_dark"] == "crds://roman_wfi_dark_0001.asdf"
    assert registry.archive.unfit_values().empty


def test_a_catalogue_file_says_in_text_what_its_model_says_in_numbers(root):
    model = rdm.ImageSourceCatalogModel.create_fake_data()
    model.meta.exposure.exposure_time = 139.25
    model.meta.exposure.hga_move = True
    model.meta.observation.visit = 7
    model.meta.exposure.end_time = Time("2027-06-01T00:00:00")
    path = root.path / CATALOGUE
    model.save(path)
    publish_step(
        root,
        step=Step.EXPOSURE,
        partition=exposure(),
        outputs=[Output(ProductName.parse(CATALOGUE), path, ANY_FINGERPRINT)],
    )
    found = row(Registry(root), "SourceCatalog")
    assert (found["exposure_time"], found["visit"], found["hga_move"]) == (139.25, 7, "T")
    assert found["exposure_end_time"] == datetime(2027, 6, 1, tzinfo=UTC)
    assert Registry(root).archive.unfit_values().empty


@pytest.mark.parametrize(
    ("path", "column", "value"),
    [
        ("exposure.nresultants", "exposure_nresultants", 1.5),
        ("exposure.nresultants", "exposure_nresultants", "nine"),
        ("exposure.nresultants", "exposure_nresultants", True),
        ("exposure.nresultants", "exposure_nresultants", 2**31),
        ("observation.visit", "visit", 2**15),
        ("observation.visit_file_sequence", "visit_file_sequence", 256),
        ("observation.visit_file_sequence", "visit_file_sequence", -1),
        ("exposure.exposure_time", "exposure_time", "long"),
        ("exposure.exposure_time", "exposure_time", "inf"),
        ("exposure.exposure_time", "exposure_time", [1.0]),
        ("exposure.start_time", "exposure_start_time", "yesterday"),
        ("exposure.start_time", "exposure_start_time", 61557.0),
        ("instrument.detector", "detector", "WFI01" * 4),
        ("visit.internal_target", "visit_internal_target", "maybe"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_the_rest_arrives(root, path, column, value):
    said = {path: value, "coordinates.reference_frame": "ICRS"}
    registry = folded(root, "wfi_image", said, {cal(1, 1): b"1", cal(1, 2): b"2"})
    rows = registry.archive.archive_rows("WFIExposure")
    assert list(rows[column].isna()) == [True, True]
    assert list(rows["reference_frame"]) == ["ICRS", "ICRS"]
    unfit = registry.archive.unfit_values()
    assert list(unfit["name"]) == [cal(1, 1), cal(1, 2)]
    assert set(unfit["table_name"]) == {"WFIExposure"}
    assert set(unfit["column_name"]) == {column}
    text = value if isinstance(value, str) else json.dumps(value)
    assert set(unfit["value"]) == {text.replace(", ", ",")}


def test_a_text_as_long_as_its_column_arrives_whole(root):
    registry = folded(root, "wfi_image", {"instrument.detector": "ä" * 16})
    assert row(registry, "WFIExposure")["detector"] == "ä" * 16


def test_whatever_rad_annotates_arrives_in_the_column_it_names(root):
    schemas = archive_catalog().schemas
    for number, schema in enumerate(schemas, start=1):
        fields = archived(schema.name, dict(_one_of_each(schema)))
        Journal(root).write(record_of(root, {cal(number): b"a"}, **fields))
    fold(root)
    registry = Registry(root)
    assert registry.archive.unfit_values().empty
    assert Engine(root).snapshot().source_tables() == []
    for table in archive_catalog().tables:
        rows = registry.archive.archive_rows(table.name).set_index("name").to_dict("index")
        expected = {
            cal(number): schema
            for number, schema in enumerate(schemas, start=1)
            if schema.name in table.schemas
        }
        assert rows.keys() == expected.keys()
        for name, schema in expected.items():
            for column in table.columns:
                if set(column.paths) & set(schema.paths):
                    stored = _STORED.get(column.datatype, _VALUE.get(column.datatype, "x"))
                    assert rows[name][column.name] == stored
                else:
                    assert not _known(rows[name][column.name])


def _one_of_each(schema):
    for table in archive_catalog().tables:
        for column in table.columns if schema.name in table.schemas else ():
            for path in set(column.paths) & set(schema.paths):
                yield path, _VALUE.get(column.datatype, "x")


_VALUE = {
    "datetime2": "2027-06-01T00:00:00", "float": 1.5, "bigint": 2**40, "int": 7, "smallint": 7,
    "tinyint": 7, "nchar(1)": False,
}  # fmt: skip
_STORED = {"datetime2": datetime(2027, 6, 1, tzinfo=UTC), "nchar(1)": "F"}


def _known(value):
    return not pd.isna(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


PATHS = (
    "exposure.nresultants", "exposure.exposure_time", "exposure.start_time", "filename",
    "visit.internal_target", "observation.visit_file_sequence", "program.title", "origin",
)  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(*(json_values for _ in PATHS)), min_size=1, max_size=18))
def test_no_value_whatever_stops_a_fold_or_is_lost(tmp_path_factory, detectors):
    root = DataRoot(tmp_path_factory.mktemp("root"))
    schema = archive_catalog().schema_of("ImageModel")
    said = {
        cal(1, number): archive_values(schema, dict(zip(PATHS, values, strict=True))).values
        for number, values in enumerate(detectors, start=1)
    }
    for name, values in said.items():
        Journal(root).write(record_of(root, {name: b"a"}, **archived(schema.name, values)))
    fold(root)
    registry = Registry(root)
    rows = registry.archive.archive_rows("WFIExposure").set_index("name").to_dict("index")
    unfit = registry.archive.unfit_values()
    (table,) = (table for table in archive_catalog().tables if table.name == "WFIExposure")
    place = {path: column.name for column in table.columns for path in column.paths}
    for name, values in said.items():
        arrived = {path for path in PATHS if _known(rows[name][place[path]])}
        named = set(unfit["column_name"][unfit["name"] == name])
        missed = {path for path in PATHS if place[path] in named}
        assert arrived | missed == set(values)
        assert not arrived & missed


def test_an_exposure_says_once_what_its_products_share():
    sections = Sections()
    shared = {"exposure.type": "WFI_IMAGE", "exposure.start_time": "2027-06-01T00:00:00"}
    places = [
        sections.add({**shared, "instrument.detector": f"WFI{number:02d}", "filename": "x"})
        for number in range(1, 19)
    ]
    assert len(sections.collected) == 1 + 1 + 18
    for number, mine in enumerate(places, start=1):
        said = {key: value for place in mine for key, value in sections.collected[place].items()}
        assert said == shared | {"instrument.detector": f"WFI{number:02d}", "filename": "x"}


def test_a_record_that_refers_to_sections_it_does_not_have_is_refused(root):
    entry = record_of(root, {cal(): b"a"}).products[0]
    metadata = ArchivedMetadata(rad_schema="wfi_image", sections=(1,))
    with pytest.raises(ValueError, match=f"{cal()} refers to sections"):
        CommitRecord(
            step=Step.EXPOSURE,
            partition=exposure(),
            products=(entry.model_copy(update={"archived": metadata}),),
            sections=({},),
        )


def test_a_delivery_says_beside_its_file_what_goes_into_the_tables(root):
    path = root.path / CATALOGUE
    rdm.ImageSourceCatalogModel.create_fake_data().save(path)
    name = "SSC/MSOS/wfi_microlensing_event_catalog_level_4"
    beside = ArchiveValues(name, {"filename": "events.fits", "program": 7})
    output = Output(ProductName.parse(CATALOGUE), path, ANY_FINGERPRINT, archived=beside)
    publish_step(root, step=Step.EXPOSURE, partition=exposure(), outputs=[output])
    registry = Registry(root)
    assert row(registry, "WFIMSOSCatalog")["filename"] == "events.fits"
    assert registry.archive.archive_rows("SourceCatalog").empty


def test_files_that_no_table_is_about_say_nothing(tmp_path):
    path = tmp_path / cal().replace("_cal", "_wcs")
    rdm.WfiWcsModel.create_fake_data().save(path)
    assert product_metadata(path, ProductName.parse(path.name)).archived is None
