"""Checks that are evaluated, kept and shown for each exposure or visit by itself."""

from __future__ import annotations

import warnings

import dagster as dg

from roman_assets.partitions import exposure_partitions, release_partitions, visit_partitions
from roman_assets.products.kind import VISIT_STEPS, Step


def partitioned_check(key: dg.AssetCheckKey, step: Step, description: str) -> dg.AssetCheckSpec:
    """Give the spec of a check that has the partitions of a step.

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
            partitions_def=_partitions(step),
        )


def _partitions(step: Step) -> dg.DynamicPartitionsDefinition:
    if step is Step.RELEASE:
        return release_partitions
    return visit_partitions if step in VISIT_STEPS else exposure_partitions
