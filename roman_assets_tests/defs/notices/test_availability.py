from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance, build_sensor_context

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.notices import sensors as availability
from roman_assets.defs.notices.sensors import (
    EventCursor,
    Notice,
    NoticeFile,
    availability_sensor,
    build_availability_sensor,
    post_news,
    post_quality,
)
from roman_assets.products.lifecycle import Quality
from roman_assets.upkeep.quality import Grade, grade, withdraw
from roman_assets_tests.support.sky import exposure_key
from roman_assets_tests.support.small_products import cal, commit_names, skycell_set

FIRST, SECOND = exposure_key(1), exposure_key(2)
NOW = 1.8e9


@dataclass
class Board:
    notices: list[Notice] = field(default_factory=list)
    fails_at: int | None = None

    def post(self, notice: Notice) -> None:
        if self.fails_at == len(self.notices):
            raise OSError("the consumer is away")
        self.notices.append(notice)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(notice.asset, notice.partition) for notice in self.notices]


def report(
    instance: DagsterInstance,
    partition: str,
    asset: str = "cal",
    content: str = "first",
    reused: bool = False,
) -> None:
    instance.report_runless_asset_event(
        AssetMaterialization(
            AssetKey(asset),
            partition=partition,
            metadata={"reused": reused, "products": [{"name": f"{partition}_{asset}"}]},
            tags={DATA_VERSION_TAG: content},
        )
    )


def test_every_partition_of_one_tick_is_told_in_order(instance: DagsterInstance) -> None:
    for partition in (SECOND, FIRST):
        report(instance, partition)
    board = Board()
    posted, _ = post_news(instance, board, None, NOW)
    assert posted == 2
    assert board.told == [("cal", SECOND), ("cal", FIRST)]


def test_nothing_is_told_twice(instance: DagsterInstance) -> None:
    report(instance, FIRST)
    board = Board()
    _, cursor = post_news(instance, board, None, NOW)
    report(instance, SECOND)
    _, cursor = post_news(instance, board, cursor, NOW)
    post_news(instance, board, cursor, NOW)
    assert board.told == [("cal", FIRST), ("cal", SECOND)]


def test_an_overwritten_product_is_told_again(instance: DagsterInstance) -> None:
    report(instance, FIRST)
    report(instance, FIRST)
    board = Board()
    post_news(instance, board, None, NOW)
    assert board.told == [("cal", FIRST)] * 2


def test_a_product_found_unchanged_is_no_news(instance: DagsterInstance) -> None:
    report(instance, FIRST)
    report(instance, FIRST, reused=True)
    board = Board()
    post_news(instance, board, None, NOW)
    assert board.told == [("cal", FIRST)]


def test_what_a_killed_run_made_is_told_when_the_next_finds_it(
    instance: DagsterInstance,
) -> None:
    report(instance, FIRST, content="before")
    report(instance, FIRST, content="of the killed run", reused=True)
    report(instance, SECOND, reused=True)
    board = Board()
    post_news(instance, board, None, NOW)
    assert board.told == [("cal", FIRST), ("cal", FIRST), ("cal", SECOND)]


def test_only_l2_and_l4_are_told(instance: DagsterInstance) -> None:
    for asset in ("uncal", "cal", "supplement", "exposure_catalog", "coadd", "visit_catalog"):
        report(instance, FIRST, asset)
    board = Board()
    post_news(instance, board, None, NOW)
    assert {asset for asset, _ in board.told} == {"cal", "exposure_catalog", "visit_catalog"}


def test_a_backlog_is_told_over_several_ticks(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "EVENTS_PER_TICK", 2)
    keys = [exposure_key(number) for number in range(1, 6)]
    for key in keys:
        report(instance, key)
    board, cursor = Board(), None
    for _ in range(3):
        _, cursor = post_news(instance, board, cursor, NOW)
    assert [partition for _, partition in board.told] == keys


def test_a_crash_of_the_consumer_loses_nothing(instance: DagsterInstance) -> None:
    for partition in (FIRST, SECOND):
        report(instance, partition)
    board = Board(fails_at=1)
    with pytest.raises(OSError, match="away"):
        post_news(instance, board, None, NOW)
    board.fails_at = None
    post_news(instance, board, None, NOW)
    assert board.told == [("cal", FIRST), ("cal", FIRST), ("cal", SECOND)]
    assert board.notices[0].notice_id == board.notices[1].notice_id


def test_an_event_that_shows_up_out_of_order_is_not_lost(instance: DagsterInstance) -> None:
    for partition in (FIRST, SECOND):
        report(instance, partition)
    newest = instance.fetch_materializations(AssetKey("cal"), limit=1).records[0]
    seen_early = json.dumps({"cal": {"settled": 0, "done": [newest.storage_id]}})
    board = Board()
    post_news(instance, board, seen_early, newest.timestamp)
    assert board.told == [("cal", FIRST)]


def test_the_cursor_does_not_grow_for_ever() -> None:
    cursor = EventCursor(3, {4, 5, 9})
    cursor.settle({4: 0.0, 5: 100.0, 9: 1000.0}, now=1000.0)
    assert (cursor.settled, cursor.done) == (5, {9})


def test_the_sensor_writes_notices_that_name_the_products(
    instance: DagsterInstance, root: DataRoot
) -> None:
    report(instance, FIRST)
    context = build_sensor_context(
        instance=instance, resources={"installation": Installation(data_root=str(root.path))}
    )
    availability_sensor(context)
    (line,) = NoticeFile.of(root).path.read_text().splitlines()
    notice = json.loads(line)
    assert notice["partition"] == FIRST
    assert notice["products"] == [{"name": f"{FIRST}_cal"}]


def test_a_copy_of_the_sensor_tells_its_own_consumer(
    instance: DagsterInstance, root: DataRoot
) -> None:
    board = Board()
    own = build_availability_sensor("transients", board_of=lambda root: board)
    report(instance, FIRST)
    context = build_sensor_context(
        instance=instance, resources={"installation": Installation(data_root=str(root.path))}
    )
    own(context)
    assert board.told == [("cal", FIRST)]


def test_a_line_torn_by_a_crash_spoils_no_other(root: DataRoot) -> None:
    board = NoticeFile.of(root)
    notice = Notice("id", "cal", FIRST, "2027-01-01T00:00:00+00:00", ())
    board.post(notice)
    with board.path.open("ab") as stream:
        stream.write(b'{"notice_id": "to')
    board.post(notice)
    first, _torn, last = board.path.read_text().splitlines()
    assert first == last


def test_consumers_are_told_once_of_each_grade_and_withdrawal(tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    commit_names(root, [cal(1), cal(2)])
    commit_names(root, skycell_set(1, "r0"), access=Role.OPERATIONS)
    board, cursor = Board(), None

    def look() -> list[tuple[str, str, bool]]:
        nonlocal cursor
        board.notices.clear()
        _, cursor = post_quality(root, board, cursor, cursor or "{}")
        return [
            (one["name"], one["quality"], one["withdrawn"])
            for notice in board.notices
            for one in notice.products
        ]

    assert look() == []
    grade(root, [cal(1), skycell_set(1, "r0")[1]], Grade(Quality.SUSPECT, "a flare", "A. Person"))
    assert look() == [(cal(1), "SUSPECT", False)], "what nobody sees is not told"
    withdraw(root, [cal(2)], reason="wrong target", author="A. Person")
    assert look() == [(cal(2), "BAD", True)]
    assert look() == []
