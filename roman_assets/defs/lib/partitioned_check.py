"""Checks that are evaluated, kept and shown for each exposure or visit by itself."""

from __future__ import annotations

import warnings

import dagster as dg

from roman_assets.defs.lib.partitions import PARTITIONS
from roman_assets.products.kind import Step


def partitioned_check(key: dg.AssetCheckKey, step: Step, description: str) -> dg.AssetCheckSpec:
    """Return the spec of a check that has the partitions of a step.

    Parameters
    ----------
    key
        Asset and name.
    step
        The step that evaluates it.
    description
        What it promises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            key.name,
            asset=key.asset_key,
            description=description,
            partitions_def=PARTITIONS[step],
        )
