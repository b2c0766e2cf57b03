"""Commands that show and fetch products: ``status``, ``ls``, ``query``, ``get``."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.observation import DETECTORS, OpticalElement, Survey

if TYPE_CHECKING:
    import pandas as pd

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


class OutputFormat(StrEnum):
    """How ``query`` prints what it found."""

    TABLE = "table"
    NAMES = "names"
    CSV = "csv"
    JSON = "json"


def status() -> None:
    """Print exposures and visits with what is made of them, level by level."""
    from roman_assets.cli.report import status_tables

    console = terminal()
    for table in status_tables(DataRoot.from_environment()):
        console.print(table)


def list_names(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Names with * and ?; all products without.")
    ] = None,
) -> None:
    """Print the official names of products, one a line.

    [dim]roman-assets ls 'r00001*_cal.asdf'[/dim]
    """
    found = _registered(patterns or ["*"])
    for name in found["name"]:
        typer.echo(name)


def query(
    exposure: Annotated[str | None, typer.Option(help="Such as r0000101001001001001_0001.")] = None,
    visit: Annotated[str | None, typer.Option(help="Such as r0000101001001001001.")] = None,
    survey: Annotated[Survey | None, typer.Option(case_sensitive=False)] = None,
    optical_element: Annotated[
        OpticalElement | None, typer.Option("--filter", case_sensitive=False)
    ] = None,
    level: Annotated[Level | None, typer.Option(case_sensitive=False)] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help=f"One of {', '.join(KIND_BY_NAME)}.")
    ] = None,
    detector: Annotated[str | None, typer.Option(metavar="WFInn", help="WFI01 to WFI18.")] = None,
    position: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="RA DEC", help="Products around here; ICRS, degrees."),
    ] = None,
    radius: Annotated[float, typer.Option(min=0, help="Of that search, degrees.")] = 0.1,
    output_format: Annotated[
        OutputFormat, typer.Option("--format", help="CSV and JSON have every column.")
    ] = OutputFormat.TABLE,
) -> None:
    """Print the products that fulfil every condition.

    [dim]roman-assets query --level L2 --filter F158 --format names | roman-assets get -[/dim]
    """
    from roman_assets.registry.registry import Registry

    if kind is not None and kind not in KIND_BY_NAME:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KIND_BY_NAME)}")
    if detector is not None and detector.upper() not in DETECTORS:
        raise typer.BadParameter(f"{detector!r} is none of WFI01 to WFI18")
    found = Registry(DataRoot.from_environment()).find(
        exposure=exposure,
        visit=visit,
        survey=survey,
        optical_element=optical_element,
        level=level,
        kind=kind,
        detector=detector.upper() if detector else None,
        cone=(*position, radius) if position else None,
    )
    _PRINTERS[output_format](found)


def get(
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Names with * and ?, or - to read names from stdin."
        ),
    ],
    to: Annotated[Path, typer.Option(file_okay=False, help="The directory to copy to.")] = Path(),
) -> None:
    """Copy products out of the archive under their official names."""
    if patterns == ["-"]:
        patterns = sys.stdin.read().split()
    _copy_out(_registered(patterns), to)


def _registered(patterns: list[str]) -> pd.DataFrame:
    """Give the current products whose names match; every pattern has to match one."""
    from roman_assets.registry.registry import Registry

    found = Registry(DataRoot.from_environment()).find()
    names = list(found["name"])
    for pattern in patterns:
        if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names):
            raise BadInputError(
                pattern,
                "name",
                "the archive has no such product",
                "see `roman-assets ls` for the names it has",
            )
    return found.iloc[
        [
            row
            for row, name in enumerate(names)
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
    ]


def _print_table(found: pd.DataFrame) -> None:
    table = Table(*_SHOWN_COLUMNS.values(), caption=f"{len(found)} products")
    for row in found[list(_SHOWN_COLUMNS)].itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    terminal().print(table)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN and NaT differ from themselves
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _print_names(found: pd.DataFrame) -> None:
    for name in found["name"]:
        typer.echo(name)


def _print_csv(found: pd.DataFrame) -> None:
    typer.echo(found.to_csv(index=False), nl=False)


def _print_json(found: pd.DataFrame) -> None:
    typer.echo(found.to_json(orient="records", date_format="iso", indent=1))


_PRINTERS = {
    OutputFormat.TABLE: _print_table,
    OutputFormat.NAMES: _print_names,
    OutputFormat.CSV: _print_csv,
    OutputFormat.JSON: _print_json,
}


def _copy_out(found: pd.DataFrame, to: Path) -> None:
    from roman_assets.archive.store import Archive

    archive = Archive.of(DataRoot.from_environment())
    to.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("copying", total=int(found["size"].sum()))
        for name, sha256, size in found[["name", "sha256", "size"]].itertuples(index=False):
            partial = to / f".{name}.part"
            shutil.copyfile(archive.local(sha256), partial)
            partial.replace(to / name)
            progress.advance(task, size)
    typer.echo(f"{len(found)} products copied to {to}", err=True)
