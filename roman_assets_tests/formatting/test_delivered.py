"""L1 that was formatted elsewhere: what lands is checked, published and followed up."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import asdf
import dagster as dg
import numpy as np
import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.defs.exposure.exposure_state import ExposureState, delivered_exposures
from roman_assets.defs.exposure.landing_watch import LandingWatch
from roman_assets.defs.exposure.sensors import run_request
from roman_assets.errors import BadInputError
from roman_assets.formatting.formatting_step import format_exposure, make_level1, why_again
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.receipt_record import record_receipts
from roman_assets.products.deadline import ClockEvent, utc_now
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, Survey
from roman_assets.products.origin import Origin
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.simulation.telescope.downlink import Downlink
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.foreign_level1 import (
    FACE,
    GUIDE_WINDOW,
    NAME,
    foreign_face,
    foreign_guide_window,
    foreign_level1,
)
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    executed_visit,
    telemetry_of,
    write_oem,
)

DELIVERED = ExposureId.parse(NAME[:25])
OTHER = NAME.replace("wfi07", "wfi08")


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


@pytest.fixture
def landing(root: DataRoot) -> LandingArea:
    return LandingArea(root)


def names_of(root: DataRoot) -> set[str]:
    return set(Registry(root).products.find(exposure=str(DELIVERED))["name"])


def test_a_ramp_alone_becomes_l1_byte_for_byte_with_its_origin(root, landing):
    path = foreign_level1(landing.path)
    before = sha256_of(path)
    assert landing.scan().taken == (NAME,)
    result = format_exposure(root, DELIVERED)
    assert [entry.name for entry in result.made] == [NAME]
    assert sha256_of(FileArchive(root).path(ProductName.parse(NAME))) == before
    (row,) = Registry(root).products.find(exposure=str(DELIVERED)).to_dict("records")
    assert (row["origin"], row["survey"], row["nexposures"]) == ("delivered", "HLWAS", 1)
    assert row["ra"] == pytest.approx(270.0)
    (entry,) = Registry(root).generations.current([NAME]).values()
    assert [(item.name, item.sha256) for item in entry.inputs] == [(f"{DELIVERED}_l1", before)]
    assert entry.software == {}


def test_guide_windows_and_face_come_along_whenever_they_arrive(root, landing):
    foreign_guide_window(landing.path)
    landing.scan()
    assert not landing.receipt(DELIVERED).complete
    foreign_level1(landing.path)
    landing.scan()
    format_exposure(root, DELIVERED)
    assert names_of(root) == {NAME, GUIDE_WINDOW}
    foreign_face(landing.path)
    landing.scan()
    result = format_exposure(root, DELIVERED)
    assert [entry.name for entry in result.made] == [FACE]
    assert names_of(root) == {NAME, GUIDE_WINDOW, FACE}


def test_nothing_is_missed_of_a_ramp_without_guide_window_and_face(root, landing):
    foreign_level1(landing.path)
    landing.scan()
    format_exposure(root, DELIVERED)
    ledger = Registry(root).deadlines.groups()
    formatting = ledger[ledger["step"] == "formatting"]
    assert list(formatting["kind"]) == ["uncal"]
    assert list(formatting["state"]) == ["made in time"]
    assert not [one for one in fsck(root) if one.kind is not FindingKind.UNREFERENCED_BLOB]


def test_the_moments_of_an_exposure_come_from_its_metadata_and_what_is_unknown_is_absent(
    root, landing
):
    arrived = datetime(2027, 6, 3, 12, tzinfo=UTC)
    path = foreign_level1(landing.path)
    os.utime(path, (arrived.timestamp(),) * 2)
    landing.scan()
    record_receipts(root, landing.receipts())
    (receipt, events) = Registry(root).receipts.newest([str(DELIVERED)])[str(DELIVERED)]
    assert receipt.origin is Origin.DELIVERED
    assert receipt.survey is Survey.HLWAS
    assert events[ClockEvent.EXECUTION_END] == datetime(2027, 6, 1, 0, 2, 20, tzinfo=UTC)
    assert events[ClockEvent.ALL_RECEIVED] == arrived
    unknown = {ClockEvent.FIRST_PACKET, ClockEvent.LAST_PACKET, ClockEvent.ANCILLARY}
    assert not unknown & events.keys()


def test_each_detector_is_published_as_it_arrives_and_the_others_stay(root, landing):
    foreign_level1(landing.path)
    landing.scan()
    assert len(format_exposure(root, DELIVERED).made) == 1
    foreign_level1(landing.path, OTHER)
    landing.scan()
    result = format_exposure(root, DELIVERED)
    assert [entry.name for entry in result.made] == [OTHER]
    assert [entry.name for entry in result.reused] == [NAME]
    assert Registry(root).generations.current([NAME])[NAME].generation == 1
    (receipt, _) = Registry(root).receipts.newest([str(DELIVERED)])[str(DELIVERED)]
    assert receipt.detectors == ("WFI07", "WFI08")


def test_a_file_delivered_again_overwrites_the_former(root, landing):
    foreign_level1(landing.path)
    landing.scan()
    format_exposure(root, DELIVERED)
    again = foreign_level1(landing.path / "again", data=np.full((3, 8, 8), 7, np.uint16))
    os.utime(again, (again.stat().st_mtime + 5,) * 2)
    landing.scan()
    assert [entry.name for entry in format_exposure(root, DELIVERED).made] == [NAME]
    (entry,) = Registry(root).generations.current([NAME]).values()
    assert (entry.generation, entry.sha256) == (2, sha256_of(again))


def test_a_run_is_wanted_until_what_has_landed_is_published(root, landing):
    def is_published() -> bool:
        receipts = landing.receipts()
        with Registry(root) as registry:
            made = delivered_exposures(registry, receipts, {})
        ready = dict.fromkeys(receipts[0].senders, utc_now())
        assert ready
        return not ExposureState(receipts[0], made[DELIVERED], ready).unformatted

    foreign_level1(landing.path)
    landing.scan()
    assert not is_published()
    format_exposure(root, DELIVERED)
    assert is_published()
    foreign_level1(landing.path, OTHER)
    landing.scan()
    assert not is_published()
    format_exposure(root, DELIVERED)
    assert is_published()


def test_the_sensor_requests_a_run_for_each_new_content(root, landing):
    watch, now = LandingWatch(root), datetime(2027, 6, 4, tzinfo=UTC)

    def wanted() -> ExposureState:
        watch.landing.scan()
        watch.look(now)
        watch.record()
        (state,) = watch.wanted(instance, now)
        return state

    with dg.DagsterInstance.ephemeral() as instance:
        foreign_level1(landing.path)
        first = wanted()
        assert run_request(first, now).tags["roman_assets/survey"] == "HLWAS"
        assert first.due(now) is not None
        format_exposure(root, DELIVERED)
        assert not wanted().unformatted, "only L2 is wanted"
        foreign_level1(landing.path, OTHER)
        second = wanted()
        assert second.unformatted
        assert second.run_key != first.run_key


def test_l1_taken_out_of_the_landing_area_stays_in_the_archive(root, landing):
    path = foreign_level1(landing.path)
    foreign_level1(landing.path, OTHER)
    landing.scan()
    format_exposure(root, DELIVERED)
    path.unlink()
    landing.scan()
    record_receipts(root, landing.receipts())
    assert names_of(root) == {NAME, OTHER}
    assert not [one for one in fsck(root) if one.kind is FindingKind.NEVER_TAKEN]
    shutil.rmtree(landing.path)
    result = format_exposure(root, DELIVERED)
    assert {entry.name for entry in result.reused} == {NAME, OTHER}


def test_an_executed_visit_says_what_files_cannot(root, landing):
    detectors = ("WFI01", "WFI02")
    foreign_level1(landing.path, f"{EXPOSURE}_wfi01_f158_uncal.asdf")
    Downlink(root).send_document(executed_visit(detectors=detectors))
    landing.scan()
    receipt = landing.receipt(EXPOSURE)
    assert receipt.complete
    assert receipt.detectors == detectors
    assert receipt.missing == ("WFI02: no L1 file",)


def test_the_definitive_ephemeris_counts_for_delivered_l1_as_well(root, landing, tmp_path):
    foreign_level1(landing.path)
    landing.scan()
    assert landing.receipt(DELIVERED).definitive_ephemeris is None
    orbit = write_oem(tmp_path / "orbit.oem", kind="DEFINITIVE").read_text()
    Downlink(root).send_ephemeris("definitive", orbit)
    landing.scan()
    assert landing.receipt(DELIVERED).definitive_ephemeris is not None


def only_case(root: DataRoot):
    (case,) = SetAside(root).list()
    return case


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({"visit.nexposures": None}, "visit", "nexposures"),
        ({"visit.nexposures": -999999}, "meta.visit.nexposures", "--meta visit.nexposures=1"),
        ({"visit.nexposures": 0}, "meta.visit.nexposures", "deliver it again"),
        ({"program.subcategory": "?"}, "meta.program.subcategory", "HLWA"),
        ({"observation.program": 5}, "meta.observation.program", "name the file"),
        ({"instrument.detector": "WFI01"}, "meta.instrument.detector", "name the file"),
        ({"filename": "other.asdf"}, "meta.filename", "name the file"),
        ({"exposure.nresultants": 7}, "meta.exposure.nresultants", "deliver it again"),
        ({"exposure.read_pattern": [[1], [2]]}, "exposure.nresultants", "deliver it again"),
        ({"exposure.type": "WFI_HOLIDAY"}, "exposure.type", "deliver"),
        ({"wcsinfo.ra_ref": -999999.0}, "meta.wcsinfo.ra_ref", "fill it"),
        ({"wcsinfo.dec_ref": 91.0}, "meta.wcsinfo.dec_ref", "deliver it again"),
        ({"wcsinfo.s_region": "POLYGON ICRS 1 2"}, "wcsinfo.s_region", "deliver it again"),
    ],
)
def test_a_file_whose_metadata_do_not_do_is_set_aside_with_field_and_remedy(
    root, landing, changes, field, remedy
):
    foreign_level1(landing.path, changes=changes)
    foreign_level1(landing.path, OTHER)
    scan = landing.scan()
    assert scan.taken == (OTHER,)
    case = only_case(root)
    assert Path(case.source).name == NAME
    assert field in case.field
    assert remedy in f"{case.reason} {case.remedy}"


@pytest.mark.parametrize("shape", [(3, 8, 9), (4, 8, 8), (3, 4100, 4100)])
def test_a_wrong_shape_is_set_aside(root, landing, shape):
    pattern = {"exposure.read_pattern": [[1], [2], [3]], "exposure.nresultants": 3}
    data = np.zeros(shape, np.uint16)
    foreign_level1(landing.path, changes=pattern, data=data, amp33=np.zeros((3, 8, 128), "u2"))
    landing.scan()
    case = only_case(root)
    assert case.field == "data"
    assert str(shape) in case.reason


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("my_uncal.asdf", "file name"),
        (NAME.replace("_uncal", "_cal"), "file name"),
        (NAME.replace("wfi07", "wfi09"), "meta.filename"),
        (NAME.replace("f158", "f062"), "meta.filename"),
        (NAME.replace("_0001_", "_0002_"), "meta.filename"),
    ],
)
def test_a_name_that_is_not_that_of_the_content_is_set_aside(root, landing, name, field):
    foreign_level1(landing.path, rename=name)
    landing.scan()
    assert only_case(root).field == field


def test_files_of_one_exposure_that_contradict_each_other_are_told_apart(root, landing):
    foreign_level1(landing.path)
    foreign_level1(landing.path, OTHER, {"program.subcategory": "HLTD"})
    landing.scan()
    case = only_case(root)
    assert case.field == "meta.program.subcategory"
    assert NAME in case.reason


def packets(root: DataRoot, tmp_path: Path) -> Downlink:
    downlink = Downlink(root, packet_size=600)
    downlink.send(str(EXPOSURE), telemetry_of(detectors=("WFI01",)))
    downlink.send_document(executed_visit(detectors=("WFI01",)))
    downlink.send_document(MA_TABLE)
    downlink.send_ephemeris("predicted", write_oem(tmp_path / "orbit.oem").read_text())
    return downlink


def test_packets_that_come_after_delivered_l1_change_nothing_while_it_is_there(
    root, landing, tmp_path
):
    path = foreign_level1(landing.path, f"{EXPOSURE}_wfi01_f158_uncal.asdf")
    landing.scan()
    before = landing.receipt(EXPOSURE).content_version
    packets(root, tmp_path)
    landing.scan()
    assert landing.receipt(EXPOSURE).content_version == before
    path.unlink()
    landing.scan()
    assert landing.receipt(EXPOSURE).origin is Origin.PACKETS


@pytest.mark.parametrize("packets_are_gone", [False, True])
def test_l1_of_an_exposure_that_packets_made_is_set_aside(
    root, landing, tmp_path, packets_are_gone
):
    packets(root, tmp_path)
    landing.scan()
    format_exposure(root, EXPOSURE)
    made = Registry(root).products.find(exposure=str(EXPOSURE))
    if packets_are_gone:
        shutil.rmtree(landing.path)
        landing = LandingArea(root)
    foreign_level1(landing.path, f"{EXPOSURE}_wfi01_f158_uncal.asdf")
    landing.scan()
    case = only_case(root)
    assert case.field == "exposure"
    assert "packets" in case.reason
    assert "exposure of its own" in case.remedy
    assert set(Registry(root).products.find(exposure=str(EXPOSURE))["sha256"]) == set(
        made["sha256"]
    )


def test_a_file_changed_after_it_was_taken_in_fails_alone(root, landing):
    path = foreign_level1(landing.path)
    foreign_level1(landing.path, OTHER)
    landing.scan()
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = format_exposure(root, DELIVERED)
    assert [entry.name for entry in result.made] == [OTHER]
    (failure,) = result.failures
    assert "changed in place" in failure.message


def test_delivered_l1_is_not_formatted_again_here(root, landing, tmp_path):
    foreign_level1(landing.path)
    landing.scan()
    (entry,) = format_exposure(root, DELIVERED).made
    assert why_again(root, DELIVERED) == ()
    assert not format_exposure(root, DELIVERED, force=True).made
    with pytest.raises(BadInputError, match="formatted elsewhere"):
        make_level1(landing, DELIVERED, entry, tmp_path)


def test_extra_trees_of_a_simulator_do_no_harm(root, landing):
    path = foreign_level1(landing.path / ".draft")
    with asdf.open(path) as file:
        file["romanisim"] = {"version": "0.14.0", "dq": np.zeros((3, 8, 8), "i4")}
        file.write_to(landing.path / NAME)
    landing.scan()
    assert [entry.name for entry in format_exposure(root, DELIVERED).made] == [NAME]
