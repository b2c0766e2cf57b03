from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from roman_assets.ssc.picture import (
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
    assert LIGHT_CURVES.interest(rows, LIGHT_CURVES).idxmax() == 3


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


@pytest.mark.parametrize(
    "columns",
    [
        {"object_id": [[1]], "mjd": [1.0], "flux": [1.0], "flux_error": [1.0]},
        {"object_id": [1], "mjd": ["x"], "flux": [1.0], "flux_error": [1.0]},
        {"object_id": [1], "mjd": [1.0], "flux": [1.0], "flux_error": [0.0]},
    ],
)
def test_columns_of_other_types_or_without_errors_have_no_picture(
    tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a")
    assert draw_table(tmp_path / "a", LIGHT_CURVES) is None


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    columns = {"object_id": ["$\\frac$"], "mjd": [1.0], "flux": [1.0], "flux_error": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "a")
    assert draw_table(tmp_path / "a", LIGHT_CURVES) is not None


LARGE = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from roman_assets.ssc.picture import LIGHT_CURVES, draw_table
path, groups, rows = sys.argv[1], 40, 1_000_000
measured = [(name, pa.float64()) for name in ("mjd", "flux", "flux_error")]
schema = pa.schema([("object_id", pa.int64()), *measured])
with pq.ParquetWriter(path, schema) as table:
    for group in range(groups):
        number = np.arange(group * rows, (group + 1) * rows) // 10
        zeros = np.zeros(rows)
        table.write_table(pa.table([number, number % 10 + zeros, zeros, zeros + 1.0], schema))
draw_table(path, LIGHT_CURVES)  # what libraries take once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert draw_table(path, LIGHT_CURVES) is not None
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_picture_of_a_large_table_takes_little_memory_and_time(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "a")], check=True, capture_output=True
    )
    _, peak = map(int, ran.stdout.split())
    assert peak < 1_000_000  # kB; the table has 1.3 GB and four million objects
    assert time.monotonic() - began < 60
