"""The fold against a simple model, whatever records state, in any order, through crashes.

What the rules of the specification make of products is in ``test_rules``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roman_assets.data_root import DataRoot
from roman_assets.products.lifecycle import (
    AVAILABLE,
    CHANGES,
    State,
    Transition,
    is_versioned,
    lifecycle_of,
)
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.records.record import WHOLE_ARCHIVE, CommitRecord, ProductEntry
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store import compaction as compaction_module
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store import merging as merging_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.registry.store.fresh import MOST_BYTES
from roman_assets.registry.store.merging import merge_due_tiers
from roman_assets.registry.store.snapshot import SNAPSHOT, TIERS
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.retention import remove, supersede
from roman_assets_tests.support.small_products import (
    cal,
    change_of,
    moment,
    public_content,
    record_of,
    registry_content,
    skycell_set,
)

PROMPT, RELEASED = skycell_set(), skycell_set(release="r0")
NAMES = [cal(1, 1), cal(1, 2), *PROMPT, *RELEASED[:1]]
contents = st.dictionaries(
    st.sampled_from(NAMES), st.binary(min_size=1, max_size=3), min_size=1, max_size=4
)
seconds = st.integers(0, 20)
places = st.sampled_from(["apply_records", "_link", "publish_snapshot", "_unlink"])
TRUE_OF_WHAT_WAS_COMMITTED = {FindingKind.PARTIAL_SET, FindingKind.LOST_PRODUCT}
Key = tuple[datetime, str]


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Generation:
    """What the model expects of one generation."""

    record: CommitRecord
    entry: ProductEntry
    content: bytes
    state: State = State.CURRENT
    ended_at: datetime | None = None

    @property
    def key(self) -> Key:
        return key_of(self.record)


def key_of(record: CommitRecord) -> Key:
    return record.committed_at, record.record_id


def histories(records: list[CommitRecord], bytes_of: dict[str, bytes]) -> dict[str, list]:
    """Tell by the table of transitions alone what became of every generation, by name."""
    found: dict[str, list[Generation]] = {}
    for record in sorted(records, key=key_of):
        for entry in record.products:
            found.setdefault(entry.name, []).append(
                Generation(record, entry, bytes_of[entry.sha256])
            )
    for name, generations in found.items():
        for number, generation in enumerate(generations):
            if is_versioned(ProductName.parse(name)):
                if holds_name(generations[:number], generation.key):
                    generation.state = State.REFUSED
                    generation.ended_at = generation.record.committed_at
                    continue
                successors = []
            else:
                successors = generations[number + 1 :]
            live(generation, successors, records)
    return found


def holds_name(earlier: list[Generation], key: Key) -> bool:
    return any(
        # what a person withdrew from everyone's eyes keeps its name
        one.state in (State.REFUSED, State.WITHDRAWN)
        or one.ended_at is None
        or one.ended_at > key[0]
        for one in earlier
    )


def live(generation: Generation, successors: list, records: list[CommitRecord]) -> None:
    happenings = [(other.key, Transition.OVERWRITTEN) for other in successors]
    for record in records:
        happenings += [
            (key_of(record), change.transition)
            for change in record.transitions
            if (change.name, change.made_by) == (generation.entry.name, generation.record.record_id)
        ]
    for (when, _), transition in sorted(happenings):
        change = CHANGES[transition]
        if change.origins is not None and generation.state in change.origins:
            generation.state = change.state
            generation.ended_at = None if change.state in AVAILABLE else when


class Tiering:
    """What the sizes of tiers decide otherwise, drawn at random."""

    def __init__(self) -> None:
        self.merged, self.goes_on = 0, True

    def newest_to_copy(self, root: DataRoot, tiers: Sequence[str]) -> str | None:
        return tiers[0] if tiers and self.goes_on else None

    def due_to_merge(
        self, root: DataRoot, tiers: Sequence[str], largest: int | None
    ) -> tuple[str, ...]:
        number, self.merged = self.merged, 0
        return tuple(tiers[:number]) if number > 1 else ()


def _subjects(record: CommitRecord) -> set[str]:
    """Return what a record is about: its partition, unless it is upkeep, and its products."""
    return {*record.names, record.partition} - {WHOLE_ARCHIVE}


class Lifecycle(RuleBasedStateMachine):
    """The model: all committed records, and how many of them readers must see."""

    def __init__(self) -> None:
        super().__init__()
        self.root = DataRoot(Path(tempfile.mkdtemp()))
        self.records: list[CommitRecord] = []
        self.bytes_of: dict[str, bytes] = {}
        self.tiering = Tiering()
        self.patches = ExitStack()
        for module, decision in (
            (fold_module, "newest_to_copy"),
            (merging_module, "due_to_merge"),
        ):
            patch = mock.patch.object(module, decision, getattr(self.tiering, decision))
            self.patches.enter_context(patch)
        self.patches.enter_context(mock.patch.object(compaction_module, "SORTED_AT_ONCE", 3))
        self.patches.enter_context(mock.patch.object(fold_module, "MOST_BYTES", MOST_BYTES))
        self.visible = 0
        self.certain = True

    def teardown(self) -> None:
        self.finish()
        folded = registry_content(self.root)
        rebuild(self.root)
        assert registry_content(self.root) == folded
        assert {finding.kind for finding in fsck(self.root)} <= TRUE_OF_WHAT_WAS_COMMITTED
        self.patches.close()
        shutil.rmtree(self.root.path)

    def finish(self) -> None:
        fold(self.root)
        self.all_is_visible()
        self.what_is_shown_is_what_was_committed()

    def all_is_visible(self) -> None:
        """Replace commit times by those that the fold has set.

        What is folded later comes later than what it has a partition or a product in common with.
        """
        kept = {record.record_id: record for record in Journal(self.root).records()}
        self.records = [kept[record.record_id] for record in self.records]
        for later in self.records[self.visible :]:
            for before in self.records[: self.visible]:
                if _subjects(before) & _subjects(later):
                    assert before.committed_at < later.committed_at
        self.visible, self.certain = len(self.records), True

    def commit(self, record: CommitRecord) -> None:
        Journal(self.root).write(record)
        self.records.append(record)

    @rule(contents=contents, seconds=seconds)
    def publish(self, contents: dict[str, bytes], seconds: int) -> None:
        record = record_of(self.root, contents, committed_at=moment(seconds))
        for entry in record.products:
            self.bytes_of[entry.sha256] = contents[entry.name]
        self.commit(record)

    @precondition(lambda self: self.bytes_of)
    @rule(
        data=st.data(),
        transition=st.sampled_from(sorted(set(Transition) - {Transition.MADE, Transition.GRADED})),
        seconds=seconds,
    )
    def state(self, data: st.DataObject, transition: Transition, seconds: int) -> None:
        made = [
            (record.record_id, entry)
            for record in self.records
            for entry in record.products
            if transition in lifecycle_of(entry.product_name).transitions
        ]
        if made:
            chosen = data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
            changes = tuple(change_of(entry, made_by, transition) for made_by, entry in chosen)
            self.commit(record_of(self.root, {}, transitions=changes, committed_at=moment(seconds)))

    @precondition(lambda self: self.certain and self.bytes_of)
    @rule(retain=st.sampled_from([remove, supersede]), name=st.sampled_from(PROMPT[1:2]))
    def retain(self, retain, name: str) -> None:
        if any(entry.name == name for record in self.records for entry in record.products):
            before = len(self.records)
            report = retain(self.root, [name], reason="test", cause="test")
            if report.record_id is not None:
                self.records += [
                    record
                    for record in Journal(self.root).records()
                    if record.record_id == report.record_id
                ]
                assert len(self.records) == before + 1
            self.all_is_visible()

    @rule(goes_on=st.booleans())
    def tier(self, goes_on: bool) -> None:
        self.tiering.goes_on = goes_on

    @rule(most=st.sampled_from([0, MOST_BYTES]))
    def keep_fresh_rows(self, most: int) -> None:
        fold_module.MOST_BYTES = most

    @rule(merged=st.integers(2, 3))
    def merge(self, merged: int) -> None:
        self.tiering.merged = merged
        merge_due_tiers(self.root)

    @rule()
    def fold(self) -> None:
        fold(self.root)
        self.all_is_visible()

    @rule()
    def rebuild(self) -> None:
        rebuild(self.root)
        self.all_is_visible()

    @precondition(lambda self: self.visible < len(self.records))
    @rule(place=places, after=st.booleans())
    def die_while_folding(self, place: str, after: bool) -> None:
        whole = getattr(fold_module, place)

        def dying(*arguments: object, **options: object) -> None:
            if after:
                whole(*arguments, **options)
            raise Killed

        with mock.patch.object(fold_module, place, dying), suppress(Killed):
            fold(self.root)
        self.certain = False

    @precondition(lambda self: self.certain)
    @rule(patterns=st.sets(st.sampled_from([f"{TIERS}/*", SNAPSHOT]), min_size=1))
    def lose_databases(self, patterns: set[str]) -> None:
        for path in [path for pattern in patterns for path in self.root.registry.glob(pattern)]:
            path.unlink()
        self.finish()

    @precondition(lambda self: self.certain)
    @invariant()
    def what_is_shown_is_what_was_committed(self) -> None:
        expected = histories(self.records[: self.visible], self.bytes_of)
        assert public_content(self.root) == {
            name: generation.content
            for name, generations in expected.items()
            for generation in generations
            if generation.state in AVAILABLE
        }
        found = Registry(self.root).products.find(overwritten=True)
        ended = found["ended_at"].astype(object).where(found["ended_at"].notna(), None)
        columns = ("name", "generation", "record_id", "state", "sha256")
        assert [*zip(*(found[column] for column in columns), ended, strict=True)] == [
            (name, number, one.record.record_id, one.state, one.entry.sha256, one.ended_at)
            for name in sorted(expected)
            for number, one in enumerate(expected[name], start=1)
        ]


_FEW = settings(
    max_examples=6,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestLifecycle(Lifecycle.TestCase):
    settings = _FEW


@pytest.mark.slow
class TestManyLifecycles(Lifecycle.TestCase):
    settings = settings(_FEW, max_examples=100, stateful_step_count=20)
