"""What a data release would do, before it does anything (R7, R8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import GROUP_SCOPES, KINDS, Maker, Step
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE, GroupedFileSet
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.declaration import ReleaseDeclaration
from roman_assets.registry.releases.ssc_unit import SscUnit, ssc_units_of
from roman_assets.registry.releases.state import units_of
from roman_assets.registry.work_history import CalibratedImage
from roman_assets.software import installed_software, same_software

if TYPE_CHECKING:
    import pandas as pd

SUPERSEDED_KINDS = tuple(
    kind.name for kind in KINDS if kind.scope in GROUP_SCOPES and kind.maker is Maker.SOC
)
"""Prompt L3 of the SOC and the L4 made from them (R13)."""


@dataclass(frozen=True)
class ReleasePlan:
    """What a release would make, overwrite and supersede.

    Parameters
    ----------
    declaration
        Of the release.
    exposures
        What it is made from.
    images
        Their L1 and current L2.
    to_make
        Those of the images whose L2 would be made (again) and overwritten, with their supplement
        and L4; the others are as the release fixes them.
    units
        What the SOC would add up.
    ssc_units
        What the SSC would deliver.
    superseded
        Names of the prompt L3 and their L4 in whose place the release comes, once all of it is
        there.
    superseded_size
        Of their files, bytes.
    rewritten_size
        Of the files that would be overwritten now, bytes.
    seconds
        Of computation, as steps of this installation took; None before it has made any such.
    """

    declaration: ReleaseDeclaration
    exposures: tuple[str, ...]
    images: tuple[CalibratedImage, ...]
    to_make: tuple[CalibratedImage, ...]
    units: tuple[GroupedFileSet, ...]
    ssc_units: tuple[SscUnit, ...]
    superseded: tuple[str, ...]
    superseded_size: int
    rewritten_size: int
    seconds: float | None

    @property
    def visits(self) -> tuple[VisitId, ...]:
        """The visits of its exposures."""
        return tuple(sorted({ExposureId.parse(exposure).visit for exposure in self.exposures}))

    @property
    def contexts(self) -> Counter[str]:
        """How many L2 there are of each context now."""
        return Counter(image.context or "no L2" for image in self.images)

    @property
    def computation(self) -> timedelta | None:
        """The time that the computation would take, None if nothing tells."""
        return None if self.seconds is None else timedelta(seconds=self.seconds)


def plan_release(root: DataRoot, declaration: ReleaseDeclaration) -> ReleasePlan:
    """Look up what a release would do; nothing is done, and nothing need be installed for it.

    Parameters
    ----------
    root
        The installation.
    declaration
        Of the release.
    """
    Engine(root).fold()
    software = installed_software(Step.EXPOSURE) | {"romancal": declaration.romancal}
    with Registry(root) as registry:
        exposures = exposures_of(registry, declaration)
        images = registry.work.calibrated_images(exposures)
        to_make = tuple(
            image
            for image in images
            if not image.is_bad
            and (
                image.context != declaration.context
                or not same_software(Step.EXPOSURE, image.software, software)
            )
        )
        prompt = prompt_mosaics(registry, exposures)
        rewritten = registry.products.find(
            exposure=sorted({image.exposure for image in to_make}), step=Step.EXPOSURE.value
        )
        file_sets = {image.file_set for image in to_make}
        good = [image for image in images if not image.is_bad]
        units = units_of(declaration, good)
        ssc_units = ssc_units_of(declaration, good)
        of_ssc = _prompt_of_ssc(registry, ssc_units)
        return ReleasePlan(
            declaration=declaration,
            exposures=exposures,
            images=images,
            to_make=to_make,
            units=units,
            ssc_units=ssc_units,
            superseded=tuple(sorted([*prompt["name"], *of_ssc["name"]])),
            superseded_size=int(prompt["size"].sum() + of_ssc["size"].sum()),
            rewritten_size=int(rewritten[rewritten["file_set"].isin(file_sets)]["size"].sum()),
            seconds=_seconds(registry, len(to_make), len(declaration.groupings), prompt),
        )


def exposures_of(registry: Registry, declaration: ReleaseDeclaration) -> tuple[str, ...]:
    """Return the exposures with L1 of the visits that begin in the range of a release."""
    ramps = registry.products.find(survey=declaration.survey.value, kind="uncal")
    if ramps.empty:
        return ()
    begun = ramps.groupby("visit")["start_time"].min()
    visits = begun[(begun >= declaration.after) & (begun < declaration.before)].index
    return tuple(sorted(set(ramps[ramps["visit"].isin(visits)]["exposure"])))


def prompt_mosaics(registry: Registry, exposures: Iterable[str]) -> pd.DataFrame:
    """Return the SOC's prompt L3 and L4 of the visits of exposures that nothing has superseded."""
    visits = sorted({exposure.split("_")[0] for exposure in exposures})
    found = registry.products.find(visit=visits, kind=SUPERSEDED_KINDS, release=PROMPT_RELEASE)
    return found[found["state"] == State.CURRENT]


def _prompt_of_ssc(registry: Registry, units: Iterable[SscUnit]) -> pd.DataFrame:
    """Return the prompt products of the SSC in whose place units come."""
    kinds = sorted({name.kind.name for one in units for name in one.products})
    visits = sorted({exposure.split("_")[0] for one in units for exposure in one.exposures})
    found = registry.products.find(visit=visits, kind=kinds, release=PROMPT_RELEASE)
    return found[found["state"] == State.CURRENT]


def _seconds(registry: Registry, images: int, groupings: int, prompt: pd.DataFrame) -> float | None:
    """Estimate the computation: as many skycells for each grouping as prompt visits have."""
    image, skycell = (
        _typical(registry.work.unit_times(step)) for step in (Step.EXPOSURE, Step.VISIT)
    )
    if image is None or skycell is None:
        return None
    return images * image + prompt["file_set"].nunique() * groupings * skycell


def _typical(times: Sequence[tuple[float, int]]) -> float | None:
    """Return the median time that one file set took, s."""
    return median(seconds / units for seconds, units in times) if times else None
