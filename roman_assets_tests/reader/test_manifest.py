from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import QTable, Table
from astropy.time import Time

from roman_assets.access import Role
from roman_assets.errors import BadInputError
from roman_assets.reader.archive_reader import open_archive
from roman_assets.reader.download_list import COLUMNS, write_manifest
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_archive import FACTS, publish, small_archive
from roman_assets_tests.support.small_products import association, cal


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Products with and without times and places, of all generations, as operations see them."""
    root = small_archive(tmp_path_factory.mktemp("manifest") / "data")
    publish(root, {association(2): b"{}"}, 5, metadata={"survey": "GAS"})
    publish(root, {cal(2): b"x"}, 6, metadata=FACTS | {"ra": 1.25, "survey": None})
    fold(root)
    return open_archive(root.path, Role.OPERATIONS).find(overwritten=True)


def test_every_column_of_a_search_result_is_explained(found: pd.DataFrame) -> None:
    assert set(found.columns) == COLUMNS.keys()
    assert all(column.description for column in COLUMNS.values())


def test_ecsv_says_units_and_descriptions_and_holds_every_value(
    found: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_manifest(found, tmp_path / "found.ecsv")
    table = QTable.read(path)
    assert table.colnames == list(found.columns)
    for name in table.colnames:
        assert table[name].info.description == COLUMNS[name].description
    assert table["ra"].unit == u.deg
    assert table["size"].unit == u.byte
    absent = found["start_time"].isna().to_numpy()
    assert absent.any()
    assert not absent.all()
    np.testing.assert_array_equal(np.asarray(table["start_time"].mask), absent)
    expected = Time(
        found["start_time"][~absent].dt.tz_localize(None).to_numpy(dtype="M8[us]").astype(str)
    )
    assert np.all(abs(table["start_time"][~absent] - expected) < 1 * u.us)
    assert all(table["committed_at"] == Time(list(found["committed_at"])))
    assert table["size"].value.tolist() == found["size"].tolist()
    for name in ("name", "sha256", "state", "footprint", "survey", "path", "ra"):
        missing = found[name].isna().to_numpy()
        masked = np.asarray(getattr(table[name], "mask", np.zeros(len(table), bool)))
        np.testing.assert_array_equal(masked, missing, err_msg=name)
        values = u.Quantity(table[name]).value if name == "ra" else table[name]
        assert list(np.asarray(values)[~missing]) == list(found[name][~missing]), name


def test_parquet_says_units_and_descriptions_and_holds_every_value(
    found: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_manifest(found, tmp_path / "found.parquet")
    back = pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, found, check_dtype=False)
    schema = pq.read_schema(path)
    for field in schema:
        assert field.metadata[b"description"].decode() == COLUMNS[field.name].description
    assert schema.field("dec").metadata[b"unit"] == b"deg"


def test_csv_is_plain_with_times_in_utc(found: pd.DataFrame, tmp_path: Path) -> None:
    path = write_manifest(found, tmp_path / "found.csv")
    table = Table.read(path, format="ascii.csv")
    assert table.colnames == list(found.columns)
    assert table["committed_at"][0].endswith("Z")
    assert pd.to_datetime(list(table["committed_at"])).equals(
        pd.DatetimeIndex(found["committed_at"])
    )


def test_an_empty_search_makes_a_manifest_without_rows(found: pd.DataFrame, tmp_path: Path) -> None:
    for suffix in ("csv", "ecsv", "parquet"):
        path = write_manifest(found.head(0), tmp_path / f"found.{suffix}")
        assert path.stat().st_size > 0
    assert len(Table.read(tmp_path / "found.ecsv")) == 0


def test_a_manifest_takes_the_place_of_an_old_one_whole_or_not_at_all(
    found: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.ecsv"
    path.write_text("old")
    monkeypatch.setattr(Table, "write", _fail)
    with pytest.raises(BadInputError, match="No space left"):
        write_manifest(found, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["found.txt", "found", "missing/found.csv"])
def test_what_cannot_be_written_is_refused_with_the_remedy(
    found: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadInputError, match="Remedy"):
        write_manifest(found, tmp_path / name)
