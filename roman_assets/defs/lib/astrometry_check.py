"""Whether the pointing of every L2 image, hence of its L1 supplement, was refined (R4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from roman_assets.defs.lib.partitioned_check import partitioned_check
from roman_assets.products.kind import CATALOGUED_EXPOSURE_TYPES, Step
from roman_assets.products.observation import ExposureType
from roman_assets.products.pointing import PointingSource

WCS_FIT_LIMIT_MAS = 10.0
"""Residual (mas rms) above which an alignment is worth a person's look; a good fit has 1 to 2."""

CHECK = dg.AssetCheckKey(dg.AssetKey("cal"), "wcs_fit_residual")

_NEVER_ALIGNED = frozenset(map(str, set(ExposureType) - CATALOGUED_EXPOSURE_TYPES))


@dataclass(frozen=True)
class ImagePointing:
    """What is known of the pointing of one L2 image.

    Parameters
    ----------
    name
        Of the image.
    exposure_type
        ``meta.exposure.type``.
    source
        What its WCS goes back to.
    rms
        Residual of its stars about the astrometric catalogue, mas; None if it has none.
    uncertainty
        Expected error of the common pointing at the image, mas; None if none was computed.
    """

    name: str
    exposure_type: str
    source: PointingSource
    rms: float | None = None
    uncertainty: float | None = None

    @property
    def only_planned(self) -> bool:
        """Whether it should have refined pointing and has none."""
        return self.source is PointingSource.PLANNED and self.exposure_type not in _NEVER_ALIGNED

    @property
    def is_poor(self) -> bool:
        """Whether its stars are too far from where they should be."""
        return self.rms is not None and not self.rms <= WCS_FIT_LIMIT_MAS


def wcs_fit_spec() -> dg.AssetCheckSpec:
    """Return the check on the refined pointing of L2 images."""
    return partitioned_check(
        CHECK,
        Step.EXPOSURE,
        "Every image has refined pointing, from its own stars or from other images of the exposure "
        "(an error otherwise), and its stars are within "
        f"{WCS_FIT_LIMIT_MAS:g} mas rms of the astrometric catalogue (a warning otherwise). "
        "romancal aligns no spectroscopic and no calibration images: they do not count.",
    )


def wcs_fit(images: Iterable[ImagePointing]) -> dg.AssetCheckResult:
    """Evaluate the check.

    Parameters
    ----------
    images
        The L2 images of an exposure.
    """
    known = sorted(images, key=lambda image: image.name)
    planned = [image for image in known if image.only_planned]
    poor = [image for image in known if image.is_poor]
    return dg.AssetCheckResult(
        passed=not (planned or poor),
        asset_key=CHECK.asset_key,
        check_name=CHECK.name,
        severity=dg.AssetCheckSeverity.ERROR if planned else dg.AssetCheckSeverity.WARN,
        description=_sentence(known, planned, poor),
        metadata={
            "limit_mas": WCS_FIT_LIMIT_MAS,
            "own_stars": _count(known, PointingSource.OWN),
            "common_pointing": _count(known, PointingSource.COMMON),
            "planned_pointing": _count(known, PointingSource.PLANNED),
            **{f"{image.name}": _figures(image) for image in known if _is_told(image)},
        },
    )


def _count(images: Iterable[ImagePointing], source: PointingSource) -> int:
    return sum(image.source is source for image in images)


def _is_told(image: ImagePointing) -> bool:
    return image.only_planned or image.is_poor or image.source is PointingSource.COMMON


def _figures(image: ImagePointing) -> dg.JsonMetadataValue:
    figures: dict[str, Any] = {
        "pointing": image.source.value,
        "rms_mas": image.rms,
        "uncertainty_mas": image.uncertainty,
    }
    return dg.MetadataValue.json(figures)


def _sentence(
    images: list[ImagePointing], planned: list[ImagePointing], poor: list[ImagePointing]
) -> str:
    told = []
    if planned:
        names = ", ".join(image.name for image in planned)
        told.append(
            f"{len(planned)} of {len(images)} images have too few stars, no other image gives "
            f"their pointing well enough, and they keep the planned one: {names}"
        )
    if poor:
        told.append(f"{len(poor)} of {len(images)} fits above {WCS_FIT_LIMIT_MAS:g} mas rms")
    if told:
        return "; ".join(told)
    fitted = sum(image.rms is not None for image in images)
    common = _count(images, PointingSource.COMMON)
    return (
        f"{fitted} fits within {WCS_FIT_LIMIT_MAS:g} mas rms; "
        f"{common} images have the pointing of the others"
    )
