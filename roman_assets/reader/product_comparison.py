"""What is different between two generations of a product: pixels, WCS, zero point, sources.

The files are compared while both are there; what was found is kept with the record of the newer one
and is told of the older one for good (`GenerationChange.of_record`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.reader.content import first_difference
from roman_assets.reader.product_file import open_product_file
from roman_assets.records.record import ProductInput
from roman_assets.registry.search.generations import RegisteredProduct

CHANGE = "change"
"""The metadata under which the record of a product says what it changed."""

MATCHING_RADIUS = 0.1
"""Sources of two catalogues farther apart are two sources, arcsec."""

_DO_NOT_USE = 1
_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_GRID = 5
_MAS = 3.6e6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PixelChange(_Frozen):
    """Newer image minus older one, over the pixels that are good in both.

    Parameters
    ----------
    compared
        How many those are.
    changed
        The fraction of them that has another value.
    median, scatter, largest
        Of the differences, in the image's unit: the median, the standard deviation estimated from
        the median absolute deviation, and the one that is farthest from zero.
    gained, lost
        Pixels that are good in the newer image only, and in the older one only.
    """

    compared: int
    changed: float
    median: float
    scatter: float
    largest: float
    gained: int
    lost: int

    @classmethod
    def of(cls, before: Any, after: Any) -> Self | None:
        """Compare the arrays ``data`` of two models; None if there are none of one shape."""
        if "data" not in before or "data" not in after or before.data.shape != after.data.shape:
            return None
        seen, sees = _good(before), _good(after)
        both = seen & sees
        difference = np.subtract(after.data, before.data, dtype=np.float32, casting="unsafe")[both]
        if not difference.size:
            return cls(
                compared=0, changed=0, median=0, scatter=0, largest=0,
                gained=int((sees & ~seen).sum()), lost=int((seen & ~sees).sum()),
            )  # fmt: skip
        middle = float(np.median(difference))
        return cls(
            compared=difference.size,
            changed=float(np.count_nonzero(difference) / difference.size),
            median=middle,
            scatter=_NORMAL * float(np.median(np.abs(difference - np.float32(middle)))),
            largest=float(difference[np.argmax(np.abs(difference))]),
            gained=int((sees & ~seen).sum()),
            lost=int((seen & ~sees).sum()),
        )


class WcsShift(_Frozen):
    """Where the newer WCS places pixels, relative to the older one; mas on the sky.

    Parameters
    ----------
    east, north
        Medians over a grid of pixels.
    largest
        The largest separation on that grid.
    """

    east: float
    north: float
    largest: float

    @classmethod
    def of(cls, before: Any, after: Any) -> Self | None:
        """Compare the WCS of two models of one shape; None if one has none that is defined."""
        wcs = [model.meta.get("wcs") for model in (before, after)]
        if None in wcs or before.data.shape != after.data.shape:
            return None
        height, width = before.data.shape[-2:]
        x, y = np.meshgrid(np.linspace(0, width - 1, _GRID), np.linspace(0, height - 1, _GRID))
        (ra, dec), (new_ra, new_dec) = (np.asarray(one(x, y)) for one in wcs)
        east = ((new_ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec)) * _MAS
        north = (new_dec - dec) * _MAS
        known = np.isfinite(east) & np.isfinite(north)
        if not known.any():
            return None
        return cls(
            east=float(np.median(east[known])),
            north=float(np.median(north[known])),
            largest=float(np.hypot(east, north)[known].max()),
        )


class SourceChange(_Frozen):
    """How the sources of two catalogues correspond.

    Parameters
    ----------
    before, after
        The numbers of those that have a position.
    matched
        Sources of the newer catalogue that have one of the older within `MATCHING_RADIUS`, each
        being the nearest of the other.
    east, north
        Median shift of the matched ones, mas.
    brightness
        Median change of their segment fluxes, mag; positive is fainter. None where no flux is
        positive.
    """

    before: int
    after: int
    matched: int
    east: float | None = None
    north: float | None = None
    brightness: float | None = None

    @classmethod
    def of(cls, before: Path, after: Path) -> Self:
        """Compare two catalogue files."""
        import pyarrow.parquet as pq

        columns = ["ra", "dec", "segment_flux"]
        old, new = (
            np.stack([np.asarray(table[name], dtype=float) for name in columns])
            for table in (pq.read_table(path, columns=columns) for path in (before, after))
        )
        old, new = (one[:, np.isfinite(one[:2]).all(axis=0)] for one in (old, new))
        first, second = _matched(old[:2], new[:2])
        counts = {"before": old.shape[1], "after": new.shape[1], "matched": len(first)}
        if not len(first):
            return cls(**counts)
        old, new = old[:, first], new[:, second]
        bright = (old[2] > 0) & (new[2] > 0)
        magnitudes = -2.5 * np.log10(new[2][bright] / old[2][bright])
        east = ((new[0] - old[0] + 180) % 360 - 180) * np.cos(np.radians(old[1])) * _MAS
        return cls(
            **counts,
            east=float(np.median(east)),
            north=float(np.median(new[1] - old[1])) * _MAS,
            brightness=float(np.median(magnitudes)) if bright.any() else None,
        )


class FileChange(_Frozen):
    """What is different in the files; None where there is nothing to compare.

    Parameters
    ----------
    pixels, wcs, sources
        See there.
    zero_point
        Change of the image's photometric zero point, mag; positive if one count is less light.
    content
        Of products without pixels the first difference that there is in arrays and metadata.
    """

    pixels: PixelChange | None = None
    wcs: WcsShift | None = None
    zero_point: float | None = None
    sources: SourceChange | None = None
    content: str = ""


class GenerationChange(_Frozen):
    """What a generation of a product changed.

    Parameters
    ----------
    overwrote
        The commit record of the generation it is compared with.
    sha256
        Of that one's file.
    files
        What is different in the files, None if they could not be compared.
    not_compared
        Why they could not be, empty otherwise.
    context
        CRDS contexts before and after, None if they are the same.
    software, references, inputs
        Versions, reference files and the sha256 of inputs before and after, those that differ.
    """

    overwrote: str
    sha256: str
    files: FileChange | None = None
    not_compared: str = ""
    context: tuple[str | None, str | None] | None = None
    software: dict[str, tuple[str | None, str | None]] = {}
    references: dict[str, tuple[str | None, str | None]] = {}
    inputs: dict[str, tuple[str | None, str | None]] = {}

    @classmethod
    def of(
        cls,
        before: RegisteredProduct,
        *,
        context: str | None,
        software: Mapping[str, str],
        references: Mapping[str, str],
        inputs: Iterable[ProductInput],
        files: FileChange | None = None,
        not_compared: str = "",
    ) -> Self:
        """Set what a generation was made with against an older one."""
        return cls(
            overwrote=before.record_id,
            sha256=before.sha256,
            files=files,
            not_compared=not_compared,
            context=None if context == before.context else (before.context, context),
            software=_differing(before.software, software),
            references=_differing(before.references, references),
            inputs=_differing(_by_name(before.inputs), _by_name(inputs)),
        )

    @classmethod
    def of_record(cls, product: RegisteredProduct) -> Self | None:
        """Read what the record of a product says that it changed, None if it says nothing."""
        stated = product.metadata.get(CHANGE)
        return None if stated is None else cls.model_validate(stated)

    def as_metadata(self) -> dict[str, Any]:
        """Return it as the record of the newer product keeps it."""
        return {CHANGE: self.model_dump(mode="json", exclude_defaults=True)}


def compare_files(
    before: Path, after: Path, name: ProductName, catalogs: tuple[Path, Path] | None = None
) -> FileChange:
    """Compare the files of two generations.

    Parameters
    ----------
    before, after
        Files of the product.
    name
        Its official name.
    catalogs
        The source catalogues that were made of each, if any were.

    Raises
    ------
    BadInputError
        If a file cannot be read as what its name says.
    """
    if name.kind.extension == "parquet":
        return FileChange(sources=SourceChange.of(before, after))
    if name.kind.extension != "asdf":
        return FileChange(content=first_difference(before, after, name))
    sources = None if catalogs is None else SourceChange.of(*catalogs)
    old, new = (open_image(path, name) for path in (before, after))
    pixels = PixelChange.of(old, new)
    if pixels is None:
        return FileChange(content=first_difference(before, after, name), sources=sources)
    return FileChange(
        pixels=pixels,
        wcs=WcsShift.of(old, new),
        zero_point=_zero_point_change(old, new),
        sources=sources,
    )


def open_image(path: Path, name: ProductName) -> Any:
    """Open a model of a product for comparison.

    Raises
    ------
    BadInputError
        If the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # blobs are named by their content
            warnings.filterwarnings("ignore", "meta.filename")
            return open_product_file(path, name, lazy=True)
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(
            name, "file", f"not readable as ASDF: {error}", "see `roman-assets fsck`"
        ) from error


def _zero_point_change(before: Any, after: Any) -> float | None:
    old, new = (
        (model.meta.get("photometry") or {}).get("conversion_megajanskys")
        for model in (before, after)
    )
    return float(2.5 * np.log10(old / new)) if old and new else None


def _good(model: Any) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = np.isfinite(model.data)
    if "dq" in model and model.dq.shape == good.shape:
        good &= (np.asarray(model.dq) & _DO_NOT_USE) == 0
    return good


def _matched(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of sources that are nearest to each other; positions are (2, n), deg."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    none = np.array([], dtype=np.int64)
    if not before.shape[1] or not after.shape[1]:
        return none, none
    old, new = (SkyCoord(*position, unit="deg") for position in (before, after))
    nearest_old, separation, _ = new.match_to_catalog_sky(old)
    nearest_new, _, _ = old.match_to_catalog_sky(new)
    own = np.arange(after.shape[1])
    chosen = (separation < MATCHING_RADIUS * units.arcsec) & (nearest_new[nearest_old] == own)
    return np.asarray(nearest_old)[chosen], own[chosen]


def _by_name(inputs: Iterable[ProductInput]) -> dict[str, str]:
    return {item.name: item.sha256 for item in inputs}


def _differing(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    return {
        key: (before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    }
