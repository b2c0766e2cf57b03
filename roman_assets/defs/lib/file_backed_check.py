"""Whether L4 products are files only: none of their sources is a row of a database (R11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from roman_assets.defs.lib.partitioned_check import partitioned_check
from roman_assets.products.kind import Step

CHECKS: Mapping[Step, dg.AssetCheckKey] = {
    Step.EXPOSURE: dg.AssetCheckKey(dg.AssetKey("exposure_catalog"), "files_only"),
    Step.VISIT: dg.AssetCheckKey(dg.AssetKey("visit_catalog"), "files_only"),
    Step.MICROLENSING: dg.AssetCheckKey(
        dg.AssetKey("microlensing_light_curve_catalog"), "files_only"
    ),
    Step.SPECTRA: dg.AssetCheckKey(dg.AssetKey("spec_individual_1d"), "files_only"),
    Step.COMBINED_SPECTRA: dg.AssetCheckKey(dg.AssetKey("spec_combined_1d"), "files_only"),
}


def files_only_spec(step: Step) -> dg.AssetCheckSpec:
    """Return the check that a step's L4 products are files in the archive and nothing else."""
    return partitioned_check(
        CHECKS[step],
        step,
        "Every L4 product is a file in the archive, and no table of the registry holds rows of a "
        "source catalogue (R11).",
    )


def files_only(
    step: Step, source_tables: Sequence[str], missing_files: Sequence[str]
) -> dg.AssetCheckResult:
    """Evaluate the check.

    Parameters
    ----------
    step
        The step.
    source_tables
        Tables of the registry found to hold sources, each with the reason.
    missing_files
        L4 products of the partition that have no file under their public name.
    """
    return dg.AssetCheckResult(
        passed=not source_tables and not missing_files,
        asset_key=CHECKS[step].asset_key,
        check_name=CHECKS[step].name,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "source_tables": dg.MetadataValue.json(list(source_tables)),
            "missing_files": dg.MetadataValue.json(list(missing_files)),
        },
    )
