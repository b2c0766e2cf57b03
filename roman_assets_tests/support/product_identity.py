"""Compare all products of two runs of romancal, bit by bit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pyarrow.parquet as pq

from roman_assets.acceleration.guest import first_difference

VOLATILE = frozenset(
    {"file_date", "date", "cal_logs", "individual_image_cal_logs", "history", "asdf_library"}
)
"""What differs from run to run: dates and logs."""

_DATE = re.compile(rb"date: '[^']*'")


def difference_of_files(before: Path, after: Path) -> str | None:
    """Return where two products of one name differ, dates and logs aside; None if nowhere."""
    return first_difference(_content(before), _content(after), before.name)


def difference_of_products(before: Path, after: Path) -> str | None:
    """Return where the files of two directories differ, dates and logs aside; None if nowhere."""
    names = [
        sorted(path.name for path in place.iterdir() if path.is_file()) for place in (before, after)
    ]
    if names[0] != names[1]:
        return f"files are {names[1]} instead of {names[0]}"
    found = (
        difference_of_files(before / name, after / name)
        for name in names[0]
        if name.endswith((".asdf", ".parquet"))
    )
    return next((difference for difference in found if difference is not None), None)


def _content(path: Path) -> Any:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        metadata = {
            key: _DATE.sub(b"", value)
            for key, value in (table.schema.metadata or {}).items()
            if key.decode().rpartition(".")[2] not in VOLATILE
        }
        columns = {name: table[name].to_numpy() for name in table.column_names}
        return {"columns": columns, "types": str(table.schema.types), "metadata": metadata}
    with asdf.open(path, lazy_load=False, memmap=False) as file:
        return _plain(file.tree)


def _plain(node: Any) -> Any:
    if isinstance(node, np.ndarray) or hasattr(node, "dtype"):
        return np.asarray(node)
    if isinstance(node, Mapping) or hasattr(node, "items"):
        return {str(key): _plain(value) for key, value in node.items() if str(key) not in VOLATILE}
    if isinstance(node, list | tuple) or type(node).__name__ == "LNode":
        return [_plain(value) for value in node]
    if type(node).__name__ == "WCS":
        grid = np.meshgrid(*[np.linspace(0, size - 1, 9) for size in (64, 64)])
        return [repr(node), *map(np.asarray, node(*grid, with_bounding_box=False))]
    return str(node)
