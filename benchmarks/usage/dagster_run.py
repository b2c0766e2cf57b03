"""One Dagster run in this process, for a benchmark that measures the process from outside."""

from __future__ import annotations

import dagster as dg

from roman_assets.defs.lib.resources import Installation


def materialize(
    asset: dg.AssetsDefinition, keys: dg.DynamicPartitionsDefinition, key: str, root: str
) -> None:
    """Materialize one partition of an asset of an installation; exit with 1 if that fails."""
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(keys.name), [key])
        result = dg.materialize(
            [asset],
            partition_key=key,
            instance=instance,
            resources={"installation": Installation(data_root=root)},
        )
    if not result.success:
        raise SystemExit(1)
