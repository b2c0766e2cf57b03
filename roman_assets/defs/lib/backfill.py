"""How Dagster is asked for a backfill that a person has decided on (R7, R15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.defs.lib.dagster_internals import PartitionBackfill

if TYPE_CHECKING:
    from roman_assets.defs.lib.dagster_internals import BaseAssetGraph


def launch_backfill(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,  # type: ignore[type-arg]
    backfill_id: str,
    *,
    partitions: dg.DynamicPartitionsDefinition,
    keys: Sequence[str],
    assets: Sequence[dg.AssetKey],
    tags: Mapping[str, str],
    title: str,
    description: str,
) -> None:
    """Launch a backfill of some assets, with keys that Dagster may have put away meanwhile.

    Parameters
    ----------
    instance
        Keeps the backfills.
    graph
        The assets.
    backfill_id
        Of the backfill; there is none yet.
    partitions, keys
        What it is for.
    assets
        What it makes.
    tags
        Of its runs.
    title, description
        For people.
    """
    instance.add_dynamic_partitions(str(partitions.name), list(keys))
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill_id,
            asset_graph=graph,
            partition_names=list(keys),
            asset_selection=list(assets),
            backfill_timestamp=datetime.now(UTC).timestamp(),
            tags=dict(tags),
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=title,
            description=description,
            run_config=None,
        )
    )
