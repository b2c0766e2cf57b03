"""What is to be made of an exposure's detectors, and with what, as decided at the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from roman_assets.acceleration.installed import acceleration_wanted
from roman_assets.archive.store import sha256_of
from roman_assets.calibration.aligned_supplements import AlignedSupplements
from roman_assets.calibration.standing import NOTHING, Standing, standing_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.kind import KIND_BY_NAME, ProductKind, Step, expected_kinds
from roman_assets.products.name import DetectorFileSet, ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey
from roman_assets.publishing.provenance import as_failure, as_input, file_input
from roman_assets.publishing.workers import Completion
from roman_assets.records.record import ProductEntry, ProductInput, WorkFailure, fingerprint
from roman_assets.references.context import (
    astrometric_catalog,
    configure_crds,
    operational_context,
    require_context,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.software import installed_software

_IMPORTS_MEMORY = 550 * 2**20
_MEMORY_PER_BYTE = {True: 11, False: 19}
"""Peak memory of a worker beyond its imports, over the size of the L1 file it works on, with
accelerations and without."""


@dataclass(frozen=True)
class PlannedRamp:
    """The L1 ramp of one detector and the products it is to give.

    Parameters
    ----------
    entry
        The ramp.
    products
        The fingerprint of each kind.
    context
        The CRDS context to make them with.
    data_release
        The release that they are marked with, None for prompt ones.
    standing
        What stays of them, as the work is routine; nothing otherwise.
    aligned
        The supplements of other images that its pointing is taken from, if it is not from its own
        stars.
    """

    entry: ProductEntry
    products: Mapping[ProductKind, str]
    context: str
    data_release: str | None = None
    standing: Standing = NOTHING
    aligned: tuple[ProductInput, ...] = ()

    @property
    def file_set(self) -> DetectorFileSet:
        """The detector's file set."""
        file_set = self.entry.product_name.file_set
        assert isinstance(file_set, DetectorFileSet)
        return file_set

    @property
    def names(self) -> frozenset[str]:
        """The names of its products."""
        return frozenset(str(ProductName(self.file_set, kind)) for kind in self.products)


@dataclass(frozen=True)
class CalibrationPlan:
    """What is to be made of an exposure, and with what, as decided at the start."""

    ramps: tuple[PlannedRamp, ...]
    work: _Work
    ephemeris: Path | None
    astrometric_catalog: Path | None
    aligned: AlignedSupplements

    @classmethod
    def make(
        cls,
        root: DataRoot,
        exposure: ExposureId,
        fixed: str | None,
        data_release: str | None,
        *,
        routine: bool,
    ) -> Self:
        """Decide what an exposure is to give.

        Parameters
        ----------
        root, exposure, data_release, routine
            As in `roman_assets.calibration.exposure.calibrate_exposure`.
        fixed
            The CRDS context that was fixed, None for the operational one.

        Raises
        ------
        BadInputError
            If the exposure has no L1, or the CRDS cache has no usable context, or not that one.
        """
        configure_crds(root)
        best = operational_context() if fixed is None else require_context(fixed)
        receipt = LandingArea(root).receipt(exposure)
        ephemeris, catalog = receipt.definitive_ephemeris, astrometric_catalog(root)
        orbit = () if ephemeris is None else (file_input(ephemeris),)
        work = _Work(
            installed_software(Step.EXPOSURE),
            orbit,
            None if catalog is None else sha256_of(catalog),
        )
        ramps = _current_ramps(root, exposure)
        standing = _standing_of_ramps(root, ramps) if routine else {}
        aligned = AlignedSupplements.current(root, [ramp.product_name for ramp in ramps])
        return cls(
            tuple(
                work.ramp(
                    entry,
                    best,
                    data_release,
                    standing.get(_file_set(entry), NOTHING),
                    aligned.inputs if _file_set(entry) in aligned.dependent else (),
                )
                for entry in ramps
            ),
            work,
            ephemeris,
            catalog,
            aligned,
        )

    def is_outdated(
        self, ramp: PlannedRamp, aligned: AlignedSupplements, kept: Mapping[str, ProductEntry]
    ) -> bool:
        """Return whether an image that needs others for its pointing was made with other ones.

        A routine run reprocesses it only if further images can give its pointing now, and never if
        a data release made it (R7).
        """
        if str(ramp.file_set) not in aligned.dependent:
            return False
        image = kept[str(ProductName(ramp.file_set, KIND_BY_NAME["cal"]))]
        if ramp.standing.is_led:
            further = {item.name for item in aligned.inputs} - {item.name for item in image.inputs}
            return bool(further) and "data_release" not in image.metadata
        return (
            image.fingerprint
            != self.work.made_with(ramp, aligned.inputs).products[KIND_BY_NAME["cal"]]
        )

    @property
    def kept(self) -> dict[str, RegisteredProduct]:
        """The products that stay, by name, of detectors with L2."""
        return {
            name: entry
            for ramp in self.ramps
            if ramp.standing.is_led
            for name, entry in ramp.standing.kept.items()
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of all products by name."""
        return {
            str(ProductName(ramp.file_set, kind)): mark
            for ramp in self.ramps
            for kind, mark in ramp.products.items()
        }

    @property
    def memory(self) -> int:
        """Peak memory of a worker, bytes."""
        largest = max(ramp.entry.size for ramp in self.ramps)
        return _IMPORTS_MEMORY + _MEMORY_PER_BYTE[acceleration_wanted()] * largest


@dataclass(frozen=True)
class _Work:
    """The causes of a product's content besides L1 and context."""

    software: Mapping[str, str]
    orbit: tuple[ProductInput, ...]
    catalog: str | None

    def ramp(
        self,
        entry: ProductEntry,
        best: str,
        data_release: str | None,
        standing: Standing,
        aligned: tuple[ProductInput, ...],
    ) -> PlannedRamp:
        """Plan a ramp: with the best context, or as the record of its L2 says."""
        leader = standing.leader
        context = best if leader is None or leader.context is None else leader.context
        ramp = self.made_with(PlannedRamp(entry, {}, context, data_release, standing), aligned)
        if leader is not None and leader.fingerprint == ramp.products[leader.product_name.kind]:
            return replace(ramp, data_release=leader.metadata.get("data_release"))
        return ramp

    def made_with(self, ramp: PlannedRamp, aligned: tuple[ProductInput, ...]) -> PlannedRamp:
        """Return a ramp whose products have their pointing from some supplements, or from none."""
        ramp = replace(ramp, aligned=aligned)
        products = {
            kind: fingerprint(
                Step.EXPOSURE, self.inputs(ramp, kind), ramp.context, self.software,
                astrometric_catalog=self.catalog,
            )
            for kind in _expected_kinds(ramp.entry)
        }  # fmt: skip
        return replace(ramp, products=products)

    def inputs(self, ramp: PlannedRamp, kind: ProductKind) -> tuple[ProductInput, ...]:
        """Return the inputs of a product of a ramp."""
        orbit = self.orbit if kind.name == "supplement" else ()
        return (as_input(ramp.entry), *orbit, *ramp.aligned)


def _standing_of_ramps(root: DataRoot, ramps: Iterable[ProductEntry]) -> dict[str, Standing]:
    """Return the existing products of ramps, by file set."""
    inputs = {_file_set(ramp): as_input(ramp) for ramp in ramps}
    names = [
        ProductName(ramp.product_name.file_set, kind)
        for ramp in ramps
        for kind in _expected_kinds(ramp)
    ]
    return standing_of(
        root, names, lambda made: inputs[str(made.product_name.file_set)] in made.inputs
    )


def refused_of(wanted: Mapping[str, PlannedRamp]) -> dict[str, WorkFailure]:
    """Return the failures of file sets whose products must stay and cannot be completed."""
    refused = {}
    for key, ramp in wanted.items():
        leader = ramp.standing.leader
        try:
            ramp.standing.require_possible(
                same_work=leader is not None
                and leader.fingerprint == ramp.products[leader.product_name.kind]
            )
        except BadInputError as error:
            refused[key] = as_failure(Completion(key, error=error))
    return refused


def _current_ramps(root: DataRoot, exposure: ExposureId) -> list[ProductEntry]:
    registry = Registry(root)
    names = registry.products.find(exposure=str(exposure), kind="uncal")["name"]
    if names.empty:
        raise BadInputError(
            exposure, "uncal", "the registry has no L1 of it", "format the exposure first"
        )
    return sorted(registry.generations.current(names).values(), key=lambda entry: entry.name)


def _file_set(ramp: ProductEntry) -> str:
    return str(ramp.product_name.file_set)


def _expected_kinds(ramp: ProductEntry) -> tuple[ProductKind, ...]:
    return expected_kinds(
        Survey(ramp.metadata["survey"]),
        ExposureType(ramp.metadata["exposure_type"]),
        (Step.EXPOSURE,),
    )
