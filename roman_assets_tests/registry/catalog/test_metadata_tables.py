"""The metadata tables and the ObsCore view of real products, against the products' own models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.time import Time
from roman_datamodels import datamodels

from roman_assets.products.kind import KINDS
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.observed_visit import Calibrated

TABLES = {
    "uncal": "WFIExposure",
    "guide_window": "GuideWindow",
    "face": "GuideWindow",
    "cal": "WFIExposure",
    "exposure_catalog": "SourceCatalog",
    "exposure_segmentation": "SegmentationMap",
    "coadd": "WFIMosaic",
    "visit_catalog": "SourceCatalog",
    "visit_segmentation": "SegmentationMap",
}
SAID = {
    "filename": "filename", "filedate": "file_date", "model_type": "model_type",
    "origin": "origin", "telescope": "telescope", "detector": "instrument.detector",
    "optical_element": "instrument.optical_element", "product_type": "product_type",
    "exposure_start_time": "exposure.start_time", "exposure_nresultants": "exposure.nresultants",
    "exposure_time": "exposure.exposure_time", "hga_move": "exposure.hga_move",
    "read_pattern": "exposure.read_pattern", "observation_id": "observation.observation_id",
    "pass": "observation.pass", "target_ra": "pointing.target_ra", "ra_ref": "wcsinfo.ra_ref",
    "s_region": "wcsinfo.s_region", "image_median": "statistics.image_median",
    "scale_factor": "velocity_aberration.scale_factor", "spatial_x": "ephemeris.spatial_x",
    "conversion_megajanskys": "photometry.conversion_megajanskys", "time_mean":
    "coadd_info.time_mean", "skycell_name": "wcsinfo.skycell_name", "image_shape":
    "wcsinfo.image_shape", "exposure_grouping": "observation.exposure_grouping",
    "program_title": "program.title", "avg_face_filename": "avg_face_filename",
}  # fmt: skip
"""Some columns of the tables, by their place in the metadata."""
SAID_BY_COADDS = SAID | {"exposure_time": "coadd_info.exposure_time"}
PLACES = {*SAID.values(), *SAID_BY_COADDS.values()}


@pytest.fixture(scope="module")
def registry(calibrated: Calibrated, mosaicked: object) -> Registry:
    return Registry(calibrated.observed.root)


def values_of(path: Path) -> dict[str, Any]:
    """Give what a product says in the columns' places, by roman_datamodels or Parquet's footer."""
    if path.suffix == ".parquet":
        footer = pq.read_schema(path).metadata
        said = {key.decode(): value.decode() for key, value in footer.items()}
        return {place: said.get(f"roman.meta.{place}") for place in PLACES}
    with datamodels.open(path) as model:
        return {place: plain(value_at(model.meta, place)) for place in PLACES}


def value_at(node: Any, place: str) -> Any:
    for part in place.split("."):
        if not hasattr(node, "get") or (node := node.get(part)) is None:
            return None
    return node


def plain(value: Any) -> Any:
    if isinstance(value, str | Time) or not hasattr(value, "__len__"):
        return value
    return [plain(item) for item in value]


def equal(stored: Any, said: Any) -> bool:
    """Compare a column with a value, or with its text in a Parquet footer."""
    if isinstance(stored, pd.Timestamp):
        return abs((Time(stored.to_pydatetime()) - Time(said)).sec) < 1e-3
    if stored in ("T", "F"):
        return str(said) == str(stored == "T")
    if isinstance(said, list):
        return bool(json.loads(stored) == said)
    if isinstance(stored, float | int):
        return stored == pytest.approx(float(said), rel=1e-12)
    return bool(stored == said)


@pytest.mark.parametrize("kind", TABLES)
def test_the_tables_say_what_the_products_say(
    calibrated: Calibrated, registry: Registry, kind: str
) -> None:
    products = registry.products.find(kind=kind)
    assert not products.empty
    rows = registry.archive.archive_rows(TABLES[kind], name=products["name"])
    assert list(rows["name"]) == list(products["name"])
    of_exposures = products["exposure"].notna().all()
    compared = set()
    for row in rows.to_dict("records"):
        values = values_of(calibrated.observed.path(row["name"]))
        for column, place in (SAID if of_exposures else SAID_BY_COADDS).items():
            if column in row and values[place] is not None and not pd.isna(row[column]):
                assert equal(row[column], values[place]), f"{row['name']}: {column}"
                compared.add(column)
    assert len(compared) >= {"guide_window": 8, "face": 6}.get(kind, 10), compared


def test_every_product_with_a_table_has_a_row_and_every_value_fits(registry: Registry) -> None:
    for table in set(TABLES.values()):
        kinds = [kind for kind, other in TABLES.items() if other == table]
        products = registry.products.find(kind=kinds, overwritten=True)
        rows = registry.archive.archive_rows(table, overwritten=True)
        assert sorted(rows["record_id"] + rows["name"]) == sorted(
            products["record_id"] + products["name"]
        )
    assert registry.archive.unfit_values().empty
    assert Engine(registry.snapshot.root).snapshot().source_tables() == []


def test_the_virtual_observatory_finds_every_data_product(registry: Registry) -> None:
    products = registry.products.find().set_index("name")
    rows = registry.archive.obscore()
    rows.index = rows["obs_publisher_did"].str.rpartition("?")[2]
    pictures = [kind.name for kind in KINDS if kind.picture]
    listed = products[~products["kind"].isin(["supplement", "association", *pictures])]
    assert sorted(rows.index) == sorted(listed.index)
    images = rows[(rows["dataproduct_type"] == "image") & (rows["calib_level"] < 4)]
    known = ["s_ra", "s_dec", "s_region", "s_xel1", "s_xel2", "t_min", "t_max", "t_exptime",
             "em_min", "em_max", "o_ucd", "access_url"]  # fmt: skip
    assert images[known].notna().all().all()
    assert set(images[images["calib_level"] == 1]["t_xel"]) == {9}
    (coadd,) = images[images["calib_level"] == 3].to_dict("records")
    assert (coadd["s_xel1"], coadd["s_xel2"]) == (2500, 2500)
    assert set(images["s_pixel_scale"]) == {0.11}
    assert coadd["t_max"] - coadd["t_min"] > coadd["t_exptime"] / 86400
