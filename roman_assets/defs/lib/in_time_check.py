"""Whether the products of a level are made in time, for each exposure and visit (R2, R5, R9, R10).

The asset that makes them evaluates the check when it is done. Of products that are not made the
deadline sensor reports the same check (`roman_assets.defs.deadlines.sensors`). The verdict is the
deadline ledger's; nothing is judged anew here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from roman_assets.defs.lib.partitioned_check import partitioned_check
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Level, Step

if TYPE_CHECKING:
    import pandas as pd

CHECK_NAME = "in_time"

CHECKS: Mapping[tuple[Step, Level], dg.AssetCheckKey] = {
    place: dg.AssetCheckKey(dg.AssetKey(asset), CHECK_NAME)
    for place, asset in {
        (Step.FORMATTING, Level.L1): "uncal",
        (Step.EXPOSURE, Level.L1): "supplement",
        (Step.EXPOSURE, Level.L2): "cal",
        (Step.EXPOSURE, Level.L4): "exposure_catalog",
        (Step.VISIT, Level.L3): "coadd",
        (Step.VISIT, Level.L4): "visit_catalog",
        (Step.MICROLENSING, Level.L3): "microlensing_reference_frame",
        (Step.MICROLENSING, Level.L4): "microlensing_event_catalog",
        (Step.SPECTRA, Level.L4): "spec_individual_1d",
        (Step.COMBINED_SPECTRA, Level.L4): "spec_combined_1d",
    }.items()
}
"""The check of each level, by the step that makes it."""

_MOMENTS = ("due", "made")

AT_RISK = "at risk"
STATE_METADATA = "state"
BLAME_METADATA = "blame"

_WORST_FIRST: tuple[str, ...] = (
    ProductState.OVERDUE,
    ProductState.FAILED,
    AT_RISK,
    ProductState.MADE_LATE,
)
_ERRORS = frozenset({ProductState.OVERDUE, ProductState.FAILED, ProductState.MADE_LATE})


@dataclass(frozen=True)
class Standing:
    """How the products of one level of an exposure or visit stand: as the worst of them.

    Parameters
    ----------
    partition, visit
        Exposure or visit; the visit it belongs to.
    step, level
        Which products.
    state
        As the deadline ledger says, or `AT_RISK`.
    stage
        What they wait for, None of those that are made.
    products
        How many stand so.
    due, made
        UTC.
    margin_hours
        Until due, negative after it.
    blame, hours
        Where most of the time went, if it is late; hours by blame.
    reason
        What failed, if something did.
    survey, optical_element
        Of the visit, as far as known.
    """

    partition: str
    visit: str
    step: Step
    level: Level
    state: str
    stage: str | None = None
    products: int = 0
    due: datetime | None = None
    made: datetime | None = None
    margin_hours: float | None = None
    blame: str | None = None
    hours: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    survey: str | None = None
    optical_element: str | None = None

    @property
    def in_order(self) -> bool:
        """Neither late nor about to be."""
        return self.state not in _WORST_FIRST

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """An error once the deadline is missed, a warning before."""
        late = self.state in _ERRORS
        return dg.AssetCheckSeverity.ERROR if late else dg.AssetCheckSeverity.WARN

    @property
    def check(self) -> dg.AssetCheckKey:
        """The check that says so."""
        return CHECKS[self.step, self.level]


def ledger_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table of the ledger as plain values: missing ones None, times in UTC."""
    plain = frame.astype(object).where(frame.notna(), None)
    rows = [dict(zip(plain.columns, row, strict=True)) for row in plain.to_numpy()]
    for row in rows:
        for name in _MOMENTS:
            if row[name] is not None:
                row[name] = row[name].to_pydatetime().astimezone(UTC)
    return rows


def standings(rows: Iterable[Mapping[str, Any]]) -> list[Standing]:
    """Sum up rows of the deadline ledger by partition, step and level.

    Parameters
    ----------
    rows
        As `ledger_rows` gives them.

    Returns
    -------
    list of Standing
        In the order in which their first rows come.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["partition"], row["step"], row["level"]), []).append(row)
    return [_standing(group) for group in groups.values()]


def _standing(rows: list[Mapping[str, Any]]) -> Standing:
    worst = min(rows, key=lambda row: (_rank(row), _margin(row)))
    state = _state(worst)
    return Standing(
        partition=worst["partition"],
        visit=worst["visit"],
        step=Step(worst["step"]),
        level=Level(worst["level"]),
        state=state,
        stage=worst["stage"],
        products=sum(row["products"] for row in rows if _state(row) == state),
        due=worst["due"],
        made=worst["made"],
        margin_hours=worst["margin_hours"],
        blame=worst["blame"],
        hours={str(blame): worst[f"{blame}_hours"] for blame in Blame if worst["due"] is not None},
        reason=worst["reason"],
        survey=worst["survey"],
        optical_element=worst["optical_element"],
    )


def _state(row: Mapping[str, Any]) -> str:
    return AT_RISK if row["at_risk"] else str(row["state"])


def _rank(row: Mapping[str, Any]) -> int:
    """Order by urgency; of those in order, what is expected stands before what is not."""
    state = _state(row)
    if state in _WORST_FIRST:
        return _WORST_FIRST.index(state)
    return len(_WORST_FIRST) + (state == ProductState.NOT_EXPECTED)


def _margin(row: Mapping[str, Any]) -> float:
    margin = row["margin_hours"]
    return float("inf") if margin is None else margin


def in_time_specs(step: Step) -> list[dg.AssetCheckSpec]:
    """Return the checks of the levels that a step makes."""
    return [
        partitioned_check(
            key,
            step,
            f"The {level} products are made before they are due; a warning when little time is "
            "left, an error when it is over. The metadata say where the time went.",
        )
        for (of, level), key in CHECKS.items()
        if of is step
    ]


def in_time(standing: Standing) -> dg.AssetCheckResult:
    """Evaluate the check of a level."""
    return dg.AssetCheckResult(
        passed=standing.in_order,
        asset_key=standing.check.asset_key,
        check_name=standing.check.name,
        severity=standing.severity,
        description=_sentence(standing),
        metadata=_metadata(standing),
    )


def evaluation(standing: Standing) -> dg.AssetCheckEvaluation:
    """Return the same as an event for those products that no run reports."""
    return dg.AssetCheckEvaluation(
        asset_key=standing.check.asset_key,
        check_name=standing.check.name,
        passed=standing.in_order,
        severity=standing.severity,
        partition=standing.partition,
        description=_sentence(standing),
        metadata=_metadata(standing),
    )


def _sentence(standing: Standing) -> str:
    said = f"{standing.products} {standing.level} products {standing.state}"
    if standing.margin_hours is not None:
        late = standing.margin_hours < 0
        said += f", {abs(standing.margin_hours):.1f} h {'late' if late else 'left'}"
    return f"{said}, mostly {standing.blame}" if standing.blame else said


def _metadata(standing: Standing) -> dict[str, Any]:
    known = {
        STATE_METADATA: standing.state,
        "stage": standing.stage,
        "products": standing.products,
        "due": standing.due and dg.MetadataValue.timestamp(standing.due),
        "made": standing.made and dg.MetadataValue.timestamp(standing.made),
        "margin_hours": None if standing.margin_hours is None else round(standing.margin_hours, 3),
        BLAME_METADATA: standing.blame,
        **{f"{blame}_hours": round(hours, 3) for blame, hours in standing.hours.items()},
        "reason": standing.reason,
    }
    return {name: value for name, value in known.items() if value is not None}
