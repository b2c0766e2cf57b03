"""Measure the archive service: cones by SIA and TAP, MAST's search, and cutouts.

The registry is that of the benchmark of the registry. The service runs in a process of its own;
clients are threads of this one, each with other places and visits at every request.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests
from registry import build, detector_place

from roman_assets.data_root import DataRoot
from roman_assets.service.serve import server_of
from roman_assets.settings.service_settings import ServiceSettings

CLIENTS = 8
RADIUS = 0.05
"""Of cones, deg."""

PORT = 8797
URL = f"http://127.0.0.1:{PORT}"


def serve(root: DataRoot) -> None:
    server_of(root, ServiceSettings(), "127.0.0.1", PORT).run()


def wait_until_ready() -> None:
    for _ in range(600):
        try:
            requests.get(f"{URL}/health", timeout=60).raise_for_status()
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise TimeoutError("the service does not start")


def place(exposures: int, chance: random.Random) -> tuple[float, float]:
    return detector_place(chance.randrange(exposures), chance.randint(1, 18))


def image_access(session: requests.Session, ra: float, dec: float) -> None:
    asked = {"POS": f"CIRCLE {ra} {dec} {RADIUS}", "CALIB": "2"}
    checked(session.get(f"{URL}/sia/query", params=asked))


def table_access(session: requests.Session, ra: float, dec: float) -> None:
    query = (
        "SELECT obs_publisher_did, access_url FROM ivoa.ObsCore WHERE calib_level = 2 AND "
        f"1 = INTERSECTS(s_region, CIRCLE('ICRS', {ra}, {dec}, {RADIUS}))"
    )
    checked(session.post(f"{URL}/tap/sync", data={"LANG": "ADQL", "QUERY": query}))


def mission_search(session: requests.Session, ra: float, dec: float) -> None:
    asked = {
        "target": [f"{ra} {dec}"],
        "radius": RADIUS * 3600,
        "conditions": [{"survey": "HLWAS"}],
    }
    checked(session.post(f"{URL}/search/roman/api/v0.1/search", json=asked))


def checked(answer: requests.Response) -> None:
    answer.raise_for_status()
    assert answer.content


def cutout(session: requests.Session, name: str, ra: float, dec: float) -> None:
    half = 100 * 0.11 / 3600
    asked = {"ID": name, "CIRCLE": f"{ra} {dec} {half}", "RESPONSEFORMAT": "asdf"}
    checked(session.get(f"{URL}/soda/sync", params=asked))


def measure(
    what: str, ask: Callable[[requests.Session], None], requests_of_client: int, clients: int
) -> None:
    def client(_: int) -> list[float]:
        times = []
        with requests.Session() as session:
            ask(session)
            for _ in range(requests_of_client):
                began = time.perf_counter()
                ask(session)
                times.append(time.perf_counter() - began)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        times = sorted(one for each in threads.map(client, range(clients)) for one in each)
    rate = len(times) / (time.perf_counter() - began)
    middle, late = 1000 * statistics.median(times), 1000 * times[int(0.95 * len(times))]
    print(
        f"{what}, {clients} at once: median {middle:.0f} ms, 95 % {late:.0f} ms, "
        f"{rate:.1f} a second",
        flush=True,
    )


def at_random(
    ask: Callable[[requests.Session, float, float], None], products: int
) -> Callable[[requests.Session], None]:
    chance = random.Random(1)
    return lambda session: ask(session, *place(products // 54, chance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, help="registry of that many products, if there is one")
    parser.add_argument("--images", type=Path, help="data root with images to cut, instead")
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = DataRoot(arguments.images or arguments.root or Path(directory))
        if arguments.images is None and arguments.root is None:
            build(root, arguments.products)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(root,))
        server.start()
        try:
            wait_until_ready()
            if arguments.images is not None:
                measure_cutouts(arguments.requests)
                return
            for clients in (1, CLIENTS):
                for what, ask in (
                    ("SIA cone", image_access),
                    ("TAP cone", table_access),
                    ("MAST search around a place", mission_search),
                ):
                    measure(what, at_random(ask, arguments.products), arguments.requests, clients)
        finally:
            server.terminate()
            server.join()


def measure_cutouts(number: int) -> None:
    query = (
        "SELECT TOP 1 obs_publisher_did, s_ra, s_dec FROM ivoa.ObsCore "
        "WHERE dataproduct_subtype = 'cal'"
    )
    asked = {"LANG": "ADQL", "QUERY": query, "FORMAT": "csv"}
    answer = requests.get(f"{URL}/tap/sync", params=asked)
    name, ra, dec = answer.text.splitlines()[1].split(",")
    ask = partial(cutout, name=name, ra=float(ra), dec=float(dec))
    for clients in (1, 2):
        measure("cutout of 200 x 200 pixels", ask, number, clients)


if __name__ == "__main__":
    main()
