"""The L2 images that a calibration overwrites, to be compared with the new ones (R6)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from roman_assets.archive.store import Archive
from roman_assets.calibration.calibration_plan import CalibrationPlan, PlannedRamp
from roman_assets.calibration.detector import CalibratedDetector
from roman_assets.data_root import DataRoot
from roman_assets.errors import PlatformError
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import ProductName
from roman_assets.reader.product_comparison import GenerationChange
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct

_COMPARED = ("cal", "exposure_catalog")


@dataclass(frozen=True)
class FormerImages:
    """The images that will be overwritten, to be compared while their files are there (R6).

    Parameters
    ----------
    products
        By name: images, and the catalogues made with them.
    files
        Where their files are laid out, by name.
    missing
        Why a file could not be, by name.
    """

    products: Mapping[str, RegisteredProduct]
    files: Mapping[str, Path]
    missing: Mapping[str, str]

    @classmethod
    def of(
        cls, root: DataRoot, ramps: Iterable[PlannedRamp], kept: Container[str], directory: Path
    ) -> Self:
        """Lay out the current images of ramps, but for those that are kept."""
        names = {
            str(ProductName(ramp.file_set, KIND_BY_NAME[kind]))
            for ramp in ramps
            if str(ProductName(ramp.file_set, KIND_BY_NAME["cal"])) not in kept
            for kind in _COMPARED
        }
        with Registry(root) as registry:
            products = registry.generations.current(names)
        place, archive = directory / "former", Archive.of(root)
        place.mkdir(exist_ok=True)
        files, missing = {}, {}
        for name, product in products.items():
            try:
                archive.lay_out(product.sha256, place / name)
                files[name] = place / name
            except FileNotFoundError:
                missing[name] = "its file is gone from the archive"
            except (OSError, PlatformError) as error:
                missing[name] = f"its file cannot be read: {type(error).__name__}"
        return cls(products, files, missing)

    def files_of(self, ramp: PlannedRamp) -> dict[str, Path]:
        """Return the files of a detector, by name of the product kind."""
        names = {kind: str(ProductName(ramp.file_set, KIND_BY_NAME[kind])) for kind in _COMPARED}
        return {kind: self.files[name] for kind, name in names.items() if name in self.files}

    def change_by(
        self,
        name: str,
        made: CalibratedDetector,
        plan: CalibrationPlan,
        inputs: tuple[ProductInput, ...],
    ) -> dict[str, Any]:
        """Return what the record of a product is to say that it changed, if it overwrites one."""
        before = self.products.get(name)
        if before is None or before.product_name.kind.name != "cal":
            return {}
        return GenerationChange.of(
            before,
            context=made.context,
            software=plan.work.software,
            references=made.references,
            inputs=inputs,
            files=made.change,
            not_compared=self.missing.get(name, made.not_compared),
        ).as_metadata()
