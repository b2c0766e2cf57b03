"""Hand-overs for data releases, and what releases change for prompt hand-overs (R7, R12, R13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from roman_assets.products.kind import DELIVERY_STEPS, GROUP_SCOPES, KINDS, expected_kinds
from roman_assets.products.lifecycle import AVAILABLE, State
from roman_assets.products.name import PROMPT_RELEASE, GroupedFileSet
from roman_assets.publishing.provenance import as_input
from roman_assets.records.record import ProductInput
from roman_assets.registry.receipts import ToldSsc
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.ssc_unit import SscUnit
from roman_assets.registry.releases.state import Release, ReleaseState
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.work_history import CalibratedImage
from roman_assets.ssc.handover import HandedOverRelease, ReadyImages

_OF_VISITS = tuple(
    kind.name for kind in KINDS if kind.step in DELIVERY_STEPS and kind.scope in GROUP_SCOPES
)


def ready_units(registry: Registry, state: ReleaseState) -> list[ReadyImages]:
    """Return what to hand over of a release: its units whose L2 images are all made.

    Parameters
    ----------
    registry
        What there is.
    state
        How far the release is.
    """
    units: dict[GroupedFileSet, list[SscUnit]] = {}
    for one in state.ssc_units_left:
        units.setdefault(one.unit, []).append(one)
    images_of = {unit: _images(state, parts) for unit, parts in units.items()}
    done = {
        unit: images
        for unit, images in images_of.items()
        if all(
            state.release.has(one) or one.is_bad or one.file_set in state.failed_images
            for one in images
        )
    }
    names = [image.name for images in done.values() for image in images if image.name]
    entries = registry.generations.current(names)
    found = (_ready(state.release, unit, units[unit], done[unit], entries) for unit in done)
    return [one for one in found if one.members]


def untold_units(registry: Registry, state: ReleaseState) -> list[ReadyImages]:
    """Return those of `ready_units` that the SSC does not know as they are."""
    ready = ready_units(registry, state)
    told = registry.receipts.handovers(one.partition for one in ready)
    return [
        one
        for one in ready
        if one.partition not in told or told[one.partition].digest != one.digest
    ]


def _images(state: ReleaseState, parts: Iterable[SscUnit]) -> list[CalibratedImage]:
    exposures = frozenset[str]().union(*(one.exposures for one in parts))
    return [image for image in state.images if image.exposure in exposures]


def _is_usable(release: Release, image: CalibratedImage) -> bool:
    return release.has(image) and not image.is_bad


def _ready(
    release: Release,
    unit: GroupedFileSet,
    parts: Sequence[SscUnit],
    images: Sequence[CalibratedImage],
    entries: Mapping[str, RegisteredProduct],
) -> ReadyImages:
    declaration = release.declaration
    usable = [one.name for one in images if one.name is not None and _is_usable(release, one)]
    missing = tuple(sorted(one.file_set for one in images if not _is_usable(release, one)))
    return ReadyImages(
        partition=str(unit),
        visit=None if unit.visit is None else str(unit.visit),
        survey=declaration.survey,
        exposure_type=parts[0].exposure_type,
        kinds=tuple(
            kind
            for one in parts
            for kind in expected_kinds(declaration.survey, one.exposure_type, (one.step,))
        ),
        members=tuple(as_input(entries[name]) for name in sorted(usable) if name in entries),
        missing=missing,
        failed=frozenset(missing),
        release=HandedOverRelease(
            release=declaration.release,
            survey=declaration.survey,
            context=declaration.context,
            romancal=declaration.romancal,
            exposures=release.statement.exposures,
        ),
    )


def changed_by_releases_alone(
    registry: Registry, ready: Iterable[ReadyImages], told: Mapping[str, ToldSsc]
) -> frozenset[str]:
    """Return the visits that need no new hand-over although L2 were reprocessed.

    What a data release reprocesses is for its own products, and no reason to make the prompt ones
    of a visit again. Nor is any new L2 of an old image once releases have superseded these (R13).

    Parameters
    ----------
    registry
        What there is.
    ready
        What could be handed over.
    told
        What it was told last, by partition.
    """
    changed = {
        one.partition: one
        for one in ready
        if one.partition == one.visit
        and one.partition in told
        and told[one.partition].digest != one.digest
    }
    if not changed:
        return frozenset()
    closed = _superseded_visits(registry, changed)
    images = registry.products.find(visit=list(changed), kind="cal")
    released = set(images["name"][images["data_release"].notna()])
    names = {
        member.name
        for visit, one in changed.items()
        for member in one.members
        if visit in closed or member.name in released
    }
    generations = registry.generations.of(names)

    def as_told(member: ProductInput, when: ToldSsc) -> ProductInput:
        earlier = [
            made
            for made in generations.get(member.name, ())
            if made.committed_at <= when.handed_over
        ]
        return as_input(earlier[-1]) if earlier else member

    def is_unchanged(visit: str, one: ReadyImages) -> bool:
        before = told[visit]
        # an image of a superseded visit was graded bad: nothing is made without it
        left_out = visit in closed and len(one.members) < before.images
        members = (as_told(member, before) for member in one.members)
        return left_out or one.digest_with(members) == before.digest

    return frozenset(visit for visit, one in changed.items() if is_unchanged(visit, one))


def _superseded_visits(registry: Registry, visits: Iterable[str]) -> frozenset[str]:
    """Return the visits of whose prompt products releases have superseded or removed the last."""
    made = registry.products.find(
        visit=list(visits), kind=_OF_VISITS, release=PROMPT_RELEASE, overwritten=True
    )
    newest = made.sort_values("generation").groupby("name").last()
    standing = newest[newest["state"].isin([*AVAILABLE, State.REMOVED])]
    current = set(standing["visit"][standing["state"] == State.CURRENT])
    return frozenset(set(standing["visit"]) - current)
