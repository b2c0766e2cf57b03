"""R11: L4 products are files; no row of a source catalogue reaches the registry."""

import numpy as np
import pytest
import roman_datamodels.datamodels as rdm

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import Output, publish_step
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput
from roman_assets.registry.catalog.schema import TABLES, create_tables, open_database, source_tables
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import (
    ANY_FINGERPRINT,
    cal,
    change_tier,
    exposure,
    record_of,
    sha256,
)

CATALOGUE = cal().replace("_cal.asdf", "_cat.parquet")


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


@pytest.fixture
def connection():
    connection = open_database(":memory:")
    create_tables(connection)
    yield connection
    connection.close()


def test_publishing_a_catalogue_registers_the_file_and_none_of_its_sources(root):
    path = root.path / CATALOGUE
    model = rdm.ImageSourceCatalogModel.create_fake_data()
    assert len(model.source_catalog.colnames) > 20
    model.save(path)
    output = Output(ProductName.parse(CATALOGUE), path, ANY_FINGERPRINT)
    publish_step(root, step=Step.EXPOSURE, partition=exposure(), outputs=[output])
    registry = Registry(root)
    assert Engine(root).snapshot().source_tables() == []
    assert list(registry.products.find(level="L4")["name"]) == [CATALOGUE]
    assert FileArchive(root).path(ProductName.parse(CATALOGUE)).is_file()


def test_an_empty_registry_holds_no_sources(root, connection):
    assert source_tables(connection) == []
    assert Engine(root).snapshot().source_tables() == []


@pytest.mark.parametrize(
    "columns",
    [
        "label integer, ra double, dec double",
        "label integer, kron_flux real, aper04_flux real",
        "ra_psf_f158 double, dec_psf_f158 double, psf_f158_flux real",
        "star integer, brightness double",
        "numbers double[]",
    ],
)
def test_a_table_of_sources_is_found_by_its_columns(connection, columns):
    connection.execute(f"create table cat ({columns})")
    (finding,) = source_tables(connection)
    assert finding.startswith("cat: ")


def test_columns_of_sources_in_a_table_of_the_registry_are_found(connection):
    for column in ("label integer", "kron_flux real", "segment_flux real"):
        connection.execute(f"alter table inputs add column {column}")
    (finding,) = source_tables(connection)
    assert finding.startswith("inputs: ")


def test_sources_hidden_in_the_metadata_of_a_catalogue_are_found(root):
    metadata = {"sources": np.random.default_rng(1).random((2000, 3)).tolist()}
    Journal(root).write(record_of(root, {CATALOGUE: b"a"}, metadata=metadata))
    fold(root)
    (finding,) = Engine(root).snapshot().source_tables()
    assert finding.startswith("products: facts")


def test_sources_hidden_as_inputs_of_a_catalogue_are_found(root):
    inputs = tuple(ProductInput(name=f"{i}", sha256=sha256(b"")) for i in range(10))
    Journal(root).write(record_of(root, {CATALOGUE: b"a"}, inputs=inputs))
    fold(root)
    (finding,) = Engine(root).snapshot().source_tables()
    assert finding.startswith("inputs: ")


def test_a_row_for_each_source_of_a_catalogue_is_found(root):
    Journal(root).write(record_of(root, {CATALOGUE: b"a"}))
    fold(root)
    change_tier(root, "insert into products from products")
    (finding,) = Engine(root).snapshot().source_tables()
    assert finding.startswith("products: more than one row")


SOURCES = "insert into SourceCatalog by name select 'x' as record_id, '{name}' as name, {values}"


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        (CATALOGUE, "range / 7 as ra, range / 9 as dec from range(100)", "more than one row"),
        ("x", "1.0 as ra, 2.0 as dec", "a row of no product file"),
        (CATALOGUE, "repeat('1.0,2.0;', 10000) as program_title", "texts too large"),
    ],
)
def test_sources_hidden_in_a_metadata_table_are_found(root, name, values, reason):
    record = record_of(root, {CATALOGUE: b"a"}, record_id="x")
    Journal(root).write(record)
    fold(root)
    assert Engine(root).snapshot().source_tables() == []
    change_tier(root, SOURCES.format(name=name, values=values))
    findings = Engine(root).snapshot().source_tables()
    assert any(finding.startswith(f"SourceCatalog: {reason}") for finding in findings)


def test_an_undeclared_measurement_in_a_metadata_table_is_found(connection):
    connection.execute("alter table SourceCatalog add column brightness double")
    (finding,) = source_tables(connection)
    assert finding == "SourceCatalog: undeclared columns of measured numbers: brightness"


def test_sources_hidden_as_unfit_values_are_found(connection):
    connection.execute(
        "insert into unfit_values by name select 'x' as record_id, 'a_cat.parquet' as name, "
        "'SourceCatalog' as table_name, 'ra' as column_name, range::varchar as value "
        "from range(10)"
    )
    (finding,) = source_tables(connection)
    assert finding.startswith("unfit_values: more unfit values")


def test_every_column_is_explained():
    for table in TABLES:
        assert table.row
        assert all(column.description for column in table.columns)
        assert len(set(table.column_names)) == len(table.column_names)
