"""The metadata tables are what rad's schemas say, whatever release of rad it is."""

import importlib.resources
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rad
import roman_datamodels.datamodels as rdm
import yaml

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.records.journal import Journal
from roman_assets.registry.catalog.archive_catalog import archive_catalog, read_archive_catalog
from roman_assets.registry.catalog.schema import ARCHIVE_TABLES
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import archived, cal, record_of, registry_content

OF_THE_CORONAGRAPH = {"CGIExposure", "CGIMosaic", "CGIAncillary"}


def test_the_columns_are_those_that_rads_own_parser_finds():
    # Slower than the tables may be, and private to rad: hence the judge, not the tool.
    from rad._parser import archive_entries, asdf_ssc_config, super_schema
    from rad._parser._process import _get_latest_uris

    expected = set()
    for uri in _get_latest_uris():
        with asdf_ssc_config():
            schema = super_schema(uri)
        if "archive_meta" in schema:
            for entry in archive_entries(schema):
                _, _, _, table, column, *_, path, _ = entry.split("|")
                expected.add((table, column, path.removeprefix("meta.").removeprefix("top.")))
    catalog = archive_catalog()
    found = {
        (table.name, column.name, path)
        for table in catalog.tables
        for column in table.columns
        for path in column.paths
    }
    assert found <= expected
    columns = {(table, column) for table, column, _ in found}
    missing = {(table, column) for table, column, _ in expected} - columns
    assert {table for table, _ in missing} == OF_THE_CORONAGRAPH


@pytest.mark.parametrize(
    ("kind", "tables"),
    {
        "uncal": {"WFIExposure"},
        "guide_window": {"GuideWindow"},
        "face": {"GuideWindow"},
        "supplement": set(),
        "cal": {"WFIExposure", "ScienceRefData"},
        "exposure_catalog": {"SourceCatalog", "ScienceRefData"},
        "exposure_segmentation": {"SegmentationMap", "ScienceRefData"},
        "association": set(),
        "coadd": {"WFIMosaic", "ScienceRefData"},
        "visit_catalog": {"SourceCatalog", "ScienceRefData"},
        "visit_segmentation": {"SegmentationMap", "ScienceRefData"},
    }.items(),
)
def test_every_kind_of_product_has_rows_in_the_tables_about_it_alone(kind, tables):
    schema = archive_catalog().schema_of(KIND_BY_NAME[kind].datamodel)
    name = schema and schema.name
    assert {table.name for table in archive_catalog().tables if name in table.schemas} == tables


def test_every_product_of_the_instrument_that_rad_catalogues_has_a_table():
    schemas = {schema.name for schema in archive_catalog().schemas}
    resources = importlib.resources.files("rad.resources") / "schemas" / "SSC"
    for directory in ("MSOS", "GDPS"):
        for entry in (resources / directory).iterdir():
            if entry.name.startswith("wfi_"):
                assert f"SSC/{directory}/{entry.name.rpartition('-')[0]}" in schemas
    catalogued = {schema.datamodel for schema in archive_catalog().schemas} - {None}
    assert {"ScienceRawModel", "MultibandSourceCatalogModel"} <= catalogued
    assert all(hasattr(rdm, model) for model in catalogued)


def test_every_column_has_rads_title_and_type():
    (table,) = (table for table in ARCHIVE_TABLES if table.name == "WFIExposure")
    columns = {column.name: column for column in table.columns}
    assert columns["exposure_time"].type == "DOUBLE"
    assert columns["exposure_time"].description == "Exposure Time (s) [float]"
    assert columns["detector"].description.endswith("[nvarchar(16)]")
    assert columns["visit_file_sequence"].type == "UTINYINT"
    assert columns["exposure_start_time"].type == "TIMESTAMPTZ"
    assert all("\n" not in column.description for column in table.columns)


@pytest.fixture
def other_release(tmp_path):
    """A release of rad with a column more, a column less and two columns of other types."""
    package = tmp_path / "other" / "rad"
    shutil.copytree(Path(rad.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc"))
    path = package / "resources" / "schemas" / "meta" / "exposure-2.1.0.yaml"
    schema = yaml.safe_load(path.read_text())
    properties = schema["properties"]
    properties["cooler_temperature"] = {
        "title": "Cooler Temperature (K)",
        "type": "number",
        "archive_catalog": {
            "datatype": "float", "destination": ["WFIExposure.cooler_temperature"],
        },
    }  # fmt: skip
    del properties["hga_move"]["archive_catalog"]
    properties["nresultants"]["archive_catalog"]["datatype"] = "nvarchar(20)"
    properties["engineering_quality"]["archive_catalog"]["datatype"] = "nvarchar(2)"
    path.write_text(yaml.safe_dump(schema))
    return package


def test_another_release_of_rad_has_other_tables(other_release):
    before = archive_catalog()
    after = read_archive_catalog(other_release / "resources")
    assert _types(before).keys() ^ _types(after).keys() == {"hga_move", "cooler_temperature"}
    assert _types(after)["cooler_temperature"] == "float"
    assert _types(after)["exposure_nresultants"] == "nvarchar(20)"
    assert "exposure.cooler_temperature" in after.schema_of("ImageModel").paths
    assert [table for table in before.tables if table.name not in TABLES_OF_EXPOSURES] == [
        table for table in after.tables if table.name not in TABLES_OF_EXPOSURES
    ]


TABLES_OF_EXPOSURES = {"WFIExposure", "SourceCatalog", "SegmentationMap"}


def _types(catalog):
    (table,) = (table for table in catalog.tables if table.name == "WFIExposure")
    return {column.name: column.datatype for column in table.columns}


FOLD_AND_PRINT = """
import sys
from pathlib import Path
from roman_assets.data_root import DataRoot
from roman_assets.registry.store.fold import fold
from roman_assets.registry.registry import Registry
root = DataRoot(Path(sys.argv[1]))
fold(root)
row = Registry(root).archive.archive_rows("WFIExposure").iloc[0]
print(row["cooler_temperature"], row["exposure_nresultants"], "hga_move" in row)
print(list(Registry(root).archive.unfit_values()["column_name"]))
"""


def test_the_fold_after_an_update_of_rad_makes_the_registry_anew(tmp_path, other_release):
    root = DataRoot(tmp_path / "data")
    values = {
        "exposure.cooler_temperature": 88.5, "exposure.nresultants": 9,
        "exposure.hga_move": True, "exposure.engineering_quality": "OKAY",
    }  # fmt: skip
    Journal(root).write(record_of(root, {cal(1): b"1"}, **archived("wfi_image", values)))
    fold(root)
    assert len(registry_content(root)["WFIExposure"]) == 1
    Journal(root).write(record_of(root, {cal(2): b"2"}))
    places = os.pathsep.join([str(other_release.parent), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", FOLD_AND_PRINT, str(root.path)],
        env=os.environ | {"PYTHONPATH": places}, text=True, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["88.5 9 False", "['engineering_quality']"]
