from __future__ import annotations

import errno
import os
import tracemalloc
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest
import roman_datamodels as rdm

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.formatting import formatting_step as step_module
from roman_assets.formatting.formatting_step import format_exposure, make_level1, why_again
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.receipt_record import record_receipts
from roman_assets.formatting.telemetry import GuideWindowPhase
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, OpticalElement
from roman_assets.publishing.attempt import Run
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store.fold import fold
from roman_assets.simulation.telescope.downlink import Downlink, DownlinkDelivery
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import public_content, record_of
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    START,
    executed_visit,
    readout,
    telemetry_of,
    write_oem,
)


@pytest.fixture
def orbit(tmp_path):
    return write_oem(tmp_path / "orbit.oem").read_text()


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path / "data")


ONE = ("WFI01",)
TWO = ("WFI01", "WFI02")


def deliver(root, orbit, telemetry=None, *, detectors=ONE, delivery=None) -> Downlink:
    downlink = Downlink(root, delivery, packet_size=600)
    sent = telemetry_of(detectors=detectors) if telemetry is None else telemetry
    downlink.send(str(EXPOSURE), sent)
    downlink.send_document(executed_visit(detectors=detectors))
    downlink.send_document(MA_TABLE)
    downlink.send_ephemeris("predicted", orbit)
    LandingArea(root).scan()
    return downlink


def opened(root, entry):
    return rdm.open(FileArchive(root).path(ProductName.parse(entry.name)))


def contents(result) -> dict[str, str]:
    return {entry.name: entry.fingerprint for entry in (*result.made, *result.reused)}


def test_an_exposure_becomes_its_l1_files_in_the_archive(root, orbit):
    deliver(root, orbit, detectors=TWO)
    result = format_exposure(root, EXPOSURE, run=Run("run"))
    assert result.failures == ()
    assert sorted(entry.name for entry in result.made) == [
        "r0000101001001001001_0001_f158_face.asdf",
        "r0000101001001001001_0001_wfi01_f158_gw.asdf",
        "r0000101001001001001_0001_wfi01_f158_uncal.asdf",
        "r0000101001001001001_0001_wfi02_f158_gw.asdf",
        "r0000101001001001001_0001_wfi02_f158_uncal.asdf",
    ]
    for entry in result.made:
        with opened(root, entry) as model:
            model.validate()
    science = opened(root, next(e for e in result.made if "wfi02_f158_uncal" in e.name))
    np.testing.assert_array_equal(science["data"], readout("WFI02", seed=2).resultants)
    assert science.meta.ephemeris.type == "PREDICTED"
    assert not any(root.scratch.iterdir())


def test_the_registry_is_told_what_was_received_and_how_the_attempt_went(root, orbit):
    deliver(root, orbit)
    times = iter(datetime(2027, 6, 2, hour, tzinfo=UTC) for hour in range(10))
    queued = datetime(2027, 6, 1, tzinfo=UTC)
    format_exposure(root, EXPOSURE, run=Run("run", queued), clock=lambda: next(times))
    receipt = LandingArea(root).receipt(EXPOSURE)
    events = Registry(root).receipts.events(str(EXPOSURE))
    assert set(events) == set(ClockEvent) - {ClockEvent.HANDED_OVER, ClockEvent.CUT_OFF}
    assert receipt.events.items() <= events.items()
    (attempt,) = Registry(root).work.attempts(str(EXPOSURE)).to_dict("records")
    assert attempt["outcome"] == "finished"
    assert (attempt["queued"], attempt["run_id"]) == (queued, "run")
    assert queued < attempt["started"] < attempt["finished"]


def test_what_is_lacking_is_on_record_and_recorded_once(root, orbit):
    deliver(root, orbit)
    landing = LandingArea(root)
    document = next(path for path in landing.path.iterdir() if "visit" in path.name)
    content = document.read_bytes()
    document.unlink()
    landing.scan()
    assert record_receipts(root, landing.receipts())
    assert not record_receipts(root, landing.receipts())
    with pytest.raises(BadInputError):
        format_exposure(root, EXPOSURE)
    assert set(Registry(root).work.attempts(str(EXPOSURE))["outcome"]) == {"bad input"}
    document.write_bytes(content)
    landing.scan()
    (known,) = Registry(root).receipts.newest([str(EXPOSURE)]).values()
    assert known[0].lacks_ancillary
    assert record_receipts(root, landing.receipts())
    (known,) = Registry(root).receipts.newest([str(EXPOSURE)]).values()
    assert not known[0].lacks_ancillary
    assert known[0].detectors


def verdicts(root) -> list[dict]:
    """Return how what was made stands against its deadlines."""
    made = Registry(root).deadlines.groups().query("made.notna()")
    return made[["kind", "state", "due", "made", "margin_hours"]].to_dict("records")


def test_moments_on_record_outlive_packets_and_index(root, orbit):
    deliver(root, orbit)
    format_exposure(root, EXPOSURE)
    before = verdicts(root)
    assert before
    for path in root.landing.iterdir():
        if path.suffix == ".l0" or "inventory" in path.name:
            path.unlink()
    landing = LandingArea(root)
    landing.scan()
    assert not landing.receipt(EXPOSURE).complete
    assert record_receipts(root, landing.receipts())
    assert not record_receipts(root, landing.receipts())
    assert verdicts(root) == before


SECOND = ExposureId(EXPOSURE.visit, 2)
COADD = "r00001_p_v01001001001001_270p65x49y70_f158_coadd.asdf"
CORRECTIONS = {
    "another optical element": ({"optical_element": OpticalElement.F106}, "", True),
    "one detector less": ({"detectors": ONE}, "_wfi02_", False),
    "no such exposure": ({"exposures": (SECOND,)}, str(EXPOSURE), False),
}


@pytest.mark.parametrize("by", CORRECTIONS)
def test_a_corrected_executed_visit_withdraws_what_was_never_taken(root, orbit, by):
    changes, wrong, with_coadd = CORRECTIONS[by]
    downlink = deliver(root, orbit, detectors=TWO)
    format_exposure(root, EXPOSURE)
    images = [f"{EXPOSURE}_{detector.lower()}_f158_cal.asdf" for detector in TWO]
    for step, names in ((Step.EXPOSURE, images), (Step.VISIT, [COADD])):
        Journal(root).write(
            record_of(root, dict.fromkeys(names, b"made"), step=step, partition=str(EXPOSURE))
        )
    fold(root)
    before = set(public_content(root))
    downlink.send_document(executed_visit(**{"detectors": TWO, "revision": 2, **changes}))
    landing = LandingArea(root)
    landing.scan()
    record_receipts(root, landing.receipts())
    gone = before - set(public_content(root))
    assert gone == {name for name in before if wrong in name or (with_coadd and name == COADD)}
    with Registry(root) as registry:
        for name, (made,) in registry.generations.of(gone).items():
            assert (name, made.state, made.ended_at is not None) == (name, "withdrawn", True)
    kinds = {finding.kind for finding in fsck(root)}
    assert FindingKind.NEVER_TAKEN not in kinds


def test_l1_of_a_corrected_executed_visit_is_all_there_is(root, orbit):
    downlink = deliver(root, orbit)
    format_exposure(root, EXPOSURE)
    downlink.send_document(
        executed_visit(detectors=ONE, revision=2, optical_element=OpticalElement.F106)
    )
    landing = LandingArea(root)
    landing.scan()
    result = format_exposure(root, EXPOSURE)
    assert {entry.name for entry in result.made} == set(public_content(root))
    assert all("_f106_" in entry.name for entry in result.made)
    with Registry(root) as registry:
        (progress,) = registry.work.exposure_progress([str(EXPOSURE)]).to_dict("records")
    made = {one["sender"]: one["content"] for one in progress["received"]}
    senders = landing.receipt(EXPOSURE).senders
    assert made == {name: sender.content_version for name, sender in senders.items()}


def test_fsck_names_and_withdraws_what_was_never_taken(root, orbit):
    deliver(root, orbit)
    format_exposure(root, EXPOSURE)
    wrong = f"{EXPOSURE}_wfi01_f106_cal.asdf"
    Journal(root).write(record_of(root, {wrong: b"made"}, partition=str(EXPOSURE)))
    fold(root)
    found = {finding.subject: finding for finding in fsck(root, mend=True)}
    assert found[wrong].kind is FindingKind.NEVER_TAKEN
    assert "was taken with F158" in found[wrong].detail
    assert wrong not in public_content(root)
    assert wrong not in {finding.subject for finding in fsck(root)}


def test_products_carry_the_facts_that_files_do_not_know(root, orbit, monkeypatch):
    published = {}
    publish = step_module.publish_step

    def spy(*args, **kwargs):
        published.update(kwargs, outputs=tuple(kwargs["outputs"]))
        return publish(*args, **kwargs)

    monkeypatch.setattr(step_module, "publish_step", spy)
    deliver(root, orbit)
    format_exposure(root, EXPOSURE)
    receipt = LandingArea(root).receipt(EXPOSURE)
    for output in published["outputs"]:
        assert output.metadata["survey"] == "HLWAS"
        assert output.metadata["nexposures"] == 2
        sender = getattr(output.name.file_set, "detector", "FACE")
        assert output.inputs[0].sha256 == receipt.senders[sender].content_version


def test_a_rerun_makes_nothing_again_unless_forced(root, orbit):
    deliver(root, orbit)
    first = format_exposure(root, EXPOSURE)
    again = format_exposure(root, EXPOSURE)
    assert again.made == ()
    assert contents(again) == contents(first)
    assert len(format_exposure(root, EXPOSURE, force=True).made) == 3


def test_duplicates_that_arrive_later_make_nothing_again(root, orbit):
    deliver(root, orbit)
    format_exposure(root, EXPOSURE)
    Downlink(root).send("again", telemetry_of(detectors=ONE))
    LandingArea(root).scan()
    # other packet size, hence other packets: only the compressed content counts
    assert format_exposure(root, EXPOSURE).made == ()


def test_only_what_lacks_is_made_after_a_partial_failure(root, orbit):
    late = replace(readout("WFI02", seed=2), start_time=START.replace(year=2028))
    first_detector, first_window, _, *rest = telemetry_of()
    deliver(root, orbit, [first_detector, first_window, late, *rest], detectors=TWO)
    first = format_exposure(root, EXPOSURE)
    (failure,) = first.failures
    assert failure.file_set == "r0000101001001001001_0001_wfi02_f158"
    assert "start_time" in failure.message
    assert {entry.name.split("_", 2)[2] for entry in first.made} == {
        "wfi01_f158_gw.asdf", "wfi01_f158_uncal.asdf", "f158_face.asdf",
    }  # fmt: skip
    Downlink(root, packet_size=600).send("repair", [readout("WFI02", seed=2)])
    LandingArea(root).scan()
    second = format_exposure(root, EXPOSURE)
    assert second.failures == ()
    assert "r0000101001001001001_0001_wfi02_f158_uncal.asdf" in contents(second)


def without_pairs(phase: GuideWindowPhase) -> GuideWindowPhase:
    arrays = {
        field.name: value[:0]
        for field in fields(phase)
        if isinstance(value := getattr(phase, field.name), np.ndarray)
    }
    return replace(phase, **arrays)


def test_a_detector_whose_guiding_was_lost_becomes_l1_with_the_others(root, orbit):
    first_detector, window, second_detector, other_window, face = telemetry_of()
    lost = replace(window, tracking=without_pairs(window.tracking))
    nothing = replace(
        other_window,
        tracking=without_pairs(other_window.tracking),
        acquisition=without_pairs(other_window.acquisition),
    )
    deliver(root, orbit, [first_detector, lost, second_detector, nothing, face], detectors=TWO)
    result = format_exposure(root, EXPOSURE)
    assert result.failures == ()
    made = [opened(root, entry) for entry in result.made]
    for model in made:
        model.validate()
    windows = [model.meta.guide_star.window_xstart for model in made if "data" in model]
    assert windows == [100, -999999]


def test_whatever_goes_wrong_with_one_detector_is_its_own_failure(root, orbit):
    first_detector, window, *rest = telemetry_of()
    odd = replace(
        window, tracking=replace(window.tracking, lower_left_corners=np.zeros((4, 3), np.uint16))
    )
    deliver(root, orbit, [first_detector, odd, *rest], detectors=TWO)
    result = format_exposure(root, EXPOSURE)
    (failure,) = result.failures
    assert failure.file_set == "r0000101001001001001_0001_wfi01_f158"
    assert failure.error == "ValueError"
    assert len(result.made) == 3
    (recorded,) = Registry(root).work.failures().to_dict("records")
    assert recorded["message"] == failure.message


def test_packets_of_another_shape_than_announced_are_not_decoded(root, orbit):
    _, window, *rest = telemetry_of()
    deliver(root, orbit, [readout(size=2000), window, *rest], detectors=TWO)
    tracemalloc.start()
    result = format_exposure(root, EXPOSURE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "announce (3, 24, 24)" in result.failures[0].message
    assert peak < 12 << 20


def test_l1_is_reproduced_with_an_ephemeris_of_any_directory(root, orbit, tmp_path):
    deliver(root, orbit)
    (path,) = root.landing.glob("*.oem")
    (root.landing / "day_1").mkdir()
    path.rename(root.landing / "day_1" / path.name)
    LandingArea(root).scan()
    entry = format_exposure(root, EXPOSURE).made[0]
    assert make_level1(LandingArea(root), EXPOSURE, entry, tmp_path).name == entry.name


def test_an_incomplete_exposure_makes_nothing_and_says_what_is_missing(root, orbit):
    downlink = deliver(root, orbit, delivery=DownlinkDelivery(dropped=0.7, damaged=0.1))
    with pytest.raises(BadInputError, match=r"not all of it is in: .*packets \d"):
        format_exposure(root, EXPOSURE)
    assert not root.public.exists()
    downlink.release()
    assert format_exposure(root, EXPOSURE).failures == ()


def test_l1_made_again_after_the_definitive_ephemeris_says_so(root, orbit, tmp_path):
    with_definitive_ephemeris(root, orbit, tmp_path)
    result = format_exposure(root, EXPOSURE)
    science = opened(root, next(e for e in result.made if "uncal" in e.name))
    assert science.meta.ephemeris.type == "DEFINITIVE"
    assert len(result.made) == 3


def with_definitive_ephemeris(root, orbit, tmp_path):
    """Format an exposure, and receive the definitive ephemeris after it."""
    downlink = deliver(root, orbit)
    first = format_exposure(root, EXPOSURE)
    final = write_oem(tmp_path / "final.oem", "DEFINITIVE", offset=5.0).read_text()
    downlink.send_ephemeris("final", final)
    LandingArea(root).scan()
    return first


def test_routine_work_leaves_l1_as_it_is_when_the_definitive_ephemeris_is_in(root, orbit, tmp_path):
    first = with_definitive_ephemeris(root, orbit, tmp_path)
    routine = format_exposure(root, EXPOSURE, routine=True)
    assert (routine.made, routine.record_id) == ((), None)
    assert contents(routine) == contents(first)


def test_routine_work_makes_l1_again_of_repaired_packets(root, orbit, tmp_path):
    with_definitive_ephemeris(root, orbit, tmp_path)
    Downlink(root).send("repair", telemetry_of(detectors=ONE, seed=7))
    LandingArea(root).scan()
    result = format_exposure(root, EXPOSURE, routine=True)
    science = opened(root, next(e for e in result.made if "uncal" in e.name))
    assert science.meta.ephemeris.type == "DEFINITIVE"


def test_it_is_told_why_l1_would_be_made_again_before_it_is(root, orbit, tmp_path):
    with_definitive_ephemeris(root, orbit, tmp_path)
    (reason,) = why_again(root, EXPOSURE)
    assert reason.startswith("the definitive ephemeris final")
    assert "in place of predicted" in reason
    format_exposure(root, EXPOSURE)
    assert why_again(root, EXPOSURE) == ()


def test_a_crash_before_publishing_leaves_nothing_and_a_rerun_makes_all(root, orbit, monkeypatch):
    deliver(root, orbit)

    def crash(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(step_module, "publish_step", crash)
    with pytest.raises(KeyboardInterrupt):
        format_exposure(root, EXPOSURE)
    monkeypatch.undo()
    assert not root.public.exists()
    assert len(format_exposure(root, EXPOSURE).made) == 3


def test_a_full_disk_is_a_passing_fault_not_a_failure_of_the_data(root, orbit, monkeypatch):
    deliver(root, orbit)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("roman_datamodels.datamodels.ScienceRawModel.save", full)
    with pytest.raises(PassingFaultError, match="full"):
        format_exposure(root, EXPOSURE)
    monkeypatch.undo()
    assert len(format_exposure(root, EXPOSURE).made) == 3
