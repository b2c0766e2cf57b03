"""Prompt data products of the Roman Wide Field Instrument as a Dagster asset graph."""

__version__ = "0.1.0"
