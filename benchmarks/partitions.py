"""Time the UI and the daemon with many exposure partitions, on Dagster's own limits.

An installation knows many exposures, all made: their keys, materializations of three assets, their
records and the index of the landing area. ``roman-assets dev`` runs on it. Timed are the answers of
its web server to what an asset's partition page asks, and the ticks of the sensors in its daemon,
which begin with a look at everything. Nothing of it is ours, so there is no alternative to compare
with; the ratio tells ten times as many keys from few: 10 would be growth in proportion.

    python benchmarks/partitions.py                      # 10,000 and 100,000
    python benchmarks/partitions.py --exposures 20000    # 2,000 and 20,000
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from sensors import EXPOSURES_PER_VISIT, Observatory, exposures_of, visit_number
from usage.ratios import print_ratio

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_home import dagster_environment, prepare_dagster_home
from roman_assets.defs.lib.partitions import exposure_partitions

ASSETS = ("uncal", "cal", "exposure_catalog")
SENSORS = ("landing_sensor", "visit_sensor", "deadline_sensor", "partition_window_sensor")
DAEMON_SECONDS = 60

PAGE = """
query ($asset: String!) {
  assetNodeOrError(assetKey: {path: [$asset]}) { ... on AssetNode {
    partitionKeysByDimension { name type partitionKeys }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions
    } }
  } }
}
"""
COUNTS = """
query ($assets: [AssetKeyInput!]) {
  assetNodes(assetKeys: $assets) {
    partitionStats { numMaterialized numPartitions numFailed numMaterializing }
  }
}
"""
ONE_PARTITION = """
query ($asset: String!, $partition: String!) {
  assetNodeOrError(assetKey: {path: [$asset]}) { ... on AssetNode {
    latestRunForPartition(partition: $partition) { id status }
    assetMaterializations(partitions: [$partition], limit: 1) {
      runId timestamp metadataEntries { label }
    }
  } }
  assetCheckExecutions(
    assetKey: {path: [$asset]}, checkName: "in_time", partition: $partition, limit: 5
  ) { status evaluation { severity } }
}
"""
TICKS = """
query ($sensor: String!) {
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "roman_assets", sensorName: $sensor
  }) { ... on Sensor { sensorState { ticks(limit: 200) { status timestamp endTimestamp } } } }
}
"""


def materialize(instance: dg.DagsterInstance, home: Path, keys: list[str]) -> None:
    """Store a materialization of each asset and key: one by Dagster, the others like it."""
    first = keys[0]
    for asset in ASSETS:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=first))
    columns = "run_id, dagster_event_type, timestamp, step_key, asset_key"
    path = home / "history" / "runs" / "index.db"
    with closing(sqlite3.connect(path)) as db, db:
        stored = db.execute("SELECT id FROM event_logs WHERE partition = ?", (first,)).fetchall()
        db.executemany(
            f"INSERT INTO event_logs ({columns}, event, partition) SELECT {columns}, "
            "replace(event, ?, ?), ? FROM event_logs WHERE id = ?",
            ((first, key, key, row) for key in keys[1:] for (row,) in stored),
        )


@contextmanager
def running(root: DataRoot) -> Iterator[int]:
    """Run ``roman-assets dev``; give the port of its UI once that answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    program = str(Path(sys.executable).with_name("roman-assets"))
    command = [program, "--data", str(root.path), "dev", "--port", str(port)]
    command += ["--archive-port", "0"]
    environment = dagster_environment(root) | {ROLE_VARIABLE: str(Role.OPERATIONS)}
    with (root.path / "dev.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with suppress(OSError):
                if ask(port, COUNTS, assets=[{"path": ["level0"]}])["assetNodes"]:
                    break
            time.sleep(0.5)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(port: int, query: str, **variables: Any) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer = json.load(response)
    if "errors" in answer:
        raise SystemExit(str(answer["errors"])[:2000])
    return answer["data"]


def seconds(port: int, query: str, **variables: Any) -> float:
    begun = time.perf_counter()
    ask(port, query, **variables)
    return time.perf_counter() - begun


def answers(port: int, key: str, instance: dg.DagsterInstance) -> dict[str, float]:
    """Time what the UI asks, in the order in which an operator's clicks would."""
    assets = [{"path": [name]} for name in ASSETS]
    one = {"asset": "cal", "partition": key}
    took = {
        "counts of three assets, first": seconds(port, COUNTS, assets=assets),
        "counts of three assets, again": seconds(port, COUNTS, assets=assets),
        "partition page of an asset": seconds(port, PAGE, asset="cal"),
        "one partition": statistics.median(seconds(port, ONE_PARTITION, **one) for _ in range(3)),
    }
    instance.add_dynamic_partitions(str(exposure_partitions.name), ["r9999901001001001001_0001"])
    took["counts of three assets, one key added"] = seconds(port, COUNTS, assets=assets)
    return took


def ticks(port: int) -> dict[str, float]:
    """Give the median time of the ticks of each sensor in the daemon, and the longest."""
    took = {}
    for sensor in SENSORS:
        found = ask(port, TICKS, sensor=sensor)["sensorOrError"]["sensorState"]["ticks"]
        failed = [tick for tick in found if tick["status"] == "FAILURE"]
        if failed or not found:
            raise SystemExit(f"{len(failed)} of {len(found)} ticks of {sensor} failed")
        times = [tick["endTimestamp"] - tick["timestamp"] for tick in found if tick["endTimestamp"]]
        took[f"{sensor}, median of {len(times)} ticks"] = statistics.median(times)
        took[f"{sensor}, longest tick"] = max(times)
    return took


def measure(exposures: int) -> dict[str, float]:
    """Time all with so many exposures."""
    with tempfile.TemporaryDirectory() as work:
        root = DataRoot(Path(work) / "data")
        os.environ["DAGSTER_HOME"] = str(root.dagster_home)
        home = prepare_dagster_home(root)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            begun = time.perf_counter()
            Observatory(root, instance).know(exposures)
            visits = map(visit_number, range(exposures // EXPOSURES_PER_VISIT))
            keys = [str(one) for visit in visits for one in exposures_of(visit)]
            materialize(instance, home, keys)
            print(f"{exposures} keys after {time.perf_counter() - begun:.0f} s", flush=True)
            with running(root) as port:
                took = answers(port, keys[-1], instance)
                time.sleep(DAEMON_SECONDS)
                took |= ticks(port)
    for what, value in took.items():
        print(f"{exposures}: {what}: {value:.3f} s", flush=True)
    return took


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--exposures", type=int, default=100_000)
    options = parser.parse_args()
    few, many = measure(options.exposures // 10), measure(options.exposures)
    for what in ("counts of three assets, first", "partition page of an asset", "one partition"):
        name = what.replace(" ", "_").replace(",", "")
        print_ratio(f"{name}_{options.exposures}_keys", 10 * few[what] / many[what])


if __name__ == "__main__":
    main()
