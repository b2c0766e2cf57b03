import json
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.products.observation import Survey
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    Attempt,
    Cause,
    Change,
    Decision,
    ExposureReceipt,
    Handover,
    Outcome,
    ProductInput,
    Proposal,
    ReleasePhase,
    ReleaseStatement,
    Verdict,
    WorkFailure,
)
from roman_assets.registry.catalog.archive_catalog import archive_catalog
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import new_tier as new_tier_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.registry.store.snapshot import SNAPSHOT
from roman_assets_tests.support.small_products import (
    archived,
    association,
    cal,
    change_of,
    commit,
    damage,
    exposure,
    moment,
    public_content,
    record_of,
    registry_content,
    sha256,
    tiers,
)
from roman_assets_tests.support.strategies import names as official_names


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def generations(root, name):
    frame = Registry(root).products.find(name=name, overwritten=True)
    return list(zip(frame["generation"], frame["state"], frame["record_id"], strict=True))


def test_a_product_is_neither_public_nor_registered_before_its_record_is_folded(root):
    commit(root, {cal(): b"a"})
    assert not public_content(root)
    assert Registry(root).products.find().empty


def test_folding_registers_products_and_shows_them(root):
    record = commit(root, {cal(1, 1): b"a", cal(1, 2): b"b"})
    report = fold(root)
    assert report.records == 1
    assert public_content(root) == {cal(1, 1): b"a", cal(1, 2): b"b"}
    entries = Registry(root).generations.current([cal(1, 1), cal(1, 2)])
    assert {entry.record_id for entry in entries.values()} == {record.record_id}


def test_a_new_product_overwrites_the_old_one_and_the_old_is_remembered(root):
    first = commit(root, {cal(): b"old"}, committed_at=moment(0))
    fold(root)
    second = commit(root, {cal(): b"new"}, committed_at=moment(1))
    fold(root)
    assert public_content(root) == {cal(): b"new"}
    assert generations(root, cal()) == [
        (1, "overwritten", first.record_id),
        (2, "current", second.record_id),
    ]


@pytest.mark.parametrize("step_back", [timedelta(0), timedelta(hours=1), timedelta(days=400)])
def test_a_clock_that_is_set_back_hides_no_new_product(root, step_back):
    first = commit(root, {cal(): b"old"}, committed_at=moment(5))
    fold(root)
    second = commit(root, {cal(): b"new"}, committed_at=moment(5) - step_back)
    fold(root)
    third = commit(root, {cal(): b"newest"}, committed_at=moment(5) - step_back / 2)
    fold(root)
    assert public_content(root) == {cal(): b"newest"}
    assert generations(root, cal()) == [
        (1, "overwritten", first.record_id),
        (2, "overwritten", second.record_id),
        (3, "current", third.record_id),
    ]
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded


def test_the_last_word_on_a_partition_is_the_one_folded_last(root):
    for number, error in enumerate(["first", "second"]):
        failure = WorkFailure(file_set=exposure(), error=error, message="")
        commit(root, {}, failures=(failure,), committed_at=moment(9 - number))
        fold(root)
    with Registry(root) as registry:
        assert list(registry.work.failures()["error"]) == ["second"]


@pytest.mark.parametrize("more", [False, True])
def test_a_fold_that_dies_in_between_and_is_repeated_gives_the_same_times(root, monkeypatch, more):
    commit(root, {cal(): b"old"}, committed_at=moment(5))
    fold(root)
    commit(root, {cal(): b"new"}, committed_at=moment(3))
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "publish_snapshot", dying)
        with pytest.raises(Killed):
            fold(root)
    if more:
        commit(root, {cal(): b"other"}, committed_at=moment(2))
    fold(root)
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded
    assert public_content(root) == {cal(): b"other" if more else b"new"}


def dying(*arguments, **options):
    raise Killed


def test_folding_nothing_changes_nothing(root):
    commit(root, {cal(): b"a"})
    fold(root)
    before = (root.registry / SNAPSHOT).stat()
    assert fold(root).records == 0
    assert (root.registry / SNAPSHOT).stat() == before


def test_whoever_has_a_tier_open_keeps_it_unchanged(root, monkeypatch):
    monkeypatch.setattr(fold_module, "MOST_BYTES", 0)
    commit(root, {cal(1): b"a"})
    fold(root)
    (tier,) = tiers(root)
    with tier.open("rb") as stream:
        before = stream.read()
        for number in (2, 3, 4):
            commit(root, {cal(number): b"b"})
            fold(root)
        assert not tier.exists()
        stream.seek(0)
        assert stream.read() == before


def test_a_record_that_is_folded_twice_counts_once(root):
    record = commit(root, {cal(): b"a"})
    pending = Journal(root).pending_paths()[0]
    kept = pending.read_bytes()
    fold(root)
    once = registry_content(root)
    pending.write_bytes(kept)
    fold(root)
    assert registry_content(root) == once
    assert generations(root, cal()) == [(1, "current", record.record_id)]


DECLARED = ReleaseStatement(
    release="r0",
    survey=Survey.HLTDS,
    phase=ReleasePhase.BEGUN,
    declaration=sha256(b"declaration"),
    content="declaration",
)
PROPOSAL = Proposal(
    proposal_id="a-proposal",
    change=Change(cause=Cause.CONTEXT, value="roman_0002.pmap"),
    author="an operator",
    reason="better flats",
)
DECISION = Decision(
    proposal_id="a-proposal", verdict=Verdict.APPROVED, author="a scientist", reason="tested"
)


def test_a_rebuilt_registry_has_the_content_of_the_folded_one(root):
    for number in range(6):
        commit(
            root,
            {cal(number % 2 + 1): f"{number}".encode(), association(number): b"{}"},
            failures=(WorkFailure(file_set="x", error="E", message="m"),),
            events={ClockEvent.STARTED: moment(number)},
            attempt=Attempt(attempt_id=f"{number}", outcome=Outcome.FINISHED),
            receipt=ExposureReceipt(detectors=("WFI01", "WFI02")),
            handover=Handover(manifest="m.json", digest=sha256(b"m"), images=number),
            metadata={"ra": 10.0 * number, "dec": -5.0, "survey": "HLTDS"},
            inputs=(ProductInput(name="a_uncal.asdf", sha256=sha256(b"ramp")),),
        )
        if number % 2:
            fold(root)
    commit(root, {}, release=DECLARED, proposal=PROPOSAL, decision=DECISION)
    superseded = commit(root, {association(0): b"prompt"})
    change = change_of(superseded.products[0], superseded.record_id, Transition.SUPERSEDED)
    commit(root, {}, transitions=(change,))
    for number, schema in enumerate(archive_catalog().schemas, start=1):
        values = dict.fromkeys(schema.paths, "too long for any column of rad" * 200)
        commit(root, {cal(number + 10): b"a"}, **archived(schema.name, values))
    fold(root)
    folded = registry_content(root)
    assert all(folded.values()), "the test must cover every table"
    shutil.rmtree(root.path / "scratch")
    rebuild(root)
    assert registry_content(root) == folded


@pytest.mark.parametrize("lost", [("tier",), ("snapshot",), ("tier", "snapshot")])
def test_a_lost_database_comes_back_from_the_records(root, lost):
    commit(root, {cal(): b"a"})
    fold(root)
    content = registry_content(root)
    paths = {"tier": tiers(root)[0], "snapshot": root.registry / SNAPSHOT}
    for name in lost:
        paths[name].unlink()
    commit(root, {cal(2): b"b"})
    fold(root)
    assert set(Registry(root).products.find()["name"]) == {cal(1), cal(2)}
    assert set(content["products"]) <= set(registry_content(root)["products"])


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000])
@pytest.mark.parametrize("place", ["tier", "snapshot"])
def test_a_damaged_database_is_made_again_from_the_records(root, garbage, place):
    commit(root, {cal(): b"a"})
    fold(root)
    content = registry_content(root)
    damage({"tier": tiers(root)[0], "snapshot": root.registry / SNAPSHOT}[place], garbage)
    Journal(root).write(record_of(root, {}))
    fold(root)
    assert registry_content(root)["products"] == content["products"]


@pytest.mark.parametrize("place", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_database_damaged_anywhere_is_made_again_when_it_shows(root, place):
    commit(root, {cal(number): b"a" for number in range(1, 50)})
    fold(root)
    (path,) = tiers(root)
    content = bytearray(path.read_bytes())
    start = int(len(content) * place)
    content[start : start + 4096] = bytes(4096)
    damage(path, content)
    commit(root, {cal(50): b"b"})
    fold(root)
    assert len(Registry(root).products.find()) == 50
    rebuild(root)
    assert len(Registry(root).products.find()) == 50


def test_a_tier_that_another_program_writes_to_is_named_and_kept(root, monkeypatch):
    commit(root, {cal(1): b"a"})
    fold(root)
    monkeypatch.setattr(new_tier_module, "FULL", 1)
    (path,) = tiers(root)
    path.chmod(0o644)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    commit(root, {cal(2): b"b"})
    with pytest.raises(PassingFaultError, match=f"another program.*{path.name}.*close it"):
        fold(root)
    assert tiers(root) == [path]
    holder.communicate()
    fold(root)
    assert set(Registry(root).products.find()["name"]) == {cal(1), cal(2)}


_HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_registry_of_another_schema_is_made_again_from_the_records(root):
    commit(root, {cal(): b"a"})
    fold(root)
    (before,) = tiers(root)
    content = json.loads((root.registry / SNAPSHOT).read_text())
    (root.registry / SNAPSHOT).write_text(json.dumps(content | {"schema": "another"}))
    commit(root, {cal(2): b"b"})
    assert fold(root).records == 1
    assert before not in tiers(root)
    assert set(Registry(root).products.find()["name"]) == {cal(1), cal(2)}


def test_a_damaged_line_of_a_segment_is_set_aside_by_a_rebuild_and_the_rest_is_kept(root):
    for number in (1, 2, 3):
        commit(root, {cal(number): b"a"}, committed_at=moment(number))
    fold(root)
    (segment,) = Journal(root).segments()
    segment.write_bytes(segment.read_bytes().replace(cal(2).encode(), cal(4).encode()))
    report = rebuild(root)
    (case,) = SetAside(root).list()
    assert report.damaged == (case.path,)
    assert case.field == "line 2"
    assert set(Registry(root).products.find()["name"]) == {cal(1), cal(3)}


def test_a_product_whose_file_is_lost_is_named_and_the_others_are_shown(root):
    record = commit(root, {cal(1): b"a", cal(2): b"b"})
    FileArchive(root).blob(record.products[0].sha256).unlink()
    assert fold(root).unshown == {cal(1): "its blob is missing"}
    assert public_content(root) == {cal(2): b"b"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ra": 10, "dec": 95.0},
        {"ra": -10.0, "dec": 5.0, "radius": 0.1},
        {"ra": "east", "nexposures": "two", "start_time": "yesterday"},
        {"survey": {"nested": [1]}, "cal_step": "text", "unheard_of": None},
        {"note": "quotes ' and \" and \x01 and \n and \u2028"},
    ],
)
def test_odd_metadata_of_a_product_stop_no_fold(root, metadata):
    commit(root, {cal(1): b"a"}, metadata=metadata)
    commit(root, {cal(2): b"b"})
    assert fold(root).damaged == ()
    assert set(Registry(root).generations.current([cal(1), cal(2)])) == {cal(1), cal(2)}


class Killed(BaseException):
    """Stands for the end of the process at this place."""


PLACES = ["apply_records", "_link", "publish_snapshot", "_unlink"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_a_fold_that_died_is_finished_by_the_next(root, monkeypatch, place, when):
    commit(root, {cal(): b"old", cal(2): b"other"}, committed_at=moment(0))
    fold(root)
    commit(root, {cal(): b"new"}, committed_at=moment(1))
    whole = getattr(fold_module, place)
    monkeypatch.setattr(new_tier_module, "FULL", 1)

    def dying(*arguments, **options):
        if when == "after":
            whole(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fold_module, place, dying)
        with pytest.raises(Killed):
            fold(root)

    assert set(Registry(root).products.find()["name"]) == {cal(), cal(2)}
    fold(root)
    assert public_content(root) == {cal(): b"new", cal(2): b"other"}
    folded = registry_content(root)
    assert [row[0] for row in folded["records"]] == list(
        dict.fromkeys(row[0] for row in folded["records"])
    )
    rebuild(root)
    assert registry_content(root) == folded


@settings(max_examples=10, deadline=None)
@given(names=st.lists(official_names, min_size=1, max_size=40, unique=True))
def test_the_registry_takes_names_apart_as_the_grammar_does(tmp_path_factory, names):
    root = DataRoot(tmp_path_factory.mktemp("data"))
    commit(root, {str(name): b"" for name in names})
    fold(root)
    frame = Registry(root).products.find().set_index("name")
    found = {name: frame.loc[str(name)].where(frame.loc[str(name)].notna(), None) for name in names}
    for name, row in found.items():
        assert expected_identity(name) == {
            column: row[column] for column in expected_identity(name)
        }


def expected_identity(name: ProductName):
    file_set = name.file_set
    detector, skycell = getattr(file_set, "detector", None), getattr(file_set, "skycell", None)
    visit = name.visit
    return {
        "kind": name.kind.name,
        "level": name.level,
        "file_set": str(file_set),
        "exposure": None if name.exposure is None else str(name.exposure),
        "visit": None if visit is None else str(visit),
        "program": name.exposure.visit.program if name.exposure else file_set.program,
        "optical_element": file_set.optical_element,
        "detector": detector,
        "skycell": skycell,
        "release": getattr(file_set, "release", "p"),
    }
