"""The table of product kinds: what there is, who makes it, where it goes (R1, R4, R9-R14)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from roman_assets.products.observation import ExposureType, OpticalElement, Survey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Level(StrEnum):
    """Data processing levels that reach the archive; L0 never does (R1)."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"


class Scope(StrEnum):
    """What one product of a kind covers, hence how its file is named."""

    DETECTOR = "detector"
    EXPOSURE = "exposure"
    SKYCELL = "skycell"


class Step(StrEnum):
    """The piece of work that makes a kind; products of one step are published together."""

    FORMATTING = "formatting"
    EXPOSURE = "exposure"
    VISIT = "visit"
    UPKEEP = "upkeep"
    """Makes nothing: it states what becomes of products that others made (R13)."""


@dataclass(frozen=True)
class ProductKind:
    """One row of the table of product kinds.

    Parameters
    ----------
    name
        The kind's name here and the name of its Dagster asset.
    suffix, extension
        The end of the file name.
    level
        The level whose deadline counts and whose directory holds it.
    scope
        What one product covers.
    step
        The work that makes it.
    datamodel
        The class of `roman_datamodels.datamodels` that opens it, None for JSON.
    description
        One sentence for people.
    follows
        The kind whose overwriting or removal takes this one along (R14).
    """

    name: str
    suffix: str
    extension: str
    level: Level
    scope: Scope
    step: Step
    datamodel: str | None
    description: str
    follows: str | None = None


KINDS: tuple[ProductKind, ...] = (
    ProductKind(
        "uncal", "uncal", "asdf", Level.L1, Scope.DETECTOR, Step.FORMATTING,
        "ScienceRawModel", "Uncalibrated ramp of one detector, in DN.",
    ),
    ProductKind(
        "guide_window", "gw", "asdf", Level.L1, Scope.DETECTOR, Step.FORMATTING,
        "L1DetectorGuidewindowModel", "Guide-window images of one detector during the exposure.",
    ),
    ProductKind(
        "face", "face", "asdf", Level.L1, Scope.EXPOSURE, Step.FORMATTING,
        "L1FaceGuidewindowModel", "Fine attitude correction estimates during the exposure.",
    ),
    ProductKind(
        "supplement", "wcs", "asdf", Level.L1, Scope.DETECTOR, Step.EXPOSURE,
        "WfiWcsModel",
        "Refined pointing and ephemeris, made with L2 and archived with L1 (R4).", "cal",
    ),
    ProductKind(
        "cal", "cal", "asdf", Level.L2, Scope.DETECTOR, Step.EXPOSURE,
        "ImageModel", "Calibrated rate image of one detector.",
    ),
    ProductKind(
        "exposure_catalog", "cat", "parquet", Level.L4, Scope.DETECTOR, Step.EXPOSURE,
        "ImageSourceCatalogModel", "Single-band source catalogue of one L2 image.", "cal",
    ),
    ProductKind(
        "exposure_segmentation", "segm", "asdf", Level.L4, Scope.DETECTOR, Step.EXPOSURE,
        "SegmentationMapModel", "Segmentation map of one L2 image.", "cal",
    ),
    ProductKind(
        "association", "asn", "json", Level.L3, Scope.SKYCELL, Step.VISIT,
        None, "The L2 images that one skycell's coadd is made from.", "coadd",
    ),
    ProductKind(
        "coadd", "coadd", "asdf", Level.L3, Scope.SKYCELL, Step.VISIT,
        "MosaicModel", "Co-added image of one visit on one skycell.",
    ),
    ProductKind(
        "visit_catalog", "cat", "parquet", Level.L4, Scope.SKYCELL, Step.VISIT,
        "MosaicSourceCatalogModel", "Single-band source catalogue of one visit coadd.", "coadd",
    ),
    ProductKind(
        "visit_segmentation", "segm", "asdf", Level.L4, Scope.SKYCELL, Step.VISIT,
        "MosaicSegmentationMapModel", "Segmentation map of one visit coadd.", "coadd",
    ),
)  # fmt: skip

KIND_BY_NAME: dict[str, ProductKind] = {kind.name: kind for kind in KINDS}


def followers_of(kind: ProductKind) -> tuple[ProductKind, ...]:
    """Give the kinds that are overwritten and removed together with a kind (R14)."""
    direct = tuple(other for other in KINDS if other.follows == kind.name)
    return direct + tuple(far for near in direct for far in followers_of(near))


SOC_L3_L4_SURVEYS = frozenset({Survey.HLWAS, Survey.HLTDS, Survey.GAS})
"""Surveys whose imaging L3 and L4 romancal makes (R9, R10); the rest is the SSC's (R12)."""

SPECTROSCOPIC_ELEMENTS = frozenset({OpticalElement.GRISM, OpticalElement.PRISM})

CATALOGUED_EXPOSURE_TYPES = frozenset({ExposureType.WFI_IMAGE, ExposureType.WFI_LOLO})
"""Exposure types for which romancal extracts sources."""


def expected_kinds(
    survey: Survey, exposure_type: ExposureType, steps: Iterable[Step] = tuple(Step)
) -> tuple[ProductKind, ...]:
    """Give the kinds the SOC makes promptly for an exposure or its visit (R9, R10, R12).

    Parameters
    ----------
    survey
        The survey of the program.
    exposure_type
        ``meta.exposure.type``; L3 and L4 exist only for types with source catalogues.
    steps
        The work to consider, all by default.
    """
    has_sources = survey in SOC_L3_L4_SURVEYS and exposure_type in CATALOGUED_EXPOSURE_TYPES
    wanted = frozenset(steps)
    return tuple(
        kind
        for kind in KINDS
        if kind.step in wanted and (kind.level in (Level.L1, Level.L2) or has_sources)
    )


def required_kinds(
    step: Step,
    present: Collection[ProductKind],
    survey: Survey | None,
    exposure_type: ExposureType | None,
) -> tuple[ProductKind, ...]:
    """Give the kinds that a file set must have, given those it has.

    Parameters
    ----------
    step
        The work that made it.
    present
        The kinds it has, at least one.
    survey, exposure_type
        Of its exposure or visit. Where one of them is not known, only what no file set is without
        is required: what a kind follows, and what follows it on the same level.
    """
    if survey is not None and exposure_type is not None:
        scopes = {kind.scope for kind in present}
        return tuple(
            kind for kind in expected_kinds(survey, exposure_type, (step,)) if kind.scope in scopes
        )
    return tuple(
        kind
        for kind in KINDS
        if any(
            other.follows == kind.name or (kind.follows == other.name and kind.level == other.level)
            for other in present
        )
    )
