"""The sensors that watch the deadline ledger: they report checks, send alerts, draw the report.

They compare states: what the ledger says of a level of an exposure or visit with what its check
said last, and with the alerts that were delivered. So they report changes only, miss none, and need
no cursor.

The ledger of many visits is long, and what is done does not change. `DeadlineWatch` asks for those
visits of which the registry has something new, and for those whose products become at risk or
overdue by time alone; it is a memory of the process, and empty after a restart, when the whole
ledger is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.deadlines.alerts import (
    Alert,
    AlertLog,
    DamageAlert,
    Message,
    deliver,
    senders_from_environment,
)
from roman_assets.defs.deadlines.check_reports import ReportedState, report, reported_states
from roman_assets.defs.lib.in_time_check import Standing, evaluation, ledger_rows, standings
from roman_assets.defs.lib.memory import Remembered, SensorMemory
from roman_assets.defs.lib.partitions import PARTITIONS
from roman_assets.defs.lib.registry_changes import RegistryChanges
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.visit.visit_watch import visit_of_key
from roman_assets.errors import PassingFaultError
from roman_assets.products.deadline import Deadline, ProductState
from roman_assets.products.kind import KIND_BY_NAME, Level

VISITS_PER_TICK = 500
"""Largest number of visits compared in one tick."""

REPORTING_BUDGET = timedelta(seconds=10)
"""A tick reports for this long, the most urgent first; the next one goes on."""


@dataclass
class DeadlineWatch(Remembered):
    """How the products of an installation stand against their deadlines.

    Parameters
    ----------
    root
        The installation.
    """

    root: DataRoot
    _not_in_order: dict[tuple[str, str, str], Standing] = field(default_factory=dict)
    _next_look: dict[str, datetime] = field(default_factory=dict)
    _to_look: dict[str, None] = field(default_factory=dict)

    @cached_property
    def _changes(self) -> RegistryChanges:
        return RegistryChanges(self.root)

    @property
    def not_in_order(self) -> list[Standing]:
        """What is late or at risk, as of the last look, the most urgent first."""
        known = self._not_in_order.values()
        return sorted(known, key=lambda one: (one.made is not None, one.margin_hours or 0.0))

    def look(self, now: datetime) -> list[Standing]:
        """Look at the visits of which something may have changed; give how all of them stands."""
        from roman_assets.settings.deadline_settings import deadlines_of

        deadlines = deadlines_of(self.root)
        changed = self._changes.look(now).partitions
        due = [visit for visit, moment in self._next_look.items() if moment <= now]
        new = dict.fromkeys([*(str(visit_of_key(key)) for key in changed), *due])
        self._to_look = new | self._to_look
        visits = list(self._to_look)[:VISITS_PER_TICK]
        registry = self._changes.registry
        rows = ledger_rows(registry.deadlines.groups(visit=visits, now=now)) if visits else []
        for visit in visits:
            del self._to_look[visit]
        self._remember(visits, rows, deadlines)
        found = standings(rows)
        self._not_in_order = {
            key: one for key, one in self._not_in_order.items() if one.visit not in set(visits)
        } | {_key(one): one for one in found if not one.in_order}
        return found

    def _remember(
        self,
        visits: Iterable[str],
        rows: Iterable[Mapping[str, Any]],
        deadlines: Mapping[Level, Deadline],
    ) -> None:
        for visit in visits:
            self._next_look.pop(visit, None)
        for row in rows:
            moment = changes_at(row, deadlines)
            if moment is not None:
                known = self._next_look.get(row["visit"], moment)
                self._next_look[row["visit"]] = min(known, moment)

    @property
    def all_known(self) -> bool:
        """Whether every visit has been looked at since it changed."""
        return not self._to_look

    def alerts(self) -> list[Alert]:
        """Return what people must know as of the last look, the most urgent first."""
        found = self.not_in_order
        failed = [one.partition for one in found if one.state == ProductState.FAILED]
        times = self._failure_times(failed) if failed else {}
        return [
            alert_of(one, times.get((one.partition, one.step.value)))
            if one.state == ProductState.FAILED
            else alert_of(one)
            for one in found
        ]

    def _failure_times(self, partitions: list[str]) -> dict[tuple[str, str], datetime]:
        """Return when the last attempt at each step ended: another failure is another alert."""
        attempts = self._changes.registry.work.attempts(partitions).sort_values("finished")
        ended = attempts[attempts["finished"].notna()]
        return {
            (partition, step): moment.to_pydatetime()
            for partition, step, moment in zip(
                ended["partition"], ended["step"], ended["finished"], strict=True
            )
        }

    def look_again(self, standing: Standing) -> None:
        """Look at its visit at the next tick, whatever happens."""
        self._to_look[standing.visit] = None


class AlertWatch(DeadlineWatch):
    """The same for `alert_sensor`, which looks at other times."""


def _key(standing: Standing) -> tuple[str, str, str]:
    return (standing.partition, standing.step, standing.level)


def changes_at(row: Mapping[str, Any], deadlines: Mapping[Level, Deadline]) -> datetime | None:
    """Return when a row of the ledger changes by time alone (UTC): at risk first, then overdue."""
    if row["made"] is not None or row["due"] is None or (row["margin_hours"] or 0.0) < 0:
        return None
    due: datetime = row["due"]
    warned = row["at_risk"] or row["state"] == ProductState.FAILED
    return due if warned else due - deadlines[KIND_BY_NAME[row["kind"]].due_level].warning


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports the checks in_time of products that are late or at risk and not made.",
)
def deadline_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SensorResult | dg.SkipReason:
    """Report each level whose standing is not the one its check told last."""
    with memory.look(context, DeadlineWatch, installation.root) as watch:
        found = watch.look(datetime.now(UTC))
        news = unreported(context.instance, found)
        if not news:
            return dg.SkipReason(f"{len(watch.not_in_order)} levels late or at risk, all reported")
        reported = report(context.instance, [evaluation(one) for one in news], REPORTING_BUDGET)
        for left in news[reported:]:
            watch.look_again(left)
    return dg.SensorResult(
        dynamic_partitions_requests=partitions_of(news[:reported]),
        skip_reason=dg.SkipReason(f"{reported} of {len(news)} checks reported"),
    )


def unreported(instance: dg.DagsterInstance, found: Iterable[Standing]) -> list[Standing]:
    """Return those whose check says something else, those not in order first.

    Of a level in order nothing is reported here, unless its check says that it is not: the run
    that makes it reports it, and may have been lost before it could.
    """
    known = list(found)
    reported = reported_states(instance, {(one.check, one.partition) for one in known})
    news = []
    for one in known:
        said = reported.get((one.check, one.partition), ReportedState(passed=True))
        told = (one.state, one.blame) == (said.state, said.blame)
        if one.in_order != said.passed or (not one.in_order and not told):
            news.append(one)
    return sorted(news, key=lambda one: (one.in_order, one.margin_hours or 0.0))


def partitions_of(told: Iterable[Standing]) -> list[dg.AddDynamicPartitionsRequest]:
    """Ask for the keys of exposures and visits that have a verdict and were never requested."""
    keys: dict[str, tuple[dg.DynamicPartitionsDefinition, set[str]]] = {}
    for one in told:
        definition = PARTITIONS[one.step]
        keys.setdefault(str(definition.name), (definition, set()))[1].add(one.partition)
    return [definition.build_add_request(sorted(new)) for definition, new in keys.values()]


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends alerts of products that are late or at risk, and of damage to the registry, "
    "by mail or to a webhook.",
)
def alert_sensor(
    context: dg.SensorEvaluationContext,
    installation: dg.ResourceParam[Installation],
    memory: dg.ResourceParam[SensorMemory],
) -> dg.SkipReason:
    """Deliver what holds now and was not delivered yet, in one message for each sender."""
    setup = senders_from_environment()
    if not setup.senders and not setup.errors:
        return dg.SkipReason("no alert is sent: no sender is set up (docs/operating.md)")
    log, damage = AlertLog.of(installation.root), damage_alerts(installation.root)
    try:
        with memory.look(context, AlertWatch, installation.root, hands_over=True) as watch:
            watch.look(datetime.now(UTC))
        alerts: list[Message] = [*damage, *watch.alerts()]
    except Exception as error:
        # The ledger cannot be read in a damaged registry, which people must know of all the same.
        for fault in deliver(damage, setup.senders, log, all_known=False).faults:
            error.add_note(fault)
        raise
    done = deliver(alerts, setup.senders, log, all_known=watch.all_known)
    if setup.errors or done.faults:
        errors = [str(error) for error in setup.errors]
        raise PassingFaultError(
            f"{'; '.join([*done.faults, *errors])}. What could not be delivered is sent again at "
            "the next tick"
        )
    told = ", ".join(f"{number} by {name}" for name, number in done.sent.items())
    return dg.SkipReason(f"delivered {told}" if told else f"{len(alerts)} hold, all delivered")


def damage_alerts(root: DataRoot) -> list[DamageAlert]:
    """Return an alert for each case of a damaged registry; it holds as long as the case is kept."""
    from roman_assets.registry.engine import Engine

    return [
        DamageAlert(
            case=case.path.name,
            source=case.source,
            reason=case.reason,
            remedy=case.remedy,
            when=case.when.isoformat(timespec="seconds"),
        )
        for case in Engine(root).notices_of_damage()
    ]


def alert_of(standing: Standing, failed: datetime | None = None) -> Alert:
    """Return the alert for a level that is late or at risk.

    Parameters
    ----------
    standing
        How it stands.
    failed
        When the last attempt failed, if that is its state.
    """
    return Alert(
        partition=standing.partition,
        step=standing.step.value,
        level=standing.level.value,
        state=standing.state,
        severity=standing.severity.value,
        products=standing.products,
        due=None if standing.due is None else standing.due.isoformat(timespec="seconds"),
        margin_hours=standing.margin_hours,
        blame=standing.blame,
        reason=standing.reason,
        survey=standing.survey,
        optical_element=standing.optical_element,
        failed=None if failed is None else failed.isoformat(),
    )
