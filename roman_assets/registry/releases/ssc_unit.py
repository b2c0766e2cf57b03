"""The units of a data release that the SSC delivers, and the products each of them has (R12, R13).

They are of the visits whose L3 or L4 are the SSC's, grouped as the release declares. What is
expected of a unit follows from its L2 images: each kind that the SSC makes of them, for each
optical element, and of each detector where kinds are of single detectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from roman_assets.products.kind import (
    RELEASE_DELIVERY_STEPS,
    ProductKind,
    Scope,
    Step,
    expected_kinds,
)
from roman_assets.products.name import (
    DetectorFileSet,
    GroupDetectorFileSet,
    GroupedFileSet,
    GroupFileSet,
    ProductName,
    parse_file_set,
)
from roman_assets.products.observation import ExposureType
from roman_assets.products.release_id import unit_of
from roman_assets.registry.releases.declaration import ReleaseDeclaration
from roman_assets.registry.work_history import CalibratedImage


@dataclass(frozen=True)
class SscUnit:
    """A unit of a release that the SSC delivers.

    Parameters
    ----------
    step
        The step that takes its products in.
    unit
        Begins the names of all its products.
    exposures
        The exposures it is made from.
    exposure_type
        ``meta.exposure.type`` of these.
    products
        What is expected of it.
    """

    step: Step
    unit: GroupedFileSet
    exposures: frozenset[str]
    exposure_type: ExposureType
    products: frozenset[ProductName]

    @property
    def names(self) -> frozenset[str]:
        """The official names of its products."""
        return frozenset(map(str, self.products))


def ssc_units_of(
    declaration: ReleaseDeclaration, images: Iterable[CalibratedImage]
) -> tuple[SscUnit, ...]:
    """Return the units of a release that the SSC delivers, in the order of their names.

    Parameters
    ----------
    declaration
        Of the release.
    images
        The L1 of its exposures that have L2, or will have.
    """
    groups: dict[tuple[Step, GroupedFileSet, ExposureType], list[DetectorFileSet]] = {}
    for image in images:
        if image.exposure_type is None or not declaration.ssc_groupings:
            continue
        file_set, exposure_type = parse_file_set(image.file_set), ExposureType(image.exposure_type)
        assert isinstance(file_set, DetectorFileSet)
        for step in RELEASE_DELIVERY_STEPS:
            if not expected_kinds(declaration.survey, exposure_type, (step,)):
                continue
            for grouping in declaration.ssc_groupings:
                unit = unit_of(file_set.exposure.visit, declaration.release, grouping)
                groups.setdefault((step, unit, exposure_type), []).append(file_set)
    found = [
        SscUnit(
            step,
            unit,
            frozenset(str(one.exposure) for one in file_sets),
            exposure_type,
            frozenset(
                ProductName(_place(unit, one, kind), kind)
                for one in file_sets
                for kind in expected_kinds(declaration.survey, exposure_type, (step,))
            ),
        )
        for (step, unit, exposure_type), file_sets in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: (str(one.unit), one.step)))


def _place(
    unit: GroupedFileSet, image: DetectorFileSet, kind: ProductKind
) -> GroupFileSet | GroupDetectorFileSet:
    """Return the file set of a unit to which products of a kind, made of an image, belong."""
    group = (unit.program, unit.release, unit.grouping)
    if kind.scope is Scope.GROUP_DETECTOR:
        return GroupDetectorFileSet(*group, image.detector, image.optical_element)
    return GroupFileSet(*group, image.optical_element)
