"""A registry under a release of rad that romancal does not run on, from the package index."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KINDS, Maker, ProductKind, Scope
from roman_assets.records.journal import Journal
from roman_assets.registry.catalog.archive_catalog import archive_catalog, read_archive_catalog
from roman_assets.registry.catalog.rad_schema import parse_schema
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import (
    archived,
    cal,
    exposure,
    record_of,
    registry_content,
)
from roman_assets_tests.support.ssc_center import GROUP, metadata

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[3]
OTHER = Path(__file__).with_name("other_rad.txt")
NEW_TABLES = {
    "WFIMSOSDetectionEfficiencyCatalog", "WFIMSOSDQA", "WFISpecCatalog", "WFISpecLocation",
}  # fmt: skip
ELSEWHERE = re.compile(r"CGI\w+|WFICommon|WFITvac")
"""Tables of the coronagraph, of the oldest schemas alone, and of tests on the ground."""
TRUE = "T"
"""How a column of one character has it."""


@pytest.fixture(scope="module")
def other_rad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of another release of rad, installed apart."""
    target = tmp_path_factory.mktemp("other") / "packages"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [sys.executable, *install, "--target", str(target), "--requirement", str(OTHER)],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{OTHER.name} needs the package index: {done.stderr}"
    return target


def name_of(kind: ProductKind) -> str:
    stem = {
        Scope.GROUP: GROUP,
        Scope.GROUP_DETECTOR: f"{GROUP}_wfi01",
        Scope.DETECTOR: f"{exposure()}_wfi01",
    }[kind.scope]
    element = "grism" if kind.name.startswith("spec_") else "f146"
    return f"{stem}_{element}_{kind.suffix}.{kind.extension}"


DELIVERED = {name_of(kind): kind for kind in KINDS if kind.maker is Maker.SSC}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """An installation with an L2 image and each kind of the SSC, folded with the usual rad."""
    root = DataRoot(tmp_path_factory.mktemp("data") / "data")
    image = archived("wfi_image", {"exposure.hga_move": True, "exposure.nresultants": 9})
    Journal(root).write(record_of(root, {cal(): b"image"}, **image))
    for name, kind in DELIVERED.items():
        assert kind.rad_schema is not None
        fields = archived(kind.rad_schema, {"filename": name, **metadata(name)})
        Journal(root).write(record_of(root, {name: name.encode()}, **fields))
    fold(root)
    return root


REBUILD = """
import json, sys
from pathlib import Path
import rad
from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.archive_catalog import archive_catalog
from roman_assets.registry.catalog.rad_schema import parse_schema
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import rebuild
root = DataRoot(Path(sys.argv[1]))
rebuild(root)
registry = Registry(root)
names = [table.name for table in archive_catalog().tables]
tables = {name: registry.archive.archive_rows(name) for name in names}
rows = {
    name: json.loads(frame.to_json(orient="records", date_format="iso"))
    for name, frame in tables.items()
}
print(json.dumps([rad.__file__, rows, len(registry.archive.unfit_values())]))
"""


@pytest.fixture(scope="module")
def rebuilt(root: DataRoot, other_rad: Path) -> Iterator[Mapping[str, list[dict[str, Any]]]]:
    """The rows of all metadata tables of a registry rebuilt with the other rad."""
    places = os.pathsep.join([str(other_rad), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, "-c", REBUILD, str(root.path)],
        env=os.environ | {"PYTHONPATH": places}, text=True, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    imported, rows, unfit = json.loads(done.stdout)
    assert Path(imported).is_relative_to(other_rad)
    assert unfit == 0
    return rows


def test_every_table_that_the_other_rad_names_is_made(other_rad: Path) -> None:
    resources = other_rad / "rad" / "resources"
    named = {
        destination.partition(".")[0]
        for path in (resources / "schemas").rglob("*.yaml")
        for destination in destinations(parse_schema(path.read_bytes()))
    }
    made = {table.name for table in read_archive_catalog(resources).tables}
    assert {table for table in named - made if not ELSEWHERE.fullmatch(table)} == set()
    assert made - {table.name for table in archive_catalog().tables} == NEW_TABLES


def destinations(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        annotation = schema.get("archive_catalog")
        if isinstance(annotation, Mapping) and "datatype" in annotation:
            yield from annotation["destination"]
        for value in schema.values():
            yield from destinations(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from destinations(value)


def test_each_product_has_its_row_in_one_table_with_the_values_that_are_on_record(
    rebuilt: Mapping[str, list[dict[str, Any]]], other_rad: Path
) -> None:
    catalog = read_archive_catalog(other_rad / "rad" / "resources")
    for name, kind in DELIVERED.items():
        (table,) = (one for one in catalog.tables if kind.rad_schema in one.schemas)
        (row,) = (row for row in rebuilt[table.name] if row["filename"] == name)
        said = metadata(name)
        for column in table.columns:
            (path, *_) = column.paths
            if path in said and not column.type.startswith("TIMESTAMP"):
                value = TRUE if said[path] is True else said[path]
                assert row[column.name] == value, f"{table.name}.{column.name} of {name}"
    assert all(rebuilt[table] for table in NEW_TABLES)
    (image,) = rebuilt["WFIExposure"]
    assert (image["exposure_nresultants"], image["hga_move"]) == (9, TRUE)
    assert image["wfi_acm_z_defocus_size"] is None, "a column that older records know nothing of"


def test_the_usual_rad_brings_its_own_tables_back(
    root: DataRoot, rebuilt: Mapping[str, list[dict[str, Any]]]
) -> None:
    Journal(root).write(record_of(root, {cal(2): b"another image"}))
    fold(root)
    content = registry_content(root)
    assert not NEW_TABLES & content.keys()
    spectra = [kind for kind in DELIVERED.values() if kind.name.startswith("spec_")]
    assert len(content["WFISpec"]) == len(spectra)
    (image,) = Registry(root).archive.archive_rows("WFIExposure").to_dict("records")
    assert image["exposure_nresultants"] == 9
