"""What an error of DuckDB tells: damage, a full disk, or neither."""

from __future__ import annotations

import duckdb


def is_damage(error: duckdb.Error) -> bool:
    """Return whether a damaged file can cause an error."""
    # A block with a wrong checksum raises an error of no class of its own.
    return type(error) is duckdb.Error or isinstance(
        error, (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException)
    )


def is_disk_full(error: Exception) -> bool:
    """Return whether DuckDB reports a full disk."""
    text = str(error)
    return "No space left" in text or "out of disk" in text.lower() or "quota" in text.lower()
