"""The effect of a publication on other products, decided with its place in the order (R13, R14).

Staging takes minutes, and meanwhile others publish. So a step that overwrites products, adds to
products or publishes for a data release decides last, under the lock of the fold: no other such
record is committed between its look at the registry and its own record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import Maker
from roman_assets.products.lifecycle import Transition, is_versioned, lifecycle_of
from roman_assets.products.name import ProductName
from roman_assets.records.record import (
    ProductEntry,
    ProductInput,
    ProductTransition,
)
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.replacing import releases_in_place, replaced_by
from roman_assets.registry.releases.state import Release, begun_releases


@dataclass(frozen=True)
class Publication:
    """A publication before its commit.

    Parameters
    ----------
    inputs
        Of the products, by name.
    kept
        The products that were found made, and that the work relied on.
    """

    inputs: Mapping[ProductName, tuple[ProductInput, ...]]
    kept: Sequence[ProductEntry]

    @property
    def names(self) -> frozenset[str]:
        """The names of the products to be published."""
        return frozenset(map(str, self.inputs))

    @property
    def versioned(self) -> frozenset[str]:
        """Those that are given once (R13)."""
        return frozenset(str(name) for name in self.inputs if is_versioned(name))

    @property
    def prompt_of_ssc(self) -> tuple[ProductName, ...]:
        """Those prompt products of the SSC that a release could have superseded."""
        return tuple(
            name
            for name in self.inputs
            if name.kind.maker is Maker.SSC
            and Transition.SUPERSEDED in lifecycle_of(name).transitions
        )

    @property
    def leaders(self) -> dict[ProductName, ProductName]:
        """The products elsewhere that some of these follow, by the latter."""
        return {
            name: name.leader
            for name in self.inputs
            if name.leader is not None and str(name.leader) not in self.names
        }

    @property
    def followers(self) -> dict[str, str]:
        """The products overwritten with one reprocessed alone, each with the name of that one."""
        present = self.names | {entry.name for entry in self.kept}
        return {
            str(follower): str(name)
            for name in self.inputs
            for follower in name.followers
            if str(follower) not in present
            and Transition.OVERWRITTEN in lifecycle_of(follower).transitions
        }


@dataclass(frozen=True)
class Decided:
    """The effect of a publication on other products.

    Parameters
    ----------
    overwritten
        Products that go with their reprocessed leader, as they were not made with it (R14).
    superseded
        Prompt products in whose place products of a published release come (R13).
    published
        The data releases that everyone sees, by identity and survey.
    """

    overwritten: tuple[ProductTransition, ...] = ()
    superseded: tuple[ProductTransition, ...] = ()
    published: frozenset[tuple[str, str]] = frozenset()

    @property
    def transitions(self) -> tuple[ProductTransition, ...]:
        """All that happens to other products."""
        return (*self.overwritten, *self.superseded)

    def shown(self, product: ProductEntry) -> ProductEntry:
        """Return a product as those may see it who see its release (R13)."""
        file_set = product.product_name.file_set
        release = getattr(file_set, "release", None), product.metadata.get("survey")
        if release not in self.published:
            return product
        return product.model_copy(update={"access": Role.PUBLIC})


@contextmanager
def decided(root: DataRoot, publication: Publication) -> Iterator[Decided]:
    """Decide the effect of a publication on others; commit its record within the block.

    Parameters
    ----------
    root
        The installation.
    publication
        The publication.

    Raises
    ------
    BadInputError
        If a name of a data release is taken, something was made from a product that another has
        overwritten since, or a prompt product of the SSC comes after the release that supersedes
        it.
    PassingFaultError
        If a product that the work relied on was replaced meanwhile; the work can be retried.
    """
    if not _concerns_others(root, publication):
        yield Decided()
        return
    with Engine(root).folded():
        with Registry(root) as registry:
            _require_free(registry, publication)
            _require_present(registry, publication)
            _require_not_superseded(registry, publication)
            published = _published(registry, publication)
            outcome = Decided(
                tuple(_left_behind(registry, publication)),
                tuple(_superseded(registry, publication, published)),
                frozenset(
                    (release.declaration.release, release.declaration.survey.value)
                    for release in published
                ),
            )
        yield outcome


def _concerns_others(root: DataRoot, publication: Publication) -> bool:
    """Return whether any product exists that the publication could contradict.

    Most publish what never was there; they do not wait for each other.
    """
    if publication.versioned or publication.leaders or publication.prompt_of_ssc:
        return True
    followed = {name for name in publication.inputs if name.followers}
    with Registry(root) as registry:
        return bool(registry.generations.current({*map(str, followed), *publication.followers}))


def _require_free(registry: Registry, publication: Publication) -> None:
    for name, generations in registry.generations.of(publication.versioned).items():
        last = generations[-1]
        if last.is_withdrawn_for_good and last.access is Role.PUBLIC:
            raise BadInputError(
                name,
                "release",
                f"a person has withdrawn it ({last.quality_reason}) after everyone could see it, "
                "and its name stays taken so that it can be cited",
                "publish under the next release",
            )
    for name, entry in registry.generations.current(publication.versioned).items():
        raise BadInputError(
            name,
            "release",
            f"it was published on {entry.committed_at:%Y-%m-%d %H:%M:%S} UTC by record "
            f"{entry.record_id}, and a product of a data release is never overwritten",
            "publish under the next release (if the file is damaged, let "
            "`roman-assets fsck --mend` state so, then publish it again)",
        )


def _require_present(registry: Registry, publication: Publication) -> None:
    """Refuse products made from, or for, a product that is no longer the current one."""
    leaders = publication.leaders
    present = registry.generations.current(map(str, leaders.values()))
    relied_on = {entry.name: entry.sha256 for entry in publication.kept}
    for name, leader in leaders.items():
        there = present.get(str(leader))
        content = None if there is None else there.sha256
        named = {item.sha256 for item in publication.inputs[name] if item.name == str(leader)}
        if str(leader) in relied_on:
            if content != relied_on[str(leader)]:
                raise PassingFaultError(
                    f"{leader} was reprocessed, or lost, while {name} was made for it. Remedy: do "
                    "the work again"
                )
        elif named and content not in named:
            raise BadInputError(
                name,
                "inputs",
                f"it was not made from the present {leader}",
                f"make it from {leader} with the sha256 {content or 'of the next one'} and name "
                "that among its inputs (R14)",
            )


def _left_behind(registry: Registry, publication: Publication) -> Iterator[ProductTransition]:
    leaders = publication.followers
    for name, entry in registry.generations.current(leaders).items():
        yield ProductTransition(
            transition=Transition.OVERWRITTEN,
            name=name,
            made_by=entry.record_id,
            sha256=entry.sha256,
            reason="what it follows was reprocessed without it (R14)",
            cause=leaders[name],
        )


def _require_not_superseded(registry: Registry, publication: Publication) -> None:
    """Refuse prompt products of the SSC in whose place a published release has others (R13)."""
    for name, release in releases_in_place(registry, publication.prompt_of_ssc).items():
        raise superseded_already(name, release)


def superseded_already(source: object, release: str) -> BadInputError:
    """Return the error for a prompt product that comes after the release in its place."""
    return BadInputError(
        source,
        "release",
        f"{release} is published and has this product in its place (R13)",
        "deliver nothing: what is new goes into the next release",
    )


def _published(registry: Registry, publication: Publication) -> tuple[Release, ...]:
    """Return the releases that everyone sees, if the publication is for any."""
    if not publication.versioned:
        return ()
    return tuple(one for one in begun_releases(registry).values() if one.published_at is not None)


def _superseded(
    registry: Registry, publication: Publication, published: Iterable[Release]
) -> Iterator[ProductTransition]:
    """Supersede the prompt products in whose place the SSC delivers after the publication."""
    for release in published:
        identity = release.declaration.release
        mine = [
            name for name in publication.inputs if getattr(name.file_set, "release", "") == identity
        ]
        if not mine:
            continue
        for product in replaced_by(registry, release, mine):
            yield ProductTransition(
                transition=Transition.SUPERSEDED,
                name=product.name,
                made_by=product.record_id,
                sha256=product.sha256,
                reason=f"{release.declaration} is published",
                cause=release.partition,
            )
