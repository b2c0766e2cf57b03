"""Fresh rows: what the latest folds added, kept in the snapshot until it is worth a tier.

A publishing step adds a few rows. Writing them into DuckDB files takes longer than all the rest of
a fold, so they are written into the snapshot itself, as Arrow tables, and readers load them into
memory. Fresh rows only add to the tiers: a fold that changes rows writes a tier.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from roman_assets.access import Role
from roman_assets.registry.catalog.schema import PRODUCTS, tables_seen_by

MOST_BYTES = 256 << 10
"""Bytes of fresh rows in a snapshot from which on a fold writes them into a tier."""

_OF_PRODUCT = ("name_key", "record_id", "name")
"""The columns by which the rows of all public tables belong to a product."""

Rows = Mapping[str, pa.Table]
"""Rows by table; a table without any is absent."""


@dataclass(frozen=True)
class FreshRows:
    """Rows in the form in which a snapshot has them.

    Parameters
    ----------
    tables
        Arrow streams in base64, by table.
    sha256
        Checksum of all of it.
    decoded
        The rows, if they are known.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    decoded: Rows | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, rows: Rows) -> FreshRows:
        """Encode rows."""
        tables = {name: _encoded(table) for name, table in rows.items()}
        return cls(tables, _checksum(tables), dict(rows)) if tables else cls()

    @property
    def size(self) -> int:
        """What they take in a snapshot, bytes."""
        return sum(map(len, self.tables.values()))

    def rows(self) -> Rows:
        """Decode rows.

        Raises
        ------
        ValueError
            If they are not what was encoded.
        """
        if self.decoded is not None:
            return self.decoded
        if self.tables and _checksum(self.tables) != self.sha256:
            raise ValueError("the fresh rows do not match their checksum")
        return {name: _decoded(text) for name, text in self.tables.items()}


def public_rows(rows: Rows) -> Rows:
    """Return what general users may see of rows (R1)."""
    products = rows.get(PRODUCTS.name)
    if products is None:
        return {}
    hidden = set(_products(products.filter(pc.invert(_is_public(products)))))
    found = {}
    for table in tables_seen_by(Role.PUBLIC):
        part = rows.get(table.name)
        if part is None:
            continue
        if hidden and "access" in part.column_names:
            part = part.filter(_is_public(part))
        elif hidden:
            part = part.filter(pa.array([product not in hidden for product in _products(part)]))
        if part.num_rows:
            found[table.name] = part.select([column.name for column in table.stored_columns])
    return found


def _is_public(table: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(table["access"], Role.PUBLIC.value), False)


def _products(table: pa.Table) -> Iterator[tuple[object, ...]]:
    """Yield the product that each row belongs to."""
    return zip(*(table[column].to_pylist() for column in _OF_PRODUCT), strict=True)


def _encoded(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table.combine_chunks())
    return base64.b64encode(sink.getvalue()).decode()


def _decoded(text: str) -> pa.Table:
    try:
        content = base64.b64decode(text, validate=True)
        return ipc.open_stream(content, options=ipc.IpcReadOptions(use_threads=False)).read_all()
    except (binascii.Error, pa.ArrowException) as error:
        raise ValueError(f"fresh rows cannot be read: {error}") from error


def _checksum(tables: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tables):
        digest.update(f"{name}:{tables[name]};".encode())
    return digest.hexdigest()
