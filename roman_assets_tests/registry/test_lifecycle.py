"""The registry against a dictionary, in any order of publishing, folding, dying and rebuilding."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roman_assets.data_root import DataRoot
from roman_assets.registry import fold as fold_module
from roman_assets.registry.fold import DATABASE, SNAPSHOT, fold, rebuild
from roman_assets.registry.fsck import fsck
from roman_assets.registry.journal import Journal
from roman_assets.registry.record import CommitRecord
from roman_assets.registry.registry import Registry
from roman_assets_tests.registry.installation import (
    cal,
    moment,
    public_content,
    record_of,
    registry_content,
)

NAMES = [cal(1, 1), cal(1, 2), cal(2, 1)]
contents = st.dictionaries(
    st.sampled_from(NAMES), st.binary(min_size=1, max_size=3), min_size=1, max_size=3
)
places = st.sampled_from(["_apply", "_link", "_publish_snapshot"])


class Killed(BaseException):
    """Stands for the end of the process."""


class Lifecycle(RuleBasedStateMachine):
    """The model: all committed records, and those of them that readers must see."""

    def __init__(self) -> None:
        super().__init__()
        self.root = DataRoot(Path(tempfile.mkdtemp()))
        self.records: list[tuple[CommitRecord, dict[str, bytes]]] = []
        self.visible = 0
        self.certain = True

    def teardown(self) -> None:
        self.finish()
        folded = registry_content(self.root)
        rebuild(self.root)
        assert registry_content(self.root) == folded
        assert fsck(self.root) == []
        shutil.rmtree(self.root.path)

    def finish(self) -> None:
        fold(self.root)
        self.visible, self.certain = len(self.records), True
        self.what_is_shown_is_what_was_committed()

    @rule(contents=contents, seconds=st.integers(0, 20))
    def commit(self, contents: dict[str, bytes], seconds: int) -> None:
        record = record_of(self.root, contents, committed_at=moment(seconds))
        Journal(self.root).write(record)
        self.records.append((record, contents))

    @rule()
    def fold(self) -> None:
        fold(self.root)
        self.visible, self.certain = len(self.records), True

    @rule()
    def rebuild(self) -> None:
        rebuild(self.root)
        self.visible, self.certain = len(self.records), True

    @precondition(lambda self: self.visible < len(self.records))
    @rule(place=places, after=st.booleans())
    def die_while_folding(self, place: str, after: bool) -> None:
        whole = getattr(fold_module, place)

        def dying(*arguments: object) -> None:
            if after:
                whole(*arguments)
            raise Killed

        with mock.patch.object(fold_module, place, dying), suppress(Killed):
            fold(self.root)
        self.certain = False

    @precondition(lambda self: self.certain)
    @rule(names=st.sets(st.sampled_from([DATABASE, SNAPSHOT]), min_size=1))
    def lose_a_database(self, names: set[str]) -> None:
        for name in names:
            (self.root.registry / name).unlink(missing_ok=True)
        self.finish()

    @precondition(lambda self: self.certain)
    @invariant()
    def what_is_shown_is_what_was_committed(self) -> None:
        history: dict[str, list[tuple[CommitRecord, bytes]]] = {}
        for record, contents in sorted(
            self.records[: self.visible], key=lambda pair: (pair[0].committed_at, pair[0].record_id)
        ):
            for name, content in contents.items():
                history.setdefault(name, []).append((record, content))

        assert public_content(self.root) == {
            name: generations[-1][1] for name, generations in history.items()
        }
        found = Registry(self.root).find(overwritten=True)
        assert [*zip(found["name"], found["generation"], found["record_id"], strict=True)] == [
            (name, number, record.record_id)
            for name in sorted(history)
            for number, (record, _) in enumerate(history[name], start=1)
        ]
        current = found[found["state"] == "current"]
        assert dict(zip(current["name"], current["generation"], strict=True)) == {
            name: len(generations) for name, generations in history.items()
        }


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
