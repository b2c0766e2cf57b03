"""Two generations of a product side by side, in figures and as a picture (R6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.reader.product_comparison import GenerationChange, compare_files, open_image
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct

_SHOWN_DIFFERENCES = 99.5
"""The difference is drawn up to this percentile of its absolute values."""


@dataclass(frozen=True)
class GenerationPair:
    """Two generations of a product.

    Parameters
    ----------
    before, after
        What their records say.
    change
        What is different: found in the files, else as it is on record.
    files
        Local files of both; None if one of them is gone.
    """

    before: RegisteredProduct
    after: RegisteredProduct
    change: GenerationChange
    files: tuple[Path, Path] | None

    @property
    def name(self) -> ProductName:
        """The official name of both."""
        return self.after.product_name


def compare_generations(
    root: DataRoot, name: str, *, generation: int | None = None, before: int | None = None
) -> GenerationPair:
    """Compare two generations of a product.

    Parameters
    ----------
    root
        The installation, with the role of operations: past generations are no longer public.
    name
        Official name.
    generation
        The newer one; by default the newest.
    before
        The older one; by default the one before it.

    Raises
    ------
    BadInputError
        If there are no such generations, or a file cannot be read as what its name says.
    """
    Engine(root).fold()
    with Registry(root) as registry:
        made = registry.generations.of([name]).get(name, ())
        after = _chosen(name, made, len(made) if generation is None else generation)
        earlier = _chosen(name, made, after.generation - 1 if before is None else before)
        catalogs = _catalogs(registry, earlier, after)
    files = _files(root, (earlier, after))
    if files is None:
        return GenerationPair(earlier, after, _on_record(earlier, after), None)
    pair = _files(root, catalogs) if catalogs else None
    change = GenerationChange.of(
        earlier,
        context=after.context,
        software=after.software,
        references=after.references,
        inputs=after.inputs,
        files=compare_files(*files, after.product_name, pair),
    )
    return GenerationPair(earlier, after, change, files)


def _chosen(name: str, made: Sequence[RegisteredProduct], number: int) -> RegisteredProduct:
    found = [one for one in made if one.generation == number]
    if not made:
        raise BadInputError(
            name, "name", "there never was such a product", "see `roman-assets ls` for the names"
        )
    if not found:
        raise BadInputError(
            name,
            "generation",
            f"there is no generation {number}",
            f"it has been made {len(made)} times: name two of the generations 1 to {len(made)}"
            if len(made) > 1
            else "it has been made once: there is nothing to compare with",
        )
    return found[0]


def _catalogs(
    registry: Registry, *pair: RegisteredProduct
) -> tuple[RegisteredProduct, RegisteredProduct] | None:
    """Return the catalogues that were made together with two images, if both have one."""
    names = [str(one) for one in pair[0].product_name.followers if one.kind.extension == "parquet"]
    made = [one for name in names for one in registry.generations.of([name]).get(name, ())]
    of_record: Mapping[str, RegisteredProduct] = {one.record_id: one for one in made}
    before, after = (of_record.get(image.record_id) for image in pair)
    return (before, after) if before and after else None


def _files(
    root: DataRoot, pair: tuple[RegisteredProduct, RegisteredProduct]
) -> tuple[Path, Path] | None:
    archive = Archive.of(root)
    try:
        return archive.local(pair[0].sha256), archive.local(pair[1].sha256)
    except FileNotFoundError:
        return None


def _on_record(before: RegisteredProduct, after: RegisteredProduct) -> GenerationChange:
    kept = GenerationChange.of_record(after)
    if kept is not None and kept.overwrote == before.record_id:
        return kept
    return GenerationChange.of(
        before,
        context=after.context,
        software=after.software,
        references=after.references,
        inputs=after.inputs,
        not_compared="a file is gone, and no comparison is on record",
    )


def draw_generations(pair: GenerationPair, path: Path) -> None:
    """Draw before, after and their difference as a PNG, the first two with one stretch.

    Raises
    ------
    BadInputError
        If a file is gone, or the product is not an image.
    PassingFaultError
        If the disk is full.
    """
    from matplotlib.figure import Figure

    before, after = _images(pair)
    figure = Figure(figsize=(15, 5.6), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    stretch = _stretch(before)
    for one, image, made in zip(axes, (before, after), (pair.before, pair.after), strict=False):
        drawn = one.imshow(image, origin="lower", cmap="gray", norm=stretch, interpolation="none")
        one.set_title(f"generation {made.generation}, {made.context or 'no context'}")
    figure.colorbar(drawn, ax=axes[:2], shrink=0.8)
    difference = after - before
    known = np.abs(difference[np.isfinite(difference)])
    most = (float(np.percentile(known, _SHOWN_DIFFERENCES)) if known.size else 0.0) or 1.0
    drawn = axes[2].imshow(
        difference, origin="lower", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="none"
    )
    axes[2].set_title("after - before")
    figure.colorbar(drawn, ax=axes[2], shrink=0.8)
    figure.suptitle(str(pair.name))
    with disk_space(path.parent):
        figure.savefig(path, dpi=100, format="png")


def _images(pair: GenerationPair) -> list[NDArray[np.float32]]:
    if pair.files is None:
        raise BadInputError(
            pair.name, "picture", "the file of a generation is gone",
            "leave the picture out: what is on record is told without",
        )  # fmt: skip
    models = [open_image(path, pair.name) for path in pair.files] if _is_asdf(pair) else []
    arrays = [np.asarray(model.data, dtype=np.float32) for model in models if "data" in model]
    if len(arrays) != 2 or arrays[0].shape != arrays[1].shape or arrays[0].ndim not in (2, 3):
        raise BadInputError(
            pair.name, "picture", "the two images differ in shape or kind", "leave the picture out"
        )
    # of a ramp the last resultant
    return [array if array.ndim == 2 else array[-1] for array in arrays]


def _is_asdf(pair: GenerationPair) -> bool:
    return pair.name.kind.extension == "asdf"


def _stretch(image: NDArray[np.float32]) -> Any:
    from astropy.visualization import AsinhStretch, ImageNormalize, ZScaleInterval

    seen = image[np.isfinite(image)]
    low, high = ZScaleInterval().get_limits(seen) if seen.size else (0.0, 1.0)
    return ImageNormalize(vmin=low, vmax=high + 4 * (high - low), stretch=AsinhStretch())
