"""What can be new: a context, a package, an ephemeris, repaired packets, a scale (R3, R9, R15).

Each cause knows which images it affects. What is affected is always asked of the registry as it is
now, so that what has been reprocessed is affected no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import EphemerisKind, open_ephemeris
from roman_assets.products.kind import Step
from roman_assets.products.observation import DETECTORS, ExposureId
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.records.record import Cause, Change
from roman_assets.references.context import configure_crds, require_context
from roman_assets.references.context_comparison import ContextComparison, ReferenceChange
from roman_assets.registry.registry import Registry
from roman_assets.reprocessing.affected import AffectedProducts, CalibratedImages
from roman_assets.software import deciding_keys, installed_version, steps_decided_by

ReferenceChanges = list[tuple[CalibratedImages, tuple[ReferenceChange, ...]]]
"""Images that CRDS cannot tell apart, and which of their references would be others."""

STEPS: Mapping[Cause, tuple[Step, ...]] = {
    Cause.CONTEXT: (Step.EXPOSURE,),
    Cause.SOFTWARE: (Step.FORMATTING, Step.EXPOSURE),
    Cause.EPHEMERIS: (Step.FORMATTING, Step.EXPOSURE),
    Cause.LEVEL0: (Step.FORMATTING, Step.EXPOSURE),
    Cause.DATA: (Step.FORMATTING, Step.EXPOSURE),
    Cause.PIXEL_SCALE: (),
}
"""The work to be repeated for an exposure; its visit follows."""


def context_change(root: DataRoot, context: str) -> Change:
    """Return the change to a context.

    Raises
    ------
    BadInputError
        If the cache has none of that name.
    """
    configure_crds(root)
    return Change(cause=Cause.CONTEXT, value=require_context(context))


def software_change(text: str) -> Change:
    """Return the change to a version of a library, ``romancal=1.2.0``, or of a recipe.

    Without a version it is the change to what is installed.

    Raises
    ------
    BadInputError
        If no version is given and the library is not installed, or if it decides no content.
    """
    name, _, version = text.partition("=")
    key = name.replace("-", "_")
    if not steps_decided_by(key):
        raise BadInputError(
            "software", name, "it decides the content of no product",
            f"name one of {', '.join(deciding_keys())}",
        )  # fmt: skip
    wanted = version or installed_version(key)
    if wanted is None:
        raise BadInputError(
            "software", name, "it is not installed", f"give its version: {key}=1.2.3"
        )
    return Change(cause=Cause.SOFTWARE, value=f"{key}={wanted}")


def ephemeris_change(root: DataRoot, name: str) -> Change:
    """Return the change to a definitive ephemeris in the landing area (R3).

    Raises
    ------
    BadInputError
        If the file is not there, or holds no definitive ephemeris.
    """
    path = _ephemeris_path(root, name)
    _definitive_range(path)
    return Change(cause=Cause.EPHEMERIS, value=path.relative_to(root.landing).as_posix())


def level0_change(registry: Registry, exposures: Iterable[str]) -> Change:
    """Return the change of exposures whose packets or formatting were wrong.

    Raises
    ------
    BadInputError
        If one of them is invalid, or has no L1.
    """
    wanted = sorted(set(exposures))
    for text in wanted:
        try:
            ExposureId.parse(text)
        except ValueError as error:
            raise BadInputError("exposure", text, str(error), "name exposures") from error
    known = set(registry.products.find(exposure=wanted, kind="uncal")["exposure"])
    for text in (one for one in wanted if one not in known):
        raise BadInputError(
            "exposure",
            text,
            "there is no L1 of it",
            "see `roman-assets status` for those there are",
        )
    return Change(cause=Cause.LEVEL0, value=" ".join(wanted))


def data_change(start: datetime, stop: datetime, detectors: Iterable[str] = ()) -> Change:
    """Return the change for a problem of the data of a time range.

    Parameters
    ----------
    start, stop
        The range, UTC, the end excluded: exposures that overlap it.
    detectors
        Only exposures with data of these; of all by default.

    Raises
    ------
    BadInputError
        If the range is empty, or a detector is invalid.
    """
    if start >= stop:
        raise BadInputError(
            "data problem", "range", f"it ends at {stop.isoformat()}, before it begins",
            "give a range that begins before it ends",
        )  # fmt: skip
    wanted = sorted({detector.upper() for detector in detectors})
    for detector in wanted:
        if detector not in DETECTORS:
            raise BadInputError(
                "data problem", "detector", f"{detector} is not a detector", "name WFI01 to WFI18"
            )
    span = "/".join(moment.astimezone(UTC).isoformat() for moment in (start, stop))
    return Change(cause=Cause.DATA, value=" ".join([span, *wanted]))


def pixel_scale_change(text: str) -> Change:
    """Return the change to a pixel scale of prompt coadds.

    Raises
    ------
    BadInputError
        If there is no scale of that name.
    """
    if text not in set(PixelScale):
        raise BadInputError(
            "pixel scale", text, "there is no such scale", f"name one of {', '.join(PixelScale)}"
        )
    return Change(cause=Cause.PIXEL_SCALE, value=text)


def choose_images(
    root: DataRoot,
    change: Change,
    products: AffectedProducts,
) -> ReferenceChanges:
    """Choose the images that a change affects; tell which references change, if it is of these.

    Parameters
    ----------
    root
        The installation.
    change
        What is new.
    products
        Takes the choice.

    Raises
    ------
    BadInputError
        If what is new is not there any more.
    """
    return _CHOICES[change.cause](root, change.value, products)


def _by_references(root: DataRoot, context: str, products: AffectedProducts) -> ReferenceChanges:
    configure_crds(root)
    return products.choose_by_references(ContextComparison(context, products.contexts()))


def _by_software(root: DataRoot, software: str, products: AffectedProducts) -> ReferenceChanges:
    package, _, version = software.partition("=")
    products.choose_by_software(package, version, steps_decided_by(package))
    return []


def _by_ephemeris(root: DataRoot, name: str, products: AffectedProducts) -> ReferenceChanges:
    products.choose_by_ephemeris(*_definitive_range(_ephemeris_path(root, name)))
    return []


def _by_exposures(root: DataRoot, exposures: str, products: AffectedProducts) -> ReferenceChanges:
    products.choose_exposures(exposures.split())
    return []


def _by_time(root: DataRoot, value: str, products: AffectedProducts) -> ReferenceChanges:
    span, *detectors = value.split()
    start, stop = map(datetime.fromisoformat, span.split("/"))
    products.choose_by_time(start, stop, detectors or None)
    return []


def _by_pixel_scale(root: DataRoot, scale: str, products: AffectedProducts) -> ReferenceChanges:
    products.choose_by_pixel_scale(PixelScale(scale))
    return []


_CHOICES: Mapping[Cause, Callable[[DataRoot, str, AffectedProducts], ReferenceChanges]] = {
    Cause.CONTEXT: _by_references,
    Cause.SOFTWARE: _by_software,
    Cause.EPHEMERIS: _by_ephemeris,
    Cause.LEVEL0: _by_exposures,
    Cause.DATA: _by_time,
    Cause.PIXEL_SCALE: _by_pixel_scale,
}


def _ephemeris_path(root: DataRoot, name: str) -> Path:
    """Find an ephemeris in the landing area; of one from elsewhere its name counts."""
    for path in (root.landing / name, root.landing / Path(name).name):
        if path.is_file() and path.is_relative_to(root.landing):
            return path
    raise BadInputError(
        root.landing / Path(name).name, "ephemeris", "it is not in the landing area",
        "deliver it there (docs/l0.md)",
    )  # fmt: skip


def _definitive_range(path: Path) -> tuple[datetime, datetime]:
    ephemeris = open_ephemeris(path)
    if ephemeris.kind is not EphemerisKind.DEFINITIVE:
        raise BadInputError(
            path, "ephemeris", f"it is {ephemeris.kind.lower()}", "name a definitive one"
        )
    return ephemeris.start, ephemeris.stop
