"""What is checked only of deliveries for a data release (R12, R13): the unit, and the inputs.

A release is uniform: nothing in it is made from anything but its own L2 images and products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.name import GroupedFileSet
from roman_assets.products.release_id import parse_unit
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.ssc_unit import SscUnit, ssc_units_of
from roman_assets.registry.releases.state import Release, exposures_in, release_of_unit
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.ssc.delivery import Address

_IMAGE = "cal"


@dataclass(frozen=True)
class ReleasedUnit:
    """The unit of a release that a delivery is for.

    Parameters
    ----------
    release
        The release, as it was begun.
    unit
        What is expected of the SSC for it.
    """

    release: Release
    unit: SscUnit

    @classmethod
    def of(cls, registry: Registry, address: Address, source: str) -> Self:
        """Look the unit of a delivery up.

        Raises
        ------
        BadInputError
            If no such release was begun, or nothing of the unit is the SSC's to deliver.
        """
        unit = parse_unit(address.partition)
        try:
            release = release_of_unit(registry, unit)
        except BadInputError as error:
            raise BadInputError(
                source, "filename", error.reason, "deliver it when the SOC has begun the release"
            ) from error
        images = registry.work.calibrated_images(map(str, exposures_in(release, unit)))
        for found in ssc_units_of(release.declaration, images):
            if (found.step, found.unit) == (address.step, unit):
                return cls(release, found)
        groupings = ", ".join(release.declaration.ssc_groupings) or "nothing"
        raise BadInputError(
            source,
            "filename",
            f"{release.declaration} takes no such products of {unit}: of the SSC it takes "
            f"{groupings}, by its declaration",
            "deliver the units that were handed over",
        )

    def inputs(
        self, registry: Registry, generations: Mapping[str, tuple[RegisteredProduct, ...]]
    ) -> ReleaseInputs:
        """Look up what tells whether inputs belong to the release."""
        images = {
            item.name for made in generations.values() for one in made for item in _images_of(one)
        }
        return ReleaseInputs(self.release, registry.generations.of(images))


@dataclass(frozen=True)
class ReleaseInputs:
    """What products of a release may be made from.

    Parameters
    ----------
    release
        The release.
    images
        Generations of the L2 images that products of single exposures were made from, by name.
    """

    release: Release
    images: Mapping[str, tuple[RegisteredProduct, ...]]

    def objection(self, made: RegisteredProduct) -> str | None:
        """Return why a product must not be an input of the release, None if it may be one."""
        name = made.product_name
        if isinstance(name.file_set, GroupedFileSet):
            return self._objection_to_group(made, name.file_set)
        if str(name.exposure) not in self.release.statement.exposures:
            return f"is of an exposure that does not belong to {self.release.declaration}"
        if name.kind.step is Step.FORMATTING:
            return None
        if made.is_bad:
            return f"is graded BAD: {made.quality_reason}"
        images = [made] if name.kind.step is Step.EXPOSURE else self._generations(_images_of(made))
        for image in images:
            if not self.release.fixes(image.context, image.software):
                return (
                    f"was made with {image.context}, and {self.release.declaration} fixes "
                    f"{self.release.declaration.context} and the software it was begun with"
                )
        return None

    def _objection_to_group(self, made: RegisteredProduct, unit: GroupedFileSet) -> str | None:
        declaration = self.release.declaration
        mine = (declaration.release, declaration.survey.value)
        if (unit.release, made.metadata.get("survey")) == mine:
            return None
        return f"is not a product of {declaration}"

    def _generations(self, items: Iterable[ProductInput]) -> list[RegisteredProduct]:
        return [
            one
            for item in items
            for one in self.images.get(item.name, ())
            if one.sha256 == item.sha256
        ]


def _images_of(made: RegisteredProduct) -> Iterable[ProductInput]:
    """Return the L2 images that a product of the SSC of one exposure was made from."""
    if made.product_name.exposure is None or made.product_name.kind.step is Step.EXPOSURE:
        return ()
    return (item for item in made.inputs if item.name.endswith(f"_{_IMAGE}.asdf"))
