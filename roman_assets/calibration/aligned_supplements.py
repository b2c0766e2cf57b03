"""Which images of an exposure give the common pointing, and which ones depend on it (R4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from roman_assets.archive.store import Archive, sha256_of
from roman_assets.calibration.detector import CalibratedDetector
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import ProductName
from roman_assets.products.pointing import ALIGNMENT_FAILED, PointingSource
from roman_assets.publishing.provenance import as_input
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry


@dataclass(frozen=True)
class AlignedSupplements:
    """The supplements of an exposure's images that romancal aligned with their own stars.

    Parameters
    ----------
    supplements
        As inputs of other products, by file set.
    dependent
        File sets of the images that exist and could not be aligned.
    paths
        Where supplements of this run are, by file set; the others are in the archive.
    """

    supplements: Mapping[str, ProductInput]
    dependent: frozenset[str]
    paths: Mapping[str, Path]

    @classmethod
    def current(cls, root: DataRoot, ramps: Iterable[ProductName]) -> Self:
        """Look up the current products of ramps; a supplement whose file is gone does not count."""
        file_sets = [ramp.file_set for ramp in ramps]
        names = {
            kind: [str(ProductName(one, KIND_BY_NAME[kind])) for one in file_sets]
            for kind in ("cal", "supplement")
        }
        archive = Archive.of(root)
        with Registry(root) as registry:
            images = registry.generations.current(names["cal"])
            supplements = registry.generations.current(names["supplement"])
        return cls(
            {
                str(entry.product_name.file_set): as_input(entry)
                for entry in supplements.values()
                if entry.metadata.get("pointing") == PointingSource.OWN
                and archive.has_blob(entry.sha256, entry.size)
            },
            frozenset(
                str(entry.product_name.file_set)
                for entry in images.values()
                if entry.metadata.get("alignment") == ALIGNMENT_FAILED
                or entry.metadata.get("pointing") == PointingSource.COMMON
            ),
            {},
        )

    def with_made(self, made: Mapping[str, CalibratedDetector]) -> Self:
        """Return the supplements once what was made of some file sets has replaced theirs."""
        paths = {
            file_set: one.files["supplement"]
            for file_set, one in made.items()
            if one.quality.pointing is PointingSource.OWN
        }
        new = {
            file_set: ProductInput(name=path.name, sha256=sha256_of(path))
            for file_set, path in paths.items()
        }
        left = {key: item for key, item in self.supplements.items() if key not in made}
        return type(self)(left | new, self.dependent, paths)

    @property
    def inputs(self) -> tuple[ProductInput, ...]:
        """The supplements as inputs, by name."""
        return tuple(sorted(self.supplements.values(), key=lambda item: item.name))

    def lay_out(self, root: DataRoot, directory: Path) -> tuple[Path, ...]:
        """Put all supplements, under their official names, into a directory; return their paths."""
        archive, place = Archive.of(root), directory / "aligned"
        place.mkdir()
        paths = []
        for file_set, item in sorted(self.supplements.items()):
            if file_set in self.paths:
                paths.append(self.paths[file_set])
                continue
            paths.append(place / item.name)
            archive.lay_out(item.sha256, paths[-1])
        return tuple(paths)
