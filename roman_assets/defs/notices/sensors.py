"""The ready-made asset sensor: tells a consumer of each new or overwritten L2 and L4 product.

It also tells of each grade that an operator gives, and of what is withdrawn.

To start work of your own (a transient search, say), copy `availability_sensor` with another
`NoticeBoard`, or build one with `build_availability_sensor`. Dagster's own ``@asset_sensor``
hands over only the newest event of a tick and so loses partitions; this one walks through the
events in the order they were stored, from a cursor. `roman_assets.defs.notices.latest_product` is
an example with ``@asset_sensor``, for a consumer who needs only the newest product.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from roman_assets.archive.durability import append_line
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.materialization_metadata import PRODUCTS_METADATA, REUSED_METADATA
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.registry_changes import OVERLAP
from roman_assets.defs.lib.resources import Installation
from roman_assets.products.kind import KINDS, Level
from roman_assets.products.name import ProductName

if TYPE_CHECKING:
    from roman_assets.archive.store import Archive

NOTIFIED_LEVELS = frozenset({Level.L2, Level.L4})
NOTIFIED_ASSETS = tuple(
    dg.AssetKey(kind.name)
    for kind in KINDS
    if kind.level in NOTIFIED_LEVELS and not kind.picture  # one comes with its image
)

EVENTS_PER_TICK = 200
"""Events read of one asset in one tick: a tick stays short, the next one goes on."""

SETTLING_TIME_S = 120.0
"""How long an event may become visible later than one with a higher number.

Databases number events before they are committed, so that numbers may appear out of order.
"""


@dataclass(frozen=True)
class Notice:
    """What a consumer is told: these products are there now.

    Parameters
    ----------
    notice_id
        Unique and the same whenever the notice is repeated: after a crash one may come twice.
    asset
        The product kind.
    partition
        Exposure or visit.
    time
        When the products were reported, UTC, ISO 8601.
    products
        Each with ``name``, ``sha256``, ``size``, ``generation`` and ``path`` (public). In a notice
        of quality also ``quality``, ``reason``, ``valid_from``, ``valid_until`` and ``withdrawn``.
    """

    notice_id: str
    asset: str
    partition: str
    time: str
    products: Sequence[Mapping[str, Any]]


class NoticeBoard(Protocol):
    """Where notices go. Must not return before the notice is safe; may be given one twice."""

    def post(self, notice: Notice) -> None:
        """Hand over one notice."""


@dataclass(frozen=True)
class NoticeFile:
    """A notice board that appends one JSON line for each notice to a file.

    Parameters
    ----------
    path
        The file; made when missing.
    """

    path: Path

    @classmethod
    def of(cls, root: DataRoot) -> NoticeFile:
        """Return the board of an installation, ``notices/availability.jsonl`` below its root."""
        return cls(root.path / "notices" / "availability.jsonl")

    def post(self, notice: Notice) -> None:
        """Append the notice and make it durable; a line torn by a crash stays a line by itself."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, json.dumps(asdict(notice)).encode())


@dataclass
class EventCursor:
    """How far the events of one asset have been handed over.

    Parameters
    ----------
    settled
        All events up to this number are done.
    done
        Events after it that are done as well.
    """

    settled: int = 0
    done: set[int] = field(default_factory=set)

    def settle(self, times: Mapping[int, float], now: float) -> None:
        """Forget single events that are too old for an earlier number still to appear."""
        old = [number for number in self.done if now - times.get(number, now) > SETTLING_TIME_S]
        if old:
            self.settled = max(self.settled, *old)
            self.done = {number for number in self.done if number > self.settled}


def read_cursors(text: str | None) -> dict[dg.AssetKey, EventCursor]:
    """Read the sensor's cursor; without one, everything is told from the beginning."""
    stored = json.loads(text) if text else {}
    return {key: EventCursor(*_fields(stored.get(key.to_user_string()))) for key in NOTIFIED_ASSETS}


def _fields(entry: Mapping[str, Any] | None) -> tuple[int, set[int]]:
    return (entry["settled"], set(entry["done"])) if entry else (0, set())


def write_cursors(cursors: Mapping[dg.AssetKey, EventCursor]) -> str:
    """Write the sensor's cursor."""
    return json.dumps(
        {
            key.to_user_string(): {"settled": cursor.settled, "done": sorted(cursor.done)}
            for key, cursor in cursors.items()
        }
    )


def new_events(
    instance: dg.DagsterInstance, asset: dg.AssetKey, cursor: EventCursor, now: float
) -> Iterator[dg.EventLogRecord]:
    """Yield the materializations not handed over yet, in order, and move the cursor along.

    An event counts as handed over when the next one is asked for.
    """
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, after_storage_id=cursor.settled),
        limit=EVENTS_PER_TICK + len(cursor.done),
        ascending=True,
    ).records
    for record in records:
        if record.storage_id not in cursor.done:
            yield record
            cursor.done.add(record.storage_id)
    cursor.settle({record.storage_id: record.timestamp for record in records}, now)


def is_news(instance: dg.DagsterInstance, record: dg.EventLogRecord) -> bool:
    """Return whether a materialization brought content that was not reported before.

    A rerun reports what it found unchanged as reused. That is news only if the run that made it
    was lost before it could report it.
    """
    materialization = _materialization(record)
    if not _value(materialization, REUSED_METADATA):
        return True
    earlier = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            materialization.asset_key,
            asset_partitions=[materialization.partition or ""],
            before_storage_id=record.storage_id,
        ),
        limit=1,
    ).records
    return not earlier or _version(earlier[0]) != _version(record)


def notice_of(event: dg.EventLogEntry) -> Notice:
    """Make the notice of one materialization; it tells nothing of the run (R1)."""
    materialization = _materialization(event)
    asset = materialization.asset_key.to_user_string()
    told = f"{asset}:{materialization.partition}:{event.run_id}:{_version(event)}"
    return Notice(
        notice_id=hashlib.sha256(told.encode()).hexdigest()[:32],
        asset=asset,
        partition=materialization.partition or "",
        time=datetime.fromtimestamp(event.timestamp, UTC).isoformat(),
        products=_value(materialization, PRODUCTS_METADATA) or (),
    )


def _materialization(event: dg.EventLogRecord | dg.EventLogEntry) -> dg.AssetMaterialization:
    materialization = event.asset_materialization
    if materialization is None:
        raise ValueError(f"not the event of a materialization: {event}")
    return materialization


def _value(materialization: dg.AssetMaterialization, name: str) -> Any:
    entry = materialization.metadata.get(name)
    return None if entry is None else entry.value


def _version(event: dg.EventLogRecord | dg.EventLogEntry) -> str | None:
    return (_materialization(event).tags or {}).get(DATA_VERSION_TAG)


def post_news(
    instance: dg.DagsterInstance, board: NoticeBoard, text: str | None, now: float
) -> tuple[int, str]:
    """Post a notice for each materialization since the cursor that is news.

    Parameters
    ----------
    instance
        Holds the events.
    board
        Where notices go.
    text
        The cursor, None at the first time.
    now
        Seconds since the epoch.

    Returns
    -------
    int
        Notices posted.
    str
        The cursor to keep.
    """
    cursors = read_cursors(text)
    posted = 0
    for asset, cursor in cursors.items():
        for record in new_events(instance, asset, cursor, now):
            if is_news(instance, record):
                board.post(notice_of(record.event_log_entry))
                posted += 1
    return posted, write_cursors(cursors)


def post_quality(
    root: DataRoot, board: NoticeBoard, text: str | None, cursor: str
) -> tuple[int, str]:
    """Post a notice for each grade since the cursor, withdrawals among them.

    Records may become visible in another order than they were committed, so each look goes back by
    `OVERLAP` and leaves out what it has told.

    Parameters
    ----------
    root
        The installation.
    board
        Where notices go.
    text
        The cursor before this look, None at the first time.
    cursor
        The cursor that `post_news` gave.

    Returns
    -------
    int
        Notices posted.
    str
        The cursor to keep.
    """
    from roman_assets.archive.store import Archive
    from roman_assets.registry.registry import Registry

    stored = (json.loads(text) if text else {}).get(_QUALITY, {"since": None, "told": []})
    since = None if stored["since"] is None else datetime.fromisoformat(stored["since"])
    with Registry(root) as registry:
        said = registry.generations.quality_statements(since)
    told, archive = set(stored["told"]), Archive.of(root)
    new = [row for row in said if row["record_id"] not in told]
    for row in new:
        board.post(_quality_notice(archive, row))
    if said:
        since = max(row["committed_at"] for row in said) - OVERLAP
    recent = {row["record_id"] for row in said if since is None or row["committed_at"] >= since}
    kept = {"since": None if since is None else since.isoformat(), "told": sorted(recent)}
    return len(new), json.dumps({**json.loads(cursor), _QUALITY: kept})


_QUALITY = "quality"


def _quality_notice(archive: Archive, row: Mapping[str, Any]) -> Notice:
    identity = f"{_QUALITY}:{row['record_id']}:{row['name']}"
    bounds = {
        bound: None if row[bound] is None else row[bound].astimezone(UTC).isoformat()
        for bound in ("valid_from", "valid_until")
    }
    said = {name: row[name] for name in ("quality", "reason", "withdrawn")}
    product = {name: row[name] for name in ("name", "sha256", "size", "generation")}
    path = archive.location(ProductName.parse(row["name"]))
    return Notice(
        notice_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        asset=row["kind"],
        partition=row["partition"],
        time=row["committed_at"].astimezone(UTC).isoformat(),
        products=({**product, "path": path, **said, **bounds},),
    )


def build_availability_sensor(
    name: str,
    board_of: Callable[[DataRoot], NoticeBoard] = NoticeFile.of,
    minimum_interval_seconds: int = 15,
) -> dg.SensorDefinition:
    """Build a sensor that posts a notice for each new or overwritten L2 and L4 product.

    Parameters
    ----------
    name
        Of the sensor; each has a cursor of its own.
    board_of
        Gives the notice board of a `DataRoot`.
    minimum_interval_seconds
        Between looks.
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells a consumer of each new or overwritten L2 and L4 product, and of grades "
        "that operators give.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> dg.SensorResult | dg.SkipReason:
        board, root = board_of(installation.root), installation.root
        posted, cursor = post_news(
            context.instance, board, context.cursor, datetime.now(UTC).timestamp()
        )
        graded, cursor = post_quality(root, board, context.cursor, cursor)
        context.update_cursor(cursor)
        total = posted + graded
        return dg.SkipReason(f"{total} notices posted" if total else "nothing new")

    return sensor


availability_sensor = build_availability_sensor("availability_sensor")
