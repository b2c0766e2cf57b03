"""The keys of the asset graph: exposures and visits, as they are observed; units of releases."""

from __future__ import annotations

import re
from collections.abc import Mapping

import dagster as dg

from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId, VisitId

exposure_partitions = dg.DynamicPartitionsDefinition(name="exposure")
"""Keys are exposures, ``rPPPPPCCAAASSSOOOVVV_EEEE``."""

visit_partitions = dg.DynamicPartitionsDefinition(name="visit")
"""Keys are visits, ``rPPPPPCCAAASSSOOOVVV``, of those visits whose L3 and L4 the SOC makes."""

ssc_visit_partitions = dg.DynamicPartitionsDefinition(name="ssc_visit")
"""Keys are visits whose L3 or L4 the SSC makes (R12): none of them counts as missing for `coadd`.
"""

release_partitions = dg.DynamicPartitionsDefinition(name="release_unit")
"""Keys are units of data releases, ``rPPPPP_r0_vCCAAASSSOOOVVV`` say."""

OBSERVED_PARTITIONS = (exposure_partitions, visit_partitions, ssc_visit_partitions)
"""The definitions whose keys are exposures and visits as they are observed."""

PARTITIONS: Mapping[Step, dg.DynamicPartitionsDefinition] = {
    Step.FORMATTING: exposure_partitions,
    Step.EXPOSURE: exposure_partitions,
    Step.VISIT: visit_partitions,
    Step.MICROLENSING: ssc_visit_partitions,
    Step.SPECTRA: exposure_partitions,
    Step.COMBINED_SPECTRA: ssc_visit_partitions,
    Step.RELEASE: release_partitions,
    Step.RELEASE_MICROLENSING: release_partitions,
    Step.RELEASE_SPECTRA: release_partitions,
}
"""The definition whose keys the products of a step have."""

OBSERVED = re.compile(r"r\d{19}(_\d{4})?", re.ASCII)
"""The keys of exposures and visits, among those of all definitions."""


def visit_of(exposure_key: str) -> VisitId:
    """Return the visit of an exposure's partition key.

    Raises
    ------
    ValueError
        If the key is not that of an exposure.
    """
    return ExposureId.parse(exposure_key).visit


def is_exposure(key: str) -> bool:
    """Return whether a partition key is that of an exposure."""
    return "_" in key
