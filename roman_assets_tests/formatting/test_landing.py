from __future__ import annotations

import json
import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.formatting import landing as landing_module
from roman_assets.formatting import listing
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.landing import LandingArea, ScanResult
from roman_assets.formatting.packet import PacketReader, SequenceCounters, encode
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.observation import ExposureId, OpticalElement, Survey
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    executed_visit,
    face,
    guide_window,
    readout,
    telemetry_of,
    write_document,
    write_oem,
)

DETECTORS = ("WFI01",)
MORNING = datetime(2027, 6, 2, 8, tzinfo=UTC)


def packets_of(telemetry=None, size: int = 600) -> list[bytes]:
    counters = SequenceCounters()
    sent = telemetry_of(EXPOSURE, DETECTORS, size=16) if telemetry is None else telemetry
    return [packet for piece in sent for packet in encode(piece, counters, packet_size=size)]


PACKETS = packets_of()


def place(area: LandingArea, name: str, content: bytes, minutes: float | None = None) -> Path:
    path = area.path / name
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.rename(path)
    if minutes is not None:
        arrive(path, minutes)
    return path


def arrive(path: Path, minutes: float) -> None:
    moment = (MORNING + timedelta(minutes=minutes)).timestamp()
    os.utime(path, (moment, moment))


def place_ancillary(area: LandingArea, minutes: float = 0) -> None:
    for path in (
        write_document(executed_visit(detectors=DETECTORS, size=16), area.path / "visit.json"),
        write_document(MA_TABLE, area.path / "ma_table.json"),
        write_oem(area.path / "orbit.oem"),
    ):
        arrive(path, minutes)


@pytest.fixture
def area(tmp_path):
    return LandingArea(DataRoot(tmp_path / "data"))


@pytest.fixture
def complete(area):
    place_ancillary(area, 0)
    place(area, "contact.l0", b"".join(PACKETS), 10)
    area.scan()
    return area


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The content version of `PACKETS` delivered plainly."""
    area = LandingArea(DataRoot(tmp_path_factory.mktemp("reference")))
    place_ancillary(area)
    place(area, "contact.l0", b"".join(PACKETS))
    area.scan()
    return area.receipt(EXPOSURE).content_version


def spread(area: LandingArea, packets: list[bytes], rng: random.Random) -> None:
    nfiles = rng.randint(1, 4)
    files: list[list[bytes]] = [[] for _ in range(nfiles)]
    for packet in packets:
        rng.choice(files).append(packet)
    for number, content in enumerate(files):
        if content:
            place(area, f"{number}.l0", b"".join(content))


@given(rng=st.randoms(use_true_random=False), repeated=st.lists(st.integers(0, len(PACKETS) - 1)))
@settings(max_examples=15, deadline=None)
def test_however_packets_arrive_the_exposure_is_the_same(reference, rng, repeated):
    packets = PACKETS + [PACKETS[number] for number in repeated]
    rng.shuffle(packets)
    with tempfile.TemporaryDirectory() as directory:
        area = LandingArea(DataRoot(Path(directory)))
        spread(area, packets, rng)
        place_ancillary(area)
        area.scan()
        receipt = area.receipt(EXPOSURE)
        assert receipt.missing == ()
        assert receipt.content_version == reference
        sent = readout("WFI01", size=16)
        got = area.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")
        np.testing.assert_array_equal(got.resultants, sent.resultants)
        np.testing.assert_array_equal(got.reference_output, sent.reference_output)


@given(number=st.integers(0, len(PACKETS) - 1))
@settings(max_examples=15, deadline=None)
def test_a_lost_packet_keeps_the_exposure_open_and_the_gap_is_named(number):
    lost = PacketReader(BytesIO(PACKETS[number]), "one packet")
    (packet,) = lost
    with tempfile.TemporaryDirectory() as directory:
        area = LandingArea(DataRoot(Path(directory)))
        place_ancillary(area)
        place(area, "contact.l0", b"".join(PACKETS[:number] + PACKETS[number + 1 :]))
        area.scan()
        receipt = area.receipt(EXPOSURE)
        assert not receipt.complete
        assert ClockEvent.ALL_RECEIVED not in receipt.events
        header = packet.header
        name = str(header.unit)
        if header.nchunks == 1:
            assert (
                receipt.missing == ("FACE: no packet",) or f"{name}: no packet" in receipt.missing
            )
        else:
            assert receipt.missing == (f"{name}: packets {packet.chunk + 1} of {header.nchunks}",)


@given(number=st.integers(0, len(PACKETS) - 1), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_flipped_bit_is_noticed_and_a_good_copy_repairs_it(reference, number, data):
    bit = data.draw(st.integers(0, 8 * len(PACKETS[number]) - 1))
    damaged = bytearray(PACKETS[number])
    damaged[bit // 8] ^= 1 << bit % 8
    with tempfile.TemporaryDirectory() as directory:
        area = LandingArea(DataRoot(Path(directory)))
        place_ancillary(area)
        stream = [*PACKETS[:number], bytes(damaged), *PACKETS[number + 1 :]]
        place(area, "contact.l0", b"".join(stream))
        area.scan()
        assert not area.receipt(EXPOSURE).complete
        place(area, "again.l0", PACKETS[number])
        area.scan()
        assert area.receipt(EXPOSURE).content_version == reference


def test_receipt_is_when_the_last_needed_file_arrived(area):
    place_ancillary(area, 30)
    middle = len(PACKETS) // 2
    place(area, "b.l0", b"".join(PACKETS[:middle]), 5)
    place(area, "a.l0", b"".join(PACKETS[middle:]), 20)
    place(area, "again.l0", b"".join(PACKETS), 90)
    area.scan()
    events = area.receipt(EXPOSURE).events
    minutes = {
        event: (events[event] - MORNING).total_seconds() / 60
        for event in (
            ClockEvent.FIRST_PACKET,
            ClockEvent.LAST_PACKET,
            ClockEvent.ANCILLARY,
            ClockEvent.ALL_RECEIVED,
        )
    }
    assert list(minutes.values()) == [5, 20, 30, 30]
    executed = executed_visit().exposures[0]
    assert events[ClockEvent.EXECUTION_START] == executed.start_time
    assert events[ClockEvent.EXECUTION_END] == executed.end_time


def test_receipt_does_not_move_when_more_arrives_or_the_index_is_lost(complete):
    before = complete.receipt(EXPOSURE)
    place(complete, "again.l0", b"".join(PACKETS), 60)
    write_oem(complete.path / "later.oem")
    arrive(complete.path / "later.oem", 70)
    complete.scan()
    assert complete.receipt(EXPOSURE) == before
    for file in complete.path.glob(".inventory*"):
        file.unlink()
    fresh = LandingArea(complete.root)
    fresh.scan()
    assert fresh.receipt(EXPOSURE) == before


def test_receipt_stays_when_a_file_it_needed_is_delivered_anew(complete):
    before = complete.receipt(EXPOSURE)
    arrive(complete.path / "contact.l0", 500)
    complete.scan()
    assert complete.receipt(EXPOSURE).events == before.events


def test_other_content_counts_only_when_it_is_new(complete):
    first = complete.receipt(EXPOSURE).content_version
    other = packets_of([readout("WFI01", size=16, seed=99)])
    place(complete, "other.l0", b"".join(other), 60)
    complete.scan()
    second = complete.receipt(EXPOSURE).content_version
    assert second != first
    got = complete.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")
    np.testing.assert_array_equal(got.resultants, readout("WFI01", size=16, seed=99).resultants)
    place(complete, "old_again.l0", b"".join(PACKETS), 70)
    complete.scan()
    assert complete.receipt(EXPOSURE).content_version == second


def test_half_of_another_version_does_not_mix_with_the_first(complete, reference):
    other = packets_of([readout("WFI01", size=16, seed=99)])
    place(complete, "other.l0", b"".join(other[::2]), 60)
    complete.scan()
    receipt = complete.receipt(EXPOSURE)
    assert receipt.complete
    assert receipt.content_version == reference


def test_what_is_missing_is_named(area):
    place(area, "contact.l0", b"".join(packets_of([readout("WFI01", size=16)])))
    area.scan()
    assert area.receipt(EXPOSURE).missing == (f"executed visit {EXPOSURE.visit}",)
    write_document(executed_visit(size=16), area.path / "visit.json")
    area.scan()
    executed = executed_visit().exposures[0]
    assert area.receipt(EXPOSURE).missing == (
        "MA table 4",
        f"ephemeris from {executed.start_time.isoformat()} to {executed.end_time.isoformat()}",
    )
    write_document(MA_TABLE, area.path / "ma_table.json")
    write_oem(area.path / "orbit.oem")
    area.scan()
    assert area.receipt(EXPOSURE).missing == (
        "WFI01 guide window: no packet",
        "WFI02: no packet",
        "FACE: no packet",
    )


def test_an_exposure_is_known_from_its_packets_or_its_visit_alone(area):
    other = ExposureId(EXPOSURE.visit, 2)
    place(area, "contact.l0", b"".join(packets_of([face(other)])))
    write_document(executed_visit((EXPOSURE,)), area.path / "visit.json")
    area.scan()
    assert area.exposures() == [EXPOSURE, other]
    assert area.receipt(other).missing == (
        f"exposure 2 in the executed visit {EXPOSURE.visit} (COMPLETED)",
    )
    assert "all packets" in area.receipt(EXPOSURE).missing


def test_the_receipt_tells_what_the_visit_says(complete):
    receipt = complete.receipt(EXPOSURE)
    assert receipt.survey is Survey.HLWAS
    assert receipt.optical_element is OpticalElement.F158
    assert receipt.detectors == DETECTORS
    assert receipt.nexposures == 2


def test_a_truncated_exposure_is_complete_with_fewer_resultants(area):
    visit = executed_visit(detectors=DETECTORS, size=16)
    cut = visit.exposures[0].model_copy(update={"nresultants": 2})
    place_ancillary(area)
    sent = [readout("WFI01", size=16, nresultants=2), guide_window(), face()]
    place(area, "contact.l0", b"".join(packets_of(sent)))
    area.scan()
    missing = area.receipt(EXPOSURE).missing
    assert any("it sends 2 resultants, the MA table has 3" in text for text in missing)
    revised = visit.model_copy(update={"revision": 2, "exposures": (cut,)})
    write_document(revised, area.path / "visit_2.json")
    area.scan()
    assert area.receipt(EXPOSURE).complete


def test_the_predicted_ephemeris_is_the_newest_at_receipt_and_a_definitive_one_is_told(complete):
    version = complete.receipt(EXPOSURE).content_version
    assert complete.receipt(EXPOSURE).ephemeris == complete.path / "orbit.oem"
    assert complete.receipt(EXPOSURE).definitive_ephemeris is None
    newer = write_oem(complete.path / "z_newer.oem")
    arrive(newer, 100)
    definitive = write_oem(complete.path / "final.oem", "DEFINITIVE")
    write_oem(complete.path / "short.oem", "DEFINITIVE", days=3)
    complete.scan()
    receipt = complete.receipt(EXPOSURE)
    assert receipt.ephemeris == complete.path / "orbit.oem"
    assert receipt.definitive_ephemeris == definitive
    assert receipt.content_version == version


def broken_visit(area: LandingArea) -> Path:
    document = executed_visit(detectors=DETECTORS).model_dump(mode="json")
    document["optical_element"] = "F999"
    path = area.path / "broken.json"
    path.write_text(json.dumps(document))
    return path


def no_json(area: LandingArea) -> Path:
    return place(area, "no.json", b"{")


def noise(area: LandingArea) -> Path:
    return place(area, "noise.l0", random.Random(1).randbytes(5000))


def empty(area: LandingArea) -> Path:
    return place(area, "empty.l0", b"")


def unknown(area: LandingArea) -> Path:
    return place(area, "readme.txt", b"hello")


def orbit_of_unknown_kind(area: LandingArea) -> Path:
    path = write_oem(area.path / "orbit_x.oem")
    path.write_text(path.read_text().replace("COMMENT EPHEMERIS_TYPE = PREDICTED\n", ""))
    return path


def no_orbit(area: LandingArea) -> Path:
    return place(area, "predicted.oem", b"CCSDS_OEM_VERS = 2.0\n")


def conflicting(area: LandingArea) -> Path:
    write_document(executed_visit(visit_type="A"), area.path / "one.json")
    area.scan()
    return write_document(executed_visit(visit_type="B"), area.path / "two.json")


@pytest.mark.parametrize(
    ("make", "field", "said"),
    [
        (broken_visit, "optical_element", "F062"),
        (no_json, "document", "not JSON"),
        (noise, "packets", "not one good packet"),
        (empty, "packets", "in 0 bytes"),
        (unknown, "file name", ".txt"),
        (orbit_of_unknown_kind, "EPHEMERIS_TYPE", "not clear"),
        (no_orbit, "OEM", "cannot be parsed"),
        (conflicting, "revision", "has arrived before as one.json"),
    ],
)
def test_what_can_never_be_used_is_set_aside_with_its_reason_and_the_rest_goes_on(
    area, make, field, said
):
    path = make(area)
    place(area, "good.l0", b"".join(PACKETS))
    result = area.scan()
    assert "good.l0" in result.taken
    assert not path.exists()
    (case,) = SetAside(area.root).list()
    assert (case.source, case.field) == (str(path), field)
    assert said in case.reason
    assert case.remedy


def test_of_two_that_conflict_the_one_that_arrived_first_stays(area):
    arrive(write_document(executed_visit(visit_type="LATER"), area.path / "a.json"), 20)
    arrive(write_document(executed_visit(visit_type="FIRST"), area.path / "b.json"), 10)
    assert area.scan().taken == ("b.json",)
    assert area.ancillary(EXPOSURE).visit.visit_type == "FIRST"


def test_a_revised_document_replaces_the_earlier_one(complete):
    before = complete.receipt(EXPOSURE)
    revised = executed_visit(detectors=DETECTORS, size=16, revision=2, visit_type="OTHER")
    write_document(revised, complete.path / "visit_2.json")
    assert complete.scan().set_aside == ()
    after = complete.receipt(EXPOSURE)
    assert after.content_version != before.content_version
    assert after.events == before.events
    assert complete.ancillary(EXPOSURE).visit.visit_type == "OTHER"


def test_a_revision_that_says_the_same_of_an_exposure_does_not_change_it(complete):
    before = complete.receipt(EXPOSURE)
    visit = executed_visit(
        (EXPOSURE, ExposureId(EXPOSURE.visit, 2)), DETECTORS, size=16, revision=2
    )
    write_document(visit, complete.path / "visit_2.json")
    write_document(MA_TABLE.model_copy(update={"revision": 2}), complete.path / "ma_2.json")
    complete.scan()
    assert complete.receipt(EXPOSURE) == before


def test_the_same_document_again_is_no_conflict(complete):
    before = complete.receipt(EXPOSURE)
    write_document(MA_TABLE, complete.path / "again.json")
    assert complete.scan().set_aside == ()
    assert complete.receipt(EXPOSURE) == before


def test_each_file_is_read_once(complete, monkeypatch):
    def refuse(path, spacecraft):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(landing_module, "begin_reading", refuse)
    assert complete.scan() == ScanResult()
    assert LandingArea(complete.root).scan() == ScanResult()


def test_a_budget_ends_a_scan_between_files_and_the_next_goes_on(area):
    place_ancillary(area)
    place(area, "contact.l0", b"".join(PACKETS))
    remaining = []
    while not remaining or remaining[-1]:
        result = area.scan(timedelta(0))
        assert len(result.taken) == 1
        remaining.append(result.remaining)
    assert remaining == [3, 2, 1, 0]
    assert area.receipt(EXPOSURE).complete


def test_a_budget_ends_a_scan_within_a_large_file_and_the_next_goes_on(area, reference):
    place_ancillary(area)
    packets = packets_of(size=62)
    assert len(packets) > 4000
    path = place(area, "contact.l0", b"".join(packets), -10)
    first = area.scan(timedelta(0))
    assert (first.taken, first.remaining) == ((), 4)
    results = [area.scan(timedelta(0)) for _ in range(8)]
    assert next(result.taken for result in results if result.taken) == (path.name,)
    assert sum(len(result.taken) for result in results) == 4
    assert area.receipt(EXPOSURE).content_version == reference
    assert area.scan() == ScanResult()


def test_only_the_operator_can_look_into_the_landing_area(area):
    assert area.path.stat().st_mode & 0o077 == 0


def test_unfinished_files_are_not_looked_at(area):
    (area.path / ".contact.l0").write_bytes(b"".join(PACKETS)[:1000])
    assert area.scan() == ScanResult()


def test_a_file_taken_away_no_longer_counts(complete):
    (complete.path / "contact.l0").unlink()
    complete.scan()
    receipt = complete.receipt(EXPOSURE)
    assert not receipt.complete
    assert ClockEvent.ALL_RECEIVED in receipt.events


def test_a_file_damaged_after_receipt_gives_an_error_and_no_telemetry(complete):
    path = complete.path / "contact.l0"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BadInputError, match=r"contact\.l0: packet at byte"):
        complete.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")
    path.unlink()
    with pytest.raises(BadInputError, match="not there"):
        complete.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")


def test_several_scans_at_once_take_every_file_in_once(area):
    place_ancillary(area)
    noise(area)
    for number, packet in enumerate(PACKETS):
        place(area, f"{number:03d}.l0", packet)
    areas = [LandingArea(area.root) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(LandingArea.scan, areas))
    assert area.receipt(EXPOSURE).complete
    contents = [case.content for case in SetAside(area.root).list() if case.content]
    assert [path.name for path in contents] == ["noise.l0"]
    assert area.scan() == ScanResult()


def test_a_scan_killed_at_any_file_is_finished_by_the_next(area, reference, monkeypatch):
    place_ancillary(area)
    for number, packet in enumerate(PACKETS):
        place(area, f"{number:03d}.l0", packet)
    read = landing_module.begin_reading
    crashed = 0
    for after in range(0, len(PACKETS), 7):
        calls = iter(range(after + 1))

        def dying(path, spacecraft, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return read(path, spacecraft)

        monkeypatch.setattr(landing_module, "begin_reading", dying)
        try:
            LandingArea(area.root).scan()
        except KeyboardInterrupt:
            crashed += 1
    monkeypatch.undo()
    LandingArea(area.root).scan()
    assert crashed
    assert LandingArea(area.root).receipt(EXPOSURE).content_version == reference


def test_an_index_that_cannot_be_used_is_a_passing_fault(area):
    area._inventory.database.path.mkdir()
    with pytest.raises(PassingFaultError, match="index"):
        area.scan()


def test_a_file_replaced_under_its_name_is_read_again(area, monkeypatch):
    monkeypatch.setattr(listing, "ALL_ASKED_EVERY_S", 10_000)
    place(area, "a.l0", PACKETS[0])
    assert area.scan().taken == ("a.l0",)
    assert area.scan().taken == ()
    place(area, "b.l0", PACKETS[1])
    place(area, "a.l0", PACKETS[2])
    assert set(area.scan().taken) == {"a.l0", "b.l0"}
    assert area.scan() == ScanResult()


def test_directories_of_the_landing_area_count_and_files_in_them_are_read_and_set_aside(area):
    for number, packet in enumerate(PACKETS):
        (area.path / f"day_{number % 2}").mkdir(exist_ok=True)
        place(area, f"day_{number % 2}/{number}.l0", packet)
    (area.path / "day_1/foreign.l0").write_bytes(b"foreign")
    place_ancillary(area)
    scanned = area.scan()
    assert len(scanned.taken) == len(PACKETS) + 3
    (case,) = SetAside(area.root).list()
    assert case.source == str(area.path / "day_1/foreign.l0")
    assert not (area.path / "day_1/foreign.l0").exists()
    assert area.receipt(EXPOSURE).complete
    assert area.telemetry(EXPOSURE, Stream.SCIENCE, "WFI01")
    (area.path / "day_0").rename(area.path / ".day_0")
    area.scan()
    assert not area.receipt(EXPOSURE).complete


def test_a_file_changed_in_place_is_found_in_the_end(area, monkeypatch):
    place(area, "a.l0", PACKETS[0])
    area.scan()
    (area.path / "a.l0").write_bytes(PACKETS[1])
    monkeypatch.setattr(listing, "ALL_ASKED_EVERY_S", -1)
    assert area.scan().taken == ("a.l0",)


def test_what_another_process_took_in_is_not_read_again(area, monkeypatch):
    place(area, "a.l0", PACKETS[0])
    area.scan()
    place(area, "b.l0", PACKETS[1])
    assert LandingArea(area.root).scan().taken == ("b.l0",)
    monkeypatch.setattr(landing_module, "begin_reading", None)
    assert area.scan() == ScanResult()


def test_a_scan_out_of_time_goes_on_with_the_next(area):
    for number, packet in enumerate(PACKETS[:5]):
        place(area, f"{number}.l0", packet)
    counts = [len(area.scan(timedelta(0)).taken) for _ in range(6)]
    assert counts == [1, 1, 1, 1, 1, 0]


def test_a_receipt_that_changes_is_told_once(area):
    place(area, "part.l0", PACKETS[0])
    area.scan()
    first = area.changes(None, 100)
    assert [receipt.exposure for receipt in first.receipts] == [EXPOSURE]
    assert area.changes(first.mark, 100).receipts == ()
    place_ancillary(area)
    area.scan()
    second = area.changes(first.mark, 100)
    assert second.receipts == (area.receipt(EXPOSURE),)
    assert second.receipts != first.receipts


def test_what_is_taken_away_again_is_told(complete):
    before = complete.changes(None, 100)
    assert before.receipts[0].complete
    for path in complete.path.glob("*.l0"):
        path.unlink()
    complete.scan()
    (after,) = complete.changes(before.mark, 100).receipts
    assert not after.complete


def test_an_index_made_anew_tells_everything(complete):
    mark = complete.changes(None, 100).mark
    for path in complete.path.glob(".inventory*"):
        path.unlink()
    anew = LandingArea(complete.root)
    anew.scan()
    assert [receipt.complete for receipt in anew.changes(mark, 100).receipts] == [True]


def test_many_changed_receipts_are_told_bit_by_bit(complete):
    others = [ExposureId(EXPOSURE.visit, number) for number in (2, 3, 4)]
    for other in others:
        place(complete, f"{other}.l0", b"".join(packets_of([face(other)])))
    complete.scan()
    told, mark, more = [], None, True
    while more:
        changes = complete.changes(mark, 3)
        told += [receipt.exposure for receipt in changes.receipts]
        mark, more = changes.mark, changes.more
    assert sorted(told) == [EXPOSURE, *others]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _overwritten(content: bytes) -> bytes:
    return b"no database at all" * 100


def _with_a_lost_page(content: bytes) -> bytes:
    return content[:8192] + bytes(4096) + content[12288:]


def _with_another_schema(content: bytes) -> bytes:
    return content.replace(b"TABLE receipt", b"TABLE rezeipt")


def _with_unreadable_receipts(content: bytes) -> bytes:
    return content.replace(str(EXPOSURE).encode(), b"x" * len(str(EXPOSURE)))


@pytest.mark.parametrize(
    "damage",
    [_cut, _overwritten, _with_a_lost_page, _with_another_schema, _with_unreadable_receipts],
)
def test_a_damaged_index_is_set_aside_and_made_again(complete, damage):
    before = complete.receipt(EXPOSURE)
    (index,) = complete.path.glob(".inventory*.sqlite")
    harmed = damage(index.read_bytes())
    assert harmed != index.read_bytes()
    index.write_bytes(harmed)
    place(complete, "again.l0", b"".join(PACKETS), 60)
    fresh = LandingArea(complete.root)
    with pytest.raises(PassingFaultError, match=r"inventory.*damaged.*set aside"):
        fresh.scan()
        fresh.receipts()
    (case,) = SetAside(complete.root).list()
    assert case.content.read_bytes()[:100] == harmed[:100]
    fresh.scan()
    assert fresh.receipt(EXPOSURE) == before


def test_an_emptied_index_is_made_again(complete):
    before = complete.receipt(EXPOSURE)
    (index,) = complete.path.glob(".inventory*.sqlite")
    index.write_bytes(b"")
    fresh = LandingArea(complete.root)
    fresh.scan()
    assert fresh.receipt(EXPOSURE) == before


def test_receipts_are_those_of_the_single_exposures(complete):
    other = ExposureId(EXPOSURE.visit, 2)
    place(complete, "other.l0", b"".join(packets_of([face(other)])))
    complete.scan()
    assert complete.receipts() == [complete.receipt(EXPOSURE), complete.receipt(other)]
