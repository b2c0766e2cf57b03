"""The retention sweep: superseded prompt L3 and their L4 go after a set time (R13, R14).

A file set is due when its coadd, or what leads it of the SSC's products, has been superseded for
the period of its survey, and data releases have products in its place: coadds of the same skycell
and optical element, and each kind of the SSC of the same detector, made from all exposures of the
visit that it was made from. So no sweep takes the only L3 of an exposure. The file set goes as a
whole by one commit record, which leaves the records of its products to be cited; `collect_blobs`
then frees what no product needs any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.lifecycle import Transition
from roman_assets.products.retention_policy import RetentionPeriods
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.settings.retention_settings import retention_periods_of
from roman_assets.upkeep.retention import commit_transitions, transitions_of

CAUSE = "retention"
FILE_SETS_A_RECORD = 2_500
"""A line of the journal stays small against what a fold reads at once."""

_LEADERS = [kind.name for kind in KIND_BY_NAME.values() if kind.follows is None]


@dataclass(frozen=True)
class Superseded:
    """The file sets that releases have superseded, and when they are to go.

    Parameters
    ----------
    now
        The time it was made for, UTC.
    products
        Their available products: the columns of `Generations.superseded_sets`, and ``remove_at``
        (UTC), the same for all of a file set.
    """

    now: datetime
    products: pd.DataFrame

    @classmethod
    def of(
        cls, root: DataRoot, now: datetime, periods: RetentionPeriods | None = None
    ) -> Superseded:
        """Ask the registry.

        Parameters
        ----------
        root
            The installation.
        now
            The present time, UTC.
        periods
            How long they stay; by default as the installation is set.
        """
        chosen = retention_periods_of(root) if periods is None else periods
        Engine(root).fold()
        with Registry(root) as registry:
            products = registry.generations.superseded_sets()
        return cls(now, _with_removal(products, chosen))

    @property
    def due(self) -> pd.DataFrame:
        """Those whose time has come, and whose exposures are in products of releases."""
        return self.products[self._is_over & self.products["replaced"]]

    @property
    def held(self) -> pd.DataFrame:
        """Those whose time has come, which stay as a release is missing an exposure of theirs."""
        return self.products[self._is_over & ~self.products["replaced"]]

    @property
    def waiting(self) -> pd.DataFrame:
        """Those whose time will come."""
        return self.products[~self._is_over]

    @property
    def _is_over(self) -> pd.Series:
        return self.products["remove_at"] <= self.now


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed.

    Parameters
    ----------
    products
        Their number.
    size
        Of their files, bytes.
    record_ids
        The commit records.
    """

    products: int = 0
    size: int = 0
    record_ids: tuple[str, ...] = ()


def sweep(
    root: DataRoot, *, clock: Clock = utc_now, periods: RetentionPeriods | None = None
) -> SweepReport:
    """Remove the superseded products whose time has come, file set by file set (R13, R14).

    What is published meanwhile is not touched. Killed at any moment, the next sweep does the rest.

    Parameters
    ----------
    root
        The installation.
    clock
        Gives the time.
    periods
        How long superseded products stay; by default as the installation is set.

    Raises
    ------
    BadInputError
        If the settings file cannot be used.
    PassingFaultError
        If the disk is full.
    """
    due = Superseded.of(root, clock(), periods).due
    records = []
    for part in _parts(due):
        transitions = tuple(
            change
            for release, products in part.groupby("removed_for", sort=True)
            for change in transitions_of(
                products,
                Transition.REMOVED,
                f"its time after it was superseded by {release} is over (R13)",
                CAUSE,
            )
        )
        records.append(commit_transitions(root, transitions, clock))
    return SweepReport(len(due), int(due["size"].sum()), tuple(records))


def _with_removal(products: pd.DataFrame, periods: RetentionPeriods) -> pd.DataFrame:
    """Return when the file set of each product goes: when what leads it does, if it has that."""
    leads = products["kind"].isin(_LEADERS)
    has_leader = products["file_set"].isin(products.loc[leads, "file_set"])
    decisive = products[leads | ~has_leader].dropna(subset="superseded_at")
    stay = pd.to_timedelta([periods.of(survey) for survey in decisive["survey"]])
    when = pd.DataFrame(
        {
            "file_set": decisive["file_set"],
            "remove_at": decisive["superseded_at"] + stay,
            "removed_for": decisive["superseded_by"],
        }
    )
    return products.merge(when.groupby("file_set", as_index=False).max(), on="file_set")


def _parts(products: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Part products so that no file set is in two parts."""
    number = products.groupby("file_set", sort=False).ngroup()
    yield from (part for _, part in products.groupby(number // FILE_SETS_A_RECORD))
