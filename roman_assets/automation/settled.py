"""What sensors need not look at again: it spares work and decides nothing.

Without it (after a restart, say) everything is looked at again, with the same conclusions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from roman_assets.data_root import DataRoot

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Settled(Generic[Key]):
    """States in which nothing is to be done, by exposure or visit."""

    _state: dict[tuple[DataRoot, Key], str] = field(default_factory=dict)

    def unsettled(self, root: DataRoot, states: Mapping[Key, str]) -> list[Key]:
        """Give the keys whose state is not the one in which they were settled."""
        return [key for key, state in states.items() if self._state.get((root, key)) != state]

    def settle(self, root: DataRoot, key: Key, state: str) -> None:
        """Note that nothing is to be done while the state stays."""
        self._state[root, key] = state
