"""Visits: prompt L2 to VISIT L3 on the sky map and its L4, by romancal (R9, R10, R12)."""

from __future__ import annotations

from roman_assets.data_root import DataRoot
from roman_assets.mosaic.coadd import Mosaic, MosaicResult, make_mosaic
from roman_assets.mosaic.manifest import VisitManifest, visit_manifest
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.name import PROMPT_RELEASE, GroupedFileSet
from roman_assets.products.observation import VisitId
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.references.context import (
    configure_crds,
    operational_context,
    require_context,
)
from roman_assets.registry.registry import Registry
from roman_assets.settings.coadd_settings import prompt_pixel_scale
from roman_assets.software import installed_software


def mosaic_visit(
    root: DataRoot,
    visit: VisitId,
    *,
    context: str | None = None,
    routine: bool = False,
    workers: int | None = None,
    run: Run | None = None,
    force: bool = False,
    clock: Clock = utc_now,
) -> MosaicResult:
    """Add up the prompt L2 of a visit on every skycell it touches, and publish what that gives.

    Each skycell gives a coadd on the sky map with its association, and a source catalogue with its
    segmentation map. Skycells whose members, context, software and pixel scale are as before
    are reused. One failing skycell fails alone. Which L2 there are is decided at
    the start: whether a visit is complete is for the caller to ask (`visit_manifest`). Products
    of an incomplete visit are marked: ``missing`` in their metadata names what. When the rest
    comes they are reprocessed, with or without more images, so that the mark goes.

    Routine work replaces no coadd of the same images and mark, whatever context, software and pixel
    scale are in force now: that is a person's decision, as it is for L2 (R15). It makes a lost one
    with the context and scale on its record, and leaves a removed one removed (R13).

    Parameters
    ----------
    root
        The installation.
    visit
        Which one.
    context
        The CRDS pipeline context that was approved (R15); by default the operational one of this
        moment.
    routine
        Nobody asked for the coadds of the same images again.
    workers
        Processes side by side; None for as many as the machine can feed.
    run
        The run it is done in, for the record.
    force
        Make everything again.
    clock
        Gives the time.

    Returns
    -------
    MosaicResult
        Empty, with the reason, for visits whose L3 and L4 are the SSC's (R12) and for calibration
        exposures.

    Raises
    ------
    BadInputError
        If the CRDS cache has no usable context, or not the one given, or the settings of coadds
        cannot be used.
    PassingFaultError
        If the disk is full.
    """
    manifest = visit_manifest(root, visit)
    if not manifest.members or not manifest.kinds:
        return MosaicResult(reason=_reason(manifest))
    with StepAttempt(root, Step.VISIT, str(visit), run, clock) as attempt:
        mosaic = _mosaic_of(root, manifest, context)
        return make_mosaic(
            root, mosaic, Step.VISIT,
            workers=workers, force=force, attempt=attempt, routine=routine,
        )  # fmt: skip


def _mosaic_of(root: DataRoot, manifest: VisitManifest, fixed_context: str | None) -> Mosaic:
    visit = manifest.visit
    configure_crds(root)
    with Registry(root) as registry:
        images = registry.generations.current(member.name for member in manifest.members)
    return Mosaic(
        group=GroupedFileSet(visit.program, PROMPT_RELEASE, visit.grouping),
        images=images,
        kinds=manifest.kinds,
        context=operational_context() if fixed_context is None else require_context(fixed_context),
        software=installed_software(Step.VISIT),
        pixel_scale=prompt_pixel_scale(root),
        facts={
            "survey": manifest.survey,
            "exposure_type": manifest.exposure_type,
            "nexposures": manifest.nexposures,
        },
        missing=manifest.missing,
    )


def _reason(manifest: VisitManifest) -> str:
    if not manifest.members:
        return f"{manifest.visit} has no L2"
    return (
        f"the SOC makes no prompt L3 of {manifest.survey} {manifest.exposure_type} visits "
        "(the Science Support Center does, where there is any)"
    )
