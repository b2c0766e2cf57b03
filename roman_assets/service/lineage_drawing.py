"""A product's lineage as a drawing (SVG) that needs no JavaScript: origins left, uses right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from roman_assets.products.name import ProductName
from roman_assets.reader.lineage import Provenance
from roman_assets.records.record import ProductInput

MOST_IN_COLUMN = 8
"""Files drawn of one column; of more the drawing gives the number."""

_WIDTH, _HEIGHT = 236, 44
_GAP_X, _GAP_Y = 56, 14
_MARGIN = 4


@dataclass(frozen=True)
class Node:
    """One file of the drawing.

    Parameters
    ----------
    title
        Its kind, or what is left out.
    subtitle
        Its file set, or its name if the archive does not know it.
    name
        In full, empty of what is left out.
    link
        Page of the product, None if there is none.
    style
        ``subject``, ``current``, ``past`` or ``outside``.
    x, y
        Upper left corner.
    """

    title: str
    subtitle: str
    name: str
    link: str | None
    style: str
    x: int
    y: int


@dataclass(frozen=True)
class LineageDrawing:
    """Files and the lines between them.

    Parameters
    ----------
    width, height
        In the units of nodes and lines.
    box
        Width and height of a node.
    nodes
        The files.
    lines
        As SVG has paths.
    """

    width: int
    height: int
    box: tuple[int, int]
    nodes: tuple[Node, ...]
    lines: tuple[str, ...]


def draw_lineage(provenance: Provenance, base: str) -> LineageDrawing | None:
    """Draw what a product was made from and what was made from it.

    Parameters
    ----------
    provenance
        The graph.
    base
        Path before those of pages.

    Returns
    -------
    LineageDrawing or None
        None if nothing is known but the product itself.
    """
    if not provenance.derivations:
        return None
    columns = _columns(provenance)
    tallest = max(min(len(files), MOST_IN_COLUMN + 1) for files in columns)
    height = tallest * (_HEIGHT + _GAP_Y) - _GAP_Y
    nodes: dict[ProductInput, Node] = {}
    left_out: list[Node] = []
    for number, files in enumerate(columns):
        shown = files if len(files) <= MOST_IN_COLUMN + 1 else files[:MOST_IN_COLUMN]
        rows = len(shown) + (len(shown) < len(files))
        top = _MARGIN + (height - rows * (_HEIGHT + _GAP_Y) + _GAP_Y) // 2
        x = _MARGIN + number * (_WIDTH + _GAP_X)
        for row, item in enumerate(shown):
            nodes[item] = _node(provenance, item, base, x, top + row * (_HEIGHT + _GAP_Y))
        if len(shown) < len(files):
            y = top + len(shown) * (_HEIGHT + _GAP_Y)
            more = f"and {len(files) - len(shown)} more"
            left_out.append(Node(more, "", "", None, "outside", x, y))
    lines = dict.fromkeys(
        _line(nodes[edge.source], nodes[edge.product])
        for edge in provenance.derivations
        if edge.source in nodes and edge.product in nodes
    )
    return LineageDrawing(
        len(columns) * (_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN,
        height + 2 * _MARGIN,
        (_WIDTH, _HEIGHT),
        (*nodes.values(), *left_out),
        tuple(lines),
    )


def _columns(provenance: Provenance) -> list[list[ProductInput]]:
    """Return the files by column: what was made of a file stands to the right of it."""
    subject = provenance.subject
    above: dict[ProductInput, list[ProductInput]] = defaultdict(list)
    below: dict[ProductInput, list[ProductInput]] = defaultdict(list)
    for edge in provenance.derivations:
        above[edge.product].append(edge.source)
        below[edge.source].append(edge.product)
    places = {item: -steps for item, steps in _steps(subject, above).items()}
    places |= _steps(subject, below)
    by_place: dict[int, list[ProductInput]] = defaultdict(list)
    for item, place in places.items():
        by_place[place].append(item)
    return [
        sorted(by_place[place], key=lambda item: (item.name, item.sha256))
        for place in sorted(by_place)
    ]


def _steps(
    subject: ProductInput, following: Mapping[ProductInput, Iterable[ProductInput]]
) -> dict[ProductInput, int]:
    """Return the most steps from the subject to each file; the graph has no circle."""
    steps, reached = {subject: 0}, [subject]
    while reached:
        before = reached.pop()
        for item in following.get(before, ()):
            if steps.get(item, 0) <= steps[before]:
                steps[item] = steps[before] + 1
                reached.append(item)
    return steps


def _node(provenance: Provenance, item: ProductInput, base: str, x: int, y: int) -> Node:
    known = provenance.products.get(item)
    if known is None:
        return Node("packets or ancillary data", item.name, item.name, None, "outside", x, y)
    name = ProductName.parse(item.name)
    state = f"{name.kind.level} {name.kind.name}"
    if known.generation > 1 or not known.is_available:
        state += f", generation {known.generation}"
    if not known.is_available:
        state += f" ({known.state})"
    style = "current" if known.is_available else "past"
    if item == provenance.subject:
        style = "subject"
    link = f"{base}/products/{quote(item.name)}"
    return Node(state, str(name.file_set), item.name, link, style, x, y)


def _line(source: Node, product: Node) -> str:
    x, y = source.x + _WIDTH, source.y + _HEIGHT // 2
    to_x, to_y = product.x, product.y + _HEIGHT // 2
    middle = (x + to_x) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"
