"""What people decided: data releases, proposals and their approval (R7, R15)."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from roman_assets.products.observation import VisitId
from roman_assets.records.record import ReleaseStatement
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import OneOrMore, conditions_of


class Decisions:
    """Declarations, proposals and decisions.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot

    def releases(
        self, *, survey: OneOrMore = None, release: OneOrMore = None
    ) -> list[tuple[ReleaseStatement, datetime]]:
        """Return what is stated of data releases and when (UTC), in the order of commit.

        Parameters
        ----------
        survey, release
            Only those of these surveys and identities.
        """
        conditions, parameters = conditions_of({"survey": survey, "release": release})
        rows = self._snapshot.rows(
            f"select * from releases where {' and '.join(conditions) or 'true'} "
            "order by committed_at, record_id",
            parameters,
        )
        return [
            (
                ReleaseStatement(
                    release=row["release"],
                    survey=row["survey"],
                    phase=row["phase"],
                    declaration=row["declaration"],
                    content=row["content"],
                    software=json.loads(row["software"]),
                    exposures=tuple(row["exposures"]),
                ),
                row["committed_at"].astimezone(UTC),
            )
            for row in rows
        ]

    def proposals(self) -> list[dict[str, Any]]:
        """Return all proposals to reprocess, in the order in which they were made (R15).

        Returns
        -------
        list of dict
            What was proposed, ``proposed_at`` (UTC), and of the first decision about it
            ``verdict``, ``decided_by``, ``decision_reason`` and ``decided_at``, None while it is
            open.
        """
        return self._snapshot.rows(
            """
            with first_proposed as (
                select * from proposals qualify row_number() over (
                    partition by proposal_id order by committed_at, record_id) = 1
            ), first_decided as (
                select proposal_id, verdict, author as decided_by, reason as decision_reason,
                    committed_at as decided_at
                from decisions qualify row_number() over (
                    partition by proposal_id order by committed_at, record_id) = 1
            )
            select proposal_id, cause, value, author, reason, exposures, visits, impact,
                committed_at as proposed_at, verdict, decided_by, decision_reason, decided_at
            from first_proposed left join first_decided using (proposal_id)
            order by committed_at, proposal_id
            """,
            {},
        )

    def approvals_of_visits(self, visits: Iterable[VisitId | str]) -> dict[str, dict[str, Any]]:
        """Return the newest approved proposal to reprocess each visit (R15).

        Returns
        -------
        dict
            By visit: ``proposal_id``, ``cause``, ``value`` and ``decided_at`` (UTC); visits that
            none names are absent.
        """
        rows = self._snapshot.rows(
            """
            with decided as (
                select proposal_id, arg_min(verdict, (committed_at, record_id)) as verdict,
                    min(committed_at) as decided_at
                from decisions group by proposal_id
            ), named as (
                select proposal_id, cause, value, decided_at, unnest(visits) as visit
                from proposals join decided using (proposal_id) where verdict = 'approved'
            )
            select * from named where visit in $visits
            qualify row_number() over (partition by visit order by decided_at desc) = 1
            """,
            {"visits": [str(visit) for visit in visits]},
        )
        return {row["visit"]: row for row in rows}
