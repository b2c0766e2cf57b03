"""Takes deliveries in while being killed; prints what became of each, for `test_kills`.

``python -m roman_assets_tests.support.ssc_killing ROOT KILLS``: every delivery has two files, one
in three a fault. Work is done in forks of this process, which itself only imports: a fork is as
good as another process and starts at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.ssc.delivery import deliveries
from roman_assets.ssc.exchange import FROM_SSC, REPORTS, Exchange
from roman_assets.ssc.intake import remove_remains, take_in
from roman_assets_tests.support.small_products import VISIT
from roman_assets_tests.support.ssc_center import Center, bulge, images, observe

NAMES = (bulge("event_catalog"), bulge("variability_catalog"))
KILLS_OF_A_DELIVERY = 4
"""At most; then it is taken in undisturbed."""


def main(path: str, kills: int) -> None:
    """Kill so often; print a line of JSON for each delivery."""
    root, chance = DataRoot(Path(path)), random.Random(4)
    in_child(lambda: observe(root))
    usual = 0.5
    done = number = 0
    while done < kills:
        number += 1
        name, bad = f"d{number:03d}", number % 3 == 0
        before = in_child(lambda: standing(root))
        sent = in_child(lambda name=name, bad=bad, number=number: deliver(root, name, number, bad))
        seen, killed = [], 0
        while killed < KILLS_OF_A_DELIVERY:
            if not survived(lambda: take_in(root, Step.MICROLENSING, VISIT), chance, usual):
                break
            killed += 1
            seen.append(in_child(lambda: standing(root)))
        done += killed
        began = time.monotonic()
        in_child(lambda: take_in(root, Step.MICROLENSING, VISIT) and None)
        in_child(lambda: remove_remains(Exchange.of(root)))
        usual = max(0.05, (usual + time.monotonic() - began) / 2)
        told = {"before": before, "sent": sent, "bad": bad, "killed": killed, "between": seen}
        ends = in_child(lambda name=name: ended(root, name))
        sys.stdout.write(json.dumps({**told, **ends}) + "\n")


def survived(work: Callable[[], object], chance: random.Random, usual: float) -> bool:
    """Run in a child that is killed some time; tells whether it was, before it had ended."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    time.sleep(chance.uniform(0, 1.2 * usual))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def in_child(work: Callable[[], Any]) -> Any:
    """Run in a child that nobody kills; gives what it gives."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        with os.fdopen(sink, "w") as stream:
            json.dump(work(), stream)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source) as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "a child that nobody killed failed"
    return json.loads(content)


def deliver(root: DataRoot, name: str, number: int, bad: bool) -> dict[str, str]:
    """Write a delivery; gives what is to be in the archive then."""
    stated: dict[str, str] = {}

    def change(notification: dict[str, Any]) -> None:
        stated.update({file["filename"]: file["sha256"] for file in notification["files"]})
        if bad:
            notification["files"][1]["sha256"] = "0" * 64

    center = Center.of(root)
    center.made += timedelta(hours=number)
    directory = center.deliver(NAMES, images(), delivery=name, text=name, change=change)
    exchange = Exchange.of(root)
    if "://" in root.ssc_exchange:
        files = sorted(directory.iterdir(), key=lambda path: path.name == "notification.json")
        for path in files:
            exchange.upload(path, FROM_SSC / name / path.name)
            path.unlink()
    return stated


def standing(root: DataRoot) -> dict[str, str]:
    """Give the content of what is current."""
    fold(root)
    with Registry(root) as registry:
        return {name: entry.sha256 for name, entry in registry.generations.current(NAMES).items()}


def ended(root: DataRoot, name: str) -> dict[str, Any]:
    """Give what became of a delivery."""
    exchange = Exchange.of(root)
    return {
        "after": standing(root),
        "left": [one.name for one in deliveries(exchange)],
        "reports": sorted(_outcomes(exchange, name)),
        "set_aside": [
            sorted(path.name for path in case.content.iterdir())
            for case in SetAside(root).list()
            if case.content is not None and case.content.name == name
        ],
    }


def _outcomes(exchange: Exchange, name: str) -> Iterator[str]:
    for file in exchange.files(REPORTS / name):
        if file.key.suffix == ".json":
            yield json.loads(exchange.read(file.key, 1 << 20))["outcome"]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
