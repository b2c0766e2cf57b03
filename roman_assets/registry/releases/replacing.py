"""Which prompt products of the SSC a data release takes the place of (R13).

A product of a release comes in the place of the prompt products of the same kind, detector and
optical element of each visit that belongs to its unit. What the SOC makes is superseded by visit
instead (`roman_assets.releases.release_plan.prompt_mosaics`), since a skycell of a visit may be
empty in a release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from roman_assets.products.kind import GROUP_SCOPES, Maker
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE, GroupedFileSet, ProductName
from roman_assets.products.observation import VisitId
from roman_assets.products.release_id import includes, unit_containing, unit_of
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import Release, begun_releases
from roman_assets.registry.search.generations import RegisteredProduct


def replaced_by(
    registry: Registry, release: Release, names: Iterable[ProductName]
) -> list[RegisteredProduct]:
    """Return the current prompt products in whose place products of a release come, by name.

    Parameters
    ----------
    registry
        What there is.
    release
        The release.
    names
        Names of its products; those that the SOC makes do not count.
    """
    visits_of: dict[GroupedFileSet, tuple[VisitId, ...]] = {}
    wanted: set[str] = set()
    for name in names:
        if not _is_of_ssc(name):
            continue
        file_set = name.file_set
        assert isinstance(file_set, GroupedFileSet)
        unit = unit_containing(file_set)
        if unit not in visits_of:
            visits_of[unit] = tuple(one for one in release.visits if includes(unit, one))
        wanted |= {str(_of_unit(name, PROMPT_RELEASE, one.grouping)) for one in visits_of[unit]}
    found = registry.generations.current(wanted).values()
    return [product for product in found if product.state is State.CURRENT]


def releases_in_place(registry: Registry, names: Iterable[ProductName]) -> dict[ProductName, str]:
    """Return prompt products of the SSC for which a published release has another in their place.

    A visit with an L2 of an exposure that the release was not made from still has prompt products:
    the release does not say all that they do.

    Parameters
    ----------
    registry
        What there is.
    names
        Names of prompt products.

    Returns
    -------
    dict
        The release for people, by name; products in whose place nothing comes are absent.
    """
    candidates: dict[ProductName, dict[str, Release]] = {}
    published: list[Release] | None = None
    for name in names:
        file_set = name.file_set
        if not _is_of_ssc(name) or getattr(file_set, "release", "") != PROMPT_RELEASE:
            continue
        if published is None:
            published = [one for one in begun_releases(registry).values() if one.published_at]
        if (visit := name.visit) is not None and published:
            candidates[name] = dict(_candidates(name, visit, published))
    there = registry.generations.current(text for found in candidates.values() for text in found)
    standing = {
        name: [release for text, release in found.items() if text in there]
        for name, found in candidates.items()
    }
    visits = {name.visit for name, releases in standing.items() if releases and name.visit}
    images = {
        visit: {str(one.exposure) for one in exposures if one.cal}
        for visit, exposures in registry.work.exposures_of_visits(visits).items()
    }
    return dict(_complete(standing, images))


def _complete(
    standing: Mapping[ProductName, list[Release]], images: Mapping[VisitId, set[str]]
) -> Iterator[tuple[ProductName, str]]:
    """Choose the releases that were made from all exposures of a visit."""
    exposures = {
        release.partition: frozenset(release.statement.exposures)
        for releases in standing.values()
        for release in releases
    }
    for name, releases in standing.items():
        assert name.visit is not None
        for release in releases:
            if images.get(name.visit, set()) <= exposures[release.partition]:
                yield name, str(release.declaration)
                break


def _candidates(
    name: ProductName, visit: VisitId, releases: Iterable[Release]
) -> Iterator[tuple[str, Release]]:
    for release in releases:
        if visit not in release.visits:
            continue
        for grouping in release.declaration.ssc_groupings:
            unit = unit_of(visit, release.declaration.release, grouping)
            yield str(_of_unit(name, unit.release, unit.grouping)), release


def _of_unit(name: ProductName, release: str, grouping: str) -> ProductName:
    """Return the name of the product of another unit: same kind, detector and optical element."""
    file_set = name.file_set
    assert isinstance(file_set, GroupedFileSet)
    return ProductName(replace(file_set, release=release, grouping=grouping), name.kind)


def _is_of_ssc(name: ProductName) -> bool:
    return name.kind.maker is Maker.SSC and name.kind.scope in GROUP_SCOPES
