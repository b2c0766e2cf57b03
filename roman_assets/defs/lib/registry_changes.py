"""Which exposures and visits have commit records that a sensor has not looked at.

It spares work and decides nothing: after a restart everything counts as changed. Nothing is missed
either: records may become visible in another order than they were committed, so each look goes back
by `OVERLAP`, and the number of all older records tells whether one has come in behind it. A record
counts as new by its name, whatever the clock of the machine that wrote it said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.memory import Remembered

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
class RegistryChanges(Remembered):
    """What has changed in the registry of an installation between two looks.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    _since: datetime | None = None
    _older: int = 0
    _seen: set[str] = field(default_factory=set)

    @cached_property
    def registry(self) -> Registry:
        """The registry, kept open: a look when nothing has changed opens nothing."""
        from roman_assets.registry.registry import Registry

        return Registry(self.root)

    def look(self, now: datetime) -> Changed:
        """Return what has changed since the last look.

        Parameters
        ----------
        now
            UTC.
        """
        registry = self.registry
        if self._since is not None and registry.work.count_records(self._since) != self._older:
            self._since = None
        latest = registry.work.latest_commit()
        boundary = min(latest or now, now) - OVERLAP
        # counted before the records are read: one that comes in between is noticed the next time
        older = registry.work.count_records(boundary)
        everything = self._since is None
        recent = registry.work.recent_records(boundary if self._since is None else self._since)
        if everything:
            changed = list(registry.work.newest_by_partition()["partition"])
        else:
            changed = list(
                dict.fromkeys(recent["partition"][~recent["record_id"].isin(self._seen)])
            )
        self._seen = set(recent["record_id"][recent["committed_at"] >= boundary])
        self._since, self._older = boundary, older
        return Changed(changed, everything)
