from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.landing import LandingArea
from roman_assets.simulation.telescope.downlink import DELIVERIES, Downlink, DownlinkDelivery
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    executed_visit,
    readout,
    telemetry_of,
    write_oem,
)


@pytest.fixture(scope="module")
def orbit(tmp_path_factory):
    return write_oem(tmp_path_factory.mktemp("orbit") / "orbit.oem").read_text()


def send(root: DataRoot, orbit: str, delivery: DownlinkDelivery | None = None) -> Downlink:
    downlink = Downlink(root, delivery, packet_size=600)
    *detectors, face = telemetry_of()
    downlink.send(str(EXPOSURE), detectors)
    downlink.send(f"{EXPOSURE}_face", [face])
    downlink.send_document(executed_visit())
    downlink.send_document(MA_TABLE)
    downlink.send_ephemeris("predicted", orbit)
    return downlink


def landed(root: DataRoot) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in root.landing.iterdir() if p.name[0] != "."}


@pytest.mark.parametrize("name", DELIVERIES)
def test_whatever_the_delivery_the_same_arrives_in_the_end(tmp_path, orbit, name):
    root, plain = DataRoot(tmp_path / "data"), DataRoot(tmp_path / "plain")
    send(root, orbit, replace(DELIVERIES[name], seed=7)).release()
    send(plain, orbit)
    area, reference = LandingArea(root), LandingArea(plain)
    area.scan()
    reference.scan()
    receipt = area.receipt(EXPOSURE)
    assert receipt.missing == ()
    assert receipt.content_version == reference.receipt(EXPOSURE).content_version
    decoded = area.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")
    np.testing.assert_array_equal(decoded.resultants, readout().resultants)


@pytest.mark.parametrize("name", ["gaps", "late", "late_packets", "late_ma_table"])
def test_what_is_held_back_is_missing_until_it_is_released(tmp_path, orbit, name):
    root = DataRoot(tmp_path)
    downlink = send(root, orbit, DELIVERIES[name])
    area = LandingArea(root)
    area.scan()
    assert not area.receipt(EXPOSURE).complete
    # Another process may release it.
    assert Downlink(root).release()
    area.scan()
    assert area.receipt(EXPOSURE).complete
    assert downlink.release() == ()


def test_the_same_seed_lands_the_same_bytes_and_another_seed_others(tmp_path, orbit):
    contents = []
    for number, seed in enumerate((1, 1, 2)):
        root = DataRoot(tmp_path / str(number))
        send(root, orbit, replace(DELIVERIES["shuffled"], seed=seed))
        contents.append(landed(root))
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_sending_again_leaves_the_files_as_they_are(tmp_path, orbit):
    root = DataRoot(tmp_path)
    send(root, orbit)
    before = {p.name: p.stat().st_mtime_ns for p in root.landing.iterdir()}
    send(root, orbit)
    assert {p.name: p.stat().st_mtime_ns for p in root.landing.iterdir()} == before


def test_nothing_unfinished_is_seen_in_the_landing_area(tmp_path):
    root = DataRoot(tmp_path)

    def broken():
        yield readout()
        assert [p.name for p in root.landing.iterdir() if p.name[0] != "."] == []
        raise RuntimeError("contact lost")

    with pytest.raises(RuntimeError):
        Downlink(root).send("contact", broken())
    assert landed(root) == {}
