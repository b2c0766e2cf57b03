"""Which exposures and visits have commit records that a sensor has not looked at.

It spares work and decides nothing: after a restart everything counts as changed. Nothing is missed
either: records may become visible in another order than they were committed, so each look goes back
by `OVERLAP`, and the number of all older records tells whether one has come in behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roman_assets.registry.registry import Registry

OVERLAP = timedelta(minutes=30)


@dataclass(frozen=True)
class Changed:
    """What has changed since the last look.

    Parameters
    ----------
    partitions
        Exposures and visits with new records, the newest first.
    everything
        Whether these are all there are, changed or not.
    """

    partitions: list[str]
    everything: bool


@dataclass
class RegistryChanges:
    """What has changed in a registry between two looks."""

    _since: datetime | None = None
    _older: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def look(self, registry: Registry, now: datetime) -> Changed:
        """Tell what has changed since the last look.

        Parameters
        ----------
        registry
            The registry.
        now
            UTC.
        """
        if self._since is not None and registry.count_records(self._since) != self._older:
            self._since, self._seen = None, {}
        latest = registry.latest_commit()
        boundary = min(latest or now, now) - OVERLAP
        # counted before the records are read: one that comes in between is noticed the next time
        older = registry.count_records(boundary)
        newest = registry.newest_by_partition(self._since)
        changed = [
            key
            for key, record in zip(newest["partition"], newest["record_id"], strict=True)
            if self._seen.get(key) != record
        ]
        everything = self._since is None
        recent = newest[newest["committed_at"] >= boundary]
        self._seen = dict(zip(recent["partition"], recent["record_id"], strict=True))
        self._since, self._older = boundary, older
        return Changed(changed, everything)
