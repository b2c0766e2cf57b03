"""Opening product files in the form that suits each: data model, table or association."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roman_assets.products.name import ProductName


def open_product_file(path: Path, name: ProductName, *, lazy: bool = False) -> Any:
    """Open a product file.

    Parameters
    ----------
    path
        Where it is.
    name
        Its official name, which says its kind and thereby its form.
    lazy
        Read arrays of a data model when they are first used. They die with the model then, so
        whoever wants them keeps the model: ``open_product_file(...).data`` alone fails. Otherwise
        all arrays are read at once and live on their own.

    Returns
    -------
    roman_datamodels.datamodels.DataModel, astropy.table.QTable or dict
        A data model for ASDF; for a catalogue a table with units, the file's metadata under
        ``meta["roman"]``; an association as in its file.
    """
    return _OPENERS[name.kind.extension](path, lazy)


def _open_model(path: Path, lazy: bool) -> Any:
    from roman_datamodels import datamodels

    return datamodels.open(path, lazy_load=lazy, memmap=False)


def _open_table(path: Path, lazy: bool) -> Any:
    import pyarrow.parquet as pq
    from astropy.table import QTable, Table

    table, schema = Table.read(path, format="parquet"), pq.read_schema(path)
    for field in schema:
        unit = (field.metadata or {}).get(b"unit", _NO_UNIT)
        if table[field.name].unit is None and unit != _NO_UNIT:
            table[field.name].unit = unit.decode()
    table.meta["roman"] = {
        key.decode().removeprefix(_PREFIX): value.decode()
        for key, value in (schema.metadata or {}).items()
        if key.decode().startswith(_PREFIX)
    }
    return QTable(table)


_NO_UNIT = b"None"
_PREFIX = "roman.meta."


def _open_association(path: Path, lazy: bool) -> Any:
    return json.loads(path.read_text())


_OPENERS: Mapping[str, Callable[[Path, bool], Any]] = {
    "asdf": _open_model,
    "parquet": _open_table,
    "json": _open_association,
}
