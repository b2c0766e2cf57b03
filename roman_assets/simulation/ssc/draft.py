"""A delivery while it is being written: files, what is said about them, and the notification."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from roman_assets.archive.store import sha256_of
from roman_assets.build import build
from roman_assets.products.name import ProductName
from roman_assets.records.record import ProductInput
from roman_assets.software import PACKAGE, versions
from roman_assets.ssc.notification import NOTIFICATION, DeliveredFile, Notification

_LIBRARIES = ("astropy", "numpy", "pandas", "photutils", "pyarrow", "scipy", "specreduce")

UNITS: Mapping[str, str] = {
    "ra": "deg", "dec": "deg", "mjd": "d", "flux": "DN / s", "flux_error": "DN / s",
    "mean_flux": "DN / s", "source_flux": "DN / s", "blend_flux": "DN / s", "t0": "d", "te": "d",
}  # fmt: skip
"""Of the columns of photometric tables."""


class DeliveryDraft:
    """A delivery that is being written.

    Parameters
    ----------
    directory
        Where files go.
    common
        Metadata that all files share.
    """

    def __init__(self, directory: Path, common: Mapping[str, Any]) -> None:
        self._directory = directory
        self._common = common
        self._files: list[DeliveredFile] = []
        self._made = datetime.now(UTC)

    def path(self, name: ProductName) -> Path:
        """Return the place of a file."""
        return self._directory / str(name)

    def add(
        self, name: ProductName, inputs: Sequence[ProductInput], metadata: Mapping[str, Any]
    ) -> ProductInput:
        """Take a finished file in; gives it as an input of others."""
        path = self.path(name)
        said = DeliveredFile(
            filename=str(name),
            file_size=path.stat().st_size,
            sha256=sha256_of(path),
            file_creation_timestamp=self._made,
            inputs=tuple(inputs),
            software_versions={PACKAGE: build().version, **versions(_LIBRARIES)},
            metadata=json.loads(json.dumps({**self._common, **metadata})),
        )
        self._files.append(said)
        return ProductInput(name=said.filename, sha256=said.sha256)

    def finish(self) -> None:
        """Write the notification: the delivery is whole."""
        notification = Notification(version=1, files=tuple(self._files))
        (self._directory / NOTIFICATION).write_bytes(notification.as_json())


def write_table(path: Path, table: pd.DataFrame, units: Mapping[str, str] = UNITS) -> None:
    """Write a table with the units of its columns."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field
        for field in arrow.schema
    ]
    pq.write_table(arrow.cast(pa.schema(fields, metadata=arrow.schema.metadata)), path)
