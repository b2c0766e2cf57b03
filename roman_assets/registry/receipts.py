"""What is in of exposures, their clock events, and what the SSC was told."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import INTAKE_STEPS, Step
from roman_assets.records.record import ExposureReceipt, ProductTransition
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import of_partitions

_INTAKES = str(tuple(step.value for step in INTAKE_STEPS))


@dataclass(frozen=True)
class ToldSsc:
    """What the SSC was told last of an exposure or visit (R12).

    Parameters
    ----------
    manifest
        Where the manifest is in the exchange with the SSC.
    digest
        Identifies what it says.
    images
        Number of L2 images.
    handed_over
        When (UTC).
    """

    manifest: str
    digest: str
    images: int
    handed_over: datetime


class Receipts:
    """Receipts and hand-overs, with their times.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot

    def events(self, partition: str, step: Step | None = None) -> dict[ClockEvent, datetime]:
        """Return the clock events of an exposure or visit, UTC; the newest statement counts.

        Parameters
        ----------
        partition
            The exposure or visit.
        step
            Only what this step recorded (``started`` and ``finished`` differ by step).
        """
        return self.events_of([partition], step).get(partition, {})

    def events_of(
        self, partitions: Iterable[str], step: Step | None = None
    ) -> dict[str, dict[ClockEvent, datetime]]:
        """Return the clock events of several; those without any are absent."""
        rows = self._snapshot.rows(
            'select "partition", event, arg_max(time, (committed_at, record_id)) as time '
            f"from events where {of_partitions('partitions')} "
            'and ($step is null or step = $step) group by "partition", event order by all',
            {"partitions": list(partitions), "step": None if step is None else step.value},
        )
        found: dict[str, dict[ClockEvent, datetime]] = {}
        for row in rows:
            moment = row["time"].astimezone(UTC)
            found.setdefault(row["partition"], {})[ClockEvent(row["event"])] = moment
        return found

    def newest(
        self, exposures: Iterable[str]
    ) -> dict[str, tuple[ExposureReceipt, dict[ClockEvent, datetime]]]:
        """Return what is known and in of exposures, with its moments (UTC); the newest counts."""
        fields = tuple(ExposureReceipt.model_fields)
        rows = self._snapshot.rows(
            f"""
            with newest as (
                select record_id, "partition", {", ".join(fields)} from receipts
                where {of_partitions("exposures")}
                qualify row_number() over (
                    partition by "partition" order by committed_at desc, record_id desc) = 1
            ), moments as (
                select record_id, map_from_entries(list((event, time))) as events
                from events semi join newest using (record_id)
                where {of_partitions("exposures")} group by record_id
            )
            select newest.*, events from newest left join moments using (record_id)
            """,
            {"exposures": sorted(set(exposures))},
        )
        return {
            row["partition"]: (
                ExposureReceipt(
                    **{field: row[field] for field in fields if row[field] is not None}
                ),
                {
                    ClockEvent(event): moment.astimezone(UTC)
                    for event, moment in (row["events"] or {}).items()
                },
            )
            for row in rows
        }

    def contradicted_by(
        self, receipts: Mapping[str, ExposureReceipt]
    ) -> tuple[ProductTransition, ...]:
        """Return the withdrawal of available products that contradict the newest executed visit."""
        from roman_assets.registry.search.contradiction import contradicted_by

        def ask(sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in self._snapshot.rows(sql, parameters)]

        return tuple(one.change for one in contradicted_by(ask, receipts))

    def handovers(self, partitions: Iterable[str]) -> dict[str, ToldSsc]:
        """Return what the SSC was told last of exposures and visits (R12); others are absent."""
        rows = self._snapshot.rows(
            f"""
            select "partition", manifest, digest, images, handed_over from handovers
            where {of_partitions("partitions")}
            qualify row_number() over (
                partition by "partition" order by committed_at desc, record_id desc) = 1
            """,
            {"partitions": sorted(set(partitions))},
        )
        return {
            row.pop("partition"): ToldSsc(
                **{**row, "handed_over": row["handed_over"].astimezone(UTC)}
            )
            for row in rows
        }

    def unanswered_handovers(
        self, partitions: Iterable[str] | None = None, limit: int | None = None
    ) -> dict[str, ToldSsc]:
        """Return the hand-overs after which the SSC has delivered nothing yet (R12).

        Parameters
        ----------
        partitions
            Only of these.
        limit
            At most so many, those that wait longest.
        """
        rows = self._snapshot.rows(
            f"""
            select "partition" from (
                select "partition", max(handed_over) as handed_over from handovers
                where $partitions is null or list_contains($partitions::varchar[], "partition")
                group by "partition"
            ) told anti join (
                select "partition", committed_at from products where step in {_INTAKES}
            ) made on made."partition" = told."partition" and committed_at > handed_over
            order by handed_over limit $limit
            """,
            {"partitions": None if partitions is None else list(partitions), "limit": limit},
        )
        return self.handovers(row["partition"] for row in rows)
