"""How a step's work on one or several partitions becomes Dagster events.

A run has one partition as a rule. A run over a range (a backfill that a person asks to be one run)
works through its partitions one by one; what succeeded stays, and the run fails at its end naming
the partitions that did not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

import dagster as dg

from roman_assets.errors import BadInputError

if TYPE_CHECKING:
    from roman_assets.data_root import DataRoot
    from roman_assets.publishing.attempt import Run
    from roman_assets.reprocessing.proposal import ExposureWork

StepEvent = dg.MaterializeResult[Any] | dg.AssetCheckResult

RETRY_POLICY = dg.RetryPolicy(
    max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For passing faults: waits of about 10, 30 and 70 s. Bad input is never tried again."""

BACKFILL_POLICY = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
"""One exposure or visit a run: each fails, is retried and gets its data version by itself.

The start of a run is small against its work, and a cluster does many runs at once.
"""

CONTEXT_TAG = "roman_assets/context"
"""Tag of runs whose CRDS context was fixed beforehand: by a release (R7), by an approval (R15)."""


PROPOSAL_TAG = "roman_assets/proposal"
"""Tag of runs that carry out an approved proposal to reprocess (R15)."""

RELEASE_TAG = "roman_assets/release"
"""Tag of runs that make a data release (R7); which one, as its records name it."""

REPROCESSING_TAG = "roman_assets/reprocessing"
"""Tag of both: ``dagster.yaml`` lets one such run go at a time, so that prompt products go on."""

BAD_INPUT_TAG = "roman_assets/bad_input"
"""Tag of runs that found their input unusable, and are not requested again: what is not right."""

_MOST_OF_TAG = 200


@dataclass(frozen=True)
class Materialized:
    """One asset's partition as made: what people see of it, and its data version."""

    metadata: Mapping[str, Any]
    data_version: dg.DataVersion


@dataclass(frozen=True)
class PartitionOutcome:
    """What a step did for one partition.

    Parameters
    ----------
    assets
        By asset key, upstream first; only assets that have products.
    checks
        Checks evaluated, each naming its asset.
    error
        Set when the partition as a whole failed; the checks still say why.
    """

    assets: Mapping[dg.AssetKey, Materialized] = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckResult] = ()
    error: Exception | None = None


def run_of(context: dg.AssetExecutionContext) -> Run:
    """Return the run of a context, and when it was queued.

    It is never the last try, since sensors request again what fails for a passing fault.
    """
    from roman_assets.publishing.attempt import Run

    record = context.instance.get_run_record_by_id(context.run.run_id)
    return Run(
        context.run.run_id,
        queued=None if record is None else record.create_timestamp.astimezone(UTC),
        last_try=False,
    )


def fixed_context(context: dg.AssetExecutionContext) -> str | None:
    """Return the CRDS context fixed for a run, None for that of the moment."""
    return context.run.tags.get(CONTEXT_TAG)


def reprocessing_of(
    context: dg.AssetExecutionContext, root: DataRoot, exposure: str
) -> ExposureWork | None:
    """Return the approved reprocessing of an exposure, None for runs without a proposal.

    Raises
    ------
    BadInputError
        If the run is of a proposal that is not approved (R15).
    """
    proposal = context.run.tags.get(PROPOSAL_TAG)
    if proposal is None:
        return None
    from roman_assets.reprocessing.proposal import exposure_to_reprocess

    return exposure_to_reprocess(root, proposal, exposure)


def require_as_approved(context: dg.AssetExecutionContext, root: DataRoot) -> None:
    """Refuse a visit of a proposal that would come out otherwise than approved (R15).

    Raises
    ------
    BadInputError
        If the run is of a proposal that is not approved, or cannot be carried out as approved.
    """
    proposal = context.run.tags.get(PROPOSAL_TAG)
    if proposal is not None:
        from roman_assets.reprocessing import proposal as gate

        gate.require_as_approved(root, proposal)


def is_routine(context: dg.AssetExecutionContext) -> bool:
    """Return whether a sensor requested the run: such runs replace nothing (R3, R7, R8, R15).

    Proposals and releases are not routine: a person decided them, though a sensor carries them
    out. A routine run that somebody re-executes from its page stays routine.
    """
    tags = context.run.tags
    return _SENSOR_TAG in tags and tags.keys().isdisjoint(_DECIDED_TAGS)


_SENSOR_TAG = "dagster/sensor_name"
_DECIDED_TAGS = {PROPOSAL_TAG, RELEASE_TAG, CONTEXT_TAG}


def step_events(
    context: dg.AssetExecutionContext, work: Callable[[str], PartitionOutcome]
) -> Iterator[StepEvent]:
    """Do the work of a step for every partition of the run and report it.

    Parameters
    ----------
    context
        Of the step.
    work
        Does one partition. `BadInputError` and other exceptions count as the failure of that
        partition.

    Yields
    ------
    MaterializeResult, AssetCheckResult
        For the selected assets.

    Raises
    ------
    dagster.Failure
        For bad input, never to be tried again; or when some of several partitions failed.
    Exception
        Whatever else the work of a single partition raised; the retry policy applies.
    """
    keys = list(context.partition_keys)
    outcomes = {key: _attempt(context, work, key) for key in keys}
    if len(keys) == 1:
        yield from _single(context, outcomes[keys[0]], keys[0])
    else:
        yield from _several(context, outcomes)


def _attempt(
    context: dg.AssetExecutionContext, work: Callable[[str], PartitionOutcome], key: str
) -> PartitionOutcome:
    try:
        return work(key)
    except Exception as error:
        context.log.error(f"{key}: {error}")
        return PartitionOutcome(error=error)


def _single(
    context: dg.AssetExecutionContext, outcome: PartitionOutcome, partition: str
) -> Iterator[StepEvent]:
    for key, made in outcome.assets.items():
        if key in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=key, metadata=made.metadata, data_version=made.data_version
            )
        else:
            # made all the same, since the step makes its products together
            context.log_event(_materialization(key, partition, made))
    for check in outcome.checks:
        if _check_key(check) in context.selected_asset_check_keys:
            yield check
    if outcome.error is not None:
        mark_bad_input(context, outcome.error)
        raise as_failure(outcome.error)


def _several(
    context: dg.AssetExecutionContext, outcomes: Mapping[str, PartitionOutcome]
) -> Iterator[StepEvent]:
    failed = {key: outcome.error for key, outcome in outcomes.items() if outcome.error is not None}
    made = {key: outcome for key, outcome in outcomes.items() if outcome.error is None}
    common = _common_assets(made.values()) & context.selected_asset_keys if not failed else set()
    for partition, outcome in made.items():
        for key, asset in outcome.assets.items():
            if key in common:
                context.add_asset_metadata(dict(asset.metadata), key, partition)
            else:
                context.log_event(_materialization(key, partition, asset))
    for partition, outcome in outcomes.items():
        for check in outcome.checks:
            context.log_event(_evaluation(check, partition))
    for key in _in_order(made.values()):
        if key in common:
            yield dg.MaterializeResult(asset_key=key, data_version=_joint_version(key, made))
    if failed:
        raise _partial_failure(failed, len(outcomes))


def _common_assets(outcomes: Iterable[PartitionOutcome]) -> set[dg.AssetKey]:
    """Return the assets that every partition has: only these Dagster may report for the range."""
    return set.intersection(*(set(outcome.assets) for outcome in outcomes))


def _in_order(outcomes: Iterable[PartitionOutcome]) -> list[dg.AssetKey]:
    return list(dict.fromkeys(key for outcome in outcomes for key in outcome.assets))


def _joint_version(key: dg.AssetKey, outcomes: Mapping[str, PartitionOutcome]) -> dg.DataVersion:
    """Return the one version that Dagster allows a range: that of all partitions together."""
    return joint_data_version(
        f"{partition} {outcome.assets[key].data_version.value}"
        for partition, outcome in outcomes.items()
    )


def joint_data_version(parts: Iterable[str]) -> dg.DataVersion:
    """Return the data version of something made of parts, whatever their order."""
    return dg.DataVersion(hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest())


def _materialization(
    key: dg.AssetKey, partition: str, made: Materialized
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key,
        partition=partition,
        metadata=made.metadata,
        tags={DATA_VERSION_TAG: made.data_version.value},
    )


DATA_VERSION_TAG = "dagster/data_version"


def _check_key(check: dg.AssetCheckResult) -> dg.AssetCheckKey:
    if check.asset_key is None or check.check_name is None:
        raise ValueError("a check of a step with several assets must name its asset and itself")
    return dg.AssetCheckKey(check.asset_key, check.check_name)


def _evaluation(check: dg.AssetCheckResult, partition: str) -> dg.AssetCheckEvaluation:
    key = _check_key(check)
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=check.passed,
        severity=check.severity,
        metadata=check.metadata,
        description=check.description,
        partition=partition,
    )


def mark_bad_input(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, error: Exception
) -> None:
    """Mark a run that fails for bad input, so that only a person repeats it."""
    if isinstance(error, BadInputError):
        context.instance.add_run_tags(context.run_id, {BAD_INPUT_TAG: str(error)[:_MOST_OF_TAG]})


def as_failure(error: Exception) -> Exception:
    """Turn bad input into a failure that is not tried again and tells a person what to do."""
    if not isinstance(error, BadInputError):
        return error
    return dg.Failure(
        description=str(error),
        metadata={
            "file": error.source,
            "field": error.field,
            "reason": error.reason,
            "remedy": error.remedy,
        },
        allow_retries=False,
    )


def _partial_failure(failed: Mapping[str, Exception], total: int) -> dg.Failure:
    return dg.Failure(
        description=f"{len(failed)} of {total} partitions failed: {', '.join(sorted(failed))}",
        metadata={key: str(error) for key, error in failed.items()},
        allow_retries=not all(isinstance(error, BadInputError) for error in failed.values()),
    )
