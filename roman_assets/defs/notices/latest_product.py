"""An example of a consumer with Dagster's own ``@asset_sensor``: a display of the newest L2 and L4.

**Known limitation.** ``@asset_sensor`` hands over only the newest materialization since its last
look. If two exposures are reported between two looks, the consumer never hears of the first one.
That does no harm here, because a display shows only the newest product. A consumer that must see
every product copies `roman_assets.defs.notices.sensors` instead.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from roman_assets.archive.durability import write_durably
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.notices.sensors import notice_of

SHOWN_ASSETS = tuple(map(dg.AssetKey, ("cal", "exposure_catalog", "visit_catalog")))
"""L2 images and the L4 catalogues of exposures and visits."""


def build_latest_product_sensor(asset: dg.AssetKey) -> dg.SensorDefinition:
    """Build a sensor that keeps a file with the newest product of one asset.

    Parameters
    ----------
    asset
        The L2 or L4 asset to watch.
    """
    name = asset.to_user_string()

    @dg.asset_sensor(
        asset_key=asset,
        name=f"latest_{name}_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Example of `@asset_sensor`: keeps `notices/latest_{name}.json` for a "
        "display. Sees only the newest event since its last look; `availability_sensor` sees all.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        asset_event: dg.EventLogEntry,
        installation: dg.ResourceParam[Installation],
    ) -> dg.SkipReason:
        notice = notice_of(asset_event)
        path = latest_product_path(installation.root, asset)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(asdict(notice), indent=1).encode())
        return dg.SkipReason(f"shows {notice.partition}")

    return sensor


LATEST_PRODUCT_SENSORS = tuple(map(build_latest_product_sensor, SHOWN_ASSETS))


def latest_product_path(root: DataRoot, asset: dg.AssetKey) -> Path:
    """Return the file with the newest product of an asset; it has the fields of a `Notice`."""
    return root.path / "notices" / f"latest_{asset.to_user_string()}.json"
