from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import Archive
from roman_assets.data_root import SSC_VARIABLE, DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import KINDS, Maker, Step
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import StepResult
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.ssc import intake
from roman_assets.ssc.delivery import (
    PATIENCE,
    QUIET,
    Address,
    Arrival,
    Delivery,
    Exchanged,
    deliveries,
    strays,
)
from roman_assets.ssc.delivery_checks import Findings, check_delivery
from roman_assets.ssc.exchange import DirectoryExchange, Exchange, ExchangedFile
from roman_assets.ssc.intake import reject_unaddressed, sole_intake, take_in
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.other_user import NOBODY, another_user, as_root
from roman_assets_tests.support.small_products import (
    VISIT,
    exposure,
    public_content,
    sha256,
)
from roman_assets_tests.support.ssc_center import (
    Center,
    bulge,
    contents,
    image,
    images,
    observe,
    spectrum,
)

EVENTS, VARIABILITY = bulge("event_catalog"), bulge("variability_catalog")
SPECTRA = spectrum("individual_1d")
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


@pytest.fixture
def center(root: DataRoot, observed: DataRoot) -> Center:
    shutil.copytree(observed.path, root.path)
    return Center.of(root)


def take(root: DataRoot, step: Step = Step.MICROLENSING, partition: str = VISIT) -> StepResult:
    return take_in(root, step, partition)


def of_ssc(root: DataRoot) -> dict[str, bytes]:
    """What general users see of the SSC's products."""
    return {
        name: content
        for name, content in public_content(root).items()
        if ProductName.parse(name).kind.maker is Maker.SSC
    }


@contextmanager
def as_platform(root: DataRoot) -> Iterator[None]:
    """Act as a user who owns all of an installation but what lies in `from_ssc`."""
    for place in [root.path, *root.path.rglob("*")]:
        if place != root.path / "ssc/from_ssc" and "from_ssc" not in place.parts[:-1]:
            os.chown(place, NOBODY, NOBODY)
    (root.path / "ssc/from_ssc").chmod(0o777)
    for directory in root.path.parents:
        if directory.is_relative_to("/tmp/pytest-of-root"):
            directory.chmod(0o755)
    for delivery in (root.path / "ssc/from_ssc").iterdir():
        if stat.S_IMODE(delivery.stat().st_mode) == 0o755:
            delivery.chmod(0o777)
    with another_user():
        yield


def in_exchange(root: DataRoot) -> list[str]:
    return [one.name for one in deliveries(Exchange.of(root))]


def faults(center: Center, delivery: str = "first") -> list[tuple[str, str]]:
    """File and field of every fault of the only report, which is a rejection."""
    (report,) = center.reports(delivery)
    assert report["outcome"] == "rejected"
    assert report["products"] == []
    return [(fault["file"].rpartition("/")[2], fault["field"]) for fault in report["faults"]]


def test_every_kind_that_the_ssc_makes_of_a_bulge_visit_is_taken_in_and_published(
    root: DataRoot, center: Center
) -> None:
    names = [
        bulge(k.name.removeprefix("microlensing_")) for k in KINDS if k.step is Step.MICROLENSING
    ]
    written = center.deliver(names, images())
    files = {name: (written / name).read_bytes() for name in names}
    frame = {"name": names[0], "sha256": sha256(files[names[0]])}
    notification = json.loads((written / "notification.json").read_text())
    for file in notification["files"][1:]:
        file["inputs"] = [frame, {"name": EVENTS, "sha256": sha256(files[EVENTS])}]
        if file["filename"] == EVENTS:
            file["inputs"] = images()
    (written / "notification.json").write_text(json.dumps(notification))
    result = take(root)
    assert not result.failures, result.failures
    assert of_ssc(root) == files
    assert in_exchange(root) == []
    (report,) = center.reports()
    assert report["outcome"] == "accepted"
    with Registry(root) as registry:
        found = registry.products.find(name=names)
        assert set(found["survey"]) == {"GBTDS"}
        assert set(found["partition"]) == {VISIT}
        assert registry.generations.current([EVENTS])[EVENTS].software == {"msos": "3.3.0"}
        frames = registry.archive.archive_rows("WFIMSOSReferenceFrame")
        assert list(frames["filename"]) == [names[0]]
        assert len(registry.archive.archive_rows("WFIMSOSCatalog")) == len(names) - 1
        assert registry.products.find(name=names, cone=(270.0, 66.0, 0.01))["name"].nunique() >= 6
        assert Engine(root).snapshot().source_tables() == []
    assert [str(one) for one in fsck(root) if one.subject in names] == []


def test_spectra_of_an_exposure_and_of_its_visit_are_taken_in(root: DataRoot) -> None:
    observe(root, spectra=True)
    center = Center.of(root)
    own = [spectrum(kind) for kind in ("location_table", "decontam_2d", "dqa_2d", "individual_1d")]
    center.deliver(own, images(spectra=True)[:1])
    assert {entry.name for entry in take(root, Step.SPECTRA, exposure()).made} == set(own)
    spectra = Archive.of(root).path(ProductName.parse(SPECTRA)).read_bytes()
    combined = [spectrum(kind) for kind in ("combined_1d", "catalog")]
    center.deliver(combined, [{"name": SPECTRA, "sha256": sha256(spectra)}], delivery="second")
    assert {entry.name for entry in take(root, Step.COMBINED_SPECTRA).made} == set(combined)
    with Registry(root) as registry:
        assert len(registry.archive.archive_rows("WFISpec")) == 6


def test_a_repeated_delivery_changes_nothing_and_is_accepted(
    root: DataRoot, center: Center
) -> None:
    center.deliver([EVENTS], images())
    take(root)
    center.deliver([EVENTS], images(), delivery="again")
    result = take(root)
    assert (result.made, result.failures) == ((), ())
    assert [entry.name for entry in result.reused] == [EVENTS]
    assert center.reports("again")[0]["outcome"] == "accepted"
    with Registry(root) as registry:
        assert registry.generations.current([EVENTS])[EVENTS].generation == 1


@pytest.mark.slow
def test_a_later_file_takes_the_place_of_an_earlier_one(root: DataRoot, center: Center) -> None:
    center.deliver([EVENTS], images())
    take(root)
    center.made += timedelta(hours=1)
    center.deliver([EVENTS], images(), text="newer")
    take(root)
    assert of_ssc(root) == {EVENTS: contents(EVENTS, "newer")}
    with Registry(root) as registry:
        assert registry.generations.current([EVENTS])[EVENTS].generation == 2


def test_an_earlier_file_never_takes_the_place_of_a_later_one(
    root: DataRoot, center: Center
) -> None:
    center.deliver([EVENTS], images())
    take(root)
    for delivery, back in (("older", 1), ("contradicting", 0)):
        center.made -= timedelta(hours=back)
        center.deliver([EVENTS], images(), text=delivery, delivery=delivery)
        center.made += timedelta(hours=back)
        assert len(take(root).failures) == 1
        assert faults(center, delivery) == [(EVENTS, "fileCreationTimestamp")]
    assert of_ssc(root) == {EVENTS: contents(EVENTS, "x")}


def edited(**changes: Any) -> Edit:
    """Change what is said about the first file."""
    return lambda notification: notification["files"][0].update(changes)


def other_metadata(**changes: Any) -> Edit:
    return lambda notification: notification["files"][0]["metadata"].update(changes)


def twice(notification: dict[str, Any]) -> None:
    notification["files"].append(notification["files"][0])


UNKNOWN = {"name": image(2), "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edited(sha256="0" * 64), [(EVENTS, "sha256")]),
        (edited(fileSize=3), [(EVENTS, "fileSize")]),
        (edited(inputs=[UNKNOWN]), [(EVENTS, "inputs")]),
        (edited(inputs=[{"name": "nothing.fits", "sha256": "0" * 64}]), [(EVENTS, "inputs")]),
        (edited(inputs=[]), [("notification.json", "files.0.inputs")]),
        (edited(sha256="A" * 64), [("notification.json", "files.0.sha256")]),
        (edited(softwareVersions={}), [("notification.json", "files.0.softwareVersions")]),
        (edited(comment="x"), [("notification.json", "files.0.comment")]),
        (edited(fileCreationTimestamp="2100-01-01T00:00:00Z"), [(EVENTS, "fileCreationTimestamp")]),
        (other_metadata(program="ten"), [(EVENTS, "metadata.program")] * 2),
        (other_metadata(program=11), [(EVENTS, "metadata.program")]),
        (other_metadata(subcategory="HLWA"), [(EVENTS, "metadata.subcategory")]),
        (other_metadata(season="s0001"), [(EVENTS, "metadata.season")]),
        (other_metadata(filename="other"), [(EVENTS, "metadata.filename")]),
        (other_metadata(s_region="CIRCLE 1 2 3"), [(EVENTS, "s_region")]),
        (other_metadata(s_region="POLYGON ICRS 0 0 90 0 180 0 270 0"), [(EVENTS, "s_region")]),
        (other_metadata(expstart="0001-01-01T00:00:00+14:00"), [(EVENTS, "expstart")]),
        (other_metadata(visit_start_time_mjd=1e300, expstart="?"),
         [(EVENTS, "visit_start_time_mjd")]),
        (other_metadata(season=[1]), [("notification.json", "files.0.metadata.season")]),
        (other_metadata(season={"a": 1}), [("notification.json", "files.0.metadata.season")]),
        (other_metadata(program=10**400), [("notification.json", "files.0.metadata.program")]),
        (edited(fileSize=1 << 60), [("notification.json", "files.0.fileSize")]),
        (edited(fileCreationTimestamp="0001-01-01T00:00:00+14:00"),
         [("notification.json", "files.0.fileCreationTimestamp")]),
        (twice, [(EVENTS, "filename")]),
        (edited(metadata={}), [(EVENTS, "metadata.metadata")] * 13),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_file_and_field(
    observed: DataRoot, tmp_path: Path, change: Edit, expected: list[tuple[str, str]]
) -> None:
    center = Center(tmp_path)
    directory = center.deliver([EVENTS, VARIABILITY], images(), change=change)
    (delivery,) = deliveries(DirectoryExchange(tmp_path))
    copies = {path.name: path for path in directory.iterdir()}
    with Registry(observed) as registry:
        found = check_delivery(registry, delivery, copies, datetime.now(UTC)).faults
    assert [(one.source.rpartition("/")[2], one.field) for one in found] == expected


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("data"))
    observe(root)
    return root


def test_a_delivery_with_a_fault_is_rejected_as_a_whole_and_set_aside(
    root: DataRoot, center: Center
) -> None:
    center.deliver([EVENTS, VARIABILITY], images(), change=edited(sha256="0" * 64))
    (failure,) = take(root).failures
    assert failure.file_set == "first"
    assert faults(center) == [(EVENTS, "sha256")]
    assert of_ssc(root) == {}
    assert in_exchange(root) == []
    (case,) = SetAside(root).list()
    assert case.content is not None
    assert {path.name for path in case.content.iterdir()} == {
        EVENTS, VARIABILITY, "notification.json",
    }  # fmt: skip


def test_a_corrected_delivery_takes_the_place_of_a_rejected_one(
    root: DataRoot, center: Center
) -> None:
    center.deliver([EVENTS], images(), change=edited(sha256="0" * 64))
    take(root)
    center.deliver([EVENTS], images())
    result = take(root)
    assert [entry.name for entry in result.made] == [EVENTS]
    assert [report["outcome"] for report in sorted(center.reports(), key=lambda r: r["when"])] == [
        "rejected", "accepted",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_report_for_people_says_what_to_do(root: DataRoot, center: Center) -> None:
    center.deliver([EVENTS], images(), change=edited(sha256="0" * 64))
    take(root)
    (text,) = (path.read_text() for path in (center.place / "reports" / "first").glob("*.txt"))
    assert f"first/{EVENTS}" in text
    assert re.search(r"sha256: is \w{64}, 0{64} is stated", text)
    assert "Remedy: copy the file again" in text


@pytest.mark.parametrize(
    "name",
    [
        image(1),
        "../../archive/public/" + EVENTS,
        "/etc/passwd",
        "r00010_r1_v01001001001001_f146_eventcatalog.parquet",
        "r00010_p_full_f146_eventcatalog.parquet",
        "notification.json",
        EVENTS.replace("r00010", "r00011"),
    ],
)
def test_nothing_but_the_ssc_s_prompt_products_of_known_visits_is_taken_in(
    observed: DataRoot, tmp_path: Path, name: str
) -> None:
    directory = Center(tmp_path).deliver([EVENTS], images(), change=edited(filename=name))
    (delivery,) = deliveries(DirectoryExchange(tmp_path))
    copies = {path.name: path for path in directory.iterdir()}
    with Registry(observed) as registry:
        found = check_delivery(registry, delivery, copies, datetime.now(UTC))
    assert found.files == ()
    assert found.faults[0].field == "filename"


def test_files_that_are_links_or_not_named_or_lie_deeper_reject_the_delivery(
    root: DataRoot, center: Center, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not for the SSC")
    directory = center.deliver([EVENTS], images())
    (directory / "extra.parquet").write_bytes(b"x")
    (directory / "deep").mkdir()
    (directory / "deep" / EVENTS).write_bytes(b"x")
    (directory / "link").symlink_to(secret)
    assert take(root).failures
    assert {file for file, _ in faults(center)} == {"extra.parquet", EVENTS, "link"}
    assert secret.read_text() == "not for the SSC"
    kept = [path for path in root.set_aside.rglob("*") if path.is_file()]
    assert all("not for the SSC" not in path.read_bytes().decode("latin1") for path in kept)


@pytest.mark.slow
def test_a_file_that_is_not_what_its_name_says_is_rejected(root: DataRoot, center: Center) -> None:
    frame = bulge("reference_frame")
    center.deliver([frame], images(), write=lambda path, data: path.write_bytes(b"rubbish" * 9))
    directory = center.place / "from_ssc" / "first"
    notification = json.loads((directory / "notification.json").read_text())
    notification["files"][0] |= {"sha256": sha256(b"rubbish" * 9), "fileSize": 63}
    (directory / "notification.json").write_text(json.dumps(notification))
    take(root)
    assert faults(center) == [(frame, "metadata")]


@pytest.mark.slow
def test_a_reference_frame_that_is_another_model_is_rejected(
    root: DataRoot, center: Center
) -> None:
    from roman_datamodels import datamodels

    frame = bulge("reference_frame")
    directory = center.deliver([frame], images())
    datamodels.WfiWcsModel.create_fake_data().save(directory / frame)
    data = (directory / frame).read_bytes()
    notification = json.loads((directory / "notification.json").read_text())
    notification["files"][0] |= {"sha256": sha256(data), "fileSize": len(data)}
    (directory / "notification.json").write_text(json.dumps(notification))
    take(root)
    assert faults(center) == [(frame, "data model")]


def test_what_is_made_of_an_image_that_was_made_again_is_rejected_until_it_is_made_of_the_new(
    root: DataRoot,
) -> None:
    observe(root, spectra=True)
    center = Center.of(root)
    center.deliver([SPECTRA], images(spectra=True)[:1])
    take(root, Step.SPECTRA, exposure())
    observe(root, spectra=True, content="again")
    center.made += timedelta(hours=1)
    center.deliver([SPECTRA], images(spectra=True)[:1], text="of the old image")
    assert take(root, Step.SPECTRA, exposure()).failures
    rejected = [one for one in center.reports() if one["outcome"] == "rejected"]
    assert [fault["field"] for fault in rejected[0]["faults"]] == ["inputs"]
    center.deliver([SPECTRA], images(spectra=True, content="again")[:1], text="of the new image")
    assert not take(root, Step.SPECTRA, exposure()).failures
    assert of_ssc(root) == {SPECTRA: contents(SPECTRA, "of the new image")}


def arrival(root: DataRoot, waited: timedelta = timedelta()) -> Arrival:
    delivery: Delivery
    (delivery,) = deliveries(Exchange.of(root))
    return delivery.arrival(delivery.changed + waited)


def test_a_delivery_that_is_being_copied_is_left_alone_until_it_is_whole(
    root: DataRoot, center: Center
) -> None:
    directory = center.deliver([EVENTS, VARIABILITY], images())
    whole = (directory / EVENTS).read_bytes()
    (directory / EVENTS).write_bytes(whole[:100])
    assert arrival(root) is Arrival.ARRIVING
    assert take(root).failures == ()
    (directory / EVENTS).unlink()
    assert arrival(root) is Arrival.ARRIVING
    (directory / EVENTS).write_bytes(whole)
    assert arrival(root) is Arrival.HERE
    assert len(take(root).made) == 2


@pytest.mark.slow
def test_what_does_not_become_whole_is_rejected_after_some_hours(
    root: DataRoot, center: Center
) -> None:
    directory = center.deliver([EVENTS, VARIABILITY], images())
    (directory / EVENTS).unlink()
    assert arrival(root, PATIENCE - timedelta(seconds=1)) is Arrival.ARRIVING
    assert arrival(root, PATIENCE) is Arrival.HERE
    take_in(root, Step.MICROLENSING, VISIT, clock=lambda: datetime.now(UTC) + PATIENCE)
    assert faults(center) == [(EVENTS, "file")]


def test_a_torn_notification_is_waited_for_and_then_rejected(
    root: DataRoot, center: Center
) -> None:
    directory = center.deliver([EVENTS], images())
    (directory / "notification.json").write_text('{"version": 1, "fil')
    assert arrival(root) is Arrival.ARRIVING
    assert arrival(root, QUIET) is Arrival.HERE


def test_a_crash_after_publication_is_finished_by_the_next_run(
    root: DataRoot, center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.deliver([EVENTS], images())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            take(root)
    assert in_exchange(root) == ["first"]
    result = take(root)
    assert [entry.name for entry in result.reused] == [EVENTS]
    assert in_exchange(root) == []
    with Registry(root) as registry:
        assert registry.generations.current([EVENTS])[EVENTS].generation == 1


def test_what_a_crash_leaves_of_a_delivery_goes_and_one_that_arrives_anew_stays(
    root: DataRoot, center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.deliver([EVENTS, VARIABILITY], images())
    whole = DirectoryExchange.remove

    def killed(self: DirectoryExchange, files: Iterable[ExchangedFile]) -> None:
        whole(self, list(files)[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryExchange, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            take(root)
    assert in_exchange(root) == ["first"]
    assert len(take(root).reused) == 2
    assert in_exchange(root) == []
    arriving = center.deliver([EVENTS, VARIABILITY], images())
    (arriving / "notification.json").unlink()
    (arriving / EVENTS).unlink()
    take(root)
    assert in_exchange(root) == ["first"]
    assert len(center.reports()) == 1


@pytest.mark.slow
def test_of_two_deliveries_that_contradict_each_other_the_first_counts(
    root: DataRoot, center: Center
) -> None:
    center.deliver([EVENTS, VARIABILITY], images(), delivery="b_first")
    center.deliver([EVENTS], images(), delivery="a_second", text="another")
    result = take(root)
    assert {entry.name for entry in result.made} == {EVENTS, VARIABILITY}
    assert faults(center, "a_second") == [(EVENTS, "fileCreationTimestamp")]
    assert of_ssc(root)[EVENTS] == contents(EVENTS, "x")


@pytest.mark.slow
def test_a_link_in_the_place_of_a_delivery_or_its_notification_leads_nowhere(
    root: DataRoot, center: Center, tmp_path: Path
) -> None:
    elsewhere = center.deliver([EVENTS], images()).rename(tmp_path / "elsewhere")
    (center.place / "from_ssc" / "linked").symlink_to(elsewhere)
    forged = center.place / "from_ssc" / "forged"
    forged.mkdir()
    (forged / EVENTS).write_bytes((elsewhere / EVENTS).read_bytes())
    (forged / "notification.json").symlink_to(elsewhere / "notification.json")
    assert (take(root).made, of_ssc(root)) == ((), {})
    assert [file.raw for file in strays(Exchange.of(root))] == ["from_ssc/linked"]
    (delivery,) = deliveries(Exchange.of(root))
    with pytest.raises(BadInputError, match="is a link"):
        delivery.address()


def stuck(root: DataRoot) -> list[tuple[str, str]]:
    """What a person has to see to."""
    found = Exchanged.look(Exchange.of(root), datetime.now(UTC)).stuck
    return [(one.source, one.reason) for one in found]


def test_files_with_any_names_are_copied_beside_each_other_and_rejected(
    root: DataRoot, center: Center
) -> None:
    directory = center.deliver([EVENTS], images())
    (directory / "sub").mkdir()
    for name in ("deeper_2", "_2", "sub/x", "x" * 255, b"\xff".decode(errors="surrogateescape")):
        (directory / name).write_bytes(name.encode(errors="surrogateescape"))
    assert take(root).failures
    assert in_exchange(root) == []
    (case,) = SetAside(root).list()
    assert case.content is not None
    assert len(list(case.content.iterdir())) == 7
    assert len(faults(center)) == 5


@as_root
@pytest.mark.parametrize(
    ("closed", "mode", "outcome"),
    [
        ("notification.json", 0o600, "rejected"),
        (EVENTS, 0o600, "rejected"),
        (".", 0o555, "accepted"),
    ],
)
def test_what_the_platform_may_not_read_or_remove_is_settled_once_and_stops_nobody(
    root: DataRoot, center: Center, closed: str, mode: int, outcome: str
) -> None:
    directory = center.deliver([EVENTS], images())
    center.deliver([VARIABILITY], images(), delivery="second")
    (directory / closed).chmod(mode)
    with as_platform(root):
        seen = Exchanged.look(Exchange.of(root), datetime.now(UTC) + QUIET)
        for delivery in seen.whole:
            with suppress(BadInputError):
                delivery.address()
                continue
            reject_unaddressed(root, delivery, BadInputError("first", "file", "closed", "open it"))
        made = {entry.name for entry in take(root).made}
        again = [take(root).made for _ in range(2)]
    assert VARIABILITY in made
    assert again == [(), ()]
    assert [one["outcome"] for one in center.reports()] == [outcome]
    assert len(SetAside(root).list()) == (outcome == "rejected")
    remaining = [("from_ssc/first", "has been reported on and cannot be removed")]
    assert stuck(root) == (remaining if closed == "." else [])


@as_root
def test_a_closed_directory_is_named_and_stops_nobody(root: DataRoot, center: Center) -> None:
    directory = center.deliver([EVENTS], images())
    center.deliver([VARIABILITY], images(), delivery="second")
    directory.chmod(0o700)
    with as_platform(root):
        assert [entry.name for entry in take(root).made] == [VARIABILITY]
        late = datetime.now(UTC) + PATIENCE
        (closed,) = Exchanged.look(Exchange.of(root), late).whole
        reject_unaddressed(root, closed, BadInputError("first", "file", "closed", "open it"))
        assert stuck(root) == [("from_ssc/first", "has been reported on and cannot be removed")]


def test_an_intake_that_hangs_holds_up_no_other(root: DataRoot, center: Center) -> None:
    center.deliver([EVENTS], images())
    hanging, free = Address(Step.MICROLENSING, exposure()), Address(Step.MICROLENSING, VISIT)
    with sole_intake(root, hanging):
        assert len(take(root).made) == 1
        with pytest.raises(PassingFaultError, match="another run"):
            take(root, hanging.step, hanging.partition)
    with sole_intake(root, hanging), sole_intake(root, free):
        pass


class SlowExchange(DirectoryExchange):
    """Notes what is read, and takes its time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_keys: list[str] = []

    def read(self, key: PurePosixPath, most: int) -> bytes:
        self.read_keys.append(str(key))
        time.sleep(0.3)
        return super().read(key, most)


def test_each_version_of_a_notification_is_read_once_by_all_looks(center: Center) -> None:
    exchange = SlowExchange(center.place)
    center.deliver([EVENTS], images())
    invalid = center.deliver([EVENTS], images(), delivery="invalid") / "notification.json"
    invalid.write_text("{")
    now = datetime.now(UTC)
    for _ in range(3):
        seen = Exchanged.look(exchange, now + QUIET)
        assert [delivery.name for delivery in seen.whole] == ["first", "invalid"]
        assert seen.whole[0].address() == Address(Step.MICROLENSING, VISIT)
        with pytest.raises(BadInputError, match="Invalid JSON"):
            seen.whole[1].address()
    assert len(exchange.read_keys) == 2
    invalid.write_text("[]")
    with pytest.raises(BadInputError, match="should be an object"):
        Exchanged.look(exchange, now + 2 * QUIET).whole[1].address()
    assert len(exchange.read_keys) == 3


def test_a_look_ends_in_time_and_the_next_goes_on_where_it_ended(center: Center) -> None:
    exchange = SlowExchange(center.place)
    for name in ("a", "b", "c"):
        center.deliver([EVENTS], images(), delivery=name)
    looks = [
        Exchanged.look(exchange, datetime.now(UTC), reading=timedelta(seconds=0.25))
        for _ in range(3)
    ]
    assert [[one.name for one in seen.whole] for seen in looks] == [["a"], ["a", "b"], [*"abc"]]
    assert [one.name for one in looks[0].arriving] == ["b", "c"]


def test_a_file_that_is_written_again_while_its_delivery_is_taken_in_stays(
    root: DataRoot, center: Center
) -> None:
    directory = center.deliver([EVENTS], images())
    (delivery,) = deliveries(Exchange.of(root))
    (directory / EVENTS).write_bytes(b"newer")
    delivery.remove()
    assert [path.name for path in directory.iterdir()] == [EVENTS]


@pytest.mark.slow
def test_one_rejected_delivery_holds_up_no_other(root: DataRoot, center: Center) -> None:
    center.deliver([EVENTS], images(), change=edited(sha256="0" * 64))
    center.deliver([VARIABILITY], images(), delivery="second")
    result = take(root)
    assert [entry.name for entry in result.made] == [VARIABILITY]
    assert [failure.file_set for failure in result.failures] == ["first"]


@pytest.mark.slow
def test_a_delivery_in_an_object_store_is_taken_in_the_same_way(
    root: DataRoot, center: Center, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = center.deliver([EVENTS], images())
    monkeypatch.setenv(SSC_VARIABLE, object_store)
    exchange = Exchange.of(root)
    for path in sorted(directory.iterdir()):
        exchange.write(Path("from_ssc/first") / path.name, path.read_bytes())
    assert [entry.name for entry in take(root).made] == [EVENTS]
    assert in_exchange(root) == []
    reports = [file.key.suffix for file in exchange.files(PurePosixPath("reports"))]
    assert sorted(reports) == [".json", ".txt"]


def test_a_delivery_whose_image_is_made_again_after_the_checks_is_rejected_whole(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(root, spectra=True)
    center = Center.of(root)
    written = center.deliver([SPECTRA], images(spectra=True))
    content = (written / SPECTRA).read_bytes()

    def checked(*arguments: Any) -> Findings:
        findings = check_delivery(*arguments)
        observe(root, spectra=True, content="another image")
        return findings

    monkeypatch.setattr(intake, "check_delivery", checked)
    (failure,) = take(root, Step.SPECTRA, exposure()).failures
    assert "not made from the present" in failure.message
    assert of_ssc(root) == {}
    assert in_exchange(root) == []
    assert faults(center) == [(SPECTRA, "inputs")]
    (aside,) = root.set_aside.rglob(SPECTRA)
    assert aside.read_bytes() == content
