"""The memory of sensors between looks. A look that fails forgets nothing.

A memory only spares work: without it, everything is compared. So a look works on a copy, and the
copy counts once its results have arrived. Dagster stores a tick's cursor after it has taken over
the results of the tick; each look therefore leaves a mark of its own as the cursor. If the next
tick does not show that mark, the look has failed, or its results were lost on the way, and the next
look starts from where that one did.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError


class Tick(Protocol):
    """The tick in which a look is done."""

    @property
    def cursor(self) -> str | None:
        """The cursor that the last tick left whose results have arrived."""

    def update_cursor(self, cursor: str | None) -> None:
        """Leave another one."""


class Remembered:
    """Base of a sensor's memory of an installation.

    Dicts, sets and lists among the attributes are copied for each look, and attributes that are
    `Remembered` themselves. Their values must be immutable. Other attributes are shared by all
    looks, such as an open registry.
    """

    def copied(self) -> Self:
        """Return a copy that a look may change."""
        copied = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Remembered):
                setattr(copied, name, value.copied())
            elif isinstance(value, dict | set | list):
                setattr(copied, name, copy.copy(value))
        return copied

    def look_failed(self) -> None:
        """Drop shared objects that a failed look may have left half changed."""


_T = TypeVar("_T", bound=Remembered)


@dataclass
class _Place:
    """The memory of one sensor for one installation."""

    counts: Any
    waiting: tuple[str, Any] | None = None
    """The mark of the last look, and its memory."""
    at_work: threading.Lock = field(default_factory=threading.Lock)


class SensorMemory:
    """The memory of all sensors of one process. A restart begins with a new, empty one."""

    def __init__(self) -> None:
        self._places: dict[tuple[object, DataRoot], _Place] = {}
        self._adding = threading.Lock()

    @contextmanager
    def look(
        self,
        tick: Tick,
        kind: Callable[[DataRoot], _T],
        root: DataRoot,
        *,
        hands_over: bool = False,
    ) -> Iterator[_T]:
        """Look with a copy of the memory, which counts once the tick's results have arrived.

        Parameters
        ----------
        tick
            The tick.
        kind
            The class of the memory: each has one for an installation.
        root
            The installation.
        hands_over
            Whether nothing of the look is in the tick's results, so that it counts at its end.

        Raises
        ------
        PassingFaultError
            If the look before is still at work, since Dagster did not wait for its end.
        """
        with self._adding:
            place = self._places.get((kind, root))
            if place is None:
                place = self._places[kind, root] = _Place(kind(root))
        if not place.at_work.acquire(blocking=False):
            raise PassingFaultError("the look before is still at work; a later tick looks again")
        try:
            if place.waiting is not None and place.waiting[0] == tick.cursor:
                place.counts = place.waiting[1]
            place.waiting = None
            remembered: _T = place.counts.copied()
            try:
                yield remembered
            except BaseException:
                place.counts.look_failed()
                raise
            if hands_over:
                place.counts = remembered
                return
            mark = uuid.uuid4().hex
            place.waiting = (mark, remembered)
            tick.update_cursor(mark)
        finally:
            place.at_work.release()
