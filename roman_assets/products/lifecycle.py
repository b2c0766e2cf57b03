"""The table of life cycles: what becomes of a product after it was made (R6, R7, R13, R14).

`roman_assets.products.kind.ProductKind.follows` names the kinds that share the fate of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from roman_assets.products.kind import GROUP_SCOPES, KIND_BY_NAME, ProductKind
from roman_assets.products.name import PROMPT_RELEASE, GroupedFileSet, ProductName


class State(StrEnum):
    """What one generation of a product is now."""

    CURRENT = "current"
    """The archive shows it."""
    SUPERSEDED = "superseded"
    """The archive shows it still; a data release has what takes its place (R13)."""
    OVERWRITTEN = "overwritten"
    """A later generation took its place (R6), or it went with what it was made from (R14)."""
    REMOVED = "removed"
    """It was taken out of the archive (R13)."""
    WITHDRAWN = "withdrawn"
    """The archive shows it no more: the observatory's documents say by now that it was never taken,
    or a person has withdrawn it, who grades it `Quality.BAD` by that."""
    LOST = "lost"
    """Its file is gone or damaged; only reprocessing brings it back."""
    REFUSED = "refused"
    """It was never shown: its versioned name was taken (R13)."""


AVAILABLE = frozenset({State.CURRENT, State.SUPERSEDED})
"""The states in which the archive shows a generation under its official name."""


class Transition(StrEnum):
    """What can happen to a generation."""

    MADE = "made"
    OVERWRITTEN = "overwritten"
    SUPERSEDED = "superseded"
    REMOVED = "removed"
    WITHDRAWN = "withdrawn"
    """A corrected executed visit has another optical element, or no such exposure or detector; or
    a person has withdrawn it."""
    LOST = "lost"
    GRADED = "graded"
    """A person has graded it: its state stays (see `Quality`)."""
    PUBLISHED = "published"
    """What only operators could see is shown to everyone: a data release, all at once (R13)."""


@dataclass(frozen=True)
class Change:
    """What a transition does.

    Parameters
    ----------
    origins
        The states it starts from; from any other it does nothing. None before the product exists.
    state
        The state it leads to.
    """

    origins: frozenset[State] | None
    state: State


CHANGES: Mapping[Transition, Change] = {
    Transition.MADE: Change(None, State.CURRENT),
    Transition.OVERWRITTEN: Change(AVAILABLE, State.OVERWRITTEN),
    Transition.SUPERSEDED: Change(frozenset({State.CURRENT}), State.SUPERSEDED),
    Transition.REMOVED: Change(AVAILABLE, State.REMOVED),
    Transition.WITHDRAWN: Change(AVAILABLE, State.WITHDRAWN),
    Transition.LOST: Change(AVAILABLE, State.LOST),
    Transition.PUBLISHED: Change(frozenset({State.CURRENT}), State.CURRENT),
}
"""Every transition names one generation, so that it never touches a later one.

A grade changes no state and is not in the table. That of a product of one exposure holds for later
generations as well: reprocessing mends no data. That of others holds for its generation.
"""


class Quality(StrEnum):
    """How a person grades a product; ungraded ones have none."""

    OK = "OK"
    """It was looked at, or an earlier grade is taken back."""
    SUSPECT = "SUSPECT"
    """Use it with care. It goes into coadds and releases."""
    BAD = "BAD"
    """Do not use it. It is left out of coadds and releases, and can still be cited."""


@dataclass(frozen=True)
class Lifecycle:
    """One row of the table of life cycles.

    Parameters
    ----------
    description
        One sentence for people.
    kinds
        The kinds of products it holds for.
    versioned
        Whether for those of data releases or for the others.
    transitions
        What can happen to them.
    """

    description: str
    kinds: frozenset[ProductKind]
    versioned: bool
    transitions: frozenset[Transition]


_OF_GROUPS = frozenset(kind for kind in KIND_BY_NAME.values() if kind.scope in GROUP_SCOPES)
_OF_EXPOSURES = frozenset(KIND_BY_NAME.values()) - _OF_GROUPS

LIFECYCLES: tuple[Lifecycle, ...] = (
    Lifecycle(
        "L1, L2 and L4 of L2: only the latest is available, until the next overwrites it "
        "(R6, R7, R14), or a corrected executed visit says that there is no such image.",
        kinds=_OF_EXPOSURES,
        versioned=False,
        transitions=frozenset(
            {
                Transition.MADE,
                Transition.OVERWRITTEN,
                Transition.WITHDRAWN,
                Transition.LOST,
                Transition.GRADED,
            }
        ),
    ),
    Lifecycle(
        "Prompt L3 and their L4: superseded by a data release, and some time later removed "
        "together (R13, R14).",
        kinds=_OF_GROUPS,
        versioned=False,
        transitions=frozenset(Transition) - {Transition.PUBLISHED},
    ),
    Lifecycle(
        "L3 and L4 of a data release: one version for each release, which is shown when the whole "
        "release is published, and stays, unless a person withdraws it (R13).",
        kinds=_OF_GROUPS,
        versioned=True,
        transitions=frozenset(
            {
                Transition.MADE,
                Transition.PUBLISHED,
                Transition.WITHDRAWN,
                Transition.LOST,
                Transition.GRADED,
            }
        ),
    ),
)


def is_versioned(name: ProductName) -> bool:
    """Return whether the name is that of a data release: given once and never overwritten (R13)."""
    return isinstance(name.file_set, GroupedFileSet) and name.file_set.release != PROMPT_RELEASE


def lifecycle_of(name: ProductName) -> Lifecycle:
    """Return the row of the table that holds for a product."""
    versioned = is_versioned(name)
    return next(row for row in LIFECYCLES if name.kind in row.kinds and row.versioned is versioned)


def require_possible(name: ProductName, transition: Transition) -> None:
    """Refuse what does not happen to a product of this name.

    Raises
    ------
    ValueError
        If the life cycle of the product has no such transition.
    """
    lifecycle = lifecycle_of(name)
    if transition not in lifecycle.transitions:
        raise ValueError(f"{name} cannot be {transition}: {lifecycle.description}")
