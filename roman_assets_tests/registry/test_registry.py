import pickle
import threading

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput, WorkFailure
from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.catalog.schema import search_columns
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import snapshot_reader
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.snapshot import SNAPSHOT
from roman_assets_tests.support.small_products import (
    VISIT,
    association,
    cal,
    commit,
    damage,
    exposure,
    moment,
    record_of,
    sha256,
    tiers,
)


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def names(frame):
    return set(frame["name"])


def test_an_installation_without_products_answers_with_empty_results(root):
    registry = Registry(root)
    assert tuple(registry.products.find().columns) == search_columns(Role.OPERATIONS)
    assert registry.products.find(cone=(10, 20, 1), visit=VISIT).empty
    assert list(registry.products.counts().columns) == [
        "visit", "exposure", "level", "products", "size", "newest",
    ]  # fmt: skip
    assert registry.products.counts().empty
    assert registry.work.partition_state(Step.VISIT).empty
    assert registry.work.latest_records().empty
    assert registry.work.failures().empty
    assert registry.generations.current([cal()]) == {}
    assert registry.work.exposures_of_visit(VISIT) == ()
    assert registry.receipts.events(VISIT) == {}
    assert not root.registry.exists()


def test_the_current_entry_says_all_that_the_record_said(root):
    record = commit(
        root,
        {cal(): b"a"},
        metadata={"survey": "GAS", "ra": 1.5, "something_new": [1, {"a": None}]},
        inputs=(
            ProductInput(name="b_uncal.asdf", sha256=sha256(b"1")),
            ProductInput(name="a_uncal.asdf", sha256=sha256(b"2")),
        ),
        context="roman_0001.pmap",
        software={"romancal": "1.1.0"},
        references={"flat": "roman_wfi_flat_0001.asdf"},
    )
    fold(root)
    entry = Registry(root).generations.current([cal(), cal(2)])[cal()]
    (product,) = record.products
    assert entry.model_dump(include=set(type(product).model_fields)) == product.model_dump()
    assert (entry.generation, entry.committed_at) == (1, record.committed_at)


def test_products_are_found_by_each_fact_and_by_all_together(root):
    commit(
        root,
        {cal(1, 1): b"a", cal(1, 2): b"b", cal(2, 1): b"c"},
        metadata={"survey": "HLWAS", "exposure_type": "WFI_IMAGE"},
    )
    commit(root, {association(1): b"{}"}, step=Step.VISIT, partition=VISIT)
    fold(root)
    find = Registry(root).products.find
    everything = {cal(1, 1), cal(1, 2), cal(2, 1), association(1)}
    cals = everything - {association(1)}
    assert names(find()) == everything
    assert names(find(visit=VISIT)) == everything
    assert names(find(program=10)) == everything
    assert names(find(optical_element=["F158", "F062"])) == everything
    assert names(find(level="L2")) == cals
    assert names(find(kind="cal", survey="HLWAS", exposure_type="WFI_IMAGE")) == cals
    assert names(find(exposure=ExposureId.parse(exposure(1)))) == {cal(1, 1), cal(1, 2)}
    assert names(find(detector="WFI01", step="exposure")) == {cal(1, 1), cal(2, 1)}
    assert names(find(skycell="270p65x01y50", partition=VISIT)) == {association(1)}
    assert names(find(name=(cal(1, 1), "unknown"))) == {cal(1, 1)}
    assert find(level=[]).empty
    assert find(survey="HLTDS").empty


def test_products_are_found_by_patterns_of_names(root):
    commit(root, {cal(1, 1): b"a", cal(1, 2): b"b", cal(2, 1): b"c", association(1): b"{}"})
    commit(root, {cal(1, 1): b"again"})
    fold(root)
    registry = Registry(root)
    everything = sorted([cal(1, 1), cal(1, 2), cal(2, 1), association(1)])
    assert list(registry.products.names()) == everything
    for pattern, expected in {
        "*_wfi01_*": [cal(1, 1), cal(2, 1)],
        "r00010*_cal.asdf": [cal(1, 1), cal(1, 2), cal(2, 1)],
        f"{exposure(1)}*": [cal(1, 1), cal(1, 2)],
        cal(1, 2): [cal(1, 2)],
        f"{exposure(1)}_wfi0?_f158_cal.asd[a-f]": [cal(1, 1), cal(1, 2)],
        "r9*": [],
        "../*": [],
        "' or true --": [],
        "": [],
    }.items():
        assert list(registry.products.names(pattern)) == expected, pattern
        assert list(registry.products.find(pattern=pattern)["name"]) == expected, pattern
    two = registry.products.find(pattern=[association(1), "*_wfi02_*"], optical_element="F158")
    assert names(two) == {association(1), cal(1, 2)}
    assert registry.products.find(pattern=[]).empty


def test_all_generations_keep_what_they_can_be_cited_by(root):
    ramps = [ProductInput(name=f"{n}_uncal.asdf", sha256=sha256(b"%d" % n)) for n in range(3)]
    records = [
        commit(root, {cal(): ramp.sha256.encode()}, committed_at=moment(number), inputs=(ramp,),
               context=f"roman_{number:04d}.pmap", software={"romancal": f"1.{number}"})
        for number, ramp in enumerate(ramps)
    ]  # fmt: skip
    fold(root)
    found = Registry(root, Role.PUBLIC).generations.of([cal(), cal(2)])
    assert found.keys() == {cal()}
    for number, (entry, record) in enumerate(zip(found[cal()], records, strict=True)):
        (product,) = record.products
        assert entry.model_dump(include=set(type(product).model_fields)) == product.model_dump()
        assert (entry.generation, entry.record_id) == (number + 1, record.record_id)
        assert entry.state == ("current" if number == 2 else "overwritten")
    made = Registry(root, Role.PUBLIC).generations.made_from(
        [ramps[0], ProductInput(name="other", sha256=ramps[1].sha256)]
    )
    assert made[ramps[0]] == {(cal(), records[0].record_id)}
    assert [len(products) for products in made.values()] == [1, 0]


def test_products_are_found_by_the_time_of_their_exposure(root):
    for number in (1, 2):
        commit(
            root,
            {cal(number): b"a"},
            metadata={
                "start_time": moment(100 * number).isoformat(),
                "end_time": moment(100 * number + 50).isoformat(),
            },
        )
    fold(root)
    find = Registry(root).products.find
    assert names(find(after=moment(120), before=moment(130))) == {cal(1)}
    assert names(find(after=moment(151))) == {cal(2)}
    assert names(find(before=moment(99))) == set()
    assert names(find(after=moment(0), before=moment(300))) == {cal(1), cal(2)}


def test_only_current_products_are_found_unless_past_ones_are_asked_for(root):
    for number in range(3):
        commit(root, {cal(): b"%d" % number}, committed_at=moment(number))
    fold(root)
    assert list(Registry(root).products.find()["generation"]) == [3]
    assert list(Registry(root).products.find(overwritten=True)["generation"]) == [1, 2, 3]
    assert list(Registry(root).products.find(overwritten=True, limit=2)["generation"]) == [2, 3]


def test_times_are_utc_whatever_the_machine_says(root, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    record = commit(root, {cal(): b"a"}, committed_at=moment(0))
    fold(root)
    (time,) = Registry(root).products.find()["committed_at"]
    assert time == record.committed_at
    assert str(time.tzinfo) == "UTC"


def region(ra, dec, half=0.06):
    corners = SkyCoord(ra, dec, unit="deg").spherical_offsets_by(
        *(np.array(offsets) * SkyCoord(0, 0, unit="deg").ra.unit * half
          for offsets in ([-1, 1, 1, -1], [-1, -1, 1, 1]))
    )  # fmt: skip
    flat = np.stack([corners.ra.deg, corners.dec.deg], axis=-1).ravel()
    return "POLYGON ICRS " + " ".join(f"{value:.9f}" for value in flat)


def place(s_region):
    footprint = Footprint.parse(s_region)
    ra, dec = footprint.centre
    return {"ra": ra, "dec": dec, "radius": footprint.radius, "footprint": s_region}


def test_a_cone_finds_the_products_whose_footprints_it_meets_and_no_others(root):
    random = np.random.default_rng(7)
    centres = [(0.0, 0.0), (359.97, 0.02), (12.0, 89.95), (200.0, -89.99)]
    centres += [(10 + x, 60 + y) for x, y in random.uniform(-1, 1, (60, 2))]
    regions = [region(*centre) for centre in centres]
    for number, s_region in enumerate(regions, start=1):
        Journal(root).write(record_of(root, {cal(number): b""}, metadata=place(s_region)))
    commit(root, {association(): b"{}"})
    fold(root)
    registry = Registry(root)
    for cone in (
        (0, 0, 0.01), (359.99, 0.0, 0.001), (180, 89.99, 0.05), (10, 60, 0.3), (10, 60, 0),
        (100, -90, 0.02), (10.5, 60.5, 1), (50, 50, 0.1), (0, 0, 180),
    ):  # fmt: skip
        expected = {
            cal(number)
            for number, s_region in enumerate(regions, start=1)
            if Footprint.parse(s_region).meets_cone(*cone)
        }
        assert names(registry.products.find(cone=cone)) == expected, cone
    assert len(registry.products.find(cone=(0, 0, 180))) == len(regions)
    assert names(registry.products.find(cone=(0, 0, 0.01), exposure=exposure(1))) == {cal(1)}
    assert len(registry.products.find(cone=(0, 0, 180), limit=5)) == 5


@pytest.mark.parametrize("cone", [(0, 91, 1), (0, 0, -1), (float("nan"), 0, 1), (0, 0, 181)])
def test_a_cone_that_is_not_on_the_sky_is_refused(root, cone):
    with pytest.raises(ValueError, match="not a direction"):
        Registry(root).products.find(cone=cone)


def test_the_exposures_of_a_visit_come_with_their_calibrated_images(root):
    ramp = cal(2).replace("_cal", "_uncal")
    commit(root, {ramp: b"ramp"}, step=Step.FORMATTING, metadata={"nexposures": 3})
    commit(
        root,
        {cal(1, 2): b"b", cal(1, 1): b"a"},
        metadata={"nexposures": 3, "survey": "HLTDS", "exposure_type": "WFI_IMAGE"},
    )
    commit(root, {association(): b"{}"}, step=Step.VISIT)
    fold(root)
    first, second = Registry(root).work.exposures_of_visit(VISIT)
    assert str(first.exposure) == exposure(1)
    assert [entry.name for entry in first.cal] == [cal(1, 1), cal(1, 2)]
    assert first.nexposures == 3
    assert (first.survey, first.exposure_type, first.optical_element) == (
        "HLTDS", "WFI_IMAGE", "F158",
    )  # fmt: skip
    assert (str(second.exposure), second.cal, second.survey) == (exposure(2), (), None)


def test_the_state_of_a_partition_changes_with_its_content_and_counts_its_newest_failures(root):
    failure = WorkFailure(file_set="x", error="E", message="m")
    states = []
    for contents, failures in (
        ({cal(1, 1): b"a"}, (failure, failure)),
        ({cal(1, 2): b"b"}, ()),
        ({}, (failure,)),
        ({cal(1, 2): b"c"}, ()),
    ):
        commit(root, contents, failures=failures, partition=exposure(1))
        fold(root)
        states.append(Registry(root).work.partition_state(Step.EXPOSURE).iloc[0])
    assert [state["partition"] for state in states] == [exposure(1)] * 4
    assert [state["failures"] for state in states] == [2, 0, 1, 0]
    assert [state["products"] for state in states] == [1, 2, 2, 2]
    contents = [state["content"] for state in states]
    assert contents[1] == contents[2]
    assert len(set(contents)) == 3
    assert Registry(root).work.partition_state(Step.VISIT).empty


def test_the_state_can_be_limited_to_partitions_with_recent_records(root):
    for number in (1, 2):
        contents = {cal(number): b"a"}
        commit(root, contents, partition=exposure(number), committed_at=moment(number))
    fold(root)
    states = Registry(root).work.partition_state(Step.EXPOSURE, after=moment(2))
    assert list(states["partition"]) == [exposure(2)]


def test_the_failures_are_those_of_the_latest_attempt(root):
    for messages in (("old", "older"), ("new",)):
        failures = [WorkFailure(file_set="x", error="E", message=text) for text in messages]
        commit(root, {}, failures=failures, partition=exposure(1))
    commit(
        root, {}, failures=[WorkFailure(file_set="y", error="F", message="other")], partition=VISIT
    )
    fold(root)
    assert list(Registry(root).work.failures(exposure(1))["message"]) == ["new"]
    assert set(Registry(root).work.failures()["message"]) == {"new", "other"}


def test_the_newest_statement_of_an_event_counts(root):
    start, received = ClockEvent.STARTED, ClockEvent.ALL_RECEIVED
    commit(root, {}, events={start: moment(1), received: moment(0)}, step=Step.FORMATTING)
    commit(root, {}, events={start: moment(2)}, step=Step.EXPOSURE)
    commit(root, {}, events={start: moment(9)}, partition=exposure(2))
    fold(root)
    registry = Registry(root)
    assert registry.receipts.events(exposure(1)) == {start: moment(2), received: moment(0)}
    assert registry.receipts.events(exposure(1), Step.FORMATTING)[start] == moment(1)


def test_counts_are_of_current_products_only(root):
    for content in (b"12345", b"123"):
        commit(root, {cal(1, 1): content, cal(1, 2): content + b"4"})
    fold(root)
    (row,) = Registry(root).products.counts().to_dict("records")
    assert (row["exposure"], row["level"], row["products"], row["size"]) == (
        exposure(1),
        "L2",
        2,
        7,
    )
    (row,) = Registry(root).products.counts(by=()).to_dict("records")
    assert row["products"] == 2
    with pytest.raises(ValueError, match="cannot count by"):
        Registry(root).products.counts(by=["sha256; drop table products"])


def test_latencies_are_from_the_last_receipt_to_the_commit_of_what_is_available(root):
    received = {ClockEvent.ALL_RECEIVED: moment(0)}
    commit(root, {}, events=received, step=Step.FORMATTING)
    for hours, number in ((0, 1), (1, 1), (2, 2), (3, 3)):
        about = {"metadata": {"survey": "HLTDS"}, "committed_at": moment(3600 * hours)}
        commit(root, {cal(number): b"%d" % hours}, **about)
    commit(root, {cal(4): b"a"}, partition=exposure(4))
    fold(root)
    (row,) = Registry(root).deadlines.latencies(by=["survey", "level"]).to_dict("records")
    assert (row["survey"], row["level"], row["products"]) == ("HLTDS", "L2", 3)
    assert (row["p50_hours"], row["p90_hours"]) == pytest.approx((2.0, 2.8))
    with pytest.raises(ValueError, match="cannot count by"):
        Registry(root).deadlines.latencies(by=["sha256"])


def test_percentiles_of_latencies_count_products_and_not_records(root):
    commit(root, {}, events={ClockEvent.ALL_RECEIVED: moment(0)}, step=Step.FORMATTING)
    about = {"metadata": {"survey": "HLTDS"}}
    commit(root, {cal(1, n): b"%d" % n for n in range(1, 10)}, **about, committed_at=moment(3600))
    commit(root, {cal(1, 10): b"a"}, **about, committed_at=moment(10 * 3600))
    fold(root)
    (row,) = Registry(root).deadlines.latencies(by=["survey"]).to_dict("records")
    hours = np.array([1.0] * 9 + [10.0])
    found = (row["products"], row["p50_hours"], row["p90_hours"], row["p99_hours"])
    assert found == pytest.approx((10, *np.percentile(hours, [50, 90, 99])))


def test_the_newest_records_come_first(root):
    records = [
        commit(root, {cal(number): b""}, committed_at=moment(number)) for number in (1, 2, 3)
    ]
    fold(root)
    latest = Registry(root).work.latest_records(Step.EXPOSURE, limit=2)
    assert list(latest["record_id"]) == [records[2].record_id, records[1].record_id]
    assert list(latest["products"]) == [1, 1]


def test_an_open_registry_sees_what_is_published_later_also_while_another_one_is_open(root):
    early, witness = Registry(root), Registry(root)
    assert early.products.find().empty
    for number in (1, 2, 3):
        commit(root, {cal(number): b"a"})
        fold(root)
        assert len(early.products.find()) == number
    assert len(witness.products.find()) == 3


def test_a_registry_can_be_shared_by_threads(root):
    commit(root, {cal(): b"a"})
    fold(root)
    registry = Registry(root)
    counts: list[int] = []

    def read():
        counts.extend(len(registry.products.find()) for _ in range(10))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 40


def test_a_registry_can_be_sent_to_another_process(root):
    commit(root, {cal(): b"a"})
    fold(root)
    with Registry(root) as registry:
        assert len(registry.products.find()) == 1
        assert len(pickle.loads(pickle.dumps(registry)).products.find()) == 1


@pytest.mark.parametrize("content", [b"", b"garbage" * 5000])
@pytest.mark.parametrize("place", ["snapshot", "tier"])
def test_a_damaged_snapshot_is_named_with_its_remedy(root, place, content):
    commit(root, {cal(): b"a"})
    fold(root)
    damage({"snapshot": root.registry / SNAPSHOT, "tier": tiers(root)[0]}[place], content)
    with pytest.raises(PassingFaultError, match=f"{SNAPSHOT}.*Remedy: rebuild"):
        Registry(root).products.find()


def test_a_look_that_fails_half_way_does_not_keep_its_process_from_looking_again(root, monkeypatch):
    for number in (1, 2):  # the second is among the fresh rows
        commit(root, {cal(number): b"a"})
        fold(root)
    registry = Registry(root)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("roman_assets.registry.store.tiers.create_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.products.find()
    assert len(registry.products.find()) == 2


def test_a_reader_that_comes_too_late_for_a_tier_reads_the_snapshot_again(root, monkeypatch):
    monkeypatch.setattr("roman_assets.registry.store.fold.MOST_BYTES", 0)
    commit(root, {cal(1): b"a"})
    fold(root)
    read = snapshot_reader.read_snapshot

    def slowly(directory):
        snapshot = read(directory)
        for number in (2, 3):
            commit(root, {cal(number): b"b"})
            fold(root)
        monkeypatch.setattr(snapshot_reader, "read_snapshot", read)
        return snapshot

    monkeypatch.setattr(snapshot_reader, "read_snapshot", slowly)
    assert len(Registry(root).products.find()) == 3
