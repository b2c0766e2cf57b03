"""Grading and withdrawing products: a person's word on what may be used, on record.

A grade is a transition that changes no state, so it is folded in its order like everything else
that happens to products. What is withdrawn is graded ``BAD`` by the same record: by that it is told
from what the observatory's documents withdraw, and no routine run remakes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.lifecycle import Quality, State, Transition
from roman_assets.products.name import PROMPT_RELEASE, ProductName
from roman_assets.records.record import ProductTransition, ReleasePhase
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.upkeep.retention import (
    RetentionReport,
    Selection,
    committed,
    transitions_of,
)


@dataclass(frozen=True)
class Grade:
    """A person's word on products.

    Parameters
    ----------
    quality
        How good they are.
    reason
        Why, for people.
    author
        Who says so.
    valid_from, valid_until
        The time of observation that it is about, UTC; None where it has no bound.
    """

    quality: Quality
    reason: str
    author: str
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise BadInputError("grade", "reason", "it is empty", "say why: it stays on record")
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise BadInputError(
                "grade",
                "validity",
                f"it ends at {self.valid_until.isoformat()}, before it begins",
                "give a range that begins before it ends",
            )

    def of(self, generation: pd.Series) -> ProductTransition:
        """State the grade of a generation, a row of the registry."""
        return ProductTransition(
            transition=Transition.GRADED,
            name=generation["name"],
            made_by=generation["record_id"],
            sha256=generation["sha256"],
            reason=self.reason,
            cause=self.author,
            quality=self.quality,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
        )

    def require_overlap(self, generation: pd.Series) -> None:
        """Refuse a product whose observations all lie outside the validity.

        Raises
        ------
        BadInputError
            If so. A product that does not tell its times may be graded.
        """
        start, end = generation["start_time"], generation["end_time"]
        if pd.isna(start) or pd.isna(end):
            return
        early = self.valid_until is not None and start >= self.valid_until
        late = self.valid_from is not None and end < self.valid_from
        if early or late:
            raise BadInputError(
                generation["name"],
                "validity",
                f"it was observed from {start.isoformat()} to {end.isoformat()}",
                "leave it out, or give a range with these observations",
            )


def grade(
    root: DataRoot,
    names: Iterable[str],
    given: Grade,
    *,
    dry_run: bool = False,
    clock: Clock = utc_now,
) -> RetentionReport:
    """Grade products by one commit record.

    The newest generation of each is named. Of products of one exposure the grade holds for later
    generations too, until another one is given; of others for that generation.

    Parameters
    ----------
    root
        The installation.
    names
        Official names of products or of file sets; of the latter all there are.
    given
        The grade.
    dry_run
        Change nothing, only tell.
    clock
        Gives the time that the record states.

    Raises
    ------
    BadInputError
        If a name is unknown, or no observation of a product lies within the validity. Nothing is
        graded then.
    PassingFaultError
        If the disk is full.
    """
    Engine(root).fold()
    with Registry(root) as registry:
        selection = Selection.of(registry, names)
        newest = _newest(selection)
        for _, generation in newest.iterrows():
            given.require_overlap(generation)
        same = newest.apply(lambda row: _is_graded(row, given), axis=1)
        chosen = newest[~same]
        shown = _to_be_shown(registry, chosen) if given.quality is not Quality.BAD else chosen[:0]
    transitions = (
        *(given.of(generation) for _, generation in chosen.iterrows()),
        *transitions_of(shown, Transition.PUBLISHED, given.reason, given.author),
    )
    size = int(chosen["size"].sum())
    untouched = tuple(sorted(newest[same]["name"]))
    report = RetentionReport(transitions, size, untouched)
    return report if dry_run or not transitions else committed(root, report, clock)


def withdraw(
    root: DataRoot,
    names: Iterable[str],
    *,
    reason: str,
    author: str,
    dry_run: bool = False,
    clock: Clock = utc_now,
) -> RetentionReport:
    """Take products out of the archive because they must not be used, and grade them ``BAD``.

    They can still be cited, and no routine run remakes them. With a product goes what follows
    it (R14), with an L1 ramp all of its detector. A versioned name stays taken once everyone has
    seen it. Idempotent.

    Parameters
    ----------
    root
        The installation.
    names
        Official names of products or of file sets.
    reason
        Why, for people; it stays on record.
    author
        Who says so.
    dry_run
        Change nothing, only tell.
    clock
        Gives the time that the record states.

    Raises
    ------
    BadInputError
        If a name is unknown, or is that of a product that stays as long as another one.
    PassingFaultError
        If the disk is full.
    """
    given = Grade(Quality.BAD, reason, author)
    Engine(root).fold()
    with Registry(root) as registry:
        selection = Selection.of(registry, map(_with_all_of_detector, names))
    for name in selection.asked:
        selection.require_allowed(name, Transition.WITHDRAWN)
    affected = selection.affected(Transition.WITHDRAWN)
    transitions = (
        *transitions_of(affected, Transition.WITHDRAWN, reason, author),
        *(given.of(generation) for _, generation in affected.iterrows()),
    )
    size = int(affected["size"].sum())
    untouched = tuple(sorted({str(name) for name in selection.asked} - set(affected["name"])))
    report = RetentionReport(transitions, size, untouched)
    return report if dry_run or not transitions else committed(root, report, clock)


def _newest(selection: Selection) -> pd.DataFrame:
    """Return the newest generation of each product asked for that was ever shown."""
    rows = selection.generations
    mine = rows[rows["name"].isin({str(name) for name in selection.asked})]
    shown = mine[mine["state"] != State.REFUSED]
    return shown.sort_values(["name", "generation"]).groupby("name", as_index=False).tail(1)


def _is_graded(generation: pd.Series, given: Grade) -> bool:
    """Return whether a generation has just this grade."""
    bounds = [
        (None if pd.isna(bound) else bound.to_pydatetime().astimezone(UTC))
        for bound in (generation["quality_from"], generation["quality_until"])
    ]
    return (generation["quality"], generation["quality_reason"], *bounds) == (
        given.quality, given.reason, given.valid_from, given.valid_until,
    )  # fmt: skip


def _to_be_shown(registry: Registry, generations: pd.DataFrame) -> pd.DataFrame:
    """Return the hidden products of published releases that are hidden for their grade alone."""
    published = {
        (statement.release, statement.survey.value)
        for statement, _ in registry.decisions.releases()
        if statement.phase is ReleasePhase.PUBLISHED
    }
    hidden = (
        (generations["release"] != PROMPT_RELEASE)
        & (generations["access"] == Role.OPERATIONS)
        & (generations["state"] == State.CURRENT)
        & (generations["quality"] == Quality.BAD)
    )
    pairs = zip(generations["release"], generations["survey"], strict=True)
    of_published = pd.Series([pair in published for pair in pairs], index=generations.index)
    return generations[hidden & of_published.astype(bool)]


def _with_all_of_detector(text: str) -> str:
    with suppress(ValueError):
        name = ProductName.parse(text)
        if name.kind.name == "uncal":
            return str(name.file_set)
    return text
