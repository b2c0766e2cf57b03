"""Whether a step made all file sets of its partition: one failing detector fails alone.

Of the steps that take in what the SSC delivers: whether a delivery was rejected, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from roman_assets.defs.lib.partitioned_check import partitioned_check
from roman_assets.products.kind import Step
from roman_assets.records.record import WorkFailure

CHECKS: Mapping[Step, dg.AssetCheckKey] = {
    Step.FORMATTING: dg.AssetCheckKey(dg.AssetKey("uncal"), "all_detectors_made"),
    Step.EXPOSURE: dg.AssetCheckKey(dg.AssetKey("cal"), "all_detectors_made"),
    Step.VISIT: dg.AssetCheckKey(dg.AssetKey("coadd"), "all_skycells_made"),
    Step.MICROLENSING: dg.AssetCheckKey(
        dg.AssetKey("microlensing_event_catalog"), "deliveries_taken_in"
    ),
    Step.SPECTRA: dg.AssetCheckKey(dg.AssetKey("spec_individual_1d"), "deliveries_taken_in"),
    Step.COMBINED_SPECTRA: dg.AssetCheckKey(dg.AssetKey("spec_combined_1d"), "deliveries_taken_in"),
    Step.RELEASE_MICROLENSING: dg.AssetCheckKey(
        dg.AssetKey("release_microlensing_event_catalog"), "deliveries_taken_in"
    ),
    Step.RELEASE_SPECTRA: dg.AssetCheckKey(
        dg.AssetKey("release_spec_combined_1d"), "deliveries_taken_in"
    ),
    Step.RELEASE: dg.AssetCheckKey(dg.AssetKey("release_coadd"), "all_skycells_made"),
}


def completeness_spec(step: Step) -> dg.AssetCheckSpec:
    """Return the check that no file set of an exposure or visit failed in a step."""
    return partitioned_check(
        CHECKS[step],
        step,
        "No file set of the partition failed; the metadata names each that did, and why.",
    )


def completeness(step: Step, failures: Sequence[WorkFailure]) -> dg.AssetCheckResult:
    """Evaluate the check.

    Parameters
    ----------
    step
        The step.
    failures
        The file sets that could not be made, each with its error.
    """
    return dg.AssetCheckResult(
        passed=not failures,
        asset_key=CHECKS[step].asset_key,
        check_name=CHECKS[step].name,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_sentence(failures),
        metadata={
            failure.file_set: dg.MetadataValue.md(f"**{failure.error}** {failure.message}")
            for failure in failures
        },
    )


def _sentence(failures: Sequence[WorkFailure]) -> str:
    if not failures:
        return "all made"
    return f"{len(failures)} failed: {', '.join(failure.file_set for failure in failures)}"
