"""Ticks of sensors, as the daemon makes them: a cursor is kept once the results have arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.memory import SensorMemory
from roman_assets.defs.lib.resources import Installation


class Ticks:
    """A daemon and a code server, as far as sensors see them."""

    def __init__(self, root: DataRoot, instance: dg.DagsterInstance) -> None:
        self.root = root
        self.instance = instance
        self._cursors: dict[str, str | None] = {}
        self.restart()

    def restart(self) -> None:
        """Start the code server again: it remembers nothing."""
        self.memory = SensorMemory()

    @contextmanager
    def look(self, sensor: Callable[..., Any]) -> Iterator[Any]:
        """Run a sensor's look. Its results have arrived when the block ends without an error."""
        from roman_assets.definitions import defs

        name = str(sensor.name)  # type: ignore[attr-defined]
        context = dg.build_sensor_context(
            instance=self.instance,
            definitions=defs,
            resources={
                "installation": Installation(data_root=str(self.root.path)),
                "memory": self.memory,
            },
            sensor_name=name,
            cursor=self._cursors.get(name),
        )
        yield sensor(context)
        self._cursors[name] = context.cursor
