"""Real products as a scientist reads them: data models, tables, and where they came from."""

from __future__ import annotations

import gc
import os

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from roman_datamodels import datamodels

from roman_assets.mosaic.coadd import MosaicResult
from roman_assets.products.kind import KIND_BY_NAME, KINDS, Maker
from roman_assets.products.name import level0_name
from roman_assets.reader.archive_reader import ArchiveReader, open_archive
from roman_assets_tests.support.observed_visit import DETECTOR, Calibrated


@pytest.fixture
def archive(calibrated: Calibrated, mosaicked: MosaicResult) -> ArchiveReader:
    return open_archive(calibrated.observed.root.path)


def test_every_product_opens_as_what_its_kind_says(archive: ArchiveReader) -> None:
    found = archive.find()
    assert set(found["kind"]) == {kind.name for kind in KINDS if kind.maker is Maker.SOC}
    for _, row in found.drop_duplicates("kind").iterrows():
        opened = archive.open(row, verify=True)
        kind = KIND_BY_NAME[row["kind"]]
        if kind.extension == "asdf":
            assert type(opened).__name__ == kind.datamodel
            assert opened.meta.filename == row["name"]
        elif kind.extension == "parquet":
            assert opened.meta["roman"]["filename"] == row["name"]
        elif kind.picture:
            assert opened.ndim == 3
        else:
            assert opened["products"][0]["name"] == row["file_set"]


def test_arrays_outlive_the_model_they_came_with(archive: ArchiveReader) -> None:
    image = archive.find(kind="cal").iloc[0]
    data, error = (getattr(archive.open(image), name) for name in ("data", "err"))
    gc.collect()
    assert np.isfinite(data).mean() > 0.9
    assert np.nanmax(error) > 0
    kept = archive.open(image, lazy=True)
    np.testing.assert_array_equal(kept.data, data)


def test_files_that_were_opened_are_closed_again(archive: ArchiveReader) -> None:
    image = archive.find(kind="cal").iloc[0]
    archive.open(image)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kept = [archive.open(image).data for _ in range(5)]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert len(kept) == 5


def test_a_catalogue_is_a_table_with_units_of_as_many_sources_as_registered(
    archive: ArchiveReader, calibrated: Calibrated
) -> None:
    row = archive.find(kind="exposure_catalog", detector=DETECTOR).iloc[0]
    catalogue = archive.open(row)
    entry = calibrated.observed.current(name=row["name"])[row["name"]]
    assert len(catalogue) == entry.metadata["source_count"] > 0
    assert catalogue["ra"].unit == catalogue["dec_psf"].unit == u.deg
    assert catalogue["x_centroid"].unit == u.pix
    assert catalogue["label"].unit is None
    places = SkyCoord(catalogue["ra"], catalogue["dec"])
    assert (
        places.separation(SkyCoord(row["ra"], row["dec"], unit="deg")).max() < row["radius"] * u.deg
    )


def test_images_are_found_where_their_wcs_says_they_are(archive: ArchiveReader) -> None:
    image = archive.find(kind="cal").iloc[0]
    with datamodels.open(archive.path(image)) as model:
        ra, dec = model.meta.wcs(10.0, 20.0)
        beyond = model.meta.wcs(-300.0, 20.0, with_bounding_box=False)
    assert image["name"] in set(archive.find(cone=(ra, dec, 0.0))["name"])
    assert image["name"] not in set(archive.find(cone=(*map(float, beyond), 0.0))["name"])
    corner = [(ra, dec), (ra + 1, dec), (ra + 1, dec + 1)]
    assert image["name"] in set(archive.find(polygon=corner)["name"])


def test_the_last_catalogue_leads_to_the_packets_of_every_exposure(
    archive: ArchiveReader, calibrated: Calibrated
) -> None:
    name = archive.find(kind="visit_catalog").iloc[0]["name"]
    graph = archive.provenance(name)
    packets = {level0_name(exposure, DETECTOR) for exposure in calibrated.observed.exposures}
    assert packets <= {origin.name for origin in graph.origins}
    ramp = archive.find(kind="uncal", detector=DETECTOR).iloc[0]
    assert name in set(archive.provenance(ramp).to_frame()["product"])
