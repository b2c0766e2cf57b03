"""Manifests: the result of a search as a file that says what its columns mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from roman_assets.archive.durability import temporary_name
from roman_assets.errors import BadInputError
from roman_assets.registry.catalog.schema import SEARCH_COLUMNS, Column

PATH = Column("path", "VARCHAR", "where the file is")
COLUMNS: Mapping[str, Column] = {column.name: column for column in (*SEARCH_COLUMNS, PATH)}
"""What the columns of a search result mean."""


def write_manifest(found: pd.DataFrame, path: Path | str, file_format: str | None = None) -> Path:
    """Write the products that a search found, with sizes and checksums, whole or not at all.

    Parameters
    ----------
    found
        Rows of `ArchiveReader.find` or `ProductSearch.find`, with any of their columns.
    path
        The file.
    file_format
        ``csv`` has names of columns only; ``ecsv`` (for `astropy.table.Table.read`) and
        ``parquet`` have types, units and descriptions too. By default what the suffix says.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    BadInputError
        If the format is another, or the file cannot be written there.
    """
    path = Path(path)
    file_format = path.suffix.lower().removeprefix(".") if file_format is None else file_format
    write = _WRITERS.get(file_format)
    if write is None:
        raise BadInputError(
            path,
            "name",
            f"{file_format!r} is not a format of a manifest",
            f"use {', '.join(_WRITERS)}",
        )
    temporary = temporary_name(path)
    try:
        write(found, temporary)
        temporary.replace(path)
    except OSError as error:
        raise BadInputError(
            path, "file", f"cannot be written: {error.strerror}", "choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def csv_text(found: pd.DataFrame) -> str:
    """Return a search result as CSV; times in ISO 8601, UTC."""
    text: str = found.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ")
    return text


def ecsv_text(found: pd.DataFrame) -> str:
    """Return a search result as ECSV."""
    stream = StringIO()
    manifest_table(found).write(stream, format="ascii.ecsv")
    return stream.getvalue()


def manifest_table(found: pd.DataFrame) -> Table:
    """Return a search result as an astropy table with units and descriptions; times as `Time`."""
    table = Table()
    for name in found.columns:
        series, known = found[name], COLUMNS.get(str(name))
        absent = series.isna().to_numpy()
        if isinstance(series.dtype, pd.DatetimeTZDtype):
            table[name] = _times(series)
        elif pd.api.types.is_numeric_dtype(series.dtype) or series.dtype == bool:
            filled = series.fillna(0) if absent.any() else series
            table[name] = MaskedColumn(filled.to_numpy(), mask=absent) if absent.any() else filled
        else:
            texts = series.where(~series.isna(), "").astype(str).to_numpy(dtype=str)
            table[name] = MaskedColumn(texts, mask=absent) if absent.any() else texts
        if known is not None:
            table[name].info.description = known.description
            if known.unit is not None:
                table[name].info.unit = known.unit
    return table


def _times(series: pd.Series) -> Time:
    utc = series.dt.tz_convert("UTC").dt.tz_localize(None)
    absent = utc.isna().to_numpy()
    filled = utc.fillna(pd.Timestamp(0)).to_numpy(dtype="datetime64[us]")
    times = Time(filled.astype(str), format="isot", scale="utc", precision=6)
    if absent.any():
        times[absent] = np.ma.masked
    return times


def _arrow_table(found: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(found, preserve_index=False)
    fields = [
        field.with_metadata(_about(COLUMNS[field.name])) if field.name in COLUMNS else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _about(column: Column) -> dict[str, str]:
    unit = {} if column.unit is None else {"unit": column.unit}
    return {"description": column.description} | unit


_WRITERS: Mapping[str, Callable[[pd.DataFrame, Path], object]] = {
    "csv": lambda found, path: path.write_text(csv_text(found)),
    "ecsv": lambda found, path: path.write_text(ecsv_text(found)),
    "parquet": lambda found, path: pq.write_table(_arrow_table(found), path),
}
