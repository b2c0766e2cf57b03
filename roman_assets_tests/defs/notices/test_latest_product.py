from __future__ import annotations

import json

import pytest
from dagster import AssetKey, DagsterInstance, build_sensor_context

from roman_assets.data_root import DataRoot
from roman_assets.definitions import defs
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.notices.latest_product import LATEST_PRODUCT_SENSORS, latest_product_path
from roman_assets.defs.notices.sensors import NoticeFile, availability_sensor
from roman_assets_tests.defs.notices.test_availability import report
from roman_assets_tests.support.sky import exposure_key
from roman_assets_tests.support.ticks import Ticks

FIRST, SECOND, THIRD = map(exposure_key, (1, 2, 3))
SENSORS = {sensor.asset_key.to_user_string(): sensor for sensor in LATEST_PRODUCT_SENSORS}


class Daemon:
    """Ticks of the sensors of the example, each from the cursor of its last one."""

    def __init__(self, root: DataRoot, instance: DagsterInstance) -> None:
        self.resources = {"installation": Installation(data_root=str(root.path))}
        self.instance = instance
        self.cursors: dict[str, str | None] = {}

    def tick(self, asset: str) -> str:
        sensor = SENSORS[asset]
        context = build_sensor_context(
            instance=self.instance,
            definitions=defs,
            resources=self.resources,
            sensor_name=sensor.name,
            cursor=self.cursors.get(asset),
        )
        done = sensor.evaluate_tick(context)
        self.cursors[asset] = done.cursor
        return str(done.skip_message)


def shown(root: DataRoot, asset: str) -> str:
    notice = json.loads(latest_product_path(root, AssetKey(asset)).read_text())
    assert notice["products"] == [{"name": f"{notice['partition']}_{asset}"}]
    return str(notice["partition"])


@pytest.mark.parametrize("asset", SENSORS)
def test_the_display_follows_each_product_that_comes_alone(
    asset: str, root: DataRoot, instance: DagsterInstance
) -> None:
    daemon = Daemon(root, instance)
    for partition in (FIRST, SECOND):
        report(instance, partition, asset)
        assert daemon.tick(asset) == f"shows {partition}"
        assert shown(root, asset) == partition


def test_of_products_between_two_looks_an_asset_sensor_sees_only_the_newest(
    root: DataRoot, instance: DagsterInstance
) -> None:
    daemon = Daemon(root, instance)
    for partition in (FIRST, SECOND, THIRD):
        report(instance, partition)
    assert daemon.tick("cal") == f"shows {THIRD}"
    assert "shows" not in daemon.tick("cal")
    assert shown(root, "cal") == THIRD
    with Ticks(root, instance).look(availability_sensor):
        pass
    lines = NoticeFile.of(root).path.read_text().splitlines()
    assert [json.loads(line)["partition"] for line in lines] == [FIRST, SECOND, THIRD]
