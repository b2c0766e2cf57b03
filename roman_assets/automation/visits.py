"""The sensor that makes L3 and L4 of a visit once its exposures are in (R9, R10, R12).

It compares states: what the visit's L2 are now with what its L3 were made from. No event is
remembered, so none can be lost; a late exposure or an overwritten L1 changes the L2 and thereby
the digest of the manifest, and the visit is made again.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from roman_assets.automation.in_progress import partitions_in_progress, requested_run_keys
from roman_assets.automation.jobs import visit_products
from roman_assets.automation.settled import Settled
from roman_assets.data_root import DataRoot
from roman_assets.partitions import is_exposure, visit_of, visit_partitions
from roman_assets.products.kind import Step
from roman_assets.products.observation import VisitId
from roman_assets.resources import Installation

if TYPE_CHECKING:
    from roman_assets.pipelines.manifest import VisitManifest

TICK_BUDGET_S = 20.0
"""A tick looks at visits for this long; the next one goes on where it stopped."""


_settled: Settled[VisitId] = Settled()
_STATE_COLUMNS = ("partition", "content", "record_id")


@dataclass(frozen=True)
class VisitState:
    """A visit as it is and as its L3 were made.

    Parameters
    ----------
    manifest
        Its L2 images now.
    made_from
        Names and hashes of the L2 images its current L3 were made from.
    failed
        File sets of single detectors that the exposure pipeline could not make.
    """

    manifest: VisitManifest
    made_from: frozenset[tuple[str, str]]
    failed: frozenset[str]

    @property
    def by_soc(self) -> bool:
        """Whether the SOC makes anything of the visit (R12)."""
        return bool(self.manifest.kinds)

    @property
    def ready(self) -> bool:
        """Whether all exposures are in; a detector that failed does not hold up the others."""
        manifest = self.manifest
        return manifest.nexposures is not None and self.failed.issuperset(manifest.missing)

    @property
    def up_to_date(self) -> bool:
        """Whether the L3 were made from just these images."""
        members = {(member.name, member.sha256) for member in self.manifest.members}
        return members == self.made_from

    @property
    def wanted(self) -> bool:
        """Whether there is something to make."""
        return self.by_soc and self.ready and not self.up_to_date

    @property
    def run_key(self) -> str:
        """Names the wanted state: a run is requested once for each."""
        return f"{self.manifest.visit}:{self.manifest.digest}"


def exposure_content(root: DataRoot) -> dict[VisitId, str]:
    """Give, for each visit with calibrated exposures, a hash of what these are made of."""
    from roman_assets.registry.registry import Registry

    with Registry(root) as registry:
        state = registry.partition_state(Step.EXPOSURE)
    lines: dict[VisitId, list[str]] = {}
    for exposure, *made in zip(*(state[name] for name in _STATE_COLUMNS), strict=True):
        lines.setdefault(visit_of(exposure), []).append(f"{exposure} {made}")
    return {
        visit: hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()
        for visit, texts in lines.items()
    }


def visit_state(root: DataRoot, visit: VisitId) -> VisitState:
    """Look a visit up in the registry."""
    from roman_assets.pipelines.manifest import visit_manifest
    from roman_assets.registry.registry import Registry

    manifest = visit_manifest(root, visit)
    with Registry(root) as registry:
        made = registry.current(registry.find(visit=str(visit), kind="coadd")["name"])
        failures = [registry.failures(str(exposure)) for exposure in manifest.exposures]
    return VisitState(
        manifest,
        frozenset((item.name, item.sha256) for entry in made.values() for item in entry.inputs),
        frozenset(name for frame in failures for name in frame["file_set"]),
    )


@dg.sensor(
    job=visit_products,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes L3 and L4 of a visit when its L2 are in, and again when they change.",
)
def visit_sensor(
    context: dg.SensorEvaluationContext, installation: Installation
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for every visit whose L3 are not made from its present L2."""
    wanted = wanted_visits(context.instance, installation.root)
    if not wanted:
        return dg.SkipReason("every visit that is in has been requested")
    return dg.SensorResult(
        run_requests=[run_request(state) for state in wanted],
        dynamic_partitions_requests=[
            visit_partitions.build_add_request([str(state.manifest.visit) for state in wanted])
        ],
    )


def wanted_visits(
    instance: dg.DagsterInstance, root: DataRoot, settled: Settled[VisitId] = _settled
) -> list[VisitState]:
    """Find the visits that are in, the SOC's to make, not up to date and not requested.

    A visit waits while a run is at work on one of its exposures.
    """
    present = exposure_content(root)
    unsettled = settled.unsettled(root, present)
    if not unsettled:
        return []
    busy = {visit_of(key) for key in partitions_in_progress(instance) if is_exposure(key)}
    until = time.monotonic() + TICK_BUDGET_S
    idle = (visit for visit in unsettled if visit not in busy)
    states = [visit_state(root, visit) for visit in idle if time.monotonic() < until]
    requested = requested_run_keys(instance, [state.run_key for state in states])
    wanted = [state for state in states if state.wanted and state.run_key not in requested]
    for state in states:
        if state not in wanted:
            settled.settle(root, state.manifest.visit, present[state.manifest.visit])
    return wanted


def run_request(state: VisitState) -> dg.RunRequest:
    """Ask for the products of a visit, once for each state of its L2."""
    manifest = state.manifest
    return dg.RunRequest(
        run_key=state.run_key,
        partition_key=str(manifest.visit),
        tags={
            "roman_assets/survey": str(manifest.survey),
            "roman_assets/exposures": str(len(manifest.exposures)),
        },
    )
