"""Pictures of the tables that the SSC delivers: light curves, and spectra with their wavelengths.

rad describes what is said about these files, not their columns. Tables with the columns below are
drawn; others are products all the same, without a picture. Of a large table a sample is read, so
that a picture takes little memory whatever the size of the table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 4
MOST_ROWS = 1_000_000
"""Rows of a table that are read; of more, evenly from all over the table."""

MOST_POINTS = 5_000
"""Points of one source that are drawn."""

_BATCH = 8192
_PARTS = 16
_LONGEST_LABEL = 60
_PANEL = (6.0, 1.8)
_DPI = 80


@dataclass(frozen=True)
class TablePicture:
    """How a table with one row for each measurement of a source is drawn.

    Parameters
    ----------
    source, x, y, error
        Its columns: which source, where or when, how much, and the standard error of that.
    x_label
        Of the horizontal axis; the unit is that of the column.
    interest
        Computes how interesting each source is; those most so are drawn.
    draw
        Draws one source: axes, x, y, error.
    """

    source: str
    x: str
    y: str
    error: str
    x_label: str
    interest: Callable[[pd.DataFrame, TablePicture], pd.Series[float]]
    draw: Callable[[Axes, np.ndarray, np.ndarray, np.ndarray], None]


def _variation(rows: pd.DataFrame, table: TablePicture) -> pd.Series[float]:
    """Compute how far the farthest measurement is from the median, in standard errors."""
    source, y = rows[table.source], rows[table.y]
    median = y.groupby(source).transform("median")
    return ((y - median) / rows[table.error]).abs().groupby(source).max()


def _signal(rows: pd.DataFrame, table: TablePicture) -> pd.Series[float]:
    """Compute the median ratio of signal to noise."""
    return (rows[table.y] / rows[table.error]).groupby(rows[table.source]).median()


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray) -> None:
    axes.errorbar(x, y, error, fmt=".", markersize=4, linewidth=0.8)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray) -> None:
    axes.plot(x, y, linewidth=0.8)
    axes.fill_between(x, y - error, y + error, alpha=0.3)


LIGHT_CURVES = TablePicture("object_id", "mjd", "flux", "flux_error", "MJD", _variation, _points)
SPECTRA = TablePicture(
    "source_id", "wavelength", "flux", "flux_error", "wavelength", _signal, _line
)

TABLE_PICTURES: Mapping[str, TablePicture] = {
    "microlensing_light_curve_catalog": LIGHT_CURVES,
    "spec_individual_1d": SPECTRA,
    "spec_combined_1d": SPECTRA,
}
"""By kind."""


def draw(kind: str, path: Callable[[], Path]) -> bytes | None:
    """Draw a table of a kind, None if tables of that kind, or this one, are not drawn.

    Parameters
    ----------
    kind
        Name of the kind.
    path
        Gives the file, if it is needed.
    """
    if kind == SCATTER_KIND:
        return draw_scatter(path())
    table = TABLE_PICTURES.get(kind)
    return None if table is None else draw_table(path(), table)


def draw_table(path: Path, table: TablePicture) -> bytes | None:
    """Draw the most interesting sources of a table.

    Parameters
    ----------
    path
        A Parquet file.
    table
        How.

    Returns
    -------
    bytes or None
        A PNG; None if the table has not the columns, or no row that is finite.
    """
    columns = [table.source, table.x, table.y, table.error]
    schema = pq.read_schema(path)
    if not _has(schema, columns[:1], pa.types.is_integer, pa.types.is_string):
        return None
    if not _has(schema, columns[1:], pa.types.is_integer, pa.types.is_floating):
        return None
    units = {name: _unit(schema.field(name).metadata) for name in columns}
    rows = _sample(path, columns)
    usable = np.isfinite(rows[columns[1:]].to_numpy()).all(axis=1)
    rows = rows[usable & (rows[table.error] > 0).to_numpy()]
    if rows.empty:
        return None
    chosen = table.interest(rows, table).nlargest(MOST_PANELS).index
    of_source = rows[rows[table.source].isin(chosen)].groupby(table.source)
    return _drawn({source: of_source.get_group(source) for source in chosen}, table, units)


def _has(schema: pa.Schema, columns: Sequence[str], *types: Callable[[pa.DataType], bool]) -> bool:
    return all(
        name in schema.names and any(fits(schema.field(name).type) for fits in types)
        for name in columns
    )


def _sample(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read `MOST_ROWS` rows at most, from row groups all over the table."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
        groups = range(table.num_row_groups)
        if table.metadata.num_rows > MOST_ROWS:
            groups = groups[:: max(1, len(groups) // _PARTS)]
        share = MOST_ROWS // max(1, len(groups))
        parts = [
            batch
            for group in groups
            for batch in islice(
                table.iter_batches(_BATCH, row_groups=[group], columns=list(columns)),
                -(-share // _BATCH),
            )
        ]
        schema = _of_columns(table.schema_arrow, columns)
    frame: pd.DataFrame = pa.Table.from_batches(parts, schema).to_pandas()
    return frame


def _of_columns(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    # in the order of the file, as batches have them
    return pa.schema([field for field in schema if field.name in columns])


SCATTER_KIND = "microlensing_variability_catalog"
_SCATTER_COLUMNS = ("mean_flux", "relative_scatter", "relative_photon_noise")


def draw_scatter(path: Path) -> bytes | None:
    """Draw the scatter of light curves against flux, with what photon noise lets expect.

    Parameters
    ----------
    path
        A table of what varies.

    Returns
    -------
    bytes or None
        A PNG; None if the table has not the columns, or no row with a positive flux.
    """
    schema = pq.read_schema(path)
    if not _has(schema, _SCATTER_COLUMNS, pa.types.is_integer, pa.types.is_floating):
        return None
    rows = _sample(path, _SCATTER_COLUMNS)
    rows = rows[((rows > 0) & np.isfinite(rows)).all(axis=1)].sort_values("mean_flux")
    if rows.empty:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    flux, scatter, noise = (rows[name] for name in _SCATTER_COLUMNS)
    axes.loglog(flux, scatter, ".", markersize=3, label="scatter of light curves")
    axes.loglog(flux, noise, ".", markersize=2, label="photon noise")
    ratio = float((scatter / noise).median())
    axes.set_title(
        f"{len(rows)} objects; scatter is {ratio:.2f} times photon noise (median)", fontsize=8
    )
    unit = _unit(schema.field(_SCATTER_COLUMNS[0]).metadata)
    axes.set_xlabel(f"mean flux{unit}", fontsize=8, parse_math=False)
    axes.set_ylabel("relative to the flux", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    return picture.getvalue()


def _drawn(
    sources: Mapping[object, pd.DataFrame], table: TablePicture, units: Mapping[str, str]
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _PANEL
    figure = Figure(figsize=(width, height * len(sources)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sources), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (source, rows) in zip(panels, sources.items(), strict=True):
        ordered = rows.iloc[:: -(-len(rows) // MOST_POINTS)].sort_values(table.x)
        table.draw(axes, *(ordered[name].to_numpy() for name in (table.x, table.y, table.error)))
        axes.set_title(f"{table.source} {source}"[:_LONGEST_LABEL], fontsize=8, parse_math=False)
        axes.set_ylabel(f"{table.y}{units[table.y]}", fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7)
    panels[-1].set_xlabel(f"{table.x_label}{units[table.x]}", fontsize=8, parse_math=False)
    return _png(figure)


def _unit(metadata: Mapping[bytes, bytes] | None) -> str:
    unit = (metadata or {}).get(b"unit", b"").decode(errors="replace")[:_LONGEST_LABEL]
    return f" ({unit})" if unit else ""
