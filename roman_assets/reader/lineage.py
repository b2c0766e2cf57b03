"""From what a product was made, up to the packets, and what was made from it, down to L4.

Everything is known by its name and the hash of its content, so generations that were overwritten
long ago have their place too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from roman_assets.products.name import ProductName
from roman_assets.records.record import ProductEntry, ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct


class Relation(StrEnum):
    """How one file came from another."""

    INPUT = "input"
    """The work that made it read the other."""
    FOLLOWS = "follows"
    """The same work made both; it shares the other's fate (R14), as a catalogue its image's."""


@dataclass(frozen=True)
class Derivation:
    """One edge of the graph: `product` was made from `source`, both by name and hash."""

    source: ProductInput
    product: ProductInput
    relation: Relation


@dataclass(frozen=True)
class Provenance:
    """A product with all it came from and all that came from it.

    Parameters
    ----------
    subject
        The product that was asked for.
    products
        What the registry knows of the files; packets and ancillary files are not among them.
    derivations
        Every edge once: of what lies above the subject, and of what lies below.
    """

    subject: ProductInput
    products: Mapping[ProductInput, RegisteredProduct]
    derivations: tuple[Derivation, ...]

    def sources(self, product: ProductInput) -> tuple[Derivation, ...]:
        """Return how a file came from others."""
        return tuple(edge for edge in self.derivations if edge.product == product)

    def derived(self, source: ProductInput) -> tuple[Derivation, ...]:
        """Return how others came from a file."""
        return tuple(edge for edge in self.derivations if edge.source == source)

    @property
    def origins(self) -> tuple[ProductInput, ...]:
        """What lies at the top: packets, ancillary files, and products of unknown origin."""
        made = {edge.product for edge in self.derivations}
        above = (self.subject, *(edge.source for edge in self.derivations))
        return tuple(dict.fromkeys(item for item in above if item not in made))

    def to_frame(self) -> pd.DataFrame:
        """Return the graph as a table, one row an edge.

        Returns
        -------
        pandas.DataFrame
            ``source``, ``source_sha256``, ``relation``, ``product``, ``product_sha256``, and
            ``generation``, ``state``, ``context`` and ``software`` (versions) of the product.
        """
        columns = (
            "source", "source_sha256", "relation", "product", "product_sha256", "generation",
            "state", "context", "software",
        )  # fmt: skip
        return pd.DataFrame([self._row(edge) for edge in self.derivations], columns=list(columns))

    def _row(self, edge: Derivation) -> tuple[object, ...]:
        made = self.products[edge.product]
        return (
            edge.source.name, edge.source.sha256, edge.relation.value, edge.product.name,
            edge.product.sha256, made.generation, str(made.state), made.context, made.software,
        )  # fmt: skip


def trace(registry: Registry, subject: RegisteredProduct, most: int | None = None) -> Provenance:
    """Follow a product's inputs to their origins, and what was made from it to the end.

    Parameters
    ----------
    registry
        Knows the products.
    subject
        The product.
    most
        Products that are followed further at each step, all by default.
    """
    generations = _Generations(registry)
    edges = dict.fromkeys(
        edge
        for step in (generations.sources, generations.derived)
        for edge in _reached(subject, step, most)
    )
    files = {_identity(subject): subject}
    for edge in edges:
        for item in (edge.source, edge.product):
            known = generations.with_content(item)
            if item not in files and known is not None:
                files[item] = known
    return Provenance(_identity(subject), files, tuple(edges))


_Step = Callable[[list[RegisteredProduct]], Iterable[tuple[Derivation, RegisteredProduct | None]]]


def _reached(subject: RegisteredProduct, step: _Step, most: int | None) -> Iterator[Derivation]:
    """Go step by step to all that can be reached, each product once, and on from `most`."""
    seen = {(subject.name, subject.record_id)}
    reached = [subject]
    while reached:
        following: list[RegisteredProduct] = []
        for edge, product in step(reached):
            yield edge
            if product is not None and (product.name, product.record_id) not in seen:
                seen.add((product.name, product.record_id))
                following.append(product)
        if most is not None:
            following = sorted(following, key=lambda product: product.name)[:most]
        reached = following


class _Generations:
    """Generations of products by name, each asked for once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, tuple[RegisteredProduct, ...]] = {}

    def load(self, names: Iterable[str]) -> None:
        wanted = [name for name in dict.fromkeys(names) if name not in self._known]
        self._known |= dict.fromkeys(wanted, ()) | self._registry.generations.of(wanted)

    def with_content(self, item: ProductInput) -> RegisteredProduct | None:
        """Return the newest generation with a name and content."""
        found = (made for made in self._known.get(item.name, ()) if made.sha256 == item.sha256)
        return max(found, key=lambda made: made.generation, default=None)

    def of_record(self, name: str, record_id: str) -> RegisteredProduct | None:
        """Return the generation that a commit record made."""
        found = (made for made in self._known.get(name, ()) if made.record_id == record_id)
        return next(found, None)

    def sources(
        self, products: list[RegisteredProduct]
    ) -> Iterator[tuple[Derivation, RegisteredProduct | None]]:
        """Yield what products were made from."""
        leaders = {made.name: _leader(made.name) for made in products}
        self.load(item.name for made in products for item in made.inputs)
        self.load(leader for leader in leaders.values() if leader is not None)
        for made in products:
            mine = _identity(made)
            for item in made.inputs:
                yield Derivation(item, mine, Relation.INPUT), self.with_content(item)
            leader = self.of_record(leaders[made.name] or "", made.record_id)
            if leader is not None:
                yield Derivation(_identity(leader), mine, Relation.FOLLOWS), leader

    def derived(
        self, products: list[RegisteredProduct]
    ) -> Iterator[tuple[Derivation, RegisteredProduct | None]]:
        """Yield what was made from products."""
        uses = self._registry.generations.made_from(_identity(made) for made in products)
        followers = {made.name: _followers(made.name) for made in products}
        self.load(name for found in uses.values() for name, _ in found)
        self.load(name for names in followers.values() for name in names)
        for made in products:
            mine = _identity(made)
            users = ((key, Relation.INPUT) for key in sorted(uses[mine]))
            with_it = (((name, made.record_id), Relation.FOLLOWS) for name in followers[made.name])
            for (name, record_id), relation in (*users, *with_it):
                product = self.of_record(name, record_id)
                if product is not None:
                    yield Derivation(mine, _identity(product), relation), product


def _identity(entry: ProductEntry) -> ProductInput:
    return ProductInput(name=entry.name, sha256=entry.sha256)


def _leader(name: str) -> str | None:
    leader = ProductName.parse(name).leader
    return None if leader is None else str(leader)


def _followers(name: str) -> tuple[str, ...]:
    product = ProductName.parse(name)
    return tuple(str(other) for other in product.followers if other.leader == product)
