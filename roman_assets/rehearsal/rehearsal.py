"""A rehearsal: a plan, what goes wrong with it, what works on it, and what the ledger says then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

import duckdb

from roman_assets.products.deadline import DEADLINES, Deadline
from roman_assets.products.kind import Level, Maker, Step
from roman_assets.products.visit_policy import VisitReserve
from roman_assets.registry.ledger import define_ledger
from roman_assets.rehearsal.facts import VISITS_OF_A_PART, Part, parts, registry_of
from roman_assets.rehearsal.fault import FaultRates, Faults
from roman_assets.rehearsal.ground import Downlink, Receipts, receipts
from roman_assets.rehearsal.planned_work import Observations
from roman_assets.rehearsal.processing import WHOLE_DETECTORS, ProcessingTimes
from roman_assets.rehearsal.replay import Replay, ReplayLog
from roman_assets.rehearsal.run_queue import Platform
from roman_assets.rehearsal.sizing import DeadlineCount, Sizing, fewest_machines
from roman_assets.rehearsal.verdict import add_groups, groups

_A_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Scenario:
    """What is rehearsed, whatever works on it.

    Parameters
    ----------
    observations
        The plan.
    rates
        What goes wrong how often.
    seed
        Decides what goes wrong, and which measured time each piece of work takes.
    downlink
        How data come to the ground.
    times
        How long the steps take.
    deadlines
        When each level is due.
    reserve
        Of the visit policy.
    """

    observations: Observations
    rates: FaultRates = field(default_factory=FaultRates)
    seed: int = 0
    downlink: Downlink = field(default_factory=Downlink)
    times: ProcessingTimes = field(default_factory=lambda: WHOLE_DETECTORS)
    deadlines: Mapping[Level, Deadline] = field(default_factory=lambda: DEADLINES)
    reserve: VisitReserve = field(default_factory=VisitReserve)

    @cached_property
    def faults(self) -> Faults:
        """What goes wrong."""
        return Faults(self.observations, self.rates, self.seed)

    @cached_property
    def receipts(self) -> Receipts:
        """When what is received."""
        return receipts(self.downlink, self.faults)

    def rehearse(self, platform: Platform) -> Rehearsal:
        """Replay the plan on a platform."""
        replay = Replay(
            self.faults,
            self.receipts,
            platform,
            self.times,
            deadlines=self.deadlines,
            reserve=self.reserve,
        )
        return Rehearsal(self, platform, replay.run())

    def fewest_workers(self, platform: Platform) -> Sizing:
        """Search for the fewest machines like those of a platform that keep all deadlines."""
        count = DeadlineCount(self.faults, self.receipts, self.deadlines)

        def kept(machines: int) -> int:
            workers = machines * platform.workers_per_machine
            return count.kept(self.rehearse(replace(platform, workers=workers)).log)

        return fewest_machines(kept, round(self.machines_at_work(platform)))

    def machines_at_work(self, platform: Platform) -> float:
        """Return how many machines are busy on average, if all goes well."""
        observations = self.observations
        workers = platform.workers_per_machine
        work = sum(
            self.times[Step.EXPOSURE].duration(units, workers, 0.5)
            for units in observations.ndetectors.tolist()
        )
        for number, visit in enumerate(observations.visits):
            if visit.kinds:
                cells = observations.skycells_of_visit(number, (1 << len(visit.members)) - 1)
                work += self.times[Step.VISIT].duration(len(cells), workers, 0.5)
        span = float(observations.end.max() - observations.start.min())
        return work / max(span, 86400.0)


@dataclass(frozen=True)
class Rehearsal:
    """One replay of a scenario on a platform.

    Parameters
    ----------
    scenario, platform
        What was replayed on what.
    log
        What happened.
    """

    scenario: Scenario
    platform: Platform
    log: ReplayLog

    @property
    def end(self) -> datetime:
        """The moment (UTC) for which the ledger is read: everything has fallen due."""
        return self.scenario.observations.epoch + timedelta(seconds=self.log.end) + _A_SECOND

    def registry(self, part: Part | None = None) -> duckdb.DuckDBPyConnection:
        """Return the in-memory registry that the rehearsal leaves, with the ledger defined.

        Parameters
        ----------
        part
            Of some visits only; of all by default.
        """
        connection = registry_of(self.log, self.scenario.faults, self.scenario.receipts, part)
        define_ledger(connection, self.scenario.deadlines, frozenset({Maker.SOC}))
        return connection

    def ledger(self, most_visits: int = VISITS_OF_A_PART) -> duckdb.DuckDBPyConnection:
        """Read the ledger, part by part, so that years of a survey fit into memory.

        Parameters
        ----------
        most_visits
            Whose products are rows at a time; the result does not depend on it.

        Returns
        -------
        duckdb.DuckDBPyConnection
            On the rows that `roman_assets.rehearsal.verdict.verdicts` counts.
        """
        found = duckdb.connect()
        for part in parts(self.log, self.scenario.observations, most_visits):
            with self.registry(part) as connection:
                add_groups(found, groups(connection, self.end))
        return found
