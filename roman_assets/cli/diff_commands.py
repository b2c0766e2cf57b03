"""The command that compares two generations of a product: ``diff``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.cli.upkeep_commands import AsJson
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    from roman_assets.reader.product_comparison import FileChange, GenerationChange


def diff(
    name: Annotated[str, typer.Argument(help="The official name of a product.")],
    generation: Annotated[
        int | None, typer.Option(min=1, help="The newer one; by default the newest.")
    ] = None,
    before: Annotated[
        int | None, typer.Option(min=1, help="The older one; by default the one before.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Draw before, after and difference to this PNG."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two generations of a product.

    The file of an overwritten generation is there for some time; afterwards what was found when it
    was overwritten is told.

    [dim]roman-assets diff r0000101001001001001_0001_wfi02_f158_cal.asdf --picture change.png[/dim]
    """
    from roman_assets.reader.product_generations import compare_generations, draw_generations

    found = compare_generations(
        DataRoot.from_environment(), name, generation=generation, before=before
    )
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": name,
                    "before": found.before.generation,
                    "after": found.after.generation,
                    "change": found.change.model_dump(mode="json"),
                },
                indent=1,
            )
        )
    else:
        table = Table(
            "", "", title=f"{name}: generation {found.before.generation} to "
            f"{found.after.generation}", show_header=False,
        )  # fmt: skip
        lines = list(told(found.change)) or [("content", "nothing is different")]
        for what, value in lines:
            table.add_row(what, value)
        if found.files is None and found.change.files is not None:
            table.caption = "as it was found when the older one was overwritten; its file is gone"
        terminal().print(table)
    if picture is not None:
        draw_generations(found, picture)
        typer.echo(f"drawn to {picture}", err=True)


def told(change: GenerationChange) -> Iterator[tuple[str, str]]:
    """Go through what is different, for people."""
    if change.not_compared:
        yield "not compared", change.not_compared
    if change.files is not None:
        yield from _told_of_files(change.files)
    if change.context is not None:
        yield "CRDS context", _arrow(change.context)
    for kind, pair in change.references.items():
        yield f"reference {kind}", _arrow(pair)
    for package, pair in change.software.items():
        yield package, _arrow(pair)
    for name, (old, new) in change.inputs.items():
        yield f"input {name}", _arrow((old and old[:_DIGITS], new and new[:_DIGITS]))


_DIGITS = 12
"""Of a sha256, shown to people."""


def _told_of_files(files: FileChange) -> Iterator[tuple[str, str]]:
    if files.content:
        yield "first difference", files.content
    if files.pixels is not None:
        pixels = files.pixels
        yield "pixels", f"{100 * pixels.changed:.3g} % of {pixels.compared:,} have another value"
        yield (
            "difference",
            f"median {pixels.median:.4g}, scatter {pixels.scatter:.4g}, largest "
            f"{pixels.largest:.4g}",
        )
        yield "good pixels", f"{pixels.gained:,} gained, {pixels.lost:,} lost"
    if files.wcs is not None:
        yield (
            "WCS shift",
            f"{_shift(files.wcs.east, files.wcs.north)}, at most "
            + (f"{files.wcs.largest:.3f} mas"),
        )
    if files.zero_point is not None:
        yield "zero point", f"{files.zero_point:+.5f} mag"
    if files.sources is not None:
        sources = files.sources
        yield (
            "sources",
            (f"{sources.before:,} before, {sources.after:,} after, {sources.matched:,} matched"),
        )
        if sources.east is not None and sources.north is not None:
            yield "shift of the matched", _shift(sources.east, sources.north)
        if sources.brightness is not None:
            yield "brightness of the matched", f"{sources.brightness:+.5f} mag"


def _shift(east: float, north: float) -> str:
    return f"{east:+.3f} mas east, {north:+.3f} mas north"


def _arrow(pair: tuple[str | None, str | None]) -> str:
    return " -> ".join(value or "none" for value in pair)
