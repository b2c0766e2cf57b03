"""Pictures of the tables that the SSC delivers: light curves, and spectra with their wavelengths.

rad describes what is said about these files, not their columns. Tables with the columns below are
drawn; others are products all the same, without a picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 4
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
        Gives how interesting a source is; those most so are drawn.
    draw
        Draws one source: axes, x, y, error.
    """

    source: str
    x: str
    y: str
    error: str
    x_label: str
    interest: Callable[[pd.DataFrame, TablePicture], float]
    draw: Callable[[Axes, np.ndarray, np.ndarray, np.ndarray], None]


def _variation(rows: pd.DataFrame, table: TablePicture) -> float:
    """Give how far the farthest measurement is from the median, in standard errors."""
    return float(((rows[table.y] - rows[table.y].median()) / rows[table.error]).abs().max())


def _signal(rows: pd.DataFrame, table: TablePicture) -> float:
    """Give the median ratio of signal to noise."""
    return float((rows[table.y] / rows[table.error]).median())


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
    if not set(columns) <= set(schema.names):
        return None
    units = {name: _unit(schema.field(name).metadata) for name in columns}
    rows = pq.read_table(path, columns=columns).to_pandas()
    rows = rows[np.isfinite(rows[[table.x, table.y, table.error]]).all(axis=1)]
    if rows.empty:
        return None
    ranked = sorted(rows.groupby(table.source), key=lambda group: -table.interest(group[1], table))
    return _drawn(dict(ranked[:MOST_PANELS]), table, units)


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
    if not set(_SCATTER_COLUMNS) <= set(schema.names):
        return None
    rows = pq.read_table(path, columns=list(_SCATTER_COLUMNS)).to_pandas()
    rows = rows[(rows > 0).all(axis=1)].sort_values("mean_flux")
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
    axes.set_xlabel(f"mean flux{unit}", fontsize=8)
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
        ordered = rows.sort_values(table.x)
        table.draw(axes, *(ordered[name].to_numpy() for name in (table.x, table.y, table.error)))
        axes.set_title(f"{table.source} {source}", fontsize=8)
        axes.set_ylabel(f"{table.y}{units[table.y]}", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[-1].set_xlabel(f"{table.x_label}{units[table.x]}", fontsize=8)
    return _png(figure)


def _unit(metadata: Mapping[bytes, bytes] | None) -> str:
    unit = (metadata or {}).get(b"unit", b"").decode()
    return f" ({unit})" if unit else ""
