from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from roman_assets.pipelines.ssc.picture import (
    LIGHT_CURVES,
    MOST_PANELS,
    SPECTRA,
    draw,
    draw_table,
)


def table(path: Path, source: str, x: str, sources: int = 6) -> Path:
    """Sources of which number 3 stands out."""
    number = np.repeat(np.arange(sources), 20)
    place = np.tile(np.linspace(1000.0, 1900.0, 20), sources)
    flux = 10 + 50 * ((number == 3) & (np.abs(place - 1450) < 60))
    columns = {source: number, x: place, "flux": flux, "flux_error": np.ones(len(number))}
    pq.write_table(pa.table(columns), path)
    return path


def test_light_curves_and_spectra_are_drawn(tmp_path: Path) -> None:
    for name, source, x, drawn in (
        ("a", "object_id", "mjd", LIGHT_CURVES), ("b", "source_id", "wavelength", SPECTRA)
    ):  # fmt: skip
        picture = draw_table(table(tmp_path / name, source, x), drawn)
        assert picture is not None
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
        assert pixels.shape[0] > 100 * MOST_PANELS
        assert (pixels < 128).mean() > 0.005


def test_the_most_variable_light_curve_is_drawn_first(tmp_path: Path) -> None:
    path = table(tmp_path / "a", "object_id", "mjd")
    rows = pq.read_table(path).to_pandas()
    interest = {
        number: LIGHT_CURVES.interest(found, LIGHT_CURVES)
        for number, found in rows.groupby("object_id")
    }
    assert max(interest, key=interest.__getitem__) == 3


def test_a_table_with_other_columns_has_no_picture(tmp_path: Path) -> None:
    pq.write_table(pa.table({"note": ["x"]}), tmp_path / "a")
    assert draw_table(tmp_path / "a", LIGHT_CURVES) is None


def test_a_table_without_a_finite_row_has_no_picture(tmp_path: Path) -> None:
    columns = {"object_id": [1], "mjd": [1.0], "flux": [np.nan], "flux_error": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "a")
    assert draw_table(tmp_path / "a", LIGHT_CURVES) is None


def test_the_scatter_of_light_curves_is_drawn_against_photon_noise(tmp_path: Path) -> None:
    path = tmp_path / "a"
    columns = {
        "mean_flux": [1.0, 10.0], "relative_scatter": [0.1, 0.03],
        "relative_photon_noise": [0.1, 0.03],
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    assert draw("microlensing_variability_catalog", lambda: path) is not None
    assert draw("microlensing_event_catalog", lambda: path) is None
