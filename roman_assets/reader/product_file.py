"""Opening product files in the form that suits each: data model, table or association."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roman_assets.products.name import ProductName
from roman_assets.registry.catalog.rad_schema import source_catalog_columns


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
        keep the model to use them: ``open_product_file(...).data`` alone fails. Otherwise
        all arrays are read at once and live on their own.

    Returns
    -------
    roman_datamodels.datamodels.DataModel, astropy.table.QTable, dict or numpy.ndarray
        A data model for ASDF; for a catalogue a table with units, the file's metadata under
        ``meta["roman"]``; an association as in its file; the pixels of a picture, shape (height,
        width, channels).
    """
    return _OPENERS[name.kind.extension](path, lazy)


def _open_model(path: Path, lazy: bool) -> Any:
    import asdf
    from roman_datamodels import datamodels

    # Validating would copy every array, and products were validated when they were saved.
    with asdf.config_context() as config:
        config.validate_on_read = False
        return datamodels.open(path, lazy_load=lazy, memmap=False)


def _open_table(path: Path, lazy: bool) -> Any:
    import pyarrow.parquet as pq
    from astropy.table import QTable, Table

    table, schema = Table.read(path, format="parquet"), pq.read_schema(path)
    for name in table.colnames:
        # romancal writes no unit for some columns that rad defines with one.
        if table[name].unit is None:
            table[name].unit = _units_of_source_catalogs().get(name)
    table.meta["roman"] = {
        key.decode().removeprefix(_PREFIX): value.decode()
        for key, value in (schema.metadata or {}).items()
        if key.decode().startswith(_PREFIX)
    }
    return QTable(table)


_PREFIX = "roman.meta."


@functools.cache
def _units_of_source_catalogs() -> Mapping[str, str | None]:
    """Return the units that rad's newest definitions state for columns of source catalogues."""
    definitions = source_catalog_columns()[-1]
    # Single-band catalogues leave the band out of the names.
    stated = {
        re.sub(r"_?~\w+~", "", name): definition.get("unit")
        for name, definition in definitions.items()
    }
    return {name: None if unit == "none" else unit for name, unit in stated.items()}


def _open_association(path: Path, lazy: bool) -> Any:
    return json.loads(path.read_text())


def _open_picture(path: Path, lazy: bool) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture)


_OPENERS: Mapping[str, Callable[[Path, bool], Any]] = {
    "asdf": _open_model,
    "parquet": _open_table,
    "json": _open_association,
    "png": _open_picture,
}
