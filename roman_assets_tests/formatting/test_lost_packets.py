"""Each detector is formatted by its own packets, whatever becomes of the others (R2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import roman_datamodels as rdm
from click.testing import Result
from roman_datamodels.dqflags import group
from typer.testing import CliRunner

from roman_assets.archive.file_archive import FileArchive
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.data_unit import Stream
from roman_assets.formatting.formatting_step import format_exposure, make_level1
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.packet import Packet, PacketReader, SequenceCounters, encode
from roman_assets.products.deadline import ClockEvent, utc_now
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import StepResult
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.downlink import Downlink
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    executed_visit,
    readout,
    telemetry_of,
    write_oem,
)

TWO = ("WFI01", "WFI02")
CUT_OFF = timedelta(hours=12)
Loses = Callable[[Packet], bool]


def chunk_of_a_resultant(packet: Packet) -> bool:
    unit = packet.header.unit
    return (unit.stream, unit.detector, unit.index) == (Stream.SCIENCE, "WFI02", 1) and (
        packet.chunk == 1
    )


def all_of_face(packet: Packet) -> bool:
    return packet.header.unit.stream is Stream.FACE


def guide_window(packet: Packet) -> bool:
    unit = packet.header.unit
    return (unit.stream, unit.detector) == (Stream.GUIDE_WINDOW, "WFI02")


def whole_detector(packet: Packet) -> bool:
    return packet.header.unit.detector == "WFI02"


class Night:
    """An installation that one exposure of two detectors comes down to, with losses."""

    def __init__(self, directory: Path) -> None:
        self.root = DataRoot(directory / "data")
        self.landing = LandingArea(self.root)
        downlink = Downlink(self.root)
        downlink.send_document(executed_visit(detectors=TWO))
        downlink.send_document(MA_TABLE)
        downlink.send_ephemeris("predicted", write_oem(directory / "orbit.oem").read_text())
        counters = SequenceCounters()
        self._packets = [
            packet
            for piece in telemetry_of(detectors=TWO)
            for packet in encode(piece, counters, packet_size=600)
        ]
        self.began = utc_now()

    def receive(self, name: str, wanted: Loses) -> None:
        sent = [
            packet
            for packet in self._packets
            if wanted(next(iter(PacketReader(BytesIO(packet), name))))
        ]
        draft = self.landing.path / f".{name}.l0"
        draft.write_bytes(b"".join(sent))
        draft.rename(self.landing.path / f"{name}.l0")
        self.landing.scan()

    def lose(self, lost: Loses) -> None:
        self.receive("contact", lambda packet: not lost(packet))

    def deliver_rest(self, lost: Loses) -> None:
        self.receive("rest", lost)

    def format(self, *, hours: float = 0.0, **options: bool) -> StepResult:
        now = self.began + timedelta(hours=hours)
        return format_exposure(self.root, EXPOSURE, clock=lambda: now, **options)

    def open(self, name: str) -> rdm.DataModel:
        official = f"{EXPOSURE}_{name}.asdf"
        return rdm.open(FileArchive(self.root).path(ProductName.parse(official)))


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def kinds(names: Iterable[str]) -> set[str]:
    return {name.removeprefix(f"{EXPOSURE}_").removesuffix(".asdf") for name in names}


FIRST = {"wfi01_f158_uncal", "wfi01_f158_gw"}
SECOND = {"wfi02_f158_uncal", "wfi02_f158_gw"}
FACE = {"f158_face"}

LOSSES: dict[str, tuple[Loses, set[str], set[str]]] = {
    "a chunk of a resultant": (chunk_of_a_resultant, FIRST | FACE, SECOND | FACE),
    "a guide window": (guide_window, FIRST | FACE, {"wfi02_f158_uncal"}),
    "a detector": (whole_detector, FIRST | FACE, set()),
    "FACE": (all_of_face, FIRST | SECOND, set()),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_what_is_in_is_formatted_at_once_and_the_rest_at_the_cut_off(
    night: Night, lost: str
) -> None:
    loses, at_once, at_cut_off = LOSSES[lost]
    night.lose(loses)
    before = night.format(hours=1)
    assert kinds(entry.name for entry in before.made) == at_once
    assert before.failures == ()
    after = night.format(hours=12.1)
    assert kinds(entry.name for entry in after.made) == at_cut_off
    is_lost = lost != "a chunk of a resultant"
    assert [failure.error for failure in after.failures] == ["LostPacketsError"] * is_lost


@pytest.mark.parametrize("lost", LOSSES)
def test_when_the_rest_arrives_all_is_complete(night: Night, lost: str, tmp_path: Path) -> None:
    loses, *_ = LOSSES[lost]
    night.lose(loses)
    night.format(hours=12.1)
    night.began = utc_now()
    night.deliver_rest(loses)
    night.format(hours=0.1)
    assert Registry(night.root).work.failures().empty
    with Registry(night.root) as registry:
        made = registry.generations.current(
            f"{EXPOSURE}_{name}.asdf" for name in (*FIRST, *SECOND, *FACE)
        )
    assert kinds(made) == FIRST | SECOND | FACE
    assert all("missing" not in entry.metadata for entry in made.values())
    with night.open("wfi02_f158_uncal") as science:
        np.testing.assert_array_equal(science["data"], readout("WFI02", seed=2).resultants)
        assert science.meta.exposure.data_problem is None
        assert "resultantdq" not in science
    with night.open("f158_face") as face:
        assert face.meta.detector_gw_files["WFI02"] == f"{EXPOSURE}_wfi02_f158_gw.asdf"
    first = made[f"{EXPOSURE}_wfi01_f158_uncal.asdf"]
    assert first.generation == 1, "nothing of it was lost"
    for entry in made.values():
        assert make_level1(night.landing, EXPOSURE, entry, tmp_path).name == entry.name


def test_pixels_of_lost_packets_are_flagged_and_the_others_are_as_sent(night: Night) -> None:
    night.lose(chunk_of_a_resultant)
    night.format(hours=12.1)
    sent = readout("WFI02", seed=2)
    with night.open("wfi02_f158_uncal") as science:
        science.validate()
        assert science.meta.exposure.data_problem == "LOST_PACKETS"
        flags = np.array(science["resultantdq"])
        lost = flags == group.DROPOUT | group.DO_NOT_USE
        assert set(np.unique(flags)) == {0, group.DROPOUT | group.DO_NOT_USE}
        assert not lost[[0, 2]].any()
        rows = lost[1].all(axis=1)
        assert 0 < rows.argmax() < len(rows), "what came before the gap is there"
        assert (lost[1] == rows[:, np.newaxis]).all()
        np.testing.assert_array_equal(np.where(lost, 0, sent.resultants), science["data"])
        reference = np.where(lost[:, :, :1], 0, sent.reference_output)
        np.testing.assert_array_equal(reference, science["amp33"])
    with Registry(night.root) as registry:
        (made,) = registry.generations.current([f"{EXPOSURE}_wfi02_f158_uncal.asdf"]).values()
    (missing,) = made.metadata["missing"]
    assert missing.startswith("WFI02 resultant 2: packets 2 of ")


def test_without_one_whole_resultant_a_detector_is_lost(night: Night) -> None:
    def loses(packet: Packet) -> bool:
        unit = packet.header.unit
        return unit.stream is Stream.SCIENCE and unit.detector == "WFI02" and packet.chunk == 1

    night.lose(loses)
    result = night.format(hours=12.1)
    assert kinds(entry.name for entry in result.made) == FIRST | FACE | {"wfi02_f158_gw"}
    (failure,) = result.failures
    assert failure.file_set == f"{EXPOSURE}_wfi02_f158"
    assert "have them sent again" in failure.message


def test_removing_old_packets_replaces_no_l1_by_a_worse_one(night: Night) -> None:
    night.lose(chunk_of_a_resultant)
    night.format(hours=12.1)
    for path in night.landing.path.glob("*.l0"):
        path.unlink()
    night.landing.scan()
    night.receive("some", lambda packet: packet.header.unit.stream is Stream.FACE)
    result = night.format(hours=24, force=True)
    assert kinds(entry.name for entry in result.made) == FACE
    assert result.failures == ()


def test_nothing_is_formatted_before_a_sender_is_complete(night: Night) -> None:
    night.lose(lambda packet: packet.chunk == 0)
    with pytest.raises(BadInputError, match="not all of it is in"):
        night.format(hours=1)


@pytest.mark.parametrize("moment", [timedelta(hours=-1), timedelta(hours=1)])
def test_the_cut_off_is_a_setting(night: Night, moment: timedelta) -> None:
    night.lose(all_of_face)
    night.root.path.joinpath("packets.toml").write_text("version = 1\ncut_off_hours = 30\n")
    result = night.format(hours=30 + moment / timedelta(hours=1))
    assert len(result.failures) == (moment > timedelta(0))


def format_incomplete(night: Night, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(night.root.path))
    said = ["--reason", "the recorder was overwritten", "--by", "operator"]
    return CliRunner().invoke(app, ["format-incomplete", str(EXPOSURE), *said])


def test_a_person_has_what_is_in_formatted_before_the_cut_off(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.lose(whole_detector)
    result = format_incomplete(night, monkeypatch)
    assert result.exit_code == 0, result.output
    assert "WFI02: no packet" in result.output
    night.began = utc_now()
    made = night.format()
    assert kinds(entry.name for entry in made.made) == FIRST | FACE
    assert [failure.error for failure in made.failures] == ["LostPacketsError"]
    ((said, moments),) = Registry(night.root).receipts.newest([str(EXPOSURE)]).values()
    assert (said.closed_by, said.closed_because) == ("operator", "the recorder was overwritten")
    assert moments[ClockEvent.CUT_OFF] <= night.began


def test_the_wait_cannot_be_ended_where_nothing_is_awaited(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = format_incomplete(night, monkeypatch)
    assert "not one has come down" in str(nothing.exception)
    night.lose(lambda packet: False)
    complete = format_incomplete(night, monkeypatch)
    assert "all have come down" in str(complete.exception)
