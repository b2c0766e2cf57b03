"""From the result of a pipeline to what Dagster is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.completeness_check import completeness
from roman_assets.defs.lib.file_backed_check import CHECKS as FILES_ONLY
from roman_assets.defs.lib.file_backed_check import files_only
from roman_assets.defs.lib.materialization_metadata import StepReport, materialized
from roman_assets.defs.lib.partition_work import PartitionOutcome
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import Level, Step

if TYPE_CHECKING:
    from roman_assets.publishing.step import StepResult

ExtraChecks = Callable[[StepReport], Sequence[dg.AssetCheckResult]]


def outcome_of(
    root: DataRoot,
    step: Step,
    partition: str,
    result: StepResult,
    extra_checks: ExtraChecks = lambda report: (),
) -> PartitionOutcome:
    """Return what became of a step for one partition.

    Parameters
    ----------
    root
        The installation.
    step, partition
        The work that was done.
    result
        What the pipeline says of it.
    extra_checks
        Checks of this step besides those every step has.

    Returns
    -------
    PartitionOutcome
        One failing file set is shown by a check and fails alone. If all failed, the outcome is an
        error.
    """
    report = StepReport.of(root, partition, result)
    checks = [completeness(step, result.failures), *report.in_time(step)]
    if not report.products and result.failures:
        return PartitionOutcome(checks=checks, error=_nothing_made(partition, result))
    if step in FILES_ONLY and FILES_ONLY[step].asset_key.to_user_string() in report.products:
        checks.append(_files_only(root, step, report))
    return PartitionOutcome(
        materialized(root, step, report),
        [*checks, *extra_checks(report)] if report.products else [],
    )


def _files_only(root: DataRoot, step: Step, report: StepReport) -> dg.AssetCheckResult:
    from roman_assets.archive.store import Archive
    from roman_assets.registry.engine import Engine

    archive = Archive.of(root)
    level4 = (entry.product_name for entry in report.entries)
    missing = [
        str(name) for name in level4 if name.level is Level.L4 and not archive.is_public(name)
    ]
    with Engine(root).snapshot() as snapshot:
        return files_only(step, snapshot.source_tables(), missing)


def _nothing_made(partition: str, result: StepResult) -> Exception:
    passing = any(failure.error == PassingFaultError.__name__ for failure in result.failures)
    return dg.Failure(
        description=f"{partition}: none of its {len(result.failures)} file sets could be made",
        metadata={
            failure.file_set: f"{failure.error}: {failure.message}" for failure in result.failures
        },
        allow_retries=passing,
    )
