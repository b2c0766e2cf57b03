"""The two keys of the asset graph: exposures and visits, known as they are observed."""

from __future__ import annotations

import dagster as dg

from roman_assets.products.observation import ExposureId, VisitId

exposure_partitions = dg.DynamicPartitionsDefinition(name="exposure")
"""Keys are exposures, ``rPPPPPCCAAASSSOOOVVV_EEEE``."""

visit_partitions = dg.DynamicPartitionsDefinition(name="visit")
"""Keys are visits, ``rPPPPPCCAAASSSOOOVVV``, of those visits whose L3 and L4 the SOC makes."""


def visit_of(exposure_key: str) -> VisitId:
    """Give the visit of an exposure's partition key.

    Raises
    ------
    ValueError
        If the key is no exposure.
    """
    return ExposureId.parse(exposure_key).visit


def is_exposure(key: str) -> bool:
    """Tell an exposure's partition key from a visit's."""
    return "_" in key
