"""One unit of a data release: L2 of a visit, pass or program to DR L3 and their L4 (R7, R13)."""

from __future__ import annotations

from collections.abc import Iterator

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.mosaic.coadd import Mosaic, MosaicResult, make_mosaic
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step, expected_kinds
from roman_assets.products.name import GroupedFileSet
from roman_assets.products.observation import ExposureType
from roman_assets.products.release_id import grouping_of
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.references.context import configure_crds
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import (
    Release,
    exposures_in,
    release_of_unit,
    require_software,
)
from roman_assets.registry.work_history import CalibratedImage
from roman_assets.software import installed_software


def mosaic_release_unit(
    root: DataRoot,
    unit: GroupedFileSet,
    *,
    workers: int | None = None,
    run: Run | None = None,
    force: bool = False,
    clock: Clock = utc_now,
) -> MosaicResult:
    """Add up the L2 of a unit of a data release, with the context that the release fixes.

    The products have versioned names: existing ones stay, lost ones are restored. Only operators
    see them until the release is published; from then on everyone does. Images that could not be
    calibrated are left out, and the products list them as missing.

    Parameters
    ----------
    root
        The installation.
    unit
        Which one, of a release that was begun.
    workers
        Processes side by side; None for as many as the machine can feed.
    run
        The run it is done in, for the record.
    force
        Make everything again; refused by what exists.
    clock
        Gives the time.

    Raises
    ------
    BadInputError
        If no such release was begun, other software is installed than it was begun with, or an L2
        of the unit is not made with the release's context and software: no product of a release
        mixes them.
    PassingFaultError
        If the disk is full.
    """
    configure_crds(root)
    with Registry(root) as registry:
        release = release_of_unit(registry, unit)
        require_software(release)
        mosaic = _mosaic(root, registry, release, unit)
    if not mosaic.images:
        return MosaicResult(reason=f"{unit} has no L2 of which the SOC makes L3")
    with StepAttempt(root, Step.RELEASE, str(unit), run, clock) as attempt:
        return make_mosaic(
            root, mosaic, Step.RELEASE, workers=workers, force=force, attempt=attempt
        )


def _mosaic(root: DataRoot, registry: Registry, release: Release, unit: GroupedFileSet) -> Mosaic:
    declaration = release.declaration
    exposures = [str(exposure) for exposure in exposures_in(release, unit)]
    images = [
        image
        for image in registry.work.calibrated_images(exposures)
        if image.exposure_type is not None
        and expected_kinds(declaration.survey, ExposureType(image.exposure_type), (Step.RELEASE,))
    ]
    failures = registry.work.failures(exposures)
    failed = frozenset(failures[failures["step"] == Step.EXPOSURE]["file_set"])
    usable = tuple(_usable(release, images, failed))
    visits = {exposure.visit for exposure in exposures_in(release, unit)}
    manifests = visit_manifests(root, registry, sorted(visits)).values()
    types = sorted({ExposureType(str(image.exposure_type)) for image in usable})
    lacking = {image.file_set for image in images} - {image.file_set for image in usable}
    planned = [one.nexposures for one in manifests if one.nexposures is not None]
    return Mosaic(
        group=unit,
        images=registry.generations.current(str(image.name) for image in usable),
        kinds=expected_kinds(declaration.survey, types[0], (Step.RELEASE,)) if types else (),
        context=declaration.context,
        software=installed_software(Step.VISIT),
        pixel_scale=declaration.pixel_scale(grouping_of(unit)),
        facts={
            "survey": declaration.survey.value,
            "exposure_type": types[0].value if types else None,
            "nexposures": sum(planned) if planned else None,
        },
        missing=tuple(sorted({name for one in manifests for name in one.missing} | lacking)),
        access=Role.OPERATIONS,
    )


def _usable(
    release: Release, images: list[CalibratedImage], failed: frozenset[str]
) -> Iterator[CalibratedImage]:
    """Yield the images to add up; one that is not as the release fixes it must have failed.

    What is graded ``BAD`` is left out.
    """
    for image in images:
        if image.is_bad:
            continue
        if release.has(image):
            yield image
        elif image.file_set not in failed:
            raise BadInputError(
                image.name or image.file_set,
                "context",
                _difference(release, image),
                "make the release's L2 first: `roman-assets release run`",
            )


def _difference(release: Release, image: CalibratedImage) -> str:
    wanted = release.declaration
    if image.name is None:
        return f"{wanted} needs L2 of it, and there is none"
    if image.context != wanted.context:
        return f"it is made with {image.context}, and {wanted} with {wanted.context}"
    return f"it is not made with the software that {wanted} was begun with"
