"""Whether a visit's products are made of all that was executed, or in part (R9)."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from roman_assets.defs.lib.partitioned_check import partitioned_check
from roman_assets.products.kind import Step

WHOLE_VISIT = dg.AssetCheckKey(dg.AssetKey("coadd"), "whole_visit")


def whole_visit_spec() -> dg.AssetCheckSpec:
    """Return the check that nothing was missing when a visit was co-added."""
    return partitioned_check(
        WHOLE_VISIT,
        Step.VISIT,
        "The coadds are made of every exposure executed and of every detector; the metadata names "
        "what was missing. The visit is reprocessed when it comes.",
    )


def whole_visit(missing: Iterable[str]) -> dg.AssetCheckResult:
    """Evaluate the check.

    Parameters
    ----------
    missing
        Missing exposures, and file sets of single detectors.
    """
    lacking = sorted(set(missing))
    return dg.AssetCheckResult(
        passed=not lacking,
        asset_key=WHOLE_VISIT.asset_key,
        check_name=WHOLE_VISIT.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(lacking)} missing: {', '.join(lacking)}"
        if lacking
        else "nothing was missing",
        metadata={"missing": dg.MetadataValue.json(lacking)},
    )
