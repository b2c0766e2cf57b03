import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, ProductInput, WorkFailure
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store.fold import fold
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import (
    ANY_FINGERPRINT,
    VISIT,
    association,
    association_output,
    cal,
    change_of,
    exposure,
    moment,
    output,
    public_content,
    publish_associations,
    publish_skycells,
    sha256,
    skycell_set,
    staged_entry,
)

FAILURE = WorkFailure(file_set="x", error="ValueError", message="no stars")


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def plan(result: StepResult) -> dict[str, str]:
    return {entry.name: entry.fingerprint for entry in result.made}


def test_what_a_step_made_is_public_and_registered_when_it_returns(root):
    result = publish_associations(root, {1: "a", 2: "b"}, run_id="run")
    assert set(public_content(root)) == {association(1), association(2)}
    assert {entry.name for entry in result.made} == {association(1), association(2)}
    entries = Registry(root).generations.current(plan(result))
    assert {name: entry.sha256 for name, entry in entries.items()} == {
        entry.name: entry.sha256 for entry in result.made
    }
    (record,) = Registry(root).work.latest_records().to_dict("records")
    assert record["record_id"] == result.record_id
    assert (record["step"], record["partition"], record["run_id"]) == ("visit", VISIT, "run")


def test_an_entry_says_what_its_output_said(root):
    output = association_output(root, 1, "a")
    stated = Output(
        output.name,
        output.path,
        output.fingerprint,
        inputs=(ProductInput(name=cal(), sha256=sha256(b"image")),),
        context="roman_0001.pmap",
        software={"romancal": "1.1.0"},
        references={"flat": "flat.asdf"},
        metadata={"survey": "HLWAS"},
    )
    publish_step(root, step=Step.VISIT, partition=VISIT, outputs=[stated])
    entry = Registry(root).generations.current([association(1)])[association(1)]
    for field in ("fingerprint", "inputs", "context", "software", "references", "metadata"):
        assert getattr(entry, field) == getattr(stated, field)
    assert list(Registry(root).products.find(survey="HLWAS")["name"]) == [association(1)]


def test_a_product_made_by_the_planned_work_is_reused(root):
    result = publish_associations(root, {1: "a", 2: "b"})
    planned = plan(result)
    assert set(reusable(root, planned)) == set(planned)
    assert reusable(root, planned, force=True) == {}
    changed = planned | {association(1): sha256(b"another plan"), association(3): ANY_FINGERPRINT}
    assert set(reusable(root, changed)) == {association(2)}


def test_a_product_whose_file_is_gone_is_not_reused(root):
    result = publish_associations(root, {1: "a", 2: "b"})
    FileArchive(root).blob(result.made[0].sha256).unlink()
    assert set(reusable(root, plan(result))) == {association(2)}


def test_a_rerun_finds_what_a_killed_run_committed_but_did_not_fold(root, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "fold", killed)
        with pytest.raises(KeyboardInterrupt):
            publish_associations(root, {1: "a"})
    planned = {association(1): association_output(root, 1, "a").fingerprint}
    assert set(reusable(root, planned)) == {association(1)}
    assert set(public_content(root)) == {association(1)}


def test_a_rerun_that_only_reuses_leaves_everything_as_it_was(root):
    first = publish_associations(root, {1: "a"}, events={ClockEvent.STARTED: moment(0)})
    kept = reusable(root, plan(first)).values()
    again = publish_step(
        root,
        step=Step.VISIT,
        partition=VISIT,
        outputs=[],
        reused=kept,
        events={ClockEvent.STARTED: moment(1)},
    )
    assert [entry.name for entry in again.reused] == [association(1)]
    assert again.made == ()
    assert again.record_id is None
    assert len(Registry(root).work.latest_records()) == 1
    assert Registry(root).receipts.events(VISIT)[ClockEvent.STARTED] == moment(0)


def test_failures_are_recorded_also_when_nothing_was_made(root):
    result = publish_associations(root, {}, failures=[FAILURE])
    assert result.failures == (FAILURE,)
    assert list(Registry(root).work.failures(VISIT)["message"]) == ["no stars"]


def test_events_are_recorded_also_when_nothing_was_made(root):
    publish_associations(root, {}, events={ClockEvent.FIRST_PACKET: moment(5)})
    assert Registry(root).receipts.events(VISIT) == {ClockEvent.FIRST_PACKET: moment(5)}


def test_nothing_to_say_leaves_no_record(root):
    assert publish_associations(root, {}) == StepResult()
    assert not root.registry.exists()


def test_one_unreadable_output_keeps_all_of_the_step_back(root):
    good, bad = association_output(root, 1, "a"), association_output(root, 2, "b")
    bad.path.write_text("{not JSON")
    with pytest.raises(BadInputError, match=association(2)):
        publish_step(root, step=Step.VISIT, partition=VISIT, outputs=[good, bad])
    assert not public_content(root)
    assert not list(FileArchive(root).blobs())
    assert not list(Journal(root).records())
    assert Registry(root).products.find().empty


def test_what_follows_an_image_that_is_made_again_without_it_is_overwritten_too(root):
    catalogue, image = cal().replace("cal.asdf", "cat.parquet"), cal()

    def publish(*names, **fields):
        outputs = [output(root, name, fields.get("run_id", "first")) for name in names]
        return publish_step(root, step=Step.EXPOSURE, partition="x", outputs=outputs, **fields)

    publish(image, catalogue, cal(2), cal(2).replace("cal.asdf", "cat.parquet"))
    publish(image, run_id="again")
    assert set(public_content(root)) == {image, cal(2), cal(2).replace("cal.asdf", "cat.parquet")}
    (row,) = Registry(root).products.find(name=catalogue, overwritten=True).to_dict("records")
    assert row["state"] == "overwritten"


IMAGE = cal()
SPECTRA = cal().replace("cal.asdf", "specdqa2d.json")


def made_from(root, name, image):
    """Return an output that names the image it was made from."""
    stated = output(root, name, "spectra")
    return replace(stated, inputs=(ProductInput(name=image.name, sha256=image.sha256),))


def publish_images(root, text, names=(IMAGE,), **fields):
    outputs = [output(root, name, text) for name in names]
    return publish_step(root, step=Step.EXPOSURE, partition=exposure(), outputs=outputs, **fields)


def while_staging(monkeypatch, do):
    """Do something once while a publication stages its files."""
    whole, pending = FileArchive.stage, [do]

    def stage(archive, path):
        if pending:
            pending.pop()()
        return whole(archive, path)

    monkeypatch.setattr(FileArchive, "stage", stage)


def test_what_was_made_from_an_image_that_is_overwritten_meanwhile_is_refused(root, monkeypatch):
    (image,) = publish_images(root, "first").made
    while_staging(monkeypatch, lambda: publish_images(root, "second"))
    with pytest.raises(BadInputError, match=r"not made from the present .*R14"):
        publish_step(
            root,
            step=Step.SPECTRA,
            partition=exposure(),
            outputs=[made_from(root, SPECTRA, image)],
        )
    assert set(public_content(root)) == {cal()}


def test_what_is_published_from_an_image_while_that_is_made_again_is_overwritten(root, monkeypatch):
    (image,) = publish_images(root, "first").made

    def deliver():
        publish_step(
            root,
            step=Step.SPECTRA,
            partition=exposure(),
            outputs=[made_from(root, SPECTRA, image)],
        )
        assert SPECTRA in public_content(root)

    while_staging(monkeypatch, deliver)
    publish_images(root, "second")
    assert set(public_content(root)) == {cal()}
    (row,) = Registry(root).products.find(name=SPECTRA, overwritten=True).to_dict("records")
    assert row["state"] == "overwritten"


def test_work_for_an_image_that_is_made_again_meanwhile_is_to_be_done_again(root, monkeypatch):
    catalogue = cal().replace("cal.asdf", "cat.parquet")
    first = publish_images(root, "first")
    while_staging(monkeypatch, lambda: publish_images(root, "second"))
    with pytest.raises(PassingFaultError, match="do the work again"):
        publish_images(root, "first", [catalogue], reused=first.made)
    assert set(public_content(root)) == {cal()}


@pytest.mark.parametrize(
    ("context", "software", "stays"),
    [
        ("roman_0001.pmap", {"romancal": "1.1.0", "asdf": "9"}, True),
        ("roman_0001.pmap", {"romancal": "1.2.0"}, False),
        ("roman_0002.pmap", {"romancal": "1.1.0"}, False),
    ],
)
def test_fsck_finds_an_l4_that_was_made_with_another_image(root, context, software, stays):
    catalogue = IMAGE.replace("cal.asdf", "cat.parquet")
    for name, how in (
        (IMAGE, {"context": "roman_0001.pmap", "software": {"romancal": "1.1.0"}}),
        (catalogue, {"context": context, "software": software}),
    ):
        entry = staged_entry(root, name, name.encode(), **how)
        Journal(root).write(
            CommitRecord(step=Step.EXPOSURE, partition=exposure(), products=(entry,))
        )
    fold(root)
    kinds = {finding.kind for finding in fsck(root)}
    assert (FindingKind.LEFT_BEHIND not in kinds) is stays


def test_fsck_finds_what_was_made_from_an_overwritten_image_and_ends_it(root):
    (image,) = publish_images(root, "first").made
    publish_images(root, "second")
    late = staged_entry(
        root, SPECTRA, b"{}", inputs=(ProductInput(name=image.name, sha256=image.sha256),)
    )
    record = CommitRecord(step=Step.SPECTRA, partition=exposure(), products=(late,))
    Journal(root).write(record)
    fold(root)
    found = {finding.subject: finding.kind for finding in fsck(root)}
    assert found[SPECTRA] is FindingKind.LEFT_BEHIND
    fsck(root, mend=True)
    assert set(public_content(root)) == {cal()}
    assert SPECTRA not in {finding.subject for finding in fsck(root)}


def test_what_is_reused_with_an_image_that_is_made_again_stays(root):
    catalogue, image = cal().replace("cal.asdf", "cat.parquet"), cal()
    first = publish_step(
        root,
        step=Step.EXPOSURE,
        partition="x",
        outputs=[output(root, name, "first") for name in (image, catalogue)],
    )
    publish_step(
        root,
        step=Step.EXPOSURE,
        partition="x",
        outputs=[output(root, image, "again")],
        reused=[entry for entry in first.made if entry.name == catalogue],
    )
    assert set(public_content(root)) == {image, catalogue}


def test_a_product_of_a_data_release_is_published_once_and_never_again(root):
    publish_skycells(root, {1: "first"}, release="r0")
    before = public_content(root)
    with pytest.raises(BadInputError, match=r"never overwritten.*next release"):
        publish_skycells(root, {1: "second"}, release="r0")
    assert public_content(root) == before
    assert len(list(FileArchive(root).blobs())) == len(before)
    publish_skycells(root, {1: "second"}, release="r1")
    assert set(public_content(root)) == {*skycell_set(1, "r0"), *skycell_set(1, "r1")}


def test_of_publishers_of_one_versioned_name_at_once_one_succeeds(root):
    def attempt(number):
        try:
            return publish_skycells(root, {1: f"by {number}"}, release="r0")
        except BadInputError:
            return None

    with ThreadPoolExecutor(4) as pool:
        (winner,) = filter(None, pool.map(attempt, range(4)))
    assert set(Registry(root).products.find(overwritten=True)["record_id"]) == {winner.record_id}


def test_a_release_is_published_and_what_it_supersedes_marked_by_one_record(root):
    prompt = publish_skycells(root, {1: "prompt"})
    publish_skycells(
        root,
        {1: "released"},
        release="r0",
        transitions=[
            change_of(entry, prompt.record_id, Transition.SUPERSEDED) for entry in prompt.made
        ],
    )
    found = Registry(root).products.find()
    assert set(found[found["release"] == "p"]["state"]) == {"superseded"}
    assert set(found[found["release"] == "r0"]["state"]) == {"current"}
    assert len(Registry(root).work.latest_records()) == 2


def test_taking_back_spares_a_file_that_another_step_has_published(root):
    publish_associations(root, {1: "a"})
    same, bad = association_output(root, 1, "a"), association_output(root, 2, "b")
    bad.path.unlink()
    with pytest.raises(BadInputError):
        publish_step(root, step=Step.VISIT, partition=VISIT, outputs=[same, bad])
    assert set(public_content(root)) == {association(1)}


def test_outputs_of_another_step_or_with_one_name_are_refused(root):
    output = association_output(root, 1, "a")
    with pytest.raises(ValueError, match="made by visit, not by exposure"):
        publish_step(root, step=Step.EXPOSURE, partition=VISIT, outputs=[output])
    with pytest.raises(ValueError, match="share a name"):
        publish_step(root, step=Step.VISIT, partition=VISIT, outputs=[output, output])
    assert output.path.exists()


@pytest.fixture
def tiny_root(tmp_path):
    """An installation on a file system of 4 MiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield DataRoot(path)
    subprocess.run(["umount", str(path)], check=True)


def big_output(tmp_path, cell, size) -> Output:
    path = tmp_path / association(cell)
    notes = [os.urandom(2_000).hex() for _ in range(size // 4_000)]
    path.write_text(json.dumps({"notes": notes}))
    return Output(ProductName.parse(association(cell)), path, ANY_FINGERPRINT)


def test_a_full_disk_is_a_passing_fault_and_the_step_succeeds_once_there_is_space(
    tmp_path, tiny_root
):
    filler = tiny_root.path / "filler"
    filler.write_bytes(bytes(1_500_000))
    with pytest.raises(PassingFaultError, match=f"{tiny_root.path}.*free space"):
        publish_step(
            tiny_root,
            step=Step.VISIT,
            partition=VISIT,
            outputs=[big_output(tmp_path, 1, 1_000_000), big_output(tmp_path, 2, 3_000_000)],
        )
    assert not public_content(tiny_root)
    assert not list(FileArchive(tiny_root).blobs())
    assert not list(tiny_root.staging.iterdir())

    filler.unlink()
    publish_associations(tiny_root, {1: "a"})
    assert set(public_content(tiny_root)) == {association(1)}


def test_a_disk_that_fills_up_while_folding_keeps_the_record_for_later(tiny_root, monkeypatch):
    monkeypatch.setattr("roman_assets.registry.store.fold.MOST_BYTES", 0)  # each fold writes a tier
    publish_associations(tiny_root, {1: "a"})
    filler = tiny_root.path / "filler"
    free = os.statvfs(tiny_root.path)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 200_000))
    with pytest.raises(PassingFaultError, match="full"):
        publish_associations(tiny_root, {2: "b"})
    assert set(Registry(tiny_root).products.find()["name"]) == {association(1)}
    filler.unlink()
    fold(tiny_root)
    assert set(Registry(tiny_root).products.find()["name"]) == {association(1), association(2)}
    assert set(public_content(tiny_root)) == {association(1), association(2)}
