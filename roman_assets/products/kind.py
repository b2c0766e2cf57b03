"""The table of product kinds: what there is, who makes it, where it goes (R1, R4, R9-R14)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.products.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


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
    GROUP_DETECTOR = "group_detector"
    """One detector in a group of exposures: a visit, or more in a data release."""
    GROUP = "group"
    """A group of exposures as a whole."""


GROUP_SCOPES = frozenset({Scope.SKYCELL, Scope.GROUP_DETECTOR, Scope.GROUP})
"""The scopes of groups of exposures; products of the others are of one exposure."""


class Maker(StrEnum):
    """The institution that computes the products of a kind (R12)."""

    SOC = "SOC"
    """The Science Operations Center: this platform."""
    SSC = "SSC"
    """The Science Support Center, which delivers them."""


class Step(StrEnum):
    """The piece of work that makes a kind; products of one step are published together."""

    FORMATTING = "formatting"
    EXPOSURE = "exposure"
    VISIT = "visit"
    MICROLENSING = "microlensing"
    """Takes in what the SSC's microlensing pipeline (MSOS) makes of a visit (R12)."""
    SPECTRA = "spectra"
    """Takes in what the SSC's grism and prism pipelines (GDPS) make of an exposure (R12)."""
    COMBINED_SPECTRA = "combined_spectra"
    """Takes in what the SSC's grism and prism pipelines (GDPS) make of a visit (R12)."""
    HANDOVER = "handover"
    """Makes nothing: it tells the SSC which L2 of an exposure or visit are ready (R12)."""
    RELEASE = "release"
    """Makes the kinds of a visit under versioned names, for a data release (R13)."""
    RELEASE_MICROLENSING = "release_microlensing"
    """Takes in what the SSC's microlensing pipeline makes for a data release (R12, R13)."""
    RELEASE_SPECTRA = "release_spectra"
    """Takes in what the SSC's grism and prism pipelines make for a data release (R12, R13)."""
    UPKEEP = "upkeep"
    """Makes nothing: it states what becomes of products that others made (R13)."""


SOC_STEPS = (Step.FORMATTING, Step.EXPOSURE, Step.VISIT)
"""The steps that compute."""

DELIVERY_STEPS = (Step.MICROLENSING, Step.SPECTRA, Step.COMBINED_SPECTRA)
"""The steps that take in the prompt products that the SSC computed."""

RELEASE_DELIVERY_STEPS = (Step.RELEASE_MICROLENSING, Step.RELEASE_SPECTRA)
"""The steps that take in what the SSC computed for a data release."""

INTAKE_STEPS = (*DELIVERY_STEPS, *RELEASE_DELIVERY_STEPS)
"""The steps that take in what the SSC computed."""

PROMPT_STEPS: Mapping[Step, Step] = {
    Step.RELEASE: Step.VISIT,
    Step.RELEASE_MICROLENSING: Step.MICROLENSING,
    Step.RELEASE_SPECTRA: Step.COMBINED_SPECTRA,
}
"""For each step of a data release the step that makes the prompt products of the same kinds."""

VISIT_STEPS = frozenset({Step.VISIT, Step.MICROLENSING, Step.COMBINED_SPECTRA})
"""The steps whose partitions are visits."""


@dataclass(frozen=True)
class Observations:
    """Exposures, by survey and type (``meta.exposure.type``)."""

    surveys: frozenset[Survey]
    exposure_types: frozenset[ExposureType]

    def include(self, survey: Survey, exposure_type: ExposureType) -> bool:
        """Return whether an exposure of this survey and type is among them."""
        return survey in self.surveys and exposure_type in self.exposure_types


SOC_L3_L4_SURVEYS = frozenset({Survey.HLWAS, Survey.HLTDS, Survey.GAS})
"""Surveys whose imaging L3 and L4 romancal makes (R9, R10); the rest is the SSC's (R12)."""

CATALOGUED_EXPOSURE_TYPES = frozenset({ExposureType.WFI_IMAGE, ExposureType.WFI_LOLO})
"""Exposure types for which romancal extracts sources."""

ALL = Observations(frozenset(Survey), frozenset(ExposureType))
SOC_IMAGING = Observations(SOC_L3_L4_SURVEYS, CATALOGUED_EXPOSURE_TYPES)
MICROLENSING = Observations(frozenset({Survey.GBTDS}), frozenset({ExposureType.WFI_IMAGE}))
"""What the SSC's microlensing pipeline (MSOS) works on (R12)."""
SPECTROSCOPY = Observations(frozenset(Survey), frozenset({ExposureType.WFI_SPECTRAL}))
"""What the SSC's grism and prism pipelines (GDPS) work on (R12)."""


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
        The level whose directory holds it.
    scope
        What one product covers.
    step
        The work that makes it.
    datamodel
        The class of `roman_datamodels.datamodels` that opens it, None if there is none.
    description
        One sentence for people.
    follows
        The kind whose overwriting or removal takes this one along (R14).
    of
        The exposures, or the visits of such exposures, that it is made of.
    rad_schema
        rad's schema, by its name without version, of the metadata that come beside the file; None
        where they are in the file.
    clock
        The level whose deadline counts, where it is another.
    needs_packets
        Whether only packets promise it: L1 that was formatted elsewhere may come without it.
    picture
        Whether it is a picture of the kind that it follows. It comes with its image and never
        counts as missing or late: no work waits for it or is repeated for it.
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
    of: Observations = ALL
    rad_schema: str | None = None
    clock: Level | None = None
    needs_packets: bool = False
    picture: bool = False

    @property
    def due_level(self) -> Level:
        """The level whose deadline counts."""
        return self.clock or self.level

    @property
    def maker(self) -> Maker:
        """The institution that computes it."""
        return Maker.SSC if self.step in DELIVERY_STEPS else Maker.SOC


KINDS: tuple[ProductKind, ...] = (
    ProductKind(
        "uncal", "uncal", "asdf", Level.L1, Scope.DETECTOR, Step.FORMATTING,
        "ScienceRawModel", "Uncalibrated ramp of one detector, in DN.",
    ),
    ProductKind(
        "guide_window", "gw", "asdf", Level.L1, Scope.DETECTOR, Step.FORMATTING,
        "L1DetectorGuidewindowModel", "Guide-window images of one detector during the exposure.",
        needs_packets=True,
    ),
    ProductKind(
        "face", "face", "asdf", Level.L1, Scope.EXPOSURE, Step.FORMATTING,
        "L1FaceGuidewindowModel", "Fine attitude correction estimates during the exposure.",
        needs_packets=True,
    ),
    ProductKind(
        "supplement", "wcs", "asdf", Level.L1, Scope.DETECTOR, Step.EXPOSURE,
        "WfiWcsModel",
        "Refined pointing and ephemeris, made with L2 and archived with L1 (R4).", "cal",
        clock=Level.L2,
    ),
    ProductKind(
        "cal", "cal", "asdf", Level.L2, Scope.DETECTOR, Step.EXPOSURE,
        "ImageModel", "Calibrated rate image of one detector.",
    ),
    ProductKind(
        "cal_preview", "preview", "png", Level.L2, Scope.DETECTOR, Step.EXPOSURE,
        None, "Preview of one L2 image with a compass.", "cal", picture=True,
    ),
    ProductKind(
        "cal_thumbnail", "thumb", "png", Level.L2, Scope.DETECTOR, Step.EXPOSURE,
        None, "Thumbnail of one L2 image.", "cal", picture=True,
    ),
    ProductKind(
        "exposure_catalog", "cat", "parquet", Level.L4, Scope.DETECTOR, Step.EXPOSURE,
        "ImageSourceCatalogModel", "Single-band source catalogue of one L2 image.", "cal",
        SOC_IMAGING,
    ),
    ProductKind(
        "exposure_segmentation", "segm", "asdf", Level.L4, Scope.DETECTOR, Step.EXPOSURE,
        "SegmentationMapModel", "Segmentation map of one L2 image.", "cal", SOC_IMAGING,
    ),
    ProductKind(
        "association", "asn", "json", Level.L3, Scope.SKYCELL, Step.VISIT,
        None, "The L2 images that one skycell's coadd is made from.", "coadd", SOC_IMAGING,
    ),
    ProductKind(
        "coadd", "coadd", "asdf", Level.L3, Scope.SKYCELL, Step.VISIT,
        "MosaicModel", "Co-added image of one visit on one skycell.", of=SOC_IMAGING,
    ),
    ProductKind(
        "coadd_preview", "preview", "png", Level.L3, Scope.SKYCELL, Step.VISIT,
        None, "Preview of one coadd with a compass.", "coadd", SOC_IMAGING, picture=True,
    ),
    ProductKind(
        "coadd_thumbnail", "thumb", "png", Level.L3, Scope.SKYCELL, Step.VISIT,
        None, "Thumbnail of one coadd.", "coadd", SOC_IMAGING, picture=True,
    ),
    ProductKind(
        "visit_catalog", "cat", "parquet", Level.L4, Scope.SKYCELL, Step.VISIT,
        "MosaicSourceCatalogModel", "Single-band source catalogue of one visit coadd.", "coadd",
        SOC_IMAGING,
    ),
    ProductKind(
        "visit_segmentation", "segm", "asdf", Level.L4, Scope.SKYCELL, Step.VISIT,
        "MosaicSegmentationMapModel", "Segmentation map of one visit coadd.", "coadd",
        SOC_IMAGING,
    ),
    ProductKind(
        "microlensing_reference_frame", "referenceframe", "asdf", Level.L3, Scope.GROUP_DETECTOR,
        Step.MICROLENSING, "MsosStackModel",
        "Stack of a visit's L2 images of one detector, the frame of its photometry.",
        None, MICROLENSING, "SSC/MSOS/wfi_microlensing_reference_frame_level_3",
    ),
    ProductKind(
        "microlensing_periodic_dqa", "periodicdqa", "parquet", Level.L3, Scope.GROUP_DETECTOR,
        Step.MICROLENSING, None, "Quality of the photometry of a visit on one detector.",
        "microlensing_reference_frame", MICROLENSING,
        "SSC/MSOS/wfi_microlensing_dqa_photometry_level_3",
    ),
    ProductKind(
        "microlensing_object_fiducial_catalog", "objectfiducialcatalog", "parquet", Level.L4,
        Scope.GROUP_DETECTOR, Step.MICROLENSING, None,
        "Positions and magnitudes of the objects of one detector's reference frame.",
        "microlensing_reference_frame", MICROLENSING,
        "SSC/MSOS/wfi_microlensing_object_fiducial_catalog_level_4",
    ),
    ProductKind(
        "microlensing_object_periodic_catalog", "objectperiodiccatalog", "parquet", Level.L4,
        Scope.GROUP_DETECTOR, Step.MICROLENSING, None,
        "Magnitudes of the objects of one detector in the exposures of a visit.",
        "microlensing_reference_frame", MICROLENSING,
        "SSC/MSOS/wfi_microlensing_object_periodic_catalog_level_4",
    ),
    ProductKind(
        "microlensing_light_curve_catalog", "lightcurvecatalog", "parquet", Level.L4,
        Scope.GROUP_DETECTOR, Step.MICROLENSING, None,
        "Light curves of the objects of one detector over the season, up to and with a visit.",
        "microlensing_reference_frame", MICROLENSING,
        "SSC/MSOS/wfi_microlensing_light_curve_catalog_level_4",
    ),
    ProductKind(
        "microlensing_variability_catalog", "variabilitycatalog", "parquet", Level.L4, Scope.GROUP,
        Step.MICROLENSING, None, "Variability of the season's objects, up to and with a visit.",
        None, MICROLENSING, "SSC/MSOS/wfi_microlensing_variability_catalog_level_4",
    ),
    ProductKind(
        "microlensing_event_catalog", "eventcatalog", "parquet", Level.L4, Scope.GROUP,
        Step.MICROLENSING, None, "Microlensing events of the season, up to and with a visit.",
        None, MICROLENSING, "SSC/MSOS/wfi_microlensing_event_catalog_level_4",
    ),
    ProductKind(
        "microlensing_events_dqa", "eventsdqa", "json", Level.L4, Scope.GROUP, Step.MICROLENSING,
        None, "Report on the quality of the season's events.", "microlensing_event_catalog",
        MICROLENSING, "SSC/MSOS/wfi_microlensing_dqa_events_level_4",
    ),
    ProductKind(
        "microlensing_longterm_dqa", "longtermdqa", "json", Level.L4, Scope.GROUP,
        Step.MICROLENSING, None, "Report on the quality of the season's photometry.", None,
        MICROLENSING, "SSC/MSOS/wfi_microlensing_dqa_photometry_level_4",
    ),
    ProductKind(
        "microlensing_detection_efficiency_catalog", "detectionefficiencycatalog", "parquet",
        Level.L4, Scope.GROUP, Step.MICROLENSING, None,
        "Which injected events the search finds, up to and with a visit.",
        "microlensing_event_catalog", MICROLENSING,
        "SSC/MSOS/wfi_microlensing_detection_efficiency_catalog_level_4",
    ),
    ProductKind(
        "spec_location_table", "speclocationtable", "parquet", Level.L4, Scope.DETECTOR,
        Step.SPECTRA, None, "Where the spectra of sources lie on one L2 image.", "cal",
        SPECTROSCOPY, "SSC/GDPS/wfi_spec_location_table_level_4",
    ),
    ProductKind(
        "spec_decontam_2d", "specdecontam2d", "asdf", Level.L4, Scope.DETECTOR,
        Step.SPECTRA, None, "2-D spectra of one L2 image without those they overlap.",
        "cal", SPECTROSCOPY, "SSC/GDPS/wfi_spec_decontam_2d_level_4",
    ),
    ProductKind(
        "spec_dqa_2d", "specdqa2d", "json", Level.L4, Scope.DETECTOR, Step.SPECTRA, None,
        "Report on the quality of the 2-D spectra of one L2 image.", "cal", SPECTROSCOPY,
        "SSC/GDPS/wfi_spec_dqa_2d_level_4",
    ),
    ProductKind(
        "spec_individual_1d", "specindividual1d", "parquet", Level.L4, Scope.DETECTOR,
        Step.SPECTRA, None, "1-D spectra of the sources on one L2 image.", "cal",
        SPECTROSCOPY, "SSC/GDPS/wfi_spec_individual_1d_level_4",
    ),
    ProductKind(
        "spec_combined_1d", "speccombined1d", "parquet", Level.L4, Scope.GROUP,
        Step.COMBINED_SPECTRA, None, "1-D spectra of sources, combined from a visit's exposures.",
        None, SPECTROSCOPY, "SSC/GDPS/wfi_spec_combined_1d_level_4",
    ),
    ProductKind(
        "spec_catalog", "speccatalog", "parquet", Level.L4, Scope.GROUP, Step.COMBINED_SPECTRA,
        None, "Sources of a visit with what was measured in their spectra.", None, SPECTROSCOPY,
        "SSC/GDPS/wfi_spec_catalog_level_4",
    ),
    ProductKind(
        "spec_catalog_dqa", "speccatalogdqa", "json", Level.L4, Scope.GROUP, Step.COMBINED_SPECTRA,
        None, "Report on the quality of a visit's spectroscopic catalogue.", "spec_catalog",
        SPECTROSCOPY, "SSC/GDPS/wfi_spec_catalog_dqa_level_4",
    ),
)  # fmt: skip
"""All product kinds.

Kinds and suffixes of the SSC are rad's names of their schemas, without ``wfi_``, the level and, in
suffixes, ``microlensing_`` and underscores; DQA products of the microlensing pipeline have the name
of their ``dqa_workflow``.
"""

KIND_BY_NAME: dict[str, ProductKind] = {kind.name: kind for kind in KINDS}


def makes(step: Step, kind: ProductKind) -> bool:
    """Return whether a step makes products of a kind."""
    return kind.step is PROMPT_STEPS.get(step, step)


def pictures_of(kind: ProductKind) -> tuple[ProductKind, ...]:
    """Return the kinds of pictures that are drawn of an image of a kind."""
    return tuple(other for other in KINDS if other.picture and other.follows == kind.name)


def followers_of(kind: ProductKind) -> tuple[ProductKind, ...]:
    """Return the kinds that are overwritten and removed together with a kind (R14)."""
    direct = tuple(other for other in KINDS if other.follows == kind.name)
    return direct + tuple(far for near in direct for far in followers_of(near))


SPECTROSCOPIC_ELEMENTS = frozenset({OpticalElement.GRISM, OpticalElement.PRISM})


SKYCELL_IMAGES = tuple(
    kind.name for kind in KINDS if kind.scope is Scope.SKYCELL and kind.extension == "asdf"
)
"""The kinds with a pixel for each of a coadd: their size follows its pixel scale."""


def expected_kinds(
    survey: Survey,
    exposure_type: ExposureType,
    steps: Iterable[Step] = tuple(Step),
    origin: Origin = Origin.PACKETS,
) -> tuple[ProductKind, ...]:
    """Return the kinds that are promised of an exposure or its visit (R9, R10, R12).

    Parameters
    ----------
    survey
        The survey of the program.
    exposure_type
        ``meta.exposure.type``.
    steps
        The work to consider, all by default: also what the SSC delivers.
    origin
        Where the L1 of the exposure comes from.
    """
    wanted = tuple(steps)
    return tuple(
        kind
        for kind in KINDS
        if any(makes(step, kind) for step in wanted)
        and not kind.picture
        and kind.of.include(survey, exposure_type)
        and (origin is Origin.PACKETS or not kind.needs_packets)
    )


def required_kinds(
    step: Step,
    present: Collection[ProductKind],
    survey: Survey | None,
    exposure_type: ExposureType | None,
    origin: Origin = Origin.PACKETS,
) -> tuple[ProductKind, ...]:
    """Return the kinds that a file set must have, given those it has.

    What the SSC delivers may come one kind after the other, but for a data release.

    Parameters
    ----------
    step
        The work that made it.
    present
        The kinds it has, at least one.
    survey, exposure_type
        Of its exposure or visit. Where one of them is not known, only what no file set is without
        is required: what a kind follows, and what follows it on the same level.
    origin
        Where the L1 of the exposure comes from.
    """
    if survey is not None and exposure_type is not None:
        scopes = {kind.scope for kind in present}
        return tuple(
            kind
            for kind in expected_kinds(survey, exposure_type, (step,), origin)
            if kind.scope in scopes and (kind.maker is Maker.SOC or step in RELEASE_DELIVERY_STEPS)
        )
    return tuple(
        kind
        for kind in KINDS
        if kind.maker is Maker.SOC
        and not kind.picture
        and any(
            other.follows == kind.name or (kind.follows == other.name and kind.level == other.level)
            for other in present
        )
    )
