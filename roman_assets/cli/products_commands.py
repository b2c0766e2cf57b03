"""Commands that show and fetch products: ``status``, ``ls``, ``query``, ``get`` and their past."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.tree import Tree

from roman_assets.access import Role
from roman_assets.cli.search_options import Search, searching
from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName

if TYPE_CHECKING:
    import pandas as pd

    from roman_assets.reader.archive_reader import ArchiveReader
    from roman_assets.reader.lineage import Derivation, Provenance
    from roman_assets.records.record import ProductInput

_SHOWN_COLUMNS = {
    "name": "product",
    "level": "level",
    "survey": "survey",
    "start_time": "start (UTC)",
    "ra": "RA (deg)",
    "dec": "Dec (deg)",
    "size": "bytes",
    "generation": "generation",
    "context": "CRDS context",
}
_WILDCARDS = frozenset("*?[")

Patterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Official names, with * and ? if you like, or - to read names from stdin.",
    ),
]


class OutputFormat(StrEnum):
    """How ``query`` gives what it found."""

    TABLE = "table"
    NAMES = "names"
    CSV = "csv"
    JSON = "json"
    ECSV = "ecsv"
    PARQUET = "parquet"


def status() -> None:
    """Print exposures and visits with what is made of them, level by level."""
    from roman_assets.cli.status_tables import status_tables

    console = terminal()
    for table in status_tables(DataRoot.from_environment()):
        console.print(table)


@searching
def list_names(search: Search, patterns: Patterns = None) -> None:
    """Print the official names of products, one a line.

    [dim]roman-assets ls 'r00001*_cal.asdf' --after 2027-06-01[/dim]
    """
    with _reader() as reader:
        for name in _names(reader, _given(patterns), search):
            typer.echo(name)


@searching
def query(
    search: Search,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="All but table and names have every column."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Write a manifest here; .csv, .ecsv or .parquet says its format."
        ),
    ] = None,
) -> None:
    """Print the products that fulfil every condition.

    [dim]roman-assets query --level L2 --filter F158 --format names | roman-assets get -[/dim]
    """
    with _reader() as reader:
        found = search.find(reader)
    if output is not None:
        _write(found, output, output_format)
    elif output_format is OutputFormat.PARQUET:
        raise typer.BadParameter("parquet is not for a terminal: name a file with --output")
    else:
        _PRINTERS[output_format or OutputFormat.TABLE](found)


@searching
def get(
    search: Search,
    patterns: Patterns = None,
    to: Annotated[Path, typer.Option(file_okay=False, help="The directory to copy to.")] = Path(),
) -> None:
    """Copy products out of the archive under their official names, each with its checksum verified.

    [dim]roman-assets get --visit r0000101001001001001 --level L2 --to here[/dim]
    """
    wanted = _given(patterns)
    if not wanted and search.is_everything:
        raise typer.BadParameter("name products or say which by an option; '*' means all")
    if search.overwritten:
        raise typer.BadParameter("past generations can be cited, and not be fetched any more")
    with _reader() as reader:
        _copy_out(reader, _found(reader, wanted, search), to)


def history(
    name: Annotated[str, typer.Argument(help="The official name of a product.")],
) -> None:
    """Print every generation of a product, and what it takes to cite and reproduce it."""
    with _reader() as reader:
        generations = reader.history(name)
    for made in generations.to_dict("records"):
        table = Table(show_header=False, title=f"generation {made.pop('generation')}")
        for field, value in made.items():
            table.add_row(str(field), "\n".join(_lines(value)))
        terminal().print(table)


def provenance(
    name: Annotated[str, typer.Argument(help="The official name of a product.")],
    generation: Annotated[
        int | None, typer.Option(min=1, help="Which one; the newest by default.")
    ] = None,
) -> None:
    """Print the inputs and software of a product, and the products made from it."""
    with _reader() as reader:
        graph = reader.provenance(name, generation)
    console = terminal()
    for title, tree in _trees(graph):
        console.print(title)
        console.print(tree)
    if software := graph.products[graph.subject].software:
        console.print("[bold]made with[/bold]")
        console.print(escape(", ".join(f"{name} {which}" for name, which in software.items())))


def _reader() -> ArchiveReader:
    from roman_assets.reader.archive_reader import ArchiveReader

    return ArchiveReader(DataRoot.from_environment(), Role.from_environment() or Role.PUBLIC)


def _given(patterns: list[str] | None) -> list[str]:
    return sys.stdin.read().split() if patterns == ["-"] else patterns or []


def _names(reader: ArchiveReader, patterns: list[str], search: Search) -> Iterator[str]:
    """Yield names one by one where there is nothing to search but names."""
    if not search.is_everything:
        yield from _found(reader, patterns, search)["name"]
        return
    exact, wild = _parted(patterns)
    if exact:
        yield from _found(reader, exact, search)["name"]
    for pattern in wild or ([] if exact else ["*"]):
        any_name = False
        for name in reader.names(pattern):
            any_name = True
            yield name
        if wild and not any_name:
            raise _nothing(pattern)


def _found(reader: ArchiveReader, patterns: list[str], search: Search) -> pd.DataFrame:
    """Search for products by names and options; every name and pattern has to match one."""
    import pandas as pd

    if not patterns:
        return search.find(reader)
    exact, wild = _parted(patterns)
    frames = []
    if exact:
        frames.append(search.find(reader, names=[str(_official(name)) for name in exact]))
        for name in sorted(set(exact) - set(frames[0]["name"])):
            raise _why_not_found(reader, name)
    for pattern in wild:
        frames.append(search.find(reader, pattern=pattern))
        if frames[-1].empty:
            raise _nothing(pattern)
    found = pd.concat(frames).drop_duplicates(["name", "generation"])
    return found.sort_values(["name", "generation"]).reset_index(drop=True)


def _parted(patterns: list[str]) -> tuple[list[str], list[str]]:
    exact = [pattern for pattern in patterns if not _WILDCARDS & set(pattern)]
    return exact, [pattern for pattern in patterns if _WILDCARDS & set(pattern)]


def _official(name: str) -> ProductName:
    try:
        return ProductName.parse(name)
    except ValueError as error:
        raise BadInputError(repr(name), "name", "not an official product name", _SEE) from error


def _nothing(pattern: str) -> BadInputError:
    return BadInputError(pattern, "name", "the archive has no such product", _SEE)


def _why_not_found(reader: ArchiveReader, name: str) -> BadInputError:
    try:
        reader.path(name)
    except BadInputError as error:
        return error
    return BadInputError(name, "name", "it does not fulfil the other conditions", "leave them out")


_SEE = "see `roman-assets ls` for the names it has"


def _print_table(found: pd.DataFrame) -> None:
    columns = _SHOWN_COLUMNS | ({"state": "state"} if (found["state"] != "current").any() else {})
    if found["quality"].notna().any():
        columns |= {"quality": "quality", "quality_reason": "why"}
    table = Table(*columns.values(), caption=f"{len(found)} products")
    for row in found[list(columns)].itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    terminal().print(table)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN and NaT differ from themselves
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _print_names(found: pd.DataFrame) -> None:
    for name in found["name"].drop_duplicates():
        typer.echo(name)


def _print_csv(found: pd.DataFrame) -> None:
    from roman_assets.reader.download_list import csv_text

    typer.echo(csv_text(found), nl=False)


def _print_ecsv(found: pd.DataFrame) -> None:
    from roman_assets.reader.download_list import ecsv_text

    typer.echo(ecsv_text(found), nl=False)


def _print_json(found: pd.DataFrame) -> None:
    typer.echo(found.to_json(orient="records", date_format="iso", indent=1))


_PRINTERS = {
    OutputFormat.TABLE: _print_table,
    OutputFormat.NAMES: _print_names,
    OutputFormat.CSV: _print_csv,
    OutputFormat.JSON: _print_json,
    OutputFormat.ECSV: _print_ecsv,
}
_MANIFESTS = (OutputFormat.CSV, OutputFormat.ECSV, OutputFormat.PARQUET)


def _write(found: pd.DataFrame, output: Path, output_format: OutputFormat | None) -> None:
    from roman_assets.reader.download_list import write_manifest

    if output_format is None:
        suffix = output.suffix.lower().removeprefix(".")
        output_format = OutputFormat(suffix) if suffix in list(_MANIFESTS) else None
    if output_format not in _MANIFESTS:
        raise typer.BadParameter("a manifest is csv, ecsv or parquet: say so with --format")
    write_manifest(found, output, output_format.value)
    typer.echo(f"{len(found)} products written to {output}", err=True)


def _copy_out(reader: ArchiveReader, found: pd.DataFrame, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("copying", total=int(found["size"].sum()))
        for name, size in found[["name", "size"]].itertuples(index=False):
            reader.copy(name, to)
            progress.advance(task, size)
    typer.echo(f"{len(found)} products copied to {to}, every checksum is right", err=True)


def _lines(value: Any) -> Iterator[str]:
    """Yield a citable fact as lines."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict):
                yield from (f"{key} {line}" for line in _lines(item))
            else:
                yield f"{key} {_before_and_after(item) if isinstance(item, list) else item}"
    elif isinstance(value, list):
        yield from (f"{item['name']} {item['sha256']}" for item in value)
    else:
        yield _cell(value)


def _before_and_after(values: list[Any]) -> str:
    return " -> ".join("none" if value is None else str(value) for value in values)


def _trees(graph: Provenance) -> Iterator[tuple[str, Tree]]:
    def above(item: ProductInput) -> Iterator[tuple[Derivation, ProductInput]]:
        return ((edge, edge.source) for edge in graph.sources(item))

    def below(item: ProductInput) -> Iterator[tuple[Derivation, ProductInput]]:
        return ((edge, edge.product) for edge in graph.derived(item))

    for title, following in (("made from", above), ("what was made from it", below)):
        tree = Tree(_label(graph, graph.subject))
        _grow(tree, graph, graph.subject, following, {graph.subject})
        yield f"[bold]{title}[/bold]", tree


def _grow(
    tree: Tree,
    graph: Provenance,
    item: ProductInput,
    following: Callable[[ProductInput], Iterator[tuple[Derivation, ProductInput]]],
    shown: set[ProductInput],
) -> None:
    """Add branches; what is shown already is named again and not followed again."""
    for edge, other in following(item):
        with_it = " [dim](made with it)[/dim]" if edge.relation == "follows" else ""
        again = " [dim](as above)[/dim]" if other in shown and list(following(other)) else ""
        branch = tree.add(f"{_label(graph, other)}{with_it}{again}")
        if other not in shown:
            shown.add(other)
            _grow(branch, graph, other, following, shown)


def _label(graph: Provenance, item: ProductInput) -> str:
    made = graph.products.get(item)
    about = f" generation {made.generation}, {made.state}" if made else ""
    if made and made.quality is not None:
        about += f", {made.quality}: {escape(made.quality_reason or '')}"
    return f"{escape(item.name)}[dim]{about} sha256 {item.sha256[:12]}[/dim]"
