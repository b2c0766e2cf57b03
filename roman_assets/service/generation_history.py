"""What each generation of a product changed, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from roman_assets.reader.product_comparison import FileChange, GenerationChange
from roman_assets.registry.search.generations import RegisteredProduct

_MOST_NAMES = 6


@dataclass(frozen=True)
class HistoryEntry:
    """One generation, and how it differs from the one before it.

    Parameters
    ----------
    product
        The generation.
    changes
        What is different, a line each.
    """

    product: RegisteredProduct
    changes: tuple[str, ...]


def history_of(generations: Sequence[RegisteredProduct]) -> list[HistoryEntry]:
    """Return the history of a product, newest first.

    Parameters
    ----------
    generations
        All there were, oldest first.
    """
    first = [HistoryEntry(made, ("first generation",)) for made in generations[:1]]
    later = [
        HistoryEntry(after, tuple(_changes(before, after)))
        for before, after in pairwise(generations)
    ]
    return [*first, *later][::-1]


def _changes(before: RegisteredProduct, after: RegisteredProduct) -> Iterator[str]:
    stated = GenerationChange.of_record(after)
    change = GenerationChange.of(
        before,
        context=after.context,
        software=after.software,
        references=after.references,
        inputs=after.inputs,
        files=stated.files if stated and stated.overwrote == before.record_id else None,
    )
    told = [*_causes(change), *(_differences(change.files) if change.files else ())]
    if before.sha256 == after.sha256:
        told.append("the same file")
    yield from told or ("same inputs, reference files and software on record",)


def _causes(change: GenerationChange) -> Iterator[str]:
    if change.context is not None:
        yield f"CRDS context {_arrow(change.context)}"
    for package, versions in change.software.items():
        yield f"{package} {_arrow(versions)}"
    for what, differing in (("reference files", change.references), ("inputs", change.inputs)):
        if differing:
            yield f"other {what}: {_listed(differing)}"


def _differences(files: FileChange) -> Iterator[str]:
    if files.pixels is not None:
        pixels = files.pixels
        yield (
            f"{pixels.changed:.1%} of the pixels changed; median difference {pixels.median:.4g}, "
            f"largest {pixels.largest:.4g}"
        )
    if files.wcs is not None:
        yield f"positions moved by up to {files.wcs.largest:.2f} mas"
    if files.zero_point:
        yield f"zero point changed by {files.zero_point:+.4f} mag"
    if files.sources is not None:
        sources = files.sources
        yield f"{sources.before} sources before, {sources.after} now, {sources.matched} in both"
    if files.content:
        yield files.content


def _arrow(values: tuple[str | None, str | None]) -> str:
    before, after = values
    return f"{before or 'none'} → {after or 'none'}"


def _listed(differing: Mapping[str, object]) -> str:
    names = list(differing)
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
