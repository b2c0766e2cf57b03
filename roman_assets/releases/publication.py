"""Publishing a data release: all of it at once, in the place of prompt L3 (R13)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import State, Transition
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    CommitRecord,
    ProductTransition,
    ReleasePhase,
    Statement,
)
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.replacing import replaced_by
from roman_assets.registry.releases.state import Release, ReleaseState, release_state
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.releases.release_plan import prompt_mosaics


@dataclass(frozen=True)
class ReleasePublication:
    """What a publication shows and supersedes.

    Parameters
    ----------
    published, superseded
        Names of products, in order.
    size
        Of the files that are published, bytes.
    lacking
        Detectors and skycells that could not be made, products that the SSC has not delivered, and
        products graded ``BAD``: they are not in it.
    record_id
        The commit record, None after a dry run or when it was published before.
    """

    published: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()
    size: int = 0
    lacking: tuple[str, ...] = ()
    record_id: str | None = None


def publish_release(
    root: DataRoot,
    release: Release,
    *,
    without_failed: bool = False,
    without_ssc: bool = False,
    dry_run: bool = False,
) -> ReleasePublication:
    """Show all products of a release to everyone, and mark the prompt products it supersedes.

    These are the prompt L3 of its visits with their L4, and of what the SSC makes the products in
    whose place it has delivered others. One commit record does both, so that nobody ever sees a
    part of the release. Idempotent.

    Parameters
    ----------
    root
        The installation.
    release
        As it was begun.
    without_failed
        Publish although some detectors or skycells could not be made.
    without_ssc
        Publish although the SSC has not delivered everything. What comes later is public at once.
    dry_run
        Change nothing, only tell.

    Raises
    ------
    BadInputError
        If something of it is still to be made or delivered, or failed.
    PassingFaultError
        If the disk is full; nothing is published.
    """
    Engine(root).fold()
    with Engine(root).folded(), Registry(root) as registry:
        state = release_state(registry, release)
        lacking = tuple(sorted(state.failed_images | state.failed_skycells | state.undelivered))
        if state.release.published_at is not None:
            return ReleasePublication(lacking=lacking)
        _require_made(state, without_failed=without_failed)
        _require_delivered(state, without_ssc=without_ssc)
        products, bad = _products(registry, state)
        _require_good_inputs(state, products)
        lacking = tuple(sorted({*lacking, *bad}))
        prompt = prompt_mosaics(registry, release.statement.exposures)
        names = (product.product_name for product in products)
        replaced = [
            *registry.generations.current(prompt["name"]).values(),
            *replaced_by(registry, release, names),
        ]
        publication = ReleasePublication(
            published=tuple(product.name for product in products),
            superseded=tuple(product.name for product in replaced),
            size=sum(product.size for product in products),
            lacking=lacking,
        )
        if dry_run:
            return publication
        record = CommitRecord(
            step=Step.RELEASE,
            partition=release.partition,
            statement=Statement.RELEASE,
            release=release.statement.model_copy(
                update={"phase": ReleasePhase.PUBLISHED, "exposures": ()}
            ),
            transitions=(
                *_happens(release, Transition.PUBLISHED, products),
                *_happens(release, Transition.SUPERSEDED, replaced),
            ),
        )
        Journal(root).write(record)
    Engine(root).fold()
    return ReleasePublication(
        publication.published,
        publication.superseded,
        publication.size,
        publication.lacking,
        record.record_id,
    )


def _require_made(state: ReleaseState, *, without_failed: bool) -> None:
    left = [*map(str, state.exposures_left), *map(str, state.units_left)]
    undone = [one for one in left if not without_failed or not _failed(state, one)]
    if undone:
        raise BadInputError(
            state.release.declaration,
            "exposures, units",
            f"{len(undone)} are still to be made, {undone[0]} among them",
            "finish it with `roman-assets release run`",
        )
    failed = sorted(state.failed_images | state.failed_skycells)
    if failed and not without_failed:
        raise BadInputError(
            state.release.declaration,
            "failures",
            f"{len(failed)} detectors or skycells could not be made, {failed[0]} among them",
            "try them again with `roman-assets release run`, or publish --without-failed",
        )


def _require_delivered(state: ReleaseState, *, without_ssc: bool) -> None:
    missing = sorted(state.undelivered)
    if missing and not without_ssc:
        raise BadInputError(
            state.release.declaration,
            "deliveries",
            f"the SSC has not delivered {len(missing)} products, {missing[0]} among them",
            "wait for them (`roman-assets release status`), or publish --without-ssc",
        )


def _failed(state: ReleaseState, unit: str) -> bool:
    """Return whether of a unit that is not finished just some skycells failed."""
    return any(name.startswith(f"{unit}_") for name in state.failed_skycells)


def _products(registry: Registry, state: ReleaseState) -> tuple[list[RegisteredProduct], list[str]]:
    """Return the products of a release that only operators see so far, and those that are bad.

    Both are ordered by name. The latter are left out of the publication.
    """
    found = registry.products.find(
        release=state.release.declaration.release,
        partition=[*map(str, state.units), *(str(one.unit) for one in state.ssc_units)],
        access=Role.OPERATIONS.value,
    )
    names = found[found["state"] == State.CURRENT]["name"]
    products = registry.generations.current(names).values()
    return (
        [product for product in products if not product.is_bad],
        [product.name for product in products if product.is_bad],
    )


def _require_good_inputs(state: ReleaseState, products: Iterable[RegisteredProduct]) -> None:
    """Refuse products made from images that were graded bad since."""
    bad = {image.name for image in state.images if image.is_bad}
    spoiled = [one.name for one in products if any(item.name in bad for item in one.inputs)]
    if spoiled:
        raise BadInputError(
            state.release.declaration,
            "quality",
            f"{len(spoiled)} products were made from images that are graded BAD by now, "
            f"{spoiled[0]} among them",
            "withdraw their file sets (`roman-assets withdraw`), and let `roman-assets release "
            "run` or the SSC make them without these images",
        )


def _happens(
    release: Release, transition: Transition, products: Iterable[RegisteredProduct]
) -> Iterator[ProductTransition]:
    declaration = release.declaration
    for product in products:
        yield ProductTransition(
            transition=transition,
            name=product.name,
            made_by=product.record_id,
            sha256=product.sha256,
            reason=f"{declaration} is published",
            cause=release.partition,
        )
