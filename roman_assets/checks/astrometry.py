"""Whether the alignment of L2 to the astrometric catalogue is as good as it should be."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from roman_assets.checks.partitioned import partitioned_check
from roman_assets.products.kind import Step

WCS_FIT_LIMIT_MAS = 10.0
"""Residual (mas rms) above which an alignment is worth a person's look; a good fit has 1 to 2."""

CHECK = dg.AssetCheckKey(dg.AssetKey("cal"), "wcs_fit_residual")


def wcs_fit_spec() -> dg.AssetCheckSpec:
    """Give the check on the residuals of the alignment."""
    return partitioned_check(
        CHECK,
        Step.EXPOSURE,
        "The rms residual of every detector's alignment to the astrometric catalogue is at most "
        f"{WCS_FIT_LIMIT_MAS:g} mas. Images without stars enough have no fit.",
    )


def wcs_fit(residuals: Mapping[str, float | None]) -> dg.AssetCheckResult:
    """Evaluate the check.

    Parameters
    ----------
    residuals
        Residual in mas rms by file name; None where no fit was made.
    """
    fitted = {name: value for name, value in residuals.items() if value is not None}
    poor = {name: value for name, value in fitted.items() if not value <= WCS_FIT_LIMIT_MAS}
    return dg.AssetCheckResult(
        passed=not poor,
        asset_key=CHECK.asset_key,
        check_name=CHECK.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=_sentence(fitted, poor),
        metadata={
            "limit_mas": WCS_FIT_LIMIT_MAS,
            "fitted": len(fitted),
            "without_fit": len(residuals) - len(fitted),
            **{f"{name} (mas)": value for name, value in poor.items()},
        },
    )


def _sentence(fitted: Mapping[str, float], poor: Mapping[str, float]) -> str:
    if poor:
        return f"{len(poor)} of {len(fitted)} fits above {WCS_FIT_LIMIT_MAS:g} mas rms"
    return f"{len(fitted)} fits within {WCS_FIT_LIMIT_MAS:g} mas rms"
