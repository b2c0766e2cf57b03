"""How far a data release has come, by the registry alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step, expected_kinds
from roman_assets.products.name import GroupedFileSet
from roman_assets.products.observation import ExposureId, ExposureType, VisitId
from roman_assets.products.release_id import includes, unit_of
from roman_assets.records.record import ReleasePhase, ReleaseStatement
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.declaration import (
    ReleaseDeclaration,
    declaration_hash,
    parse_declaration,
)
from roman_assets.registry.releases.ssc_unit import SscUnit, ssc_units_of
from roman_assets.registry.work_history import CalibratedImage
from roman_assets.software import deciding_software, installed_software, remedy, same_software


@dataclass(frozen=True)
class Release:
    """A data release that was begun.

    Parameters
    ----------
    declaration
        What it is.
    statement
        The record of its beginning.
    begun_at
        When that was, UTC.
    published_at
        When everyone could see it, UTC; None before.
    """

    declaration: ReleaseDeclaration
    statement: ReleaseStatement
    begun_at: datetime
    published_at: datetime | None = None

    @property
    def partition(self) -> str:
        """The partition of records about it as a whole."""
        return release_partition(self.declaration)

    @property
    def exposures(self) -> tuple[ExposureId, ...]:
        """What it is made from."""
        return tuple(map(ExposureId.parse, self.statement.exposures))

    @property
    def visits(self) -> tuple[VisitId, ...]:
        """The visits of these exposures."""
        return tuple(sorted({exposure.visit for exposure in self.exposures}))

    def has(self, image: CalibratedImage) -> bool:
        """Return whether an L2 image is as the release fixes it: by its context and software."""
        return self.fixes(image.context, image.software)

    def fixes(self, context: str | None, software: Mapping[str, str]) -> bool:
        """Return whether what is made of an exposure with these is as the release fixes it."""
        return context == self.declaration.context and same_software(
            Step.EXPOSURE, software, self.statement.software
        )


def release_partition(declaration: ReleaseDeclaration) -> str:
    """Return the partition of records about a release as a whole."""
    return f"{declaration.survey}_{declaration.release}"


def begun_releases(registry: Registry) -> dict[str, Release]:
    """Return all releases that were begun, by `Release.partition`."""
    found: dict[str, Release] = {}
    for statement, when in registry.decisions.releases():
        declaration = parse_declaration(f"release {statement.release}", statement.content)
        key = release_partition(declaration)
        if statement.phase is ReleasePhase.BEGUN:
            found.setdefault(key, Release(declaration, statement, when))
        elif key in found:
            begun = found[key]
            found[key] = Release(
                begun.declaration, begun.statement, begun.begun_at, begun.published_at or when
            )
    return found


def begun_release(registry: Registry, declaration: ReleaseDeclaration, text: str) -> Release | None:
    """Return a release as it was begun, None if it was not.

    Raises
    ------
    BadInputError
        If it was begun with another declaration.
    """
    release = begun_releases(registry).get(release_partition(declaration))
    if release is not None and release.statement.declaration != declaration_hash(text):
        raise BadInputError(
            declaration,
            "release",
            f"it was begun on {release.begun_at:%Y-%m-%d %H:%M} UTC with another declaration "
            f"(sha256 {release.statement.declaration[:12]}...), and a release never changes",
            "use that declaration (`roman-assets release show` prints it), or declare the next "
            "release",
        )
    return release


def release_of_unit(registry: Registry, unit: GroupedFileSet) -> Release:
    """Return the release that a unit belongs to.

    Raises
    ------
    BadInputError
        If none was begun that has an exposure in the unit.
    """
    for release in begun_releases(registry).values():
        if release.declaration.release == unit.release and any(
            includes(unit, visit) for visit in release.visits
        ):
            return release
    raise BadInputError(
        unit, "release", f"no release {unit.release} with it was begun", "begin it: release run"
    )


def require_software(release: Release) -> None:
    """Refuse to go on with other software than a release was begun with.

    Raises
    ------
    BadInputError
        Naming the package.
    """
    installed = installed_software(Step.RELEASE)
    begun_with = deciding_software(Step.RELEASE, release.statement.software)
    for package, version in begun_with.items():
        if installed.get(package) != version:
            raise BadInputError(
                release.declaration,
                package,
                f"it was begun with {package} {version}, and {installed.get(package)} is installed",
                f"{remedy({package: version}, release.statement.software)}, or go on where it is "
                "installed",
            )


def exposures_in(release: Release, unit: GroupedFileSet) -> tuple[ExposureId, ...]:
    """Return the exposures of a release that belong to a unit."""
    return tuple(exposure for exposure in release.exposures if includes(unit, exposure.visit))


@dataclass(frozen=True)
class ReleaseState:
    """What of a release is done, by names; everything else of it is to be done.

    Parameters
    ----------
    release
        Which one.
    images
        The current L1 and L2 of its exposures.
    calibrated
        Exposures whose detectors all have L2 as the release fixes it, or failed; once the
        release is published, any L2.
    failed_images
        File sets of single detectors whose latest attempt failed.
    units
        All units that the SOC makes of them.
    made
        Units of the SOC that are complete: no product is missing or lost.
    failed_skycells
        File sets of units whose latest attempt failed.
    ssc_units
        All units that the SSC delivers.
    undelivered
        Names of products that the SSC has not delivered.
    """

    release: Release
    images: tuple[CalibratedImage, ...]
    calibrated: frozenset[ExposureId]
    failed_images: frozenset[str]
    units: tuple[GroupedFileSet, ...]
    made: frozenset[GroupedFileSet]
    failed_skycells: frozenset[str]
    ssc_units: tuple[SscUnit, ...] = ()
    undelivered: frozenset[str] = frozenset()

    @property
    def exposures_left(self) -> tuple[ExposureId, ...]:
        """Exposures whose L2 are to be reprocessed."""
        return tuple(one for one in self.release.exposures if one not in self.calibrated)

    @property
    def exposures_to_try(self) -> tuple[ExposureId, ...]:
        """The same, and those with a failed detector: its missing input may have arrived.

        A published release takes no L2 back that a later one, or a person, has replaced.
        """
        if self.release.published_at is not None:
            return self.exposures_left
        failed = {"_".join(name.split("_", 2)[:2]) for name in self.failed_images}
        return tuple(
            one
            for one in self.release.exposures
            if one not in self.calibrated or str(one) in failed
        )

    @property
    def units_left(self) -> tuple[GroupedFileSet, ...]:
        """Units that are to be made."""
        return tuple(unit for unit in self.units if unit not in self.made)

    @property
    def ssc_units_left(self) -> tuple[SscUnit, ...]:
        """Units that the SSC has not delivered whole."""
        return tuple(unit for unit in self.ssc_units if not unit.names.isdisjoint(self.undelivered))

    @property
    def complete(self) -> bool:
        """Whether nothing is left, and nothing failed."""
        left = (*self.exposures_left, *self.units_left, *self.undelivered)
        return not left and not self.failed_images and not self.failed_skycells


def release_state(registry: Registry, release: Release) -> ReleaseState:
    """Look a release up in the registry."""
    release = begun_releases(registry).get(release.partition, release)
    exposures = [str(exposure) for exposure in release.exposures]
    images = registry.work.calibrated_images(exposures)
    failures = registry.work.failures(exposures)
    recent = (failures["step"] == Step.EXPOSURE) & (failures["committed_at"] >= release.begun_at)
    failed = frozenset(failures[recent]["file_set"])
    good = [image for image in images if not image.is_bad]
    units = units_of(release.declaration, good)
    keys = list(map(str, units))
    finished = registry.work.finished_partitions(Step.RELEASE, keys)
    finished -= registry.generations.lost_partitions(Step.RELEASE, keys)
    usable = [one for one in good if one.file_set not in failed or release.has(one)]
    ssc_units = ssc_units_of(release.declaration, usable)
    return ReleaseState(
        release=release,
        images=images,
        calibrated=frozenset(_calibrated(release, images, failed)),
        failed_images=failed,
        units=units,
        made=frozenset(unit for unit in units if str(unit) in finished),
        failed_skycells=_failed_skycells(registry, keys),
        ssc_units=ssc_units,
        undelivered=_undelivered(registry, ssc_units),
    )


def _failed_skycells(registry: Registry, units: list[str]) -> frozenset[str]:
    """Return the file sets that failed; a rejected delivery for the same unit does not count."""
    if not units:
        return frozenset()
    failures = registry.work.failures(units)
    return frozenset(failures[failures["step"] == Step.RELEASE]["file_set"])


def _undelivered(registry: Registry, units: Iterable[SscUnit]) -> frozenset[str]:
    wanted = frozenset[str]().union(*(unit.names for unit in units))
    return wanted.difference(registry.products.find(name=wanted)["name"]) if wanted else wanted


def units_of(
    declaration: ReleaseDeclaration, images: Iterable[CalibratedImage]
) -> tuple[GroupedFileSet, ...]:
    """Return the units that a release makes of images: of those of which the SOC makes L3 (R12)."""
    visits = {
        ExposureId.parse(image.exposure).visit
        for image in images
        if image.exposure_type is not None
        and expected_kinds(declaration.survey, ExposureType(image.exposure_type), (Step.RELEASE,))
    }
    units = {
        unit_of(visit, declaration.release, grouping)
        for visit in visits
        for grouping in declaration.groupings
    }
    return tuple(sorted(units, key=str))


def _calibrated(
    release: Release, images: Iterable[CalibratedImage], failed: frozenset[str]
) -> Iterator[ExposureId]:
    by_exposure: dict[str, list[CalibratedImage]] = {}
    for image in images:
        by_exposure.setdefault(image.exposure, []).append(image)
    for exposure, of_exposure in by_exposure.items():
        if all(_is_done(release, image, failed) for image in of_exposure):
            yield ExposureId.parse(exposure)


def _is_done(release: Release, image: CalibratedImage, failed: frozenset[str]) -> bool:
    """Return whether an image needs no work: once published, unless it is lost.

    Then L2 may be of a later release, or reprocessed by a person's decision (R7, R15). What is
    graded ``BAD`` is left out.
    """
    if image.is_bad:
        return True
    stands = release.published_at is not None and image.name is not None
    return stands or release.has(image) or image.file_set in failed
