"""What can happen to products that people want to hear of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from roman_assets.products.kind import Level
from roman_assets.products.observation import Survey


class ArrivalEvent(StrEnum):
    """What happened to products."""

    NEW = "new"
    REPROCESSED = "reprocessed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Interest:
    """What someone wants to hear of; None is anything.

    Parameters
    ----------
    program
        Program number.
    survey
        Survey.
    level
        Level of the products.
    events
        What happened to them.
    """

    program: int | None = None
    survey: Survey | None = None
    level: Level | None = None
    events: frozenset[ArrivalEvent] = field(default=frozenset(ArrivalEvent))
