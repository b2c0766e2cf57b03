"""What the registry knows of the subject of a delivery, and of what the delivery names (R12)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from roman_assets.errors import BadInputError
from roman_assets.products.kind import (
    RELEASE_DELIVERY_STEPS,
    VISIT_STEPS,
    ProductKind,
    expected_kinds,
)
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey, VisitId
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.replacing import releases_in_place
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.ssc.delivery import Address
from roman_assets.ssc.notification import DeliveredFile
from roman_assets.ssc.released import ReleasedUnit, ReleaseInputs


@dataclass(frozen=True)
class Observed:
    """What the registry knows of the exposure, visit or unit of a release of a delivery."""

    survey: Survey
    exposure_type: ExposureType
    optical_elements: frozenset[str]
    expected: tuple[ProductKind, ...]
    released: ReleasedUnit | None = None

    @classmethod
    def of(cls, registry: Registry, address: Address, source: str) -> Observed:
        """Look up what a delivery is for.

        Raises
        ------
        BadInputError
            If there is no L2 image of it, or no such release or unit.
        """
        if address.step not in RELEASE_DELIVERY_STEPS:
            return cls._of_prompt(registry, address, source)
        released = ReleasedUnit.of(registry, address, source)
        unit, survey = released.unit, released.release.declaration.survey
        return cls(
            survey,
            unit.exposure_type,
            frozenset(str(name.file_set.optical_element) for name in unit.products),
            expected_kinds(survey, unit.exposure_type, (address.step,)),
            released,
        )

    @classmethod
    def _of_prompt(cls, registry: Registry, address: Address, source: str) -> Observed:
        visit = (
            VisitId.parse(address.partition)
            if address.step in VISIT_STEPS
            else ExposureId.parse(address.partition).visit
        )
        seen = [
            one
            for one in registry.work.exposures_of_visit(visit)
            if one.cal and address.partition in (str(visit), str(one.exposure))
        ]
        known = [(one.survey, one.exposure_type) for one in seen]
        survey_name, type_name = known[0] if known else (None, None)
        if survey_name is None or type_name is None:
            raise BadInputError(
                source,
                "filename",
                f"there is no L2 image of {address.partition}",
                "deliver what is made from L2 images that were handed over",
            )
        survey, exposure_type = Survey(survey_name), ExposureType(type_name)
        return cls(
            survey,
            exposure_type,
            frozenset(
                str(entry.product_name.file_set.optical_element)
                for one in seen
                for entry in one.cal
            ),
            expected_kinds(survey, exposure_type, (address.step,)),
        )


@dataclass(frozen=True)
class KnownProducts:
    """What the registry knows of what a delivery names, and what the delivery has itself."""

    generations: Mapping[str, tuple[RegisteredProduct, ...]]
    current: Mapping[str, RegisteredProduct]
    delivered: frozenset[ProductInput]
    superseded_by: Mapping[ProductName, str]
    inputs: ReleaseInputs | None

    @classmethod
    def of(
        cls, registry: Registry, sent: Iterable[DeliveredFile], released: ReleasedUnit | None
    ) -> KnownProducts:
        """Look up all that the files of a delivery name.

        Parameters
        ----------
        registry
            What there is.
        sent
            What the SSC says about the files.
        released
            The unit of a release that they are for, None for prompt products.
        """
        files = list(sent)
        inputs = {item.name for file in files for item in file.inputs}
        leaders = {leader for file in files if (leader := leader_of(file.filename)) is not None}
        names = {file.filename for file in files if _is_official(file.filename)}
        official = {name for name in inputs if _is_official(name)}
        generations = registry.generations.of(official)
        return cls(
            generations,
            registry.generations.current(leaders | names),
            frozenset(ProductInput(name=file.filename, sha256=file.sha256) for file in files),
            releases_in_place(registry, map(ProductName.parse, names)),
            None if released is None else released.inputs(registry, generations),
        )

    def has(self, item: ProductInput) -> bool:
        """Return whether an input is on record or in the delivery."""
        return item in self.delivered or self.generation(item) is not None

    def generation(self, item: ProductInput) -> RegisteredProduct | None:
        """Return the generation that an input is."""
        made = self.generations.get(item.name, ())
        return next((one for one in made if one.sha256 == item.sha256), None)


def leader_of(filename: str) -> str | None:
    """Return the name of the product that a file follows (R14), None if it follows none."""
    try:
        leader = ProductName.parse(filename).leader
    except ValueError:
        return None
    return None if leader is None else str(leader)


def _is_official(text: str) -> bool:
    try:
        ProductName.parse(text)
    except ValueError:
        return False
    return True
