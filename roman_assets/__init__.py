"""Prompt data products of the Roman Wide Field Instrument as a Dagster asset graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roman_assets.reader.archive_reader import open_archive

__all__ = ["open_archive"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that the command line and Dagster start without it.
    if name == "open_archive":
        from roman_assets.reader.archive_reader import open_archive

        return open_archive
    if name == "__version__":
        from roman_assets.build import build

        return build().version
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
