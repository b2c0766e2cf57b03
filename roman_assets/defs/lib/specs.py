"""Asset specs, one for each row of the table of product kinds, and what lies upstream of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg

from roman_assets.defs.lib.freshness import freshness_policy, freshness_sentence
from roman_assets.defs.lib.partitions import (
    PARTITIONS,
    exposure_partitions,
    release_partitions,
    ssc_visit_partitions,
    visit_partitions,
)
from roman_assets.products.kind import (
    KINDS,
    PROMPT_STEPS,
    Level,
    Maker,
    ProductKind,
    Step,
    makes,
)
from roman_assets.software import RECIPES, code_version, source_digest

OWNERS = ("team:soc",)
_OWNERS_BY_MAKER: Mapping[Maker, tuple[str, ...]] = {Maker.SOC: OWNERS, Maker.SSC: ("team:ssc",)}

LEVEL0 = dg.AssetKey("level0")
ANCILLARY = dg.AssetKey("ancillary")
CALIBRATION_REFERENCES = dg.AssetKey("calibration_references")
VISIT_REFERENCES = dg.AssetKey("visit_calibration_references")
VISIT_MANIFEST = dg.AssetKey("visit_manifest")
EXPOSURE_HANDOVER = dg.AssetKey("exposure_handover")
VISIT_HANDOVER = dg.AssetKey("visit_handover")
RELEASE_HANDOVER = dg.AssetKey("release_handover")

CODE_VERSIONS: Mapping[Step, str] = {step: code_version(step) for step in RECIPES}
"""Change when software changes that decides the content of a step's products."""

_UPSTREAM: Mapping[str, tuple[dg.AssetKey | dg.AssetDep, ...]] = {
    "uncal": (LEVEL0, ANCILLARY),
    "guide_window": (LEVEL0, ANCILLARY),
    "face": (LEVEL0, ANCILLARY),
    "cal": (dg.AssetKey("uncal"), CALIBRATION_REFERENCES),
    "cal_preview": (dg.AssetKey("cal"),),
    "cal_thumbnail": (dg.AssetKey("cal"),),
    "supplement": (dg.AssetKey("uncal"), dg.AssetKey("cal"), ANCILLARY),
    "exposure_catalog": (dg.AssetKey("cal"),),
    "exposure_segmentation": (dg.AssetKey("cal"),),
    "association": (VISIT_MANIFEST,),
    "coadd": (dg.AssetKey("association"), VISIT_REFERENCES),
    "coadd_preview": (dg.AssetKey("coadd"),),
    "coadd_thumbnail": (dg.AssetKey("coadd"),),
    "visit_catalog": (dg.AssetKey("coadd"),),
    "visit_segmentation": (dg.AssetKey("coadd"),),
    "microlensing_reference_frame": (VISIT_HANDOVER,),
    "microlensing_periodic_dqa": (dg.AssetKey("microlensing_reference_frame"),),
    "microlensing_object_fiducial_catalog": (dg.AssetKey("microlensing_reference_frame"),),
    "microlensing_object_periodic_catalog": (dg.AssetKey("microlensing_object_fiducial_catalog"),),
    "microlensing_light_curve_catalog": (dg.AssetKey("microlensing_object_periodic_catalog"),),
    "microlensing_variability_catalog": (dg.AssetKey("microlensing_light_curve_catalog"),),
    "microlensing_event_catalog": (dg.AssetKey("microlensing_light_curve_catalog"),),
    "microlensing_events_dqa": (dg.AssetKey("microlensing_event_catalog"),),
    "microlensing_longterm_dqa": (dg.AssetKey("microlensing_light_curve_catalog"),),
    "microlensing_detection_efficiency_catalog": (dg.AssetKey("microlensing_event_catalog"),),
    "spec_location_table": (EXPOSURE_HANDOVER, dg.AssetKey("cal")),
    "spec_decontam_2d": (dg.AssetKey("spec_location_table"), dg.AssetKey("cal")),
    "spec_dqa_2d": (dg.AssetKey("spec_decontam_2d"), dg.AssetKey("cal")),
    "spec_individual_1d": (dg.AssetKey("spec_decontam_2d"), dg.AssetKey("cal")),
    "spec_combined_1d": (
        VISIT_HANDOVER,
        dg.AssetDep("spec_individual_1d", partition_mapping=dg.AllPartitionMapping()),
    ),
    "spec_catalog": (dg.AssetKey("spec_combined_1d"),),
    "spec_catalog_dqa": (dg.AssetKey("spec_catalog"),),
}

_SOFTWARE: Mapping[Step, str] = {
    Step.FORMATTING: "sdf",
    Step.EXPOSURE: "romancal",
    Step.VISIT: "romancal",
    Step.MICROLENSING: "msos",
    Step.SPECTRA: "gdps",
    Step.COMBINED_SPECTRA: "gdps",
    Step.RELEASE: "romancal",
    Step.RELEASE_MICROLENSING: "msos",
    Step.RELEASE_SPECTRA: "gdps",
}
"""What makes the products of a step, for the graph."""

ALWAYS_MADE = frozenset({"cal"})
"""Kinds that every successful step makes; of the others an exposure or visit may have none.

FACE may be formatted before any detector: then nothing is calibrated.
"""


def kinds_of(step: Step) -> tuple[ProductKind, ...]:
    """Return the kinds a step makes, upstream first."""
    kinds = {kind.name: kind for kind in KINDS if makes(step, kind)}
    return tuple(kinds[name] for name in _UPSTREAM if name in kinds)


def asset_key(step: Step, kind: ProductKind) -> dg.AssetKey:
    """Return the asset of what a step makes of a kind: the kind's name, or that of its release."""
    if step in PROMPT_STEPS:
        return dg.AssetKey(f"release_{kind.name.removeprefix('visit_')}")
    return dg.AssetKey(kind.name)


def product_spec(kind: ProductKind, step: Step) -> dg.AssetSpec:
    """Return the asset of what a step makes of a product kind."""
    return dg.AssetSpec(
        asset_key(step, kind),
        description=_description(kind, step),
        deps=_upstream(kind, step),
        group_name="release" if step in PROMPT_STEPS else kind.level.lower(),
        kinds={kind.extension, _SOFTWARE[step]},
        owners=_OWNERS_BY_MAKER[kind.maker],
        code_version=CODE_VERSIONS.get(step),
        partitions_def=PARTITIONS[step],
        # a release has no prompt deadline
        freshness_policy=None if step in PROMPT_STEPS else freshness_policy(kind.due_level),
        skippable=kind.name not in ALWAYS_MADE,
        tags={"level": kind.level.lower(), "scope": kind.scope.value, "step": step.value},
        metadata={
            "file_suffix": kind.suffix,
            "datamodel": kind.datamodel or "none",
            "maker": kind.maker.value,
            **({"rad_schema": kind.rad_schema} if kind.rad_schema else {}),
        },
    )


def product_specs(step: Step) -> list[dg.AssetSpec]:
    """Return the assets of all kinds that a step makes, upstream first."""
    return [product_spec(kind, step) for kind in kinds_of(step)]


def _upstream(kind: ProductKind, step: Step) -> list[dg.AssetKey | dg.AssetDep]:
    """Return what a product is made from.

    The release record fixes a unit's L2 images and CRDS context, so new references make nothing
    of it stale.
    """
    upstream = _UPSTREAM[kind.name]
    if step not in PROMPT_STEPS:
        return list(upstream)
    every_cal = dg.AssetDep("cal", partition_mapping=dg.AllPartitionMapping())
    own: Mapping[dg.AssetKey, dg.AssetKey | dg.AssetDep] = {
        VISIT_MANIFEST: every_cal,
        VISIT_HANDOVER: RELEASE_HANDOVER,
        **{dg.AssetKey(one.name): asset_key(step, one) for one in kinds_of(step)},
    }
    return [
        own.get(one, one) if isinstance(one, dg.AssetKey) else one
        for one in upstream
        if one != VISIT_REFERENCES
    ]


def visit_manifest_spec() -> dg.AssetSpec:
    """Return the asset that leads from exposures to their visit.

    Which exposures belong to a visit no partition mapping can tell, since keys are known only as
    they are observed; the manifest names them.
    """
    return dg.AssetSpec(
        VISIT_MANIFEST,
        description="The L2 images a visit is made of: which exposures are in, and their content.",
        deps=[dg.AssetDep("cal", partition_mapping=dg.AllPartitionMapping())],
        group_name=Level.L3.lower(),
        kinds={"duckdb"},
        owners=OWNERS,
        code_version=source_digest("mosaic/manifest.py"),
        partitions_def=visit_partitions,
    )


def handover_specs() -> list[dg.AssetSpec]:
    """Return what tells the SSC that L2 images are ready (R12)."""
    every_cal = dg.AssetDep("cal", partition_mapping=dg.AllPartitionMapping())
    return [
        dg.AssetSpec(
            key,
            description=f"Manifest of the L2 images of {whole}, handed over to the SSC (R12).",
            deps=[dep],
            group_name="ssc",
            kinds={"json"},
            owners=OWNERS,
            code_version=source_digest("ssc/handover.py"),
            partitions_def=partitions,
        )
        for key, whole, dep, partitions in (
            (EXPOSURE_HANDOVER, "a spectroscopic exposure", "cal", exposure_partitions),
            (
                VISIT_HANDOVER,
                "a visit whose L3 or L4 the SSC makes",
                every_cal,
                ssc_visit_partitions,
            ),
            (
                RELEASE_HANDOVER,
                "a unit of a data release whose L3 or L4 the SSC makes",
                every_cal,
                release_partitions,
            ),
        )
    ]


def upstream_specs() -> list[dg.AssetSpec]:
    """Return what the graph starts from and does not make itself."""
    return [
        dg.AssetSpec(
            LEVEL0,
            description=(
                "Raw packets in the landing area. Never visible to general users (R1). "
                "Reported when packets of an exposure are formatted, all or those that are in."
            ),
            group_name="l0",
            kinds={"ccsds"},
            owners=OWNERS,
            partitions_def=exposure_partitions,
            tags={"level": "l0", "access": "private"},
        ),
        dg.AssetSpec(
            ANCILLARY,
            description=(
                "Executed plans, MA tables and ephemerides in the landing area; a definitive "
                "ephemeris follows the predicted one (R3). An exposure has a new data version "
                "when the definitive one covers it."
            ),
            group_name="l0",
            kinds={"ccsds"},
            owners=OWNERS,
            partitions_def=exposure_partitions,
            tags={"level": "l0", "access": "private"},
        ),
        dg.AssetSpec(
            CALIBRATION_REFERENCES,
            description=(
                "Reference files chosen by the CRDS pipeline context; every product records "
                "the context it was made with (R5). An exposure has a new data version when the "
                "operational context chooses another file for one of its images (R15)."
            ),
            group_name="calibration",
            kinds={"crds", "asdf"},
            owners=OWNERS,
            partitions_def=exposure_partitions,
        ),
        dg.AssetSpec(
            VISIT_REFERENCES,
            description=(
                "Reference files of a visit's coadds and of its L2, and the pixel scale of the "
                "coadds. A visit has a new data version when the operational context chooses "
                "another file for one of them, or another scale is set (R15)."
            ),
            deps=[dg.AssetDep(CALIBRATION_REFERENCES, partition_mapping=dg.AllPartitionMapping())],
            group_name="calibration",
            kinds={"crds", "asdf"},
            owners=OWNERS,
            partitions_def=visit_partitions,
        ),
    ]


def _description(kind: ProductKind, step: Step) -> str:
    if step in PROMPT_STEPS:
        maker = " Made and delivered by the SSC (R12)." if kind.maker is Maker.SSC else ""
        return (
            f"{kind.description.replace('one visit', 'one unit')}{maker} Of a data release: never "
            "overwritten, and seen by operators alone until the release is published (R13)."
        )
    followed = (
        f" Overwritten or removed together with `{kind.follows}` (R14)." if kind.follows else ""
    )
    maker = " Made and delivered by the SSC (R12)." if kind.maker is Maker.SSC else ""
    model = f" Opens as `roman_datamodels.datamodels.{kind.datamodel}`." if kind.datamodel else ""
    return f"{kind.description}{maker}{model}{followed} {freshness_sentence(kind.due_level)}"


def asset_keys(step: Step) -> Iterable[dg.AssetKey]:
    """Return the asset keys of a step's products, upstream first."""
    return (asset_key(step, kind) for kind in kinds_of(step))
